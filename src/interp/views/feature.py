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
    from interp.methods._shared.feature_result import Exemplar, FeatureResult, Ranked

_TITLE = "Feature"
_TOP = 9  # exemplars of the strongest tenth; of the others there is one each
_LISTED, _EACH = 6, 5  # bars of a list; of what is promoted and suppressed
_TOKEN = 14
_SIDE, _TEXT, _VALUE, _TIMES = 272, 660, 64, 40
_HIGH, _MOST_BARS = 74, 34  # of the histogram
_LETTER, _LINES = 6.9, 4  # what a character of the label takes, and its lines
_CSS = (
    coloured_text.CENTRED
    + """
.interp-frame .interp-feature{display:grid;grid-template-columns:minmax(0,280px) minmax(0,1fr);gap:0 26px;width:100%}
.interp-frame .interp-rows{display:grid;grid-template-columns:max-content minmax(0,1fr) max-content;gap:0 10px;
align-items:center}
.interp-frame .interp-rows .interp-v{text-align:right}
.interp-frame .interp-rows .interp-head-of{grid-column:1/-1;color:var(--interp-muted);min-height:22px;padding-top:4px}
.interp-frame .interp-lists{display:flex;flex-wrap:wrap;gap:14px 24px;width:100%}
@media (max-width:640px){.interp-frame .interp-feature{grid-template-columns:minmax(0,1fr);gap:14px 0}}
"""
)


class _View:
    def __init__(self, result: FeatureResult) -> None:
        self.result = result

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
        if result.histogram.sum():
            stack.append((self._dense, self._histogram()))
        moved = (*result.promoted[:_EACH], *reversed(result.suppressed[:_EACH]))
        if moved:
            stack.append(("logits it moves, for an activation of 1", _listed(moved, signed=True)))
        return stack

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
        words = frame.visible_facts(self.result.label or self._strongest, 240).replace("“ ", "“␣")
        lines = textwrap.wrap(words, int(_SIDE / _LETTER), max_lines=_LINES, placeholder=" …") or [""]
        style = ' style="font-size:12px;font-weight:600;fill:var(--interp-fg)"'
        body = "".join(draw.text(0, 12 + 16 * n, line, more=style) for n, line in enumerate(lines))
        return Drawing(_SIDE, 16 * len(lines) + 2, body)

    @cached_property
    def _strongest(self) -> str:
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

    def _histogram(self) -> Drawing:
        """Its activations on a logarithmic axis, in the colours that tokens have at them."""
        result = self.result
        counts, edges = result.histogram, result.edges
        block = -(-len(counts) // _MOST_BARS)
        if block > 1:
            counts = np.add.reduceat(counts, np.arange(0, len(counts), block))
            edges = np.append(edges[:-1:block], edges[-1])
        wide, high = _SIDE / len(counts), _HIGH
        levels = theme.level(np.minimum(1.0, np.sqrt(edges[:-1] * edges[1:]) / (result.most or 1.0)))
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
        body.append(f'<path class="interp-base" d="M0 {high}H{_SIDE}"/>')
        ends = [(0.0, f"{edges[0]:.2g}", ""), (_SIDE, f"{result.most:.3g}", "end")]
        middle = len(counts) // 2
        if len(counts) > 3:
            ends.append((middle * wide, f"{edges[middle]:.2g}", "middle"))
        body += [draw.text(x, high + 13, said, anchor=anchor) for x, said, anchor in ends]
        return Drawing(_SIDE, high + 16, "".join(body))

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
                rows.append(("one from each of the other tenths" if first else "", own[0]))
        return rows

    def values(self, one: Exemplar) -> list[float]:
        """Return activations over the feature's largest in the texts; NaN where it was not read."""
        return np.minimum(np.array(one.around) / (self.result.most or 1.0), 1.0).tolist()

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
        body: list[str] = []
        for heading, one in self.shown:
            if heading:
                body.append(f'<span class="interp-head-of">{escape(heading)}</span>')
            where = f"text {one.text}, position {one.position}" if one.text >= 0 else "no text has it"
            body.append(
                f'<span class="interp-v" title="{where}">{one.activation:.3g}</span>'
                f"{coloured_text.centred(one.tokens, self.values(one), one.peak)}"
                f'<span class="interp-q">{f"×{one.times}" if one.times > 1 else ""}</span>'
            )
        return f'<div class="interp-rows">{"".join(body)}</div>'

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
    def columns(self) -> str:
        """The page's columns."""
        lists = "".join(f"<div>{page.captioned(stack)}</div>" for stack in self.below)
        return (
            f'<div class="interp-feature"><div>{page.captioned(self.left)}</div><div>{self.rows}</div></div>'
            f'<div class="interp-lists">{lists}</div>'
        )

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        pieces: list[page.Piece] = []
        if result.exemplars:
            one = result.exemplars[0]
            where = f"strongest: {visible(one.tokens[one.peak], 20)} in text {one.text}, position {one.position} "
            pieces.append((where, f"{one.activation:.3g}", False))
        if result.label_scores:
            pieces.append(("label: scored on texts held out", "", True))
        if result.direction.size:
            pieces.append(("steer(…, direction=this) adds it", "", True))
        pieces.append(("colour: activation over the largest, ", theme.LIFT, True))
        if any(one.times > 1 for _, one in self.shown):
            pieces.append(("×: places with the same tokens around", "", True))
        return pieces


def _listed(ranked: Sequence[tuple[str, float]], *, signed: bool = False) -> Drawing:
    return bars.bars([bars.Bar(visible(name, _TOKEN), value) for name, value in ranked], 1e-6, neutral=not signed)


def _picture(result: FeatureResult) -> page.Picture:
    view = _View(result)
    return page.Picture(
        f"{_TITLE} {result.name}",
        view.facts,
        [stack for stack in (view.left, view.right, *view.below) if stack],
        view.foot,
        result.notes,
        columns=view.columns,
        css=_CSS,
    )


html, svg = page.pictures(_picture)
