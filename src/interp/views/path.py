"""Pictures of a PathResult: from where to where an output carries the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.results import strongest
from interp.spec import Node
from interp.views import effects
from interp.views.kit import bars, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.draw import Drawing
from interp.views.kit.heatmap import Cells
from interp.views.kit.page import Piece, Stack
from interp.views.kit.text import signed

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.patching.path import PathResult

_TOP = 10
_FEW = 12  # paths that bars alone show
_ROWS, _COLUMNS, _PLACED = 40, 60, 24  # of a grid of senders and receivers, and of those that read at spans
_KINDS = {"head": "heads", "q": "queries", "k": "keys", "v": "values", "mlp": "MLP"}
_BETWEEN = {
    "all": "everything between frozen",
    "heads": "heads between frozen, MLPs answer",
    "none": "nothing frozen between",
}


def plotly(result: PathResult, *, theme: str = "light", width: int = 760, height: int = 620) -> go.Figure:
    """Return the paths as a Plotly heatmap of senders and receivers, or as bars where there is one of either."""
    import plotly.graph_objects as go

    view = _View(result)
    values = np.where(view.known & np.isfinite(view.values), view.values, np.nan)
    senders, receivers = [Node.parse(name).drawn for name in result.senders], _heard(result)
    figure = go.Figure()
    if 1 in values.shape:
        names, fixed = (receivers, f"from {senders[0]}") if len(senders) == 1 else (senders, f"to {receivers[0]}")
        low, high = (np.ravel(end) for end in view.interval)
        held = np.ravel(values)
        figure.add_bar(
            x=held,
            y=names,
            orientation="h",
            marker={"color": figures.sides(held, theme)},
            error_x=figures.whiskers(held, low, high, theme),
            hovertemplate="%{y}<br><b>%{x:+.4f}</b><extra></extra>",
        )
        figure.update_xaxes(title=f"{view.quantity}, {fixed}")
    else:
        figure.add_heatmap(
            z=values,
            x=receivers,
            y=senders,
            zmin=-view.end,
            zmax=view.end,
            colorscale=themes.scale(theme),
            colorbar={"title": {"text": view.quantity}, "thickness": 12},
            hoverongaps=False,
            hovertemplate="%{y} → %{x}<br><b>%{z:+.4f}</b><extra></extra>",
        )
        figure.update_xaxes(type="category", title=_columns(result))
        figure.update_yaxes(title="sender")
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, zeroline=False)
    return figures.styled(figure, "Path patching", _facts(view), theme, width, height)


@dataclass(frozen=True)
class _View:
    """A result, and what of it is coloured."""

    result: PathResult

    @cached_property
    def restores(self) -> bool:
        """Whether recovery, which divides by clean less corrupted, is defined."""
        return bool(effects.span(self.result))

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """What is coloured, ``[sender, receiver]``: 0 where the path changes nothing."""
        result = self.result
        if not self.restores:
            return result.above_noise(result.effect)
        return result.above_noise(result.recovery - (1 if result.direction == "noise" else 0))

    @cached_property
    def interval(self) -> NDArray[np.float64]:
        return effects.intervals(self.result)

    @cached_property
    def quantity(self) -> str:
        return effects.quantity(self.result)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        return self.result.done & self.result.exists

    @cached_property
    def least(self) -> float:
        return effects.least(self.result)

    @cached_property
    def end(self) -> float:
        # One path that carries all would leave the rest white: it lies beyond the scale then.
        return heatmap.limit(self.values[self.known], self.least)

    @cached_property
    def order(self) -> list[tuple[int, int]]:
        """The paths by the size of what they change, the largest first; those that change nothing are left out."""
        found = strongest(np.where(self.known, self.values, np.nan), _TOP)
        return [(sender, receiver) for sender, receiver in found if self.values[sender, receiver] != 0]


def _blocks(view: _View) -> list[Stack]:
    result = view.result
    shape, count = result.exists.shape, int(result.exists.sum())
    listed = _listed(view)
    if count <= _FEW:
        return [[(f"Paths, {view.quantity}", draw.stack([(0, listed), (0, _words(view))]))]]
    if len(set(result.places)) > 1 and shape[0] == 1:
        picture, lone = _by_place(view)
        caption = f"From {Node.parse(result.senders[0]).drawn}: rows are receivers, columns where they read"
    elif 1 in shape:
        fixed, names, values, known = (
            (f"From {Node.parse(result.senders[0]).drawn}", result.receivers, view.values[0], view.known[0])
            if shape[0] == 1
            else (f"Into {_heard(result, whole=True)[0]}", result.senders, view.values[:, 0], view.known[:, 0])
        )
        best = view.order[0][1 if shape[0] == 1 else 0] if view.order else None
        if all(Node.parse(name).kind == "feature" for name in names):  # too many to a layer for a grid: bars are all
            caption = f"{fixed}: strongest paths, {view.quantity}"
            return [[(caption, draw.stack([(0, listed), (0, _words(view))]))]]
        picture, lone = _grids(names, values, known, view.end, best)
        caption = f"{fixed}: a row per layer{_there(result) if shape[0] == 1 else ''}"
    else:
        picture, lone, caption = *_matrix(view), f"Rows are senders, columns {_plural(result)}{_there(result)}"
    legend = draw.stack([(0, picture), (0, heatmap.scale(view.end)), (0, _words(view, lone))])
    return [[(caption, legend)], [(f"Strongest paths, {view.quantity}", listed)]]


def _matrix(view: _View) -> tuple[Drawing, list[str]]:
    """Return a row per sender and a column per receiver, of very many only those with the strongest paths."""
    result = view.result
    size = np.where(view.known & np.isfinite(view.values), np.abs(view.values), -1.0)
    held = [
        np.sort(np.argsort(-size.max(axis=1 - axis), kind="stable")[:most])
        for axis, most in ((0, _ROWS), (1, _PLACED if result.places else _COLUMNS))
    ]
    at = np.ix_(*held)
    rows, heard = [Node.parse(result.senders[n]).drawn for n in held[0]], _heard(result)
    columns = [heard[n] for n in held[1]]
    ring = None
    if view.order:
        ring = int(np.searchsorted(held[0], view.order[0][0])), int(np.searchsorted(held[1], view.order[0][1]))
    whole = size.shape == (len(rows), len(columns))
    left = [] if whole else [f"the {len(rows)} senders and {len(columns)} receivers with the strongest paths"]
    return heatmap.heat(Cells(view.values[at], view.known[at], rows, columns, tokens=True), view.end, ring), left


def _by_place(view: _View) -> tuple[Drawing, list[str]]:
    """Return what one sender sends: a row per receiver, a column per place; of very many receivers the strongest."""
    result = view.result
    places = list(dict.fromkeys(result.places))
    size = np.where(view.known[0] & np.isfinite(view.values[0]), np.abs(view.values[0]), -1.0)
    most: dict[str, float] = {}
    for name, value in zip(result.receivers, size.tolist(), strict=True):
        most[name] = max(value, most.get(name, -1.0))
    strong = set(sorted(most, key=lambda name: -most[name])[:_ROWS])
    names = [name for name in most if name in strong]
    values, known = np.full((len(names), len(places)), np.nan), np.zeros((len(names), len(places)), bool)
    ring = None
    for n, (name, place) in enumerate(zip(result.receivers, result.places, strict=True)):
        if name not in strong:
            continue
        at = names.index(name), places.index(place)
        values[at], known[at] = view.values[0, n], view.known[0, n]
        ring = at if view.order and view.order[0][1] == n else ring
    left = [] if len(names) == len(most) else [f"the {len(names)} receivers with the strongest paths"]
    rows = [Node.parse(name).drawn for name in names]
    return heatmap.heat(Cells(values, known, rows, places, tokens=True), view.end, ring), left


def _heard(result: PathResult, *, whole: bool = False) -> list[str]:
    """Return what the receivers are called, and where they read as far as that tells them apart, or `whole`."""
    drawn = [Node.parse(name).drawn for name in result.receivers]
    if not result.places or (not whole and len(set(result.places)) == 1):
        return drawn
    if not whole and len(set(drawn)) == 1:
        return list(result.places)
    return [f"{name} at {place}" for name, place in zip(drawn, result.places, strict=True)]


def _columns(result: PathResult) -> str:
    alone = len(set(result.receivers)) == 1 and len(set(result.places)) > 1
    return f"span that {Node.parse(result.receivers[0]).drawn} reads at" if alone else "receiver"


def _plural(result: PathResult) -> str:
    return _columns(result).replace("span that", "the spans that") if "span" in _columns(result) else "receivers"


def _there(result: PathResult) -> str:
    places = set(result.places)
    return f", reading at {next(iter(places))}" if len(places) == 1 else ""


def _grids(
    names: Sequence[str], values: NDArray[np.float64], known: NDArray[np.bool_], end: float, best: int | None
) -> tuple[Drawing, list[str]]:
    """Return a grid of layers for each kind of end but features, and in words those that have no layer."""
    nodes = [Node.parse(name) for name in names]
    layers = sorted({node.layer for node in nodes if node.kind in _KINDS})
    lone = [
        f"{name} {signed(float(value))}"
        for name, node, value, there in zip(names, nodes, values, known, strict=True)
        if node.kind not in _KINDS and node.kind != "feature" and there
    ]
    drawn: list[Drawing] = []
    for kind, called in _KINDS.items():
        held = [(n, node.layer, node.head) for n, node in enumerate(nodes) if node.kind == kind]
        if not held:
            continue
        width = max(head for _, _, head in held) + 1
        grid, done = np.full((len(layers), width), np.nan), np.zeros((len(layers), width), bool)
        ring = None
        for n, layer, head in held:
            at = layers.index(layer), head
            grid[at], done[at] = values[n], known[n]
            ring = at if n == best else ring
        rows = [f"L{layer}" for layer in layers]
        columns = [""] if kind == "mlp" else [str(n) for n in range(width)]
        heat = heatmap.heat(Cells(grid, done, rows, columns), end, ring)
        title = draw.text(heatmap.margin(rows), 9, called)
        drawn.append(
            Drawing(
                max(heat.width, heatmap.margin(rows) + 6 * len(called)),
                heat.height + 16,
                title + draw.group(heat, 0, 16),
            )
        )
    return draw.row(drawn), lone


def _listed(view: _View) -> Drawing:
    result = view.result
    cells = view.order or [(int(s), int(r)) for s, r in np.argwhere(result.exists)[:1]]

    def bar(cell: tuple[int, int]) -> bars.Bar:
        low, high = (float(view.interval[end][cell]) for end in (0, 1))
        name = _path(result, cell)
        if 1 in result.exists.shape and result.exists.size > 1:
            name = name.partition(" → ")[2 if result.exists.shape[0] == 1 else 0]
        return bars.Bar(name, float(view.values[cell]), low, high, bool(view.known[cell]))

    return bars.bars([bar(cell) for cell in cells], view.least)


def _words(view: _View, lone: Sequence[str] = ()) -> Drawing:
    """Return what the colours and the marks mean."""
    result = view.result
    lines = [
        f"{view.quantity}: {'0 nothing, ' if view.restores else ''}"
        + (
            ("−1 corrupted behaviour reached" if result.direction == "noise" else "1 clean behaviour restored")
            if view.restores
            else "clean = corrupted, so no recovery"
        )
    ]
    if lone:
        lines.append(", ".join(lone))
    shown = view.values[view.known & np.isfinite(view.values)]
    beyond = shown[np.abs(shown) > view.end * (1 + 1e-9)]
    if beyond.size and result.exists.sum() > _FEW:
        most = signed(float(beyond[np.abs(beyond).argmax()]))
        lines.append(f"dotted: {beyond.size} beyond the scale, up to {most}")
    if np.isfinite(view.interval).any():
        lines.append(f"thin line: 95 % interval over {len(result.per_pair)} pairs")
    if not result.exists.all() and result.exists.sum() > _FEW:
        lines.append("grey: no path, the receiver reads below the sender")
    if not result.done.all():
        lines.append(f"grey: {int((~result.done).sum()):,} paths not computed")
    if bool((view.known & ~np.isfinite(view.values)).any()):
        lines.append("hatched: no finite value")
    return draw.words(lines)


def _facts(view: _View) -> str:
    result = view.result
    whole = int(result.exists.sum())
    done = int(view.known.sum())
    return frame.facts(
        result,
        f"{_several(result.senders, 'sender')} → {_several(tuple(dict.fromkeys(result.receivers)), 'receiver')}",
        _where(result),
        _BETWEEN[result.freeze],
        effects.pairs(result),
        "corrupted into clean" if result.direction == "noise" else "clean into corrupted",
        frame.metric(result.metric),
        "" if done == whole else f"{done:,}/{whole:,} done",
    )


def _where(result: PathResult) -> str:
    places = list(dict.fromkeys(result.places))
    return "" if not places else f"reading at {places[0]}" if len(places) == 1 else f"by {len(places)} spans"


def _path(result: PathResult, cell: tuple[int, int]) -> str:
    return f"{Node.parse(result.senders[cell[0]]).drawn} → {_heard(result, whole=True)[cell[1]]}"


def _several(names: Sequence[str], what: str) -> str:
    return Node.parse(names[0]).drawn if len(names) == 1 else f"{len(names):,} {what}s"


def _foot(view: _View) -> list[Piece]:
    result = view.result
    if not view.order:
        done = bool(view.known.any())
        return [("no path changes the metric" if done else "no path is computed yet", "", True)]
    cell = view.order[0]
    pieces: list[Piece] = [("", _path(result, cell), False)]
    if int(result.exists.sum()) > 1:
        pieces.append((f"strongest of {int(view.known.sum()):,} paths", "", True))
    if view.restores:
        pieces.append(("recovery ", signed(float(result.recovery[cell])), False))
    pieces.append(("effect ", signed(float(result.effect[cell])), False))
    pieces += effects.interval(result, cell)
    pieces.append((f"clean {signed(result.clean_metric)}, corrupted {signed(result.corrupted_metric)}", "", True))
    return pieces


def _picture(result: PathResult) -> page.Picture:
    view = _View(result)
    return page.Picture("Path patching", _facts(view), _blocks(view), _foot(view), result.notes)


html, svg = page.pictures(_picture)
