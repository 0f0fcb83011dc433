"""Pictures of a PatchingResult: where an activation carries the answer from one prompt to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.results import strongest
from interp.sites import SITES
from interp.views import attribution, bars, diverging, draw, figures, frame, layout
from interp.views import theme as themes
from interp.views.diverging import Cells, signed
from interp.views.draw import Drawing
from interp.views.text import columns, escape, labels, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.patching.patch import PatchingResult

# Metrics that fall when the model does better.
_FALLING = frozenset({"rank", "kl"})
_SPREAD = "band: 99 % of the layer's neurons; lines: the strongest, each"
_TOP, _STRIPS = 10, 6
_TOKEN = 12
# A recovery that is large whatever the others are.
_NATURAL = 0.5
# What of a pair is shown: this many tokens, or that many around each that differs.
_WHOLE, _AROUND, _MOST = 28, 4, 60
_GAP, _ROOM, _NARROW = 24, 1090, 230
_PAIR, _PROMPT = 300, 66
_MUTED = ' class="interp-q"'
_CSS = """
.interp-frame .interp-progress{height:2px;margin:-2px 0 10px;background:var(--interp-line);border-radius:1px}
.interp-frame .interp-progress div{height:2px;background:var(--interp-accent);border-radius:1px}
.interp-frame .interp-columns{gap:14px 24px}
.interp-frame .interp-columns>.interp-beside{flex:1 1 auto;display:flex;flex-wrap:wrap;gap:14px 24px;
align-items:flex-start}
.interp-frame .interp-beside>div{min-width:0;max-width:100%}
.interp-frame .interp-list>.interp-svg+.interp-caption{margin-top:14px}
.interp-frame .interp-pair{flex:1 1 230px}
.interp-frame .interp-answers{display:grid;grid-template-columns:minmax(0,max-content) max-content max-content;
gap:2px 14px}
.interp-frame .interp-answers>*{text-align:right}
.interp-frame .interp-answers>:nth-child(3n+1){text-align:left}
.interp-frame .interp-prompts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:6px 12px;
align-items:baseline;margin:0 0 10px}
.interp-frame .interp-differs{text-decoration:underline;text-decoration-thickness:1.5px;text-underline-offset:3px}
"""


def html(result: PatchingResult) -> str:
    """Return the sweep as a self-contained HTML fragment: the places, the strongest of them, the pair.

    Examples
    --------
    >>> html(result)[:26]  # doctest: +SKIP
    '<div class="interp-frame">'
    """
    view = _View(result)
    (_, picture), *beside = blocks = _blocks(view)
    first, *others = (
        f'<div class="interp-caption">{escape(caption)}</div>{draw.inline(drawing, caption)}'
        for caption, drawing in blocks
    )
    least = draw.number(max([_NARROW, *(drawing.width for _, drawing in beside)]))
    listed = f'<div class="interp-list">{"".join(others)}</div>' if others else ""
    drawn = (
        f'<div style="width:{draw.number(picture.width)}px">{first}</div>'
        f'<div class="interp-beside" style="flex-basis:{least}px">{listed}{_pair(view)}</div>'
    )
    share = f"{100 * result.done.mean() if result.done.size else 0:.2f}"
    progress = "" if view.whole else f'<div class="interp-progress"><div style="width:{share}%"></div></div>'
    body = f'{progress}<div class="interp-columns">{drawn}</div>'
    foot, plain = layout.said(_foot(view)), svg(result, themes.AUTO)
    return frame.html("Activation patching", _facts(view), body, foot=foot, notes=_notes(view), css=_CSS, plain=plain)


def svg(result: PatchingResult, theme: str = "light") -> str:
    """Return the same picture as a standalone SVG document in one theme.

    Raises
    ------
    InputError
        There is no such theme.

    Examples
    --------
    >>> svg(result, "dark")[:4]  # doctest: +SKIP
    '<svg'
    """
    view = _View(result)
    first, *beside = _blocks(view)
    pair = _drawn_pair(view)
    stacks = [[first], beside, pair]
    if sum(_width(blocks) + _GAP for blocks in stacks) > _ROOM:
        stacks = [[first], [*beside, *pair]]
    body: list[str] = []
    wide = tall = 0
    for blocks in filter(None, stacks):
        x, y = wide + _GAP * bool(wide), 0
        for caption, drawing in blocks:
            words = f'<tspan class="interp-q">{draw.token(caption)}</tspan>'
            body.append(f'<text class="interp-f" x="{x}" y="{y + 10}">{words}</text>')
            body.append(draw.group(drawing, x, y + 20))
            y += math.ceil(drawing.height) + 38
        wide, tall = x + _width(blocks), max(tall, y - 18)
    wide = max(wide, layout.room(_facts(view)))
    if not view.whole:
        part = result.done.mean() if result.done.size else 0
        body.append(
            f'<path style="stroke:var(--interp-line);stroke-width:2" d="M0 -9H{draw.number(wide)}"/>'
            f'<path style="stroke:var(--interp-accent);stroke-width:2" d="M0 -9H{draw.number(part * wide)}"/>'
        )
    foot = layout.footer(_foot(view), _notes(view), wide)
    return frame.svg("Activation patching", _facts(view), "".join(body), (wide, tall), theme, foot)


def _width(blocks: Sequence[tuple[str, Drawing]]) -> int:
    return math.ceil(max((max(part.width, 6 * columns(caption)) for caption, part in blocks), default=0))


def plotly(
    result: PatchingResult, *, kind: str = "heatmap", theme: str = "light", width: int = 720, height: int = 560
) -> go.Figure:
    """Return the sweep as a Plotly heatmap, or as bars where it is by layer; it is drawn without a network.

    By head and position, each head shows the position of its largest effect, which the pointer names.

    Parameters
    ----------
    kind
        ``"heatmap"``, or ``"scatter"``: the verified cells of an estimate, estimate against exact effect.
    theme
        ``"light"`` or ``"dark"``.
    width, height
        In pixels.

    Examples
    --------
    >>> result.to_plotly(theme="dark").show()  # doctest: +SKIP
    """
    import plotly.graph_objects as go

    if kind == "scatter":
        return attribution.plotly(result, theme=theme, width=height, height=height)
    if kind != "heatmap":
        raise InputError(f"there is no figure {kind!r}; use heatmap or scatter")
    themes.check_theme(theme)
    view = _View(result)
    rows = [f"L{layer}" for layer in result.layers]
    figure = go.Figure()
    if result.axes == ("layer",):
        low, high = view.interval
        figure.add_bar(
            x=view.values,
            y=rows,
            orientation="h",
            marker={"color": figures.sides(view.towards, theme)},
            error_x=figures.whiskers(view.values, low, high, theme),
            hovertemplate="%{y}<br><b>%{x:+.4f}</b><extra></extra>",
        )
        figure.update_xaxes(title=view.quantity)
    else:
        grid = view.grid
        peaks = view.peaks
        # Escaped, and numbered where they are tokens: equal labels would be drawn as one.
        names = [f"{n} {escape(label)}" if grid.tokens else label for n, label in enumerate(grid.columns)]
        where = [[_position(view, int(p)) for p in row] for row in peaks] if peaks is not None else None
        figure.add_heatmap(
            z=np.where(grid.done & np.isfinite(grid.values), grid.values, np.nan),
            x=names,
            y=rows,
            text=None if where is None else [[escape(cell) for cell in row] for row in where],
            zmin=-view.end,
            zmax=view.end,
            colorscale=themes.scale(theme, view.turned),
            colorbar={"title": {"text": view.quantity}, "thickness": 12},
            hoverongaps=False,
            hovertemplate=f"%{{y}} · %{{x}}{' · %{text}' if where else ''}<br><b>%{{z:+.4f}}</b><extra></extra>",
        )
        figure.update_xaxes(type="category", title=result.axes[1])
    figure.update_yaxes(type="category", autorange="reversed", title="layer")
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False)
    return figures.dress(figure, "Activation patching", _facts(view), theme, width, height)


@dataclass(frozen=True)
class _View:
    """A result, and what of it is coloured."""

    result: PatchingResult

    @cached_property
    def source(self) -> str:
        """The other model whose activations were put in, or an empty string."""
        return str(self.result.provenance.arguments.get("from_model") or "")

    @cached_property
    def span(self) -> float:
        """Clean less corrupted; 0 where recovery, which divides by it, is undefined."""
        clean, corrupted = self.result.clean_metric, self.result.corrupted_metric
        span = clean - corrupted
        return span if math.isfinite(span) and abs(span) > 1e-6 * max(1.0, abs(clean)) else 0.0

    @cached_property
    def noising(self) -> bool:
        return self.result.direction == "noise"

    @cached_property
    def quantity(self) -> str:
        if not self.span:
            return "effect"
        return "change of recovery" if self.noising else "recovery"

    @cached_property
    def meaning(self) -> str:
        """What the quantity's numbers mean."""
        if not self.span:
            return f"effect on the {self.metric}: clean = corrupted, so no recovery"
        if self.noising:
            return "change of recovery: 0 nothing, −1 corrupted behaviour reached"
        if self.source:
            return "recovery: 0 nothing, 1 the other model's behaviour"
        return "recovery: 0 nothing, 1 clean behaviour restored"

    @cached_property
    def metric(self) -> str:
        return frame.metric(self.result.metric)

    @cached_property
    def turned(self) -> bool:
        """Whether falling is towards the answer."""
        return not self.span and self.result.metric in _FALLING

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """What is coloured, ``[*axes]``; 0 where patching changed nothing."""
        return self.exact if self.result.estimate is None else self.result.estimate / (self.span or 1.0)

    @cached_property
    def best(self) -> NDArray[np.float64]:
        """The same, of an estimate with the exact value wherever that is known."""
        return self.values if self.result.estimate is None else np.where(self.result.done, self.exact, self.values)

    @cached_property
    def done(self) -> NDArray[np.bool_]:
        """Which cells have a value."""
        return self.result.done if self.result.estimate is None else np.ones_like(self.result.done)

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        if not self.span:
            return self.result.effect
        return self.result.recovery - 1 if self.noising else self.result.recovery

    @cached_property
    def towards(self) -> NDArray[np.float64]:
        return -self.values if self.turned else self.values

    @cached_property
    def interval(self) -> NDArray[np.float64]:
        """The interval of the effect in the quantity's unit, ``[2, *axes]``."""
        return np.sort(self.result.interval / (self.span or 1.0), axis=0)

    @cached_property
    def lost(self) -> NDArray[np.bool_]:
        return self.done & ~np.isfinite(self.values)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        return self.done & np.isfinite(self.values)

    @cached_property
    def whole(self) -> bool:
        return bool(self.done.all())

    @cached_property
    def least(self) -> float:
        """The smallest end of a scale: below, all is noise."""
        return 1e-3 if self.span else 1e-4

    @cached_property
    def peaks(self) -> NDArray[np.intp] | None:
        """By head and position, the position of each head's largest effect."""
        if len(self.result.axes) < 3:
            return None
        return np.where(self.known, np.abs(self.values), -1.0).argmax(-1)

    @cached_property
    def grid(self) -> Cells:
        """The picture's cells, a row per layer."""
        result = self.result
        rows = [f"L{layer}" for layer in result.layers]
        values, done, lost = self.values, self.done, self.lost
        if self.peaks is not None:
            best = self.peaks[..., None]
            values = np.where(lost.any(-1), np.nan, np.take_along_axis(values, best, -1)[..., 0])
            done = np.logical_or.reduce(done, -1)
        if result.axes[1:] == ("position",):
            names = self.tokens
            return Cells(values, done, rows, names, tokens=True, marked=self.differing)
        return Cells(values, done, rows, [str(n) for n in range(values.shape[1])])

    @cached_property
    def tokens(self) -> list[str]:
        count = self.result.patched.shape[-1]
        given = self.result.positions
        return labels(given, _TOKEN) if len(given) == count else [str(n) for n in range(count)]

    @cached_property
    def differing(self) -> tuple[int, ...]:
        return self.result.lint.differing[0] if self.result.lint.differing else ()

    @cached_property
    def end(self) -> float:
        grid = self.grid
        return diverging.limit(grid.values[grid.done], self.least, _NATURAL if self.span else 0.0)

    @cached_property
    def order(self) -> list[tuple[int, ...]]:
        """The cells by the size of their effect, the largest first; those without any are left out."""
        found = strongest(np.where(self.known, self.best, np.nan), max(_TOP, 64))
        return [cell for cell in found if self.best[cell] != 0]


def _guessed(view: _View, cell: tuple[int, ...]) -> bool:
    """Whether a cell is known by its estimate only."""
    return view.result.estimate is not None and not view.result.done[cell]


def _name(view: _View, cell: Sequence[int]) -> str:
    """Return a cell as it is drawn, its position as its token."""
    at = dict(zip(view.result.axes, cell, strict=True))
    layer = view.result.layers[at["layer"]]
    if "neuron" in at:
        return f"L{layer} neuron {at['neuron']}"
    name = f"L{layer}{head_word(view.result.site)}{at['head']}" if "head" in at else f"L{layer}"
    return f"{name} {_position(view, at['position'])}" if "position" in at else name


def head_word(site: str) -> str:
    """Return what stands between a layer and a head's number: keys' and values' heads are not the query heads.

    Examples
    --------
    >>> head_word("z"), head_word("k")
    ('H', ' key head ')
    """
    return f" {SITES[site].heads.lower()[:-1]} " if SITES[site].kv_heads else "H"


def _position(view: _View, position: int) -> str:
    return f"{view.tokens[position]} ({position})" if view.result.positions else f"position {position}"


def _blocks(view: _View) -> list[tuple[str, Drawing]]:
    """Return the drawings beside each other, each with its caption."""
    axes = view.result.axes
    rows = [f"L{layer}" for layer in view.result.layers]
    legend = diverging.words([view.meaning, *_marks(view)])
    if axes == ("layer",):
        listed = bars.bars([_bar(view, (n,), row) for n, row in enumerate(rows)], view.least, view.turned)
        lines = diverging.words([view.meaning, *_intervals(view), *_marks(view)])
        return [(f"Layers, {view.quantity}", diverging.stack([(0, listed), (0, lines)])), *_agreeing(view)]
    strongest, agreeing = _strongest(view), _agreeing(view)
    if axes[1] == "neuron":
        spread = bars.strips(view.values, view.done, rows, view.least)
        lines = diverging.words([_SPREAD, view.meaning, *_marks(view)])
        return [
            (_caption(view), diverging.stack([(0, spread), (0, lines)])),
            *strongest,
            *agreeing,
        ]
    grid, best = view.grid, view.order[0][:2] if view.order else None
    picture = _heat(view, grid, best)
    left = diverging.margin(rows)
    parts = [(0, picture), (left, diverging.scale(view.end, view.turned)), (left, legend)]
    if (where := _where(view)) and agreeing:  # the other column is the longer one
        parts += [(0, part) for caption, drawing in agreeing for part in (diverging.words(["", caption]), drawing)]
        agreeing = []
    return [(_caption(view), diverging.stack(parts)), *where, *strongest, *agreeing]


def _heat(view: _View, cells: Cells, ring: Sequence[int] | None) -> Drawing:
    shown = Cells(-cells.values, cells.done, cells.rows, cells.columns, cells.tokens, cells.marked)
    held = (ring[0], ring[1]) if ring is not None and cells.values.size > 1 else None
    return diverging.heat(shown if view.turned else cells, view.end, held)


def _agreeing(view: _View) -> list[tuple[str, Drawing]]:
    drawn = attribution.scatter(view.result, view.span or 1.0)
    return [] if drawn is None else [(attribution.caption(view.result), drawn)]


def _caption(view: _View) -> str:
    return f"{_cut(view)}{', estimated' if view.result.estimate is not None else ''}"


def _cut(view: _View) -> str:
    axes = view.result.axes
    if axes[1] == "neuron":
        return "Neurons: a row per layer, its strongest at the right"
    if axes[1] == "position":
        whose = " of pair 1" if len(view.result.per_pair) > 1 else ""
        return f"Positions{whose}: a row per layer"
    kind = SITES[view.result.site].heads
    return f"{kind}, each at its strongest position" if len(axes) > 2 else f"{kind}: a row per layer"


def _where(view: _View) -> list[tuple[str, Drawing]]:
    """By head and position, return the positions of the strongest heads."""
    if view.peaks is None or not view.order:
        return []
    heads = list(dict.fromkeys((cell[0], cell[1]) for cell in view.order))[:_STRIPS]
    layer, head = np.array(heads).T
    cells = Cells(
        view.values[layer, head, :],
        view.done[layer, head, :],
        [f"L{view.result.layers[at]}{head_word(view.result.site)}{n}" for at, n in heads],
        view.tokens,
        tokens=True,
        marked=view.differing,
    )
    return [("Where: positions of the strongest heads", _heat(view, cells, (0, view.order[0][2])))]


def _strongest(view: _View) -> list[tuple[str, Drawing]]:
    if not view.order:
        return []
    listed = bars.bars([_bar(view, cell, _name(view, cell)) for cell in view.order[:_TOP]], view.least, view.turned)
    if lines := _intervals(view):
        listed = diverging.stack([(0, listed), (0, diverging.words(lines))])
    return [(f"Strongest components, {view.quantity}", listed)]


def _intervals(view: _View) -> list[str]:
    count, sure = len(view.result.per_pair), view.result.estimate is None
    said = [f"thin line: 95 % interval over {count} pairs"] if count > 1 and (sure or view.result.done.any()) else []
    return [*said, "≈ by its estimate alone"] if any(_guessed(view, cell) for cell in view.order[:_TOP]) else said


def _bar(view: _View, cell: tuple[int, ...], name: str) -> bars.Bar:
    low, high = (float(view.interval[end][cell]) for end in (0, 1))
    return bars.Bar(f"{'≈ ' * _guessed(view, cell)}{name}", float(view.best[cell]), low, high, bool(view.done[cell]))


def _marks(view: _View) -> list[str]:
    """Return what the marks on cells mean, for those that there are."""
    said: list[str] = []
    if len(view.result.axes) > 1 and view.result.axes[1] != "neuron":
        shown = view.grid.values[view.grid.done & np.isfinite(view.grid.values)]
        beyond = shown[np.abs(shown) > view.end * (1 + 1e-9)]
        if beyond.size:
            most = signed(float(beyond[np.abs(beyond).argmax()]))
            said.append(f"dotted: {_cells(beyond.size)} beyond the scale, up to {most}")
        if view.grid.block > 1:
            said.append(f"each cell is the strongest of {view.grid.block} positions")
    if view.lost.any():
        said.append(f"hatched: {_cells(int(view.lost.sum()))} without a finite value")
    if not view.whole:
        said.append(f"grey: {_cells(int((~view.done).sum()))} not computed")
    return said


def _cells(count: int) -> str:
    return f"{count:,} cell{'s' * (count != 1)}"


def _facts(view: _View) -> str:
    result = view.result
    count = len(result.per_pair)
    pairs = f"{count} pair{'s' * (count != 1)}"
    way = "corrupted into clean" if view.noising else "clean into corrupted"
    if view.source:
        way = f"activations of {frame.visible_facts(view.source, 60)}"
    return frame.facts(
        result,
        f"{result.site} by {result.by}",
        f"{frame.visible_facts(result.task, 40)}, {pairs}" if result.task else pairs,
        way,
        view.metric,
        _progress(view),
    )


def _progress(view: _View) -> str:
    done = int(view.result.done.sum())
    if view.result.estimate is not None:
        return f"estimated, {done:,} verified" if done else "estimated"
    return "" if view.whole else f"{done:,}/{view.result.done.size:,} done"


def _foot(view: _View) -> list[tuple[str, str, bool]]:
    """Return the footer: pieces of (words, bold words, whether muted)."""
    result = view.result
    if not view.order:
        nothing = "no cell changes the metric" if view.known.any() else "no cell has a finite effect"
        return [(nothing if view.done.any() else "no cell is computed yet", "", True)]
    cell = view.order[0]
    pieces = [("", _name(view, cell), False)]
    if result.patched.size > 1:
        pieces.append((f"strongest of {int(view.done.sum()):,}", "", True))
    if result.estimate is not None and _guessed(view, cell):
        pieces.append((f"estimated {view.quantity} ", signed(float(view.values[cell])), False))
        return [*pieces, ("estimated effect ", signed(float(result.estimate[cell])), False)]
    if view.span:
        pieces.append(("recovery ", signed(float(result.recovery[cell])), False))
    else:
        pieces.append(("recovery undefined: clean = corrupted", "", True))
    pieces.append(("effect ", signed(float(result.effect[cell])), False))
    if result.estimate is not None:
        pieces.append((f"estimated {signed(float(result.estimate[cell]))}", "", True))
    low, high = (float(result.interval[end][cell]) for end in (0, 1))
    if math.isfinite(low) and math.isfinite(high):
        pieces.append((f"95 % interval [{signed(low)}, {signed(high)}] over {len(result.per_pair)} pairs", "", True))
    pieces.append((f"patched {view.metric} {signed(float(result.patched[cell]))}", "", True))
    return pieces


def _notes(view: _View) -> list[str]:
    notes = view.result.notes
    if not view.lost.any() or any("NaN" in note for note in notes):
        return list(notes)
    first = view.result.layers[int(np.argwhere(view.lost)[0][0])]
    return [f"the metric is NaN or infinite in {_cells(int(view.lost.sum()))}, first in layer {first}", *notes]


def _prompts(view: _View) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Return the first pair's prompts, each as (its name, its tokens with whether they differ)."""
    pairs = view.result.lint
    if not pairs.clean:
        return []
    given = [("clean", pairs.clean[0])]
    if pairs.corrupted and not (view.source and not view.noising):
        given.append(("corrupted", pairs.corrupted[0]))
    return [(name, _excerpt(tokens, set(view.differing))) for name, tokens in given]


def _excerpt(tokens: Sequence[str], differing: set[int]) -> list[tuple[str, bool]]:
    """Return a prompt, or what of it is around the tokens that differ and at its end."""
    count = len(tokens)
    held = range(count)
    if count > _WHOLE:
        near = {n + k for n in differing or {0} for k in range(-_AROUND, _AROUND + 1)} | set(range(count - 6, count))
        held = [n for n in sorted(near) if 0 <= n < count]
        held = held if len(held) <= _MOST else [*held[: _MOST - 6], *held[-6:]]
    names = labels([tokens[n] for n in held], 24)
    shown: list[tuple[str, bool]] = []
    last = -1
    for n, name in zip(held, names, strict=True):
        begins = not shown
        if n != last + 1:
            shown.append(("… " if begins else " … ", False))
            begins = True
        # A token that differs keeps the sign of its space, so that a space that differs is seen.
        plain = name
        if name.startswith("␣") and n not in differing:
            plain = name[1:] if begins else f" {name[1:]}"
        shown.append((plain, n in differing))
        last = n
    return shown


def _answers(view: _View) -> list[tuple[str, str, str]]:
    """Return lines of (words, the clean metric, the corrupted metric)."""
    result, pairs = view.result, view.result.lint
    count = len(result.per_pair)
    lead = view.metric
    if pairs.answer and pairs.answer[0]:
        lead = _set(pairs.answer[0])
        if pairs.wrong and pairs.wrong[0]:
            lead += f" over {_set(pairs.wrong[0])}"
    lines: list[tuple[str, str, str]] = []
    if count > 1 and pairs.clean_metric and pairs.corrupted_metric:
        lines.append((lead, signed(pairs.clean_metric[0]), signed(pairs.corrupted_metric[0])))
        lead = f"mean of {count} pairs"
    return [*lines, (lead, signed(result.clean_metric), signed(result.corrupted_metric))]


def _set(tokens: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(visible(token, 24) for token, _ in tokens[:3])
    return shown if len(tokens) <= 3 else f"{shown} … ({len(tokens)} tokens)"


def _sides(view: _View) -> tuple[str, str]:
    """Return what the two runs are called."""
    if not view.source:
        return "clean", "corrupted"
    return ("ours", "theirs") if view.noising else ("theirs", "ours")


def _heading(view: _View) -> str:
    count = len(view.result.per_pair)
    return f"Pair 1 of {count}" if count > 1 else "Pair"


def _pair(view: _View) -> str:
    prompts = "".join(
        f'<span class="interp-q">{name}</span><span class="interp-code">'
        + "".join(
            f'<bdi class="interp-{"differs" if differs else "same"}">{escape(token)}</bdi>' for token, differs in tokens
        )
        + "</span>"
        for name, tokens in _prompts(view)
    )
    if not prompts:
        return ""
    clean, corrupted = _sides(view)
    answers = "".join(
        f'<span class="interp-q"><bdi>{escape(lead)}</bdi></span><b>{a}</b><b>{b}</b>' for lead, a, b in _answers(view)
    )
    return (
        f'<div class="interp-pair"><div class="interp-caption">{_heading(view)}</div>'
        f'<div class="interp-prompts">{prompts}</div><div class="interp-answers"><span class="interp-q">'
        f'{escape(view.metric)}</span><span class="interp-q">{clean}</span><span class="interp-q">{corrupted}</span>'
        f"{answers}</div></div>"
    )


def _drawn_pair(view: _View) -> list[tuple[str, Drawing]]:
    """Return the same for a standalone picture, broken into lines."""
    body: list[str] = []
    advance, y = 12 * draw.ADVANCE, 12.0
    for name, tokens in _prompts(view):
        body.append(f'<text class="interp-f" y="{draw.number(y)}"><tspan class="interp-q">{name}</tspan></text>')
        x = float(_PROMPT)
        for token, differs in tokens:
            wide = columns(token) * advance
            if x > _PROMPT and x + wide > _PAIR:
                x, y = float(_PROMPT), y + 18
            if token.startswith(" ") and x > _PROMPT:
                x += advance
            label = token.strip(" ")
            wide = columns(label) * advance
            body.append(
                f'<text class="interp-f interp-c" x="{draw.number(x)}" y="{draw.number(y)}">{draw.token(label)}</text>'
            )
            if differs:
                body.append(
                    f'<path style="stroke:var(--interp-fg);stroke-width:1.2" d="M{draw.number(x)} {draw.number(y + 4)}'
                    f'h{draw.number(wide)}"/>'
                )
            x += wide + advance * (token.endswith(" ") and len(token) > 1)
        y += 24
    y -= 12
    if not body:
        return []
    lines = [(view.metric, *_sides(view)), *_answers(view)]
    far = max(6.4 * columns(lead) for lead, _, _ in lines)
    for n, (lead, *sides) in enumerate(lines):
        y += 18
        body.append(
            f'<text class="interp-f" y="{draw.number(y)}"><tspan class="interp-q">{draw.token(lead)}</tspan></text>'
        )
        body += [
            f'<text class="interp-f" x="{draw.number(far + 74 * (k + 1))}" y="{draw.number(y)}" text-anchor="end">'
            f'<tspan class="interp-{"b" if n else "q"}">{side}</tspan></text>'
            for k, side in enumerate(sides)
        ]
    return [(_heading(view), Drawing(max(_PAIR, far + 148), y + 6, "".join(body)))]


def words(result: PatchingResult) -> dict[str, Any]:
    """Return what the interactive view says of a sweep: its facts, its pair, what its numbers mean.

    Examples
    --------
    >>> words(result)["quantity"]  # doctest: +SKIP
    'recovery'
    """
    view = _View(result)
    return {
        # How far a sweep is, a view says elsewhere.
        "facts": _facts(
            view if result.estimate is not None else _View(replace(result, done=np.ones_like(result.done)))
        ),
        "metric": view.metric,
        "span": view.span,
        "turned": result.metric in _FALLING,
        "quantity": view.quantity,
        "meaning": {
            "recovery": view.meaning,
            "effect": f"effect on the {view.metric}: 0 nothing" if view.span else view.meaning,
        },
        "least": {"recovery": 1e-3, "effect": 1e-4},
        "pair": {
            "heading": _heading(view),
            "prompts": _prompts(view),
            "sides": _sides(view),
            "answers": _answers(view),
        },
        "notes": _notes(view),
        "tokens": view.tokens if "position" in result.axes else [],
        "marked": view.differing,
    }
