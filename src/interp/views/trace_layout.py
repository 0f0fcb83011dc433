"""Where the nodes and edges of an attribution graph lie: tokens across, layers up, for picture and live view alike."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import draw, theme
from interp.views.kit.text import columns, visible
from interp.views.trace_labels import labelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.methods._shared.trace.result import TraceResult

    Float = NDArray[np.float64]
    Int = NDArray[np.int64]

_SIZES: dict[str, float] = theme.PALETTE["trace"]
MARK, HALF = _SIZES["mark"], _SIZES["half"]  # half of a mark's width, of a pill's height
EDGES, NODES = 3000, 800  # the most that are drawn
OPENS = 40  # edges that a picture opens with
LEFT = 44  # room for the rows' names, at both ends
NEVER = 65_535
KINDS = ("embedding", "feature", "error", "logit", "group")
_PITCH, _GAP = 13, 12  # between marks of a cell, between columns
_TOP, _BETWEEN, _FAR = 16, 27, 58  # above all, between two rows at least and at most
_WIDE, _HIGH = 644, 400  # what a small graph is stretched to
_EMPTY, _BREAK = 20, 16  # a column without nodes, and what stands for several where there is no room
LETTER, PAD, SPACE = 6.3, 16, 6  # of pills
TITLE, _TOKEN = 24, 14  # columns
_TURN = math.radians(theme.PALETTE["heat"]["turn"])
_AXIS = 18  # from the lowest row to the tokens below it


@dataclass(frozen=True)
class Arrangement:
    """A graph's drawing, without its colours.

    Attributes
    ----------
    names, kinds, titles, called
        Of each node; a folded group is a node by its own name. Titles are what may be written at it; it is called so
        where nothing shows where it is.
    x, y, wide
        The middle of each node's mark or pill, and its width, in CSS pixels.
    layers, positions
        ``int [node]``.
    activations, influences, effects
        ``float [node]``: see `TraceResult`; of a group, what its nodes have together.
    sources, targets, weights, shares
        Of each drawn edge, in the order in which they are shown; shares are its influence by that of all edges.
    first
        ``int [node]``: with how many edges it is shown; `NEVER` where it is not.
    sides, until
        ``int [node]``: where its title stands (see `trace_labels`), and up to how many edges there is room for it.
    rows, axis
        What stands at each row's left and its height; below each column its token and its middle.
    width, height, foot
        Of the whole, and where tokens begin.
    total
        How many edges there are.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    titles: tuple[str, ...]
    called: tuple[str, ...]
    x: Float
    y: Float
    wide: Float
    layers: Int
    positions: Int
    activations: Float
    influences: Float
    effects: Float
    sources: Int
    targets: Int
    weights: Float
    shares: Float
    first: Int
    sides: Int
    until: Int
    rows: tuple[tuple[str, float], ...]
    axis: tuple[tuple[str, float], ...]
    width: float
    height: float
    foot: float
    total: int

    @property
    def opens(self) -> int:
        """How many edges a picture opens with."""
        return min(OPENS, len(self.sources))

    def shown(self, count: int) -> list[int]:
        """Return the nodes that are drawn with `count` edges."""
        return np.flatnonzero(self.first <= count).tolist()


def arrange(result: TraceResult) -> Arrangement:
    """Return where an attribution graph's nodes lie, and its edges from the most influential on."""
    kinds = np.array([KINDS.index(kind) for kind in result.kinds])
    ends = kinds == KINDS.index("logit")
    order = _entering(result)
    sources, targets = result.edge_sources[order].astype(int), result.edge_targets[order].astype(int)
    first = first_shown(sources, targets, ends)
    # As many edges as lead to no more nodes than can be told apart.
    count = min(EDGES, int(np.sort(first)[NODES]) - 1) if len(first) > NODES else EDGES
    order, sources, targets = order[:count], sources[:count], targets[:count]
    kept = np.flatnonzero((first <= count) | ends)
    now = np.zeros(len(kinds), int)
    now[kept] = np.arange(len(kept))
    titles = [title(result, number) for number in kept.tolist()]
    wide = np.full(len(kinds), 2 * MARK)
    wide[kept] = np.where(ends[kept], [LETTER * columns(one) + PAD for one in titles], 2 * MARK)
    cells = _cells(result, kept)
    axis, across, right = _columns(result, cells)
    rows, x, y, bottom = _placed(result, cells, across, right, wide)
    foot = bottom + _AXIS
    tilted = [(at, columns(text) * 10 * draw.ADVANCE) for text, at in axis]
    far = max([right + LEFT - 10, *(at + long * math.cos(_TURN) + 4 for at, long in tilted)])
    return labelled(
        Arrangement(
            names=tuple(result.names[number] for number in kept),
            kinds=tuple(result.kinds[number] for number in kept),
            titles=tuple(titles),
            called=tuple(called(result, number) for number in kept.tolist()),
            x=x[kept],
            y=y[kept],
            wide=wide[kept],
            layers=result.node_layers[kept].astype(int),
            positions=result.node_positions[kept].astype(int),
            activations=result.activations[kept].astype(float),
            influences=result.influences[kept],
            effects=result.effects[kept],
            sources=now[sources],
            targets=now[targets],
            weights=result.weights[order].astype(float),
            shares=result.edge_influences[order] / (float(result.edge_influences.sum()) or 1.0),
            first=first[kept],
            sides=np.zeros(len(kept), int),
            until=np.zeros(len(kept), int),
            rows=rows,
            axis=axis,
            width=math.ceil(far),
            height=math.ceil(foot + max(long * math.sin(_TURN) for _, long in tilted) + 12),
            foot=foot,
            total=len(result.weights),
        )
    )


def title(result: TraceResult, number: int) -> str:
    """Return what is written at a node: a feature's label, or else the token at which it is most active."""
    kind, position = result.kinds[number], int(result.node_positions[number])
    if kind == "feature":
        feature = result.names[number].partition("@")[0]
        label = result.labels.get(feature, "")
        return visible(label, TITLE).replace("␣", " ") if label else f"{peak(result, number, _TOKEN)} {feature}"
    if kind == "logit":
        first = sum(kind == "logit" for kind in result.kinds[:number])
        token, _, chance = result.outputs[first]
        if result.against is not None:
            return f"{visible(token, _TOKEN)} − {visible(result.against[0], _TOKEN)}"
        return visible(token, _TOKEN) + (f" {100 * chance:.0f} %" if result.target is None else "")
    return visible(result.tokens[position], _TOKEN) if kind == "embedding" else "error"


def called(result: TraceResult, number: int) -> str:
    """Return a node's name in words: its label, and at which token it is."""
    kind, position = result.kinds[number], int(result.node_positions[number])
    at = f"{visible(result.tokens[position], _TOKEN)} {position}"
    if kind == "logit":
        # Where there is one, the picture says in three places which.
        return title(result, number) if len(result.outputs) > 1 else "logit"
    if kind == "embedding":
        return f"token {at}"
    feature = result.names[number].partition("@")[0]
    label = result.labels.get(feature, "")
    if kind == "error":
        return f"error {int(result.node_layers[number])} at {at}"
    return f"{visible(label, TITLE).replace('␣', ' ')} at {at}" if label else f"{feature} at {at}"


def peak(result: TraceResult, number: int, limit: int = 24) -> str:
    """Return the token of this prompt at which a feature is most active."""
    return visible(result.tokens[int(result.fires[number].argmax())], limit)


def _entering(result: TraceResult) -> Int:
    """Return the edges, the most influential first; before one that leads into a node that leads nowhere yet, a way on.

    So whatever number of them is drawn, every node leads to a logit.
    """
    order = np.argsort(-result.edge_influences, kind="stable").tolist()
    onward: dict[int, int] = {}
    for edge in order:
        onward.setdefault(int(result.edge_sources[edge]), edge)
    found: dict[int, None] = {}
    leads: set[int] = set()
    for edge in order:
        way: list[int] = [edge]
        while (target := int(result.edge_targets[way[-1]])) not in leads and target in onward:
            way.append(onward[target])
        for one in reversed(way):
            found[one] = None
            leads.add(int(result.edge_sources[one]))
    return np.array(list(found), int)


def first_shown(sources: Int, targets: Int, always: NDArray[np.bool_]) -> Int:
    """Return with how many edges each node is shown."""
    first = np.where(always, 0, NEVER)
    for count, ends in reversed(list(enumerate(zip(sources.tolist(), targets.tolist(), strict=True), 1))):
        for end in ends:
            first[end] = min(first[end], count)
    return first


def _cells(result: TraceResult, kept: Int) -> dict[tuple[int, int], list[int]]:
    """Return (layer, position) → its nodes, the most influential first; logits have a row without cells."""
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number in kept[np.argsort(-result.influences[kept], kind="stable")].tolist():
        if result.kinds[number] != "logit":
            cells[int(result.node_layers[number]), int(result.node_positions[number])].append(number)
    return cells


def _columns(
    result: TraceResult, cells: Mapping[tuple[int, int], Collection[int]]
) -> tuple[tuple[tuple[str, float], ...], dict[int, tuple[float, int]], float]:
    """Return the axis, each position's middle and how many marks stand beside each other in it, and the right end."""
    most: dict[int, int] = defaultdict(int)
    for (_, position), held in cells.items():
        most[position] = max(most[position], len(held))
    most[result.position] = max(most[result.position], 1)
    count = len(result.tokens)
    beside = max(2, min(8, int((_WIDE / len(most) - _GAP) / _PITCH)))
    wide = {p: min(beside, held) * _PITCH + _GAP for p, held in most.items()}
    # Where there is no room for all, tokens without nodes stand together.
    all_fit = sum(wide.values()) + _EMPTY * (count - len(wide)) <= _WIDE
    places: list[tuple[int, float]] = []
    for position in range(count):
        if position in wide or all_fit:
            places.append((position, wide.get(position, float(_EMPTY))))
        elif not places or places[-1][0] >= 0:
            places.append((-1, float(_BREAK)))
    stretch = max(1.0, _WIDE / sum(size for _, size in places))
    at, axis = float(LEFT), list[tuple[str, float]]()
    across: dict[int, tuple[float, int]] = {}
    for position, size in places:
        middle = at + size * stretch / 2
        at += size * stretch
        axis.append((visible(result.tokens[position], _TOKEN) if position >= 0 else "⋯", middle))
        across[position] = middle, max(1, int((size * stretch - _GAP / 2) / _PITCH))
    return tuple(axis), across, at


def _placed(
    result: TraceResult,
    cells: Mapping[tuple[int, int], Sequence[int]],
    across: Mapping[int, tuple[float, int]],
    right: float,
    wide: Float,
) -> tuple[tuple[tuple[str, float], ...], Float, Float, float]:
    """Return the rows, each node's place, and the height of the lowest row."""
    x, y = np.zeros(len(result.kinds)), np.zeros(len(result.kinds))
    ends = [number for number, kind in enumerate(result.kinds) if kind == "logit"]
    lines = _lines(ends, wide, across[result.position][0], right)
    level = float(_TOP + HALF)
    rows = [("logits" if len(ends) > 1 else "logit", level)]
    for line in lines:
        for number, place in line:
            x[number], y[number] = place, level
        level += 2 * HALF + 4
    level += MARK - 2 * HALF - 4 + HALF
    high = {
        layer: max(math.ceil(len(held) / across[p][1]) for (other, p), held in cells.items() if other == layer)
        for layer in sorted({layer for layer, _ in cells}, reverse=True)
    }
    bands = sum((lines - 1) * _PITCH + 2 * MARK for lines in high.values())
    gap = min(_FAR, max(_BETWEEN, (_HIGH - bands) / max(1, len(high))))
    for layer, lines_ in high.items():
        top = level + gap - MARK
        bottom = top + (lines_ - 1) * _PITCH + 2 * MARK
        middle = (top + bottom) / 2
        rows.append(("embed" if layer < 0 else str(layer), middle))
        for (other, position), held in cells.items():
            if other == layer:
                for number, (dx, dy) in zip(held, _stacked(len(held), across[position][1]), strict=True):
                    x[number], y[number] = across[position][0] + dx, middle + dy
        level = bottom
    return tuple(rows), x, y, level


def _stacked(count: int, beside: int) -> list[tuple[float, float]]:
    """Return places of a cell's nodes round its middle, the first in the midst of a line."""
    lines = math.ceil(count / beside)
    found: list[tuple[float, float]] = []
    for line in range(lines):
        held = min(beside, count - line * beside)
        shift = (held - 1) % 2 / 2
        steps = [(n + 1) // 2 * (1 if n % 2 else -1) for n in range(held)]
        found += [((step - shift) * _PITCH, ((lines - 1) / 2 - line) * _PITCH) for step in steps]
    return found


def _lines(ends: Sequence[int], wide: Float, middle: float, right: float) -> list[list[tuple[int, float]]]:
    """Return the logits' pills in lines about `middle`, as far as they fit between the ends."""
    rows: list[list[int]] = []
    used = math.inf
    for number in ends:
        if used + wide[number] + SPACE > right - LEFT:
            rows.append([])
            used = 0.0
        rows[-1].append(number)
        used += wide[number] + SPACE
    lines: list[list[tuple[int, float]]] = []
    for row in rows:
        long = sum(wide[number] + SPACE for number in row) - SPACE
        at = max(float(LEFT), min(middle - long / 2, right - long - 2))
        places: list[tuple[int, float]] = []
        for number in row:
            places.append((number, at + wide[number] / 2))
            at += wide[number] + SPACE
        lines.append(places)
    return lines
