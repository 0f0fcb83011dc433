"""Where the nodes and edges of a circuit lie: computed once, for the static picture and for the live view alike.

One algorithm in one file, though a long one: rows by layer, an order within each that crosses few edges (barycentres,
up and down), places that keep a lane straight, and the curves between them: Sugiyama, Tagawa and Toda (1981).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.spec import Node
from interp.views.kit import theme
from interp.views.kit.text import columns, visible

if TYPE_CHECKING:
    from interp.methods._shared.circuit.result import CircuitResult, Edge

    Float = NDArray[np.float64]

EDGES, NODES = 3000, 600  # the most that are drawn
OPENS = 20  # edges that a picture opens with: the strongest; of many more none could be followed
HALF: float = theme.PALETTE["circuit"]["half"]  # of a pill's height
_CONSIDERED = 4 * EDGES
_LETTER, _PAD, _SPACE = 6.4, 16, 8
_SHORT, _LONGEST = 6, 170  # of a group's name: columns at least, CSS pixels at most
_LEFT, _TOP = 44, 14
_HIGH, _CLOSE, _FAR = 560, 27, 54  # of all rows, between two of them
_RAISED = 24  # an MLP above the heads of its layer, where they write to it
# Edges that pass a row have a lane of their own in it, so that they run between the pills: the strongest few.
_LANES, _LANE = 20, 7
_STRAIGHT = 12.0  # how much more a lane is drawn to its own continuation than a node is to what it is joined to
_SWEEPS, _SETTLING = 4, 6
_ROOMY, _STRETCHED = 520, 3.0
_INPUTS = {"q": -0.25, "k": 0.0, "v": 0.25}  # where on a pill they arrive, in parts of its width


@dataclass(frozen=True)
class Curve:
    """An edge as it is drawn: up from what writes to one of the nodes that read.

    Attributes
    ----------
    edges
        Indices into the drawn edges: one, or those that a collapsed group joins.
    source, target
        Indices into the nodes.
    path
        ``float [point, xy]``: where it begins, then two control points and an end for each cubic Bézier.
    """

    edges: tuple[int, ...]
    source: int
    target: int
    path: Float


@dataclass(frozen=True)
class Arrangement:
    """A circuit's drawing, without its colours.

    Attributes
    ----------
    nodes
        Names, from the bottom to the top; a collapsed group is one of them, by its own name.
    titles
        What stands in each pill.
    x, y, wide
        The middle of each node's pill and its width, in CSS pixels.
    rows
        What stands at the left of each row, and its height.
    width, height
        Of the whole.
    edges
        What is drawn, in the order in which edges enter the circuit as the threshold falls.
    upto
        ``int [edge]``: how many edges the smallest circuit has that holds this one; it never falls from edge to edge.
    curves
        At least one for each edge; a key or value that several heads share is drawn to each of them.
    """

    nodes: tuple[str, ...]
    titles: tuple[str, ...]
    x: Float
    y: Float
    wide: Float
    rows: tuple[tuple[str, float], ...]
    width: float
    height: float
    edges: tuple[Edge, ...]
    upto: NDArray[np.int64]
    curves: tuple[Curve, ...]

    @property
    def opens(self) -> int:
        """How many edges a picture opens with."""
        return self.shown(OPENS)

    def shown(self, count: int) -> int:
        """Return how many edges are shown where `count` are asked for: those that make a way together come together."""
        return int(self.upto[min(count, len(self.edges)) - 1]) if len(self.edges) and count > 0 else 0


def arrange(result: CircuitResult) -> Arrangement:
    """Return where the circuit's strongest edges and their nodes lie.

    Rows are layers. Within a row nodes stand in the order of the mean place of what they are joined to (the barycentre
    heuristic of Sugiyama, Tagawa & Toda 1981), and as near to it as their neighbours let them.
    """
    edges, upto = _entering(result)
    nodes, joined = _joined(edges, result)
    layers = [_layer(name) for name in nodes]
    order = sorted(set(layers))
    row = np.array([order.index(layer) for layer in layers])
    wide = np.array([_LETTER * len(title(name)) + _PAD for name in nodes])
    x, lanes = _across(row, wide, joined, [abs(edge.score) if math.isfinite(edge.score) else 0.0 for edge in edges])
    # Within a layer heads write to its MLP, which then stands above them.
    raised = [row[source] for _, source, target, _ in joined if row[source] == row[target]]
    lift = np.where(np.isin(np.arange(len(order)), raised), float(_RAISED), 0.0)
    pitch = min(_FAR, max(_CLOSE, _HIGH / max(1, len(order) - 1)))
    base = np.concatenate([[0.0], np.cumsum(pitch + lift[:-1])]) if len(order) else np.zeros(0)
    up = np.array([lift[r] if name.endswith(".mlp") else 0.0 for name, r in zip(nodes, row, strict=True)])
    bottom = _TOP + HALF + (float(base[-1] + lift[-1]) if len(order) else 0.0)
    levels = bottom - base
    y = levels[row] - up if len(nodes) else np.zeros(0)
    curves = [
        Curve(
            (edge,),
            source,
            target,
            _line(
                (x[source], y[source]),
                [(place, levels[r]) for place, r in lanes.get(n, [])],
                (x[target] + _INPUTS.get(kind, 0.0) * wide[target], y[target]),
            ),
        )
        for n, (edge, source, target, kind) in enumerate(joined)
    ]
    everything = [x + wide / 2, *(curve.path[:, 0] for curve in curves)]
    width = math.ceil(max((float(part.max()) for part in everything if part.size), default=0.0) + 10)
    return Arrangement(
        nodes=tuple(nodes),
        titles=tuple(title(name) for name in nodes),
        x=x,
        y=y,
        wide=wide,
        rows=tuple((_named(layer), float(level)) for layer, level in zip(order, levels, strict=True)),
        width=width,
        height=math.ceil(bottom + HALF + _TOP),
        edges=tuple(edges),
        upto=upto,
        curves=tuple(curves),
    )


def collapsed(drawn: Arrangement, groups: Mapping[str, Sequence[str]]) -> Arrangement:
    """Return the drawing with each of `groups` as one pill, in the place of the member that has most room around it.

    Edges between the same two pills are joined, those within a group are not drawn. Names are shortened to fit.
    """
    at = {name: n for n, name in enumerate(drawn.nodes)}
    nodes, names, wide = list(drawn.nodes), list(drawn.titles), list(drawn.wide)
    x, y = list(drawn.x), list(drawn.y)
    now = list(range(len(nodes)))
    inside = {at[member] for members in groups.values() for member in members if member in at}
    for name, members in groups.items():
        held = [at[member] for member in members if member in at]
        if not held:
            continue
        room, place = max((_room(drawn, member, inside), member) for member in held)
        for member in held:
            now[member] = len(nodes)
        nodes.append(name)
        names.append(visible(name, max(_SHORT, int((room - _PAD) / _LETTER))).replace("␣", " "))
        wide.append(_LETTER * columns(names[-1]) + _PAD)
        x.append(drawn.x[place])
        y.append(drawn.y[place])
    curves: list[Curve] = []
    joined: dict[tuple[int, int], list[int]] = defaultdict(list)
    for curve in drawn.curves:
        source, target = now[curve.source], now[curve.target]
        if (source, target) == (curve.source, curve.target):
            curves.append(curve)
        elif source != target:
            joined[source, target] += curve.edges
    for (source, target), edges in joined.items():
        path = _line((x[source], y[source]), [], (x[target], y[target]))
        curves.append(Curve(tuple(dict.fromkeys(edges)), source, target, path))
    return replace(
        drawn,
        nodes=tuple(nodes),
        titles=tuple(names),
        x=np.array(x),
        y=np.array(y),
        wide=np.array(wide),
        curves=tuple(curves),
    )


def _room(drawn: Arrangement, node: int, free: Collection[int]) -> float:
    """Return how wide a pill in a node's place may be before it reaches another, or the picture's edge."""
    x, y = drawn.x[node], drawn.y[node]
    between = [x - _LEFT / 2, drawn.width - x]
    for other in range(len(drawn.nodes)):
        if other != node and other not in free and abs(drawn.y[other] - y) < 2 * HALF:
            between.append(abs(drawn.x[other] - x) - drawn.wide[other] / 2 - 2)
    return min(_LONGEST, 2 * float(min(between)))


def title(node: str) -> str:
    """Return what stands in a node's pill.

    Examples
    --------
    >>> title("5.1"), title("8.mlp"), title("logits")
    ('5.1', 'mlp 8', 'logits')
    """
    part = Node.parse(node)
    return f"mlp {part.layer}" if part.kind == "mlp" else node


def _layer(node: str) -> float:
    return {"logits": math.inf, "embed": -1.0}.get(node, float(Node.parse(node).layer))


def _named(layer: float) -> str:
    return "embed" if layer < 0 else "logits" if math.isinf(layer) else f"{layer:.0f}"


def _entering(result: CircuitResult) -> tuple[list[Edge], NDArray[np.int64]]:
    """Return the edges in the order in which they enter, and how many there are as soon as each has entered.

    An edge is part of the circuit of the k strongest as soon as a way from the embedding to the logits leads through
    it: k is the largest rank on the way whose largest rank is the smallest.
    """
    ranked: list[Edge] = []
    for edge in result.ranked(result.kept):
        ranked.append(edge)
        if len(ranked) == _CONSIDERED:
            break
    incoming: dict[str, list[int]] = defaultdict(list)
    outgoing: dict[str, list[int]] = defaultdict(list)
    readers = [result.reading(edge.reader) for edge in ranked]
    for n, edge in enumerate(ranked):
        outgoing[edge.writer].append(n)
        for node in readers[n]:
            incoming[node].append(n)
    fed = {"embed": 0.0}
    for node in result.writers:
        ways = (max(n + 1, fed[ranked[n].writer]) for n in incoming[node])
        fed.setdefault(node, min(ways, default=math.inf))
    used = {"logits": 0.0}
    through = [math.inf] * len(ranked)
    for node in reversed(result.writers):
        for n in outgoing[node]:
            through[n] = max(n + 1, min((used.get(reader, math.inf) for reader in readers[n]), default=math.inf))
        used[node] = min((through[n] for n in outgoing[node]), default=math.inf)
    enters = np.array([max(way, fed[edge.writer]) for way, edge in zip(through, ranked, strict=True)])
    order = np.argsort(enters, kind="stable")[:EDGES]
    enters = enters[order]
    # Several edges may enter at once, when the last of a way is there.
    upto = np.searchsorted(enters, enters, side="right")
    edges = [ranked[n] for n in order]
    nodes: set[str] = set()
    for n, edge in enumerate(edges):
        nodes.add(edge.writer)
        if len(nodes) >= NODES:
            n = int(upto[n - 1]) if n else 1
            return edges[:n], np.minimum(upto[:n], n)
    return edges, upto


def _joined(edges: Sequence[Edge], result: CircuitResult) -> tuple[list[str], list[tuple[int, int, int, str]]]:
    """Return the nodes, bottom to top, and ``(edge, source, target, input)`` for each curve."""
    there = {edge.writer for edge in edges} | {edge.reader for edge in edges if edge.reader == "logits"}
    ends: list[list[str]] = []
    for edge in edges:
        read = result.reading(edge.reader)
        ends.append([node for node in read if node in there] or [read[0]])
    there |= {node for read in ends for node in read}
    nodes = [name for name in (*result.writers, "logits") if name in there]
    at = {name: n for n, name in enumerate(nodes)}
    return nodes, [
        (n, at[edge.writer], at[node], Node.parse(edge.reader).kind)
        for n, (edge, read) in enumerate(zip(edges, ends, strict=True))
        for node in read
    ]


def _across(
    row: NDArray[Any], wide: Float, joined: Sequence[tuple[int, int, int, str]], size: Sequence[float]
) -> tuple[Float, dict[int, list[tuple[float, int]]]]:
    """Return where nodes stand, and for curves that have lanes, the place and row of each."""
    count = len(row)
    if not count:
        return np.zeros(0), {}
    most = max(size, default=0.0) or 1.0
    weight = [0.05 + (size[edge] / most) ** 0.5 for edge, _, _, _ in joined]
    free = np.full(int(row.max()) + 1, _LANES)
    places, widths = list(row), list(wide)
    links: list[tuple[int, int, float]] = []  # lower, upper, weight
    chains: dict[int, list[int]] = {}
    for n in sorted(range(len(joined)), key=lambda n: -size[joined[n][0]]):
        _, source, target, _ = joined[n]
        low, high = int(row[source]), int(row[target])
        between = range(low + 1, high)
        if high > low and (free[low + 1 : high] > 0).all():
            free[low + 1 : high] -= 1
            chain = [len(places) + k for k in range(len(between))]
            places += between
            widths += [_LANE - _SPACE] * len(chain)
            chains[n] = chain
            way = [source, *chain, target]
            straight = [1.0, *([_STRAIGHT] * (len(chain) - 1)), 1.0] if chain else [1.0]
            links += [(a, b, weight[n] * more) for (a, b), more in zip(pairwise(way), straight, strict=True)]
        elif high > low:
            links.append((source, target, weight[n] / 2))
    x = _relaxed(np.array(places), np.array(widths), links, count)
    x -= x.min()
    # A small circuit would be a narrow one.
    x *= min(_STRETCHED, max(1.0, _ROOMY / max(1.0, float(x.max()))))
    x += _LEFT - min(float((x[:count] - wide / 2).min()), 0.0)
    return x[:count], {n: [(float(x[k]), int(places[k])) for k in chain] for n, chain in chains.items()}


def _relaxed(row: NDArray[Any], wide: Float, links: Sequence[tuple[int, int, float]], nodes: int) -> Float:
    """Return places in which joined things are near each other and nothing of a row is on its neighbour."""
    members = [np.flatnonzero(row == r) for r in range(int(row.max()) + 1)]
    low, high = (np.array([link[k] for link in links], dtype=np.intp) for k in (0, 1))
    weight = np.array([link[2] for link in links])
    x = np.zeros(len(row))
    for held in members:
        own = held[held < nodes]
        x[own] = _spaced(np.linspace(-1, 1, len(own) + 2)[1:-1] * 40 * len(own), wide[own])

    def pulled(held: NDArray[Any], below: bool, above: bool) -> Float:
        sums, total = np.zeros(len(row)), np.zeros(len(row))
        for there, mine, other in ((below, high, low), (above, low, high)):
            if there:
                chosen = by_row[id(mine), int(row[held[0]])]
                sums += np.bincount(mine[chosen], weight[chosen] * x[other[chosen]], len(row))
                total += np.bincount(mine[chosen], weight[chosen], len(row))
        return np.where(total[held] > 0, sums[held] / np.where(total[held] > 0, total[held], 1.0), x[held])

    by_row = {(id(mine), r): np.flatnonzero(row[mine] == r) for mine in (low, high) for r in range(len(members))}
    for sweep in range(_SWEEPS + _SETTLING):
        upwards = sweep % 2 == 0
        for held in members if upwards else members[::-1]:
            ordering = sweep < _SWEEPS
            wanted = pulled(held, not ordering or upwards, not ordering or not upwards)
            # Once the order stands, places are moved within it.
            order = np.argsort(wanted if ordering else x[held], kind="stable")
            placed = held[order]
            x[placed] = _spaced(wanted[order], wide[placed])
    return x


def _spaced(wanted: Float, wide: Float) -> Float:
    """Return the places nearest to `wanted` (least squares) that keep their order and leave room between pills."""
    if len(wanted) < 2:
        return wanted
    between = np.concatenate([[0.0], np.cumsum((wide[1:] + wide[:-1]) / 2 + _SPACE)])
    # Less the room that they need, places must not fall: pool what does.
    blocks: list[tuple[float, int]] = []
    for value in (wanted - between).tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    return np.repeat([mean for mean, _ in blocks], [count for _, count in blocks]) + between


def _line(start: tuple[float, float], lanes: Sequence[tuple[float, float]], end: tuple[float, float]) -> Float:
    """Return a curve from the top of one pill through lanes to the bottom of another.

    It goes upwards all the way and is vertical at both ends; between, its slope is that of Fritsch & Carlson (1980), so
    that it never swings beyond a point.
    """
    points = [(start[0], start[1] - HALF), *lanes, (end[0], end[1] + HALF)]
    inside = [
        here
        for before, here, after in zip(points, points[1:], points[2:], strict=False)
        if abs(here[0] - before[0]) > 0.5 or abs(here[0] - after[0]) > 0.5  # else a straight line goes on
    ]
    points = [points[0], *inside, points[-1]]
    slopes = [(b[0] - a[0]) / (b[1] - a[1] or 1e-9) for a, b in pairwise(points)]
    tangents = [0.0, *(2 * a * b / (a + b) if a * b > 0 else 0.0 for a, b in pairwise(slopes)), 0.0]
    path = [points[0]]
    for n, ((x, y), (right, top)) in enumerate(pairwise(points)):
        # The ends are steeper, so that edges leave a pill upright.
        before, after = ((top - y) * (0.5 if last else 1 / 3) for last in (n == 0, n == len(points) - 2))
        path += [
            (x + tangents[n] * before, y + before),
            (right - tangents[n + 1] * after, top - after),
            (right, top),
        ]
    return np.array(path)
