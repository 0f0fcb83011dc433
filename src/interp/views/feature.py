"""The picture of a feature: its label, how strongly it fires and where, what it reads and writes, and its likes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import bars, coloured_text, draw, frame, page, theme
from interp.views.kit.draw import Drawing, number
from interp.views.kit.text import escape, visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.methods._shared.feature_result import Exemplar, FeatureResult, Ranked

_TOP = 9  # exemplars of the strongest tenth; of the others there is one each
_LISTED, _EACH = 6, 5  # bars of a list; of what is promoted and suppressed
_TOKEN = 14
SIDE, HIGH = 272, 74  # of the column beside the places, and of the histogram in it
_TEXT, _VALUE, _TIMES = 660, 64, 40
_MOST_BARS = 34
_LETTER, _LINES = 6.9, 4  # what a character of the label takes, and its lines


class Dashboard:
    """The parts of a feature's picture, for a page, for a standalone drawing and for the live view."""

    def __init__(self, result: FeatureResult) -> None:
        self.result = result

    @property
    def title(self) -> str:
        return f"Feature {self.result.name}"

    @cached_property
    def facts(self) -> str:
        result = self.result
        what = {"sae": "SAE", "clt": "cross-layer transcoder"}.get(result.kind, result.kind)
        where = result.reads if result.reads == result.writes else f"{result.reads} → {result.writes}"
        source = frame.visible_facts(result.source, 30)
        count = f"{result.texts:,} text{'s' * (result.texts != 1)}, {result.tokens_read:,} tokens"
        own = frame.visible_facts(f"{what} {result.of}", 40)
        return frame.facts(result, f"{own}, {where}", *([source] if source else []), count)

    @cached_property
    def left(self) -> page.Stack:
        """The label, the histogram, and the logits that it moves."""
        result = self.result
        stack: list[page.Block] = [(self._said, self._label)]
        if len(self.bars[0]):
            stack.append((self._dense, self._histogram()))
        moved = (*result.promoted[:_EACH], *reversed(result.suppressed[:_EACH]))
        if moved:
            stack.append(("logits it moves, for an activation of 1", _listed(moved, signed=True)))
        return stack

    @cached_property
    def own(self) -> list[page.Stack]:
        """The same as a page has it: below each other, or beside each other where it stands above the places."""
        moved = bool(self.result.promoted or self.result.suppressed)
        return [self.left[:-1], self.left[-1:]] if moved else [self.left]

    @cached_property
    def _said(self) -> str:
        scores = self.result.label_scores
        if not self.result.label:
            return "no label yet: features-label looks for one"
        if "F1" not in scores:
            return "label"
        return f"label · F1 {scores['F1']:.2f} (precision {scores['precision']:.2f}, recall {scores['recall']:.2f})"

    @cached_property
    def _label(self) -> Drawing:
        """The label in words; without one, the tokens that it is strongest on."""
        words = frame.visible_facts(self.result.label or self._firing, 240).replace("“ ", "“␣")
        lines = textwrap.wrap(words, int(SIDE / _LETTER), max_lines=_LINES, placeholder=" …") or [""]
        style = ' style="font-size:12px;font-weight:600;fill:var(--interp-fg)"'
        body = "".join(draw.text(0, 12 + 16 * n, line, more=style) for n, line in enumerate(lines))
        return Drawing(SIDE, 16 * len(lines) + 2, body)

    @cached_property
    def _firing(self) -> str:
        """The tokens that its strongest tenth is on, the most frequent first."""
        weights: dict[str, int] = {}
        for one in self.result.exemplars:
            if one.decile == 10:
                token = f"“{one.tokens[one.peak]}”"
                weights[token] = weights.get(token, 0) + one.times
        order = sorted(weights, key=lambda token: -weights[token])
        if not order:
            return "never active here"
        return "strongest on " + ", ".join(order[:4]) + (" …" if len(order) > 4 else "")

    @cached_property
    def _dense(self) -> str:
        result = self.result
        share = f"{result.density:.2%}" if result.density >= 1e-4 else f"{result.density:.1e}".replace("-", "−")
        return f"active at {share} of tokens ({result.fired:,})"

    @cached_property
    def bars(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The histogram's bars, ``int64 [bar]``, and where they begin and the last one ends, ``float64 [bar + 1]``.

        Of many bins some are one bar.
        """
        counts, edges = self.result.histogram, self.result.edges
        if not counts.sum():
            return counts[:0], edges[:1]
        block = -(-len(counts) // _MOST_BARS)
        return np.add.reduceat(counts, np.arange(0, len(counts), block)), np.append(edges[:-1:block], edges[-1])

    def _histogram(self) -> Drawing:
        """Its activations on a logarithmic axis, in the colours that tokens have at them."""
        result = self.result
        counts, edges = self.bars
        wide, high = SIDE / len(counts), HIGH
        levels = theme.level(np.minimum(1.0, np.sqrt(edges[:-1] * edges[1:]) / result.unit))
        body: list[str] = []
        for n, (count, level) in enumerate(zip(counts.tolist(), levels.tolist(), strict=True)):
            tall = high * count / counts.max()
            if count:
                tall = max(1.0, tall)
                body.append(
                    f'<rect x="{number(n * wide)}" y="{number(high - tall)}" width="{number(max(1, wide - 1))}" '
                    f'height="{number(tall)}" style="fill:var(--interp-s{level});stroke:var(--interp-line)">'
                    f"<title>{count:,} from {edges[n]:.3g} to {edges[n + 1]:.3g}</title></rect>"
                )
        body.append(f'<path class="interp-base" d="M0 {high}H{SIDE}"/>')
        ends = [(0.0, f"{edges[0]:.2g}", ""), (SIDE, f"{result.most:.3g}", "end")]
        middle = len(counts) // 2
        if len(counts) > 3:
            ends.append((middle * wide, f"{edges[middle]:.2g}", "middle"))
        body += [draw.text(x, high + 13, said, anchor=anchor) for x, said, anchor in ends]
        return Drawing(SIDE, high + 16, "".join(body))

    @cached_property
    def shown(self) -> list[tuple[str, Exemplar]]:
        """Exemplars, each with the heading that stands above it."""
        rows: list[tuple[str, Exemplar]] = []
        if self.result.optimised is not None:
            rows.append(("an input found by gradients, from random tokens", self.result.optimised))
        for decile, own in self.result.by_decile():
            if decile == 10:
                heads = ["strongest tenth of its activations", *[""] * _TOP]
                rows += list(zip(heads, own[:_TOP], strict=False))
            else:
                first = not any(one.decile < 10 for _, one in rows)
                rows.append(("one from each of the other tenths" if first else "", own[len(own) // 2]))
        return rows

    def values(self, one: Exemplar) -> list[float]:
        """Return activations over the feature's largest in the texts; NaN where it was not read."""
        return np.minimum(np.array(one.around) / self.result.unit, 1.0).tolist()

    @cached_property
    def right(self) -> page.Stack:
        """Exemplars as a drawing."""
        blocks: list[page.Block] = []
        y, body, caption = 0.0, "", ""
        style = ' style="font-size:11.5px;fill:var(--interp-fg)"'
        for heading, one in self.shown:
            if heading and body:
                blocks.append((caption, Drawing(_VALUE + _TEXT + _TIMES, y, body)))
                y, body = 0.0, ""
            caption = heading or caption
            body += draw.text(_VALUE - 10, y + 14, f"{one.activation:.3g}", "t", "end", more=style)
            body += draw.group(coloured_text.line(one.tokens, self.values(one), one.peak, _TEXT), _VALUE, y)
            if one.times > 1:
                body += draw.text(_VALUE + _TEXT + _TIMES, y + 14, f"×{one.times}", "t", "end")
            y += 21
        return [*blocks, (caption, Drawing(_VALUE + _TEXT + _TIMES, y, body))] if body else []

    @cached_property
    def rows(self) -> str:
        """Exemplars as a page has them, as wide as there is room."""
        first = escape(self.shown[0][0])
        body = [f'<div class="interp-caption interp-brief"><span>{first}</span></div><div class="interp-rows">']
        for n, (heading, one) in enumerate(self.shown):
            if heading and n:
                body.append(f'<span class="interp-head-of">{escape(heading)}</span>')
            where = f"text {one.text}, position {one.position}" if one.text >= 0 else "no text has it"
            body.append(
                f'<span class="interp-v" title="{where}">{one.activation:.3g}</span>'
                f"{coloured_text.centred(one.tokens, self.values(one), one.peak)}"
                f'<span class="interp-q">{f"×{one.times}" if one.times > 1 else ""}</span>'
            )
        return "".join([*body, "</div>"])

    @cached_property
    def below(self) -> list[page.Stack]:
        """What it reads, and the features that are like it."""
        result = self.result
        together = [
            (f"{name}·{share:.0%}", value) for (name, value), share in zip(result.together, result.shares, strict=False)
        ]
        lists: list[tuple[str, Ranked | list[tuple[str, float]]]] = [
            ("reads tokens (cosine)", result.tokens),
            ("reads heads (‖ê W_OV‖)", result.heads),
            ("writes as (cosine of decoders)", result.near),
            ("active with (share, correlation)", together),
        ]
        return [[(caption, _listed(ranked[:_LISTED]))] for caption, ranked in lists if ranked]

    @cached_property
    def steering(self) -> tuple[str, str] | None:
        """What adding its direction is called, and how it is typed; of a feature without one, nothing."""
        result = self.result
        if not result.direction.size:
            return None
        size = f"{result.usual:.3g}"
        return (
            f"steer: add it at every token ({result.site} of layer {result.layer})",
            f'%%interp steer --direction NAME --strength {size}    or    NAME.steered("text", {size})',
        )

    @cached_property
    def columns(self) -> str:
        """The page's columns."""
        own = "".join(f"<div>{page.captioned(stack)}</div>" for stack in self.own)
        lists = "".join(f"<div>{page.captioned(stack)}</div>" for stack in self.below)
        places = f'<div class="interp-places">{self.rows}</div>' if self.shown else ""
        parts = [
            f'<div class="interp-dashboard"><div class="interp-own">{own}</div>{places}</div>',
            f'<div class="interp-lists">{lists}</div>' if lists else "",
        ]
        if self.steering is not None:
            caption, typed = map(escape, self.steering)
            parts.append(
                f'<div class="interp-steer"><div class="interp-caption interp-brief"><span>{caption}</span></div>'
                f'<div class="interp-ask"><span class="interp-code interp-q">{typed}</span></div></div>'
            )
        return "".join(parts)

    @cached_property
    def strongest(self) -> list[page.Piece]:
        """The footer's first piece: the strongest place, where there is one."""
        if not self.result.exemplars:
            return []
        one = self.result.exemplars[0]
        where = f"strongest: {visible(one.tokens[one.peak], 20)} in text {one.text}, position {one.position} "
        return [(where, f"{one.activation:.3g}", False)]

    @cached_property
    def key(self) -> list[page.Piece]:
        """What stands behind it."""
        pieces: list[page.Piece] = []
        if self.result.label_scores:
            pieces.append(("label: scored on texts held out", "", True))
        pieces.append((f"colour: activation over the largest, {theme.LIFT}", "", True))
        if any(one.times > 1 for _, one in self.shown):
            pieces.append(("×: places with the same tokens around", "", True))
        return pieces


def _listed(ranked: Sequence[tuple[str, float]], *, signed: bool = False) -> Drawing:
    return bars.bars([bars.Bar(visible(name, _TOKEN), value) for name, value in ranked], 1e-6, neutral=not signed)


def html(result: FeatureResult) -> str:
    """Return the dashboard as a self-contained HTML fragment."""
    view = Dashboard(result)
    foot = "".join(f'<span class="interp-line">{page.said(pieces)}</span>' for pieces in (view.strongest, view.key))
    return frame.html(
        view.title,
        view.facts,
        f'<div class="interp-columns">{view.columns}</div>',
        foot=f'<div class="interp-stacked">{foot}</div>',
        notes=result.notes,
        plain=svg(result, theme.AUTO),
        view="feature",
    )


def svg(result: FeatureResult, theme: str = "light") -> str:
    """Return the same as a standalone SVG document in one theme."""
    view = Dashboard(result)
    steering: list[page.Stack] = []
    if view.steering is not None:
        caption, typed = view.steering
        steering = [[(caption, Drawing(6.1 * len(typed), 16, draw.text(0, 11, typed, "m")))]]
    stacks = [stack for stack in (view.left, view.right, *view.below, *steering) if stack]
    return page.svg(page.Picture(view.title, view.facts, stacks, [*view.strongest, *view.key], result.notes), theme)
