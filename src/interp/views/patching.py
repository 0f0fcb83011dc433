"""Pictures of a PatchingResult: where an activation carries the answer from one prompt to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.views import effects, patching_estimate, patching_spans
from interp.views import patching_pair as pairs
from interp.views.kit import bars, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.draw import Drawing
from interp.views.kit.heatmap import Cells
from interp.views.kit.page import Block
from interp.views.kit.text import escape, signed
from interp.views.patching_view import TOP, PatchingView, caption, counted, head_word, marks

Float = NDArray[np.float64]

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.patching.result import PatchingResult

_SPREAD = "All neurons: a row per layer, its strongest at the right"
_BAND = "band: 99 % of the layer's neurons; lines: the strongest, each"
_NONE: Float = np.zeros(0)
_STRIPS = 6
_GAP, _ROOM, _NARROW = 24, 1090, 230


def _picture(result: PatchingResult) -> page.Picture:
    """Return the sweep's picture: the places, the strongest of them, the pair."""
    view = PatchingView(result)
    first, beside = _blocks(view)
    so_far = _so_far(view)
    heading = f"{first[0][0]}{so_far and ' · '}{so_far}"
    stacks = [[*patching_spans.drawn(view), (heading, first[0][1]), *first[1:]], beside, pairs.drawn(view)]
    if sum(page.width(stack) + _GAP for stack in stacks) > _ROOM:
        stacks = [stacks[0], [*beside, *stacks[2]]]
    least = math.ceil(max([_NARROW, *(drawing.width for _, drawing in beside)]))
    listed = f'<div class="interp-list">{page.captioned(beside)}</div>' if beside else ""
    wide = math.ceil(max(drawing.width for _, drawing in (*patching_spans.drawn(view), first[0])))
    columns = (
        f'<div class="interp-part" style="--wide:{wide}px">{_captioned(view, first)}</div>'
        f'<div class="interp-columns interp-beside" style="--least:{least}px">'
        f"{listed}{pairs.markup(view)}</div>"
    )
    done = float(result.done.mean()) if result.done.size else 0.0
    return page.Picture(
        "Activation patching",
        _facts(view),
        stacks,
        _foot(view),
        _notes(view),
        columns=columns,
        progress=None if view.whole else done,
        gap=_GAP,
        least=0,
        view="patching" if result.estimate is None else "estimate",
    )


html, svg = page.pictures(_picture)


def plotly(
    result: PatchingResult, *, kind: str = "heatmap", theme: str = "light", width: int = 720, height: int = 560
) -> go.Figure:
    """Return the sweep as a Plotly heatmap, or as bars where it is by layer; it is drawn without a network.

    By head and position, each head shows the position of its largest effect, which the pointer names.

    Parameters
    ----------
    kind
        ``"heatmap"``, or ``"scatter"``: the verified cells of an estimate, estimate against exact effect.
    """
    import plotly.graph_objects as go

    if kind == "scatter":
        return patching_estimate.plotly(result, theme=theme, width=height, height=height)
    if kind != "heatmap":
        raise InputError(f"there is no figure {kind!r}; use heatmap or scatter")
    view = PatchingView(result)
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
        where = [[view.position(int(p)) for p in row] for row in peaks] if peaks is not None else None
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
    said = " · ".join(filter(None, (_facts(view), _so_far(view))))
    return figures.styled(figure, "Activation patching", said, theme, width, height)


def _blocks(view: PatchingView) -> tuple[list[Block], list[Block]]:
    """Return the drawings of the first column and of the one beside it, each with its caption."""
    axes = view.result.axes
    rows = [f"L{layer}" for layer in view.result.layers]
    legend = draw.words([view.meaning, *_marks(view)])
    more = _extras(view)
    if axes == ("layer",):
        listed = bars.bars([_bar(view, (n,), row) for n, row in enumerate(rows)], view.least, view.turned)
        lines = draw.words([view.meaning, *_intervals(view), *_marks(view)])
        return [(f"Layers, {view.quantity}", draw.stack([(0, listed), (0, lines)]))], more["after"]
    beside = [*more["before"], *_strongest(view), *more["after"]]
    left = heatmap.margin(rows)
    parts = [(0, _heat(view, view.drawn, view.ring)), (left, heatmap.scale(view.end, view.turned)), (left, legend)]
    return [(_caption(view), draw.stack(parts)), *more["below"]], beside


def _extras(view: PatchingView) -> dict[str, list[Block]]:
    """Return what the live view shows as the picture does: above and below the heatmap, before and after the list."""
    if view.result.axes == ("layer",):
        return {"above": [], "below": [], "before": [], "after": _agreeing(view)}
    where, agreeing = _where(view), _agreeing(view)
    # With strips above the list the other column has more room.
    below = _spread(view) or (agreeing if where else [])
    return {"above": patching_spans.drawn(view), "below": below, "before": where, "after": [] if where else agreeing}


def _spread(view: PatchingView) -> list[Block]:
    """By neuron, return where all of a layer's lie."""
    if view.ranked is None:
        return []
    spread = bars.strips(view.values, view.done, view.grid.rows, view.least)
    return [(_SPREAD, draw.stack([(0, spread), (0, draw.words([_BAND, *_absent(view.values, view.done)]))]))]


def _captioned(view: PatchingView, first: Sequence[Block]) -> str:
    """Return the first column as markup; it begins with how far the sweep came and room for the choice of a slice."""
    (caption, drawing), *below = first
    spans, more = (
        "".join(f'<div class="interp-more">{page.captioned([part])}</div>' for part in parts)
        for parts in (patching_spans.drawn(view), below)
    )
    spans = spans and f'<div class="interp-extras">{spans}</div>'
    slices = '<div class="interp-slices"></div>' if len(view.result.axes) > 2 else ""
    return (
        f'{spans}<div class="interp-caption"><span>{escape(caption)}</span><span>{_so_far(view)}</span></div>{slices}'
        f"{draw.inline(drawing, caption)}{more}"
    )


def _heat(view: PatchingView, cells: Cells, ring: Sequence[int] | None) -> Drawing:
    shown = Cells(-cells.values, cells.done, cells.rows, cells.columns, cells.tokens, cells.marked)
    held = (ring[0], ring[1]) if ring is not None and cells.values.size > 1 else None
    return heatmap.heat(shown if view.turned else cells, view.end, held)


def _agreeing(view: PatchingView) -> list[tuple[str, Drawing]]:
    drawn = patching_estimate.scatter(view.result, view.span or 1.0)
    return [] if drawn is None else [(patching_estimate.caption(view.result), drawn)]


def _caption(view: PatchingView) -> str:
    return f"{caption(view.result)}{', estimated' if view.result.estimate is not None else ''}"


def _where(view: PatchingView) -> list[tuple[str, Drawing]]:
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


def _strongest(view: PatchingView) -> list[tuple[str, Drawing]]:
    if not view.order:
        return []
    listed = bars.bars([_bar(view, cell, view.name(cell)) for cell in view.order[:TOP]], view.least, view.turned)
    if lines := _intervals(view):
        listed = draw.stack([(0, listed), (0, draw.words(lines))])
    return [(f"Strongest components, {view.quantity}", listed)]


def _intervals(view: PatchingView) -> list[str]:
    known = np.isfinite(view.interval).any()
    said = [f"thin line: 95 % interval over {len(view.result.per_pair)} pairs"] if known else []
    return [*said, "≈ by its estimate alone"] if any(view.guessed(cell) for cell in view.order[:TOP]) else said


def _bar(view: PatchingView, cell: tuple[int, ...], name: str) -> bars.Bar:
    low, high = (float(view.interval[end][cell]) for end in (0, 1))
    return bars.Bar(f"{'≈ ' * view.guessed(cell)}{name}", float(view.best[cell]), low, high, bool(view.done[cell]))


def _marks(view: PatchingView) -> list[str]:
    """Return what the marks on cells mean, for those that there are."""
    if len(view.result.axes) == 1:
        return _absent(view.values, view.done)
    drawn = view.drawn
    joined = f"{drawn.block} positions" if drawn.block > 1 else ""
    # Of heads at their strongest position every cell counts; of neurons those that are shown.
    counted = (view.values, view.done) if view.ranked is None else (drawn.values, drawn.done)
    return _absent(*counted, shown=drawn.values[drawn.done], end=view.end, joined=joined)


def _absent(
    values: Float, done: NDArray[np.bool_], shown: Float = _NONE, end: float = 1.0, joined: str = ""
) -> list[str]:
    return marks(shown, end, lost=int((done & ~np.isfinite(values)).sum()), missing=int((~done).sum()), joined=joined)


def _facts(view: PatchingView) -> str:
    result = view.result
    way = "corrupted into clean" if view.noising else "clean into corrupted"
    if view.source:
        way = f"activations of {frame.visible_facts(view.source, 60)}"
    return frame.facts(
        result,
        f"{result.site} by {result.by}",
        effects.pairs(result),
        way,
        view.metric,
        _estimated(view),
    )


def _estimated(view: PatchingView) -> str:
    if view.result.estimate is None:
        return ""
    done = int(view.result.done.sum())
    return f"estimated, {done:,} verified" if done else "estimated"


def _so_far(view: PatchingView) -> str:
    """Return how far a sweep came that was stopped."""
    return "" if view.whole else f"{int(view.done.sum())} of {view.done.size} cells · stopped"


def _foot(view: PatchingView) -> list[tuple[str, str, bool]]:
    """Return the footer: pieces of (words, bold words, whether muted)."""
    result = view.result
    if not view.order:
        nothing = "no cell changes the metric" if view.known.any() else "no cell has a finite effect"
        return [(nothing if view.done.any() else "no cell is computed yet", "", True)]
    cell = view.order[0]
    pieces = [("", view.name(cell), False)]
    if result.patched.size > 1:
        pieces.append((f"strongest of {int(view.done.sum()):,}", "", True))
    if result.estimate is not None and view.guessed(cell):
        pieces.append((f"estimated {view.quantity} ", signed(float(view.values[cell])), False))
        return [*pieces, ("estimated effect ", signed(float(result.estimate[cell])), False)]
    if view.span:
        pieces.append(("recovery ", signed(float(result.recovery[cell])), False))
    else:
        pieces.append(("recovery undefined: clean = corrupted", "", True))
    pieces.append(("effect ", signed(float(result.effect[cell])), False))
    pieces += effects.interval(result, cell)
    if result.estimate is not None:
        pieces.append((f"estimated {signed(float(result.estimate[cell]))}", "", True))
    pieces.append((f"patched {view.metric} {signed(float(result.patched[cell]))}", "", True))
    return pieces


def _notes(view: PatchingView) -> list[str]:
    notes = view.result.notes
    if not view.lost.any() or any("NaN" in note for note in notes):
        return list(notes)
    first = view.result.layers[int(np.argwhere(view.lost)[0][0])]
    return [f"the metric is NaN or infinite in {counted(int(view.lost.sum()))}, first in layer {first}", *notes]


def words(result: PatchingResult) -> dict[str, Any]:
    """Return what the interactive view says of a sweep: its facts, its pair, what its numbers mean."""
    view = PatchingView(result)
    return {
        "facts": _facts(view),
        "metric": view.metric,
        "span": view.span,
        "turned": frame.falls(result.metric),
        "quantity": view.quantity,
        "meaning": {
            "recovery": view.meaning,
            "effect": f"effect on the {view.metric}: 0 nothing" if view.span else view.meaning,
        },
        "least": {"recovery": 1e-3, "effect": 1e-4},
        "pair": {
            "heading": pairs.heading(view),
            "prompts": pairs.prompts(view),
            "sides": pairs.sides(view),
            "answers": pairs.answers(view),
        },
        "lines": len(_intervals(view)),
        "notes": _notes(view),
        "tokens": view.tokens if {"position", "span"} & set(result.axes) else [],
        "marked": view.differing,
    }


def extras(result: PatchingResult) -> dict[str, list[tuple[str, int, int, str]]]:
    """Return the drawings that the interactive view has as the picture has them: caption, width, height, markup."""
    return {
        name: [(caption, math.ceil(part.width), math.ceil(part.height), part.body) for caption, part in blocks]
        for name, blocks in _extras(PatchingView(result)).items()
    }
