"""An attribution graph as SVG: rows, edges, marks and the titles of the most influential features."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection

import numpy as np

from interp.views import trace_labels as labels
from interp.views.circuit import step, width
from interp.views.kit import draw, heatmap, theme
from interp.views.kit.draw import Drawing, number
from interp.views.trace_layout import HALF, LEFT, MARK, Arrangement

_SIZES: dict[str, float] = theme.PALETTE["trace"]
_STEPS = int(theme.PALETTE["circuit"]["steps"])
_LEAST = 1e-9
_OUTLINE = 'style="fill:none;stroke:{}"'


def ends(drawn: Arrangement) -> tuple[float, float]:
    """Return where the scales of edges (shares of influence) and of nodes (effects) end."""
    inner = [n for n, kind in enumerate(drawn.kinds) if kind != "logit"]
    return heatmap.limit(drawn.shares, _LEAST), heatmap.limit(drawn.effects[inner], _LEAST)


def graph(
    drawn: Arrangement,
    count: int,
    scales: tuple[float, float],
    chosen: int = -1,
    lit: Collection[int] | None = None,
) -> Drawing:
    """Return the drawing with its first `count` edges.

    Parameters
    ----------
    scales
        See `ends`: of the whole graph, whatever of it is folded.
    chosen
        A node to ring; −1 for none.
    lit
        The edges that are not dimmed; all when not given.
    """
    body = [_rows(drawn), _axis(drawn)]
    paths: dict[tuple[bool, int | None], list[str]] = defaultdict(list)
    touched: set[int] = set()
    for edge in range(count):
        bright = lit is None or edge in lit
        paths[bright, level(drawn, edge, scales[0])].append(path(drawn, edge))
        if bright:
            touched |= {int(drawn.sources[edge]), int(drawn.targets[edge])}
    for (bright, one), shapes in sorted(paths.items(), key=lambda item: (item[0][0], abs(item[0][1] or 0))):
        body.append(_stroked("".join(shapes), one, bright))
    shown = drawn.shown(count)
    faint = f' style="opacity:{_SIZES["dim"]}"'
    for node in shown:
        bright = lit is None or node in touched or node == chosen
        said = mark(drawn, node, scales[1], node == chosen)
        if drawn.sides[node] and drawn.until[node] >= count:
            said += _title(drawn, node)
        body.append(said if bright else f"<g{faint}>{said}</g>")
    return Drawing(drawn.width, drawn.height, "".join(body))


def level(drawn: Arrangement, edge: int, end: float) -> int | None:
    """Return the step of an edge's colour and width: as large as its influence, signed as its weight."""
    return step(math.copysign(float(drawn.shares[edge]), float(drawn.weights[edge])), end)


def path(drawn: Arrangement, edge: int) -> str:
    """Return an edge's curve from the top of its source to the foot of its target."""
    source, target = int(drawn.sources[edge]), int(drawn.targets[edge])
    x0, y0 = float(drawn.x[source]), float(drawn.y[source]) - reach(drawn, source)
    x1, y1 = float(drawn.x[target]), float(drawn.y[target]) + reach(drawn, target)
    bend = _SIZES["bend"] * (y0 - y1)
    points = ((x0, y0 - bend), (x1, y1 + bend), (x1, y1))
    return f"M{number(x0)} {number(y0)}C" + " ".join(f"{number(x)} {number(y)}" for x, y in points)


def reach(drawn: Arrangement, node: int) -> float:
    """Return half of how high a node is."""
    return HALF if drawn.kinds[node] in {"logit", "group"} else MARK


def mark(drawn: Arrangement, node: int, end: float, chosen: bool = False) -> str:
    """Return a node: a circle for a feature, a diamond for a token, a hollow square for an error, a pill for others.

    Its colour is what it adds to the logits; `chosen` is ringed.
    """
    x, y, kind = float(drawn.x[node]), float(drawn.y[node]), drawn.kinds[node]
    shape = outline(kind, x, y, float(drawn.wide[node]))
    value = float(drawn.effects[node]) / end
    if kind == "logit":
        value = 0.0
    colours, ink = heatmap.fills(_SIZES["node"] * value, signed=True)
    ring = f'<path {_OUTLINE.format("var(--interp-accent)")[:-1]};stroke-width:5" d="{shape}"/>' if chosen else ""
    ground = f'<path style="fill:var(--interp-bg)" d="{shape}"/>'
    if kind == "error":
        strong = theme.paint(math.copysign(1.0, value)) if value else (("var(--interp-muted)", 1.0),)
        inside = f'<path style="fill:none;stroke:{strong[-1][0]};stroke-width:1.6" d="{shape}"/>'
        return ring + ground + inside
    fills = "".join(f'<path style="fill:{css}{draw.faint(opacity)}" d="{shape}"/>' for css, opacity in colours)
    line = f'<path style="fill:none;stroke:var(--interp-muted);stroke-width:0.9" d="{shape}"/>'
    words = ""
    if kind in {"logit", "group"}:
        style = f' style="font-size:11px;fill:{ink}{";font-weight:600" * (kind == "logit")}"'
        words = draw.text(x, y + 4, drawn.titles[node], "t", "middle", more=style)
    return ring + ground + fills + line + words


def outline(kind: str, x: float, y: float, wide: float) -> str:
    """Return a node's shape as a path.

    Examples
    --------
    >>> outline("embedding", 10, 10, 10)
    'M10 4L16 10L10 16L4 10z'
    """
    if kind == "embedding":
        left, right, top, low = (number(at + side * (MARK + 1)) for at in (x, y) for side in (-1, 1))
        return f"M{number(x)} {top}L{right} {number(y)}L{number(x)} {low}L{left} {number(y)}z"
    if kind == "error":
        near = MARK - 0.5
        return f"M{number(x - near)} {number(y - near)}h{number(2 * near)}v{number(2 * near)}h-{number(2 * near)}z"
    half = HALF if kind in {"logit", "group"} else MARK
    side = wide / 2 - half
    round_ = f"a{number(half)} {number(half)} 0 0 1 0"
    return (
        f"M{number(x - side)} {number(y - half)}h{number(2 * side)}{round_} {number(2 * half)}"
        f"h-{number(2 * side)}{round_} -{number(2 * half)}z"
    )


def _title(drawn: Arrangement, node: int) -> str:
    x, y, anchor = labels.place(drawn, node)
    more = (
        ' style="fill:var(--interp-fg);stroke:var(--interp-bg);stroke-width:3;paint-order:stroke;stroke-linejoin:round"'
    )
    words = draw.text(x, y, drawn.titles[node], "t", anchor, more=more)
    if anchor != "middle":
        return words
    side = 1 if drawn.sides[node] == labels.BELOW else -1
    tick = f"M{number(x)} {number(float(drawn.y[node]) + side * MARK)}v{number(side * (labels.TICK + 1))}"
    return f'{words}<path style="stroke:var(--interp-muted)" d="{tick}"/>'


def _rows(drawn: Arrangement) -> str:
    right = drawn.width - LEFT + 6
    lines = "".join(f"M{LEFT - 6} {number(y)}H{number(right)}" for _, y in drawn.rows)
    dashed = f'<path style="fill:none;stroke:var(--interp-line);stroke-dasharray:2 4" d="{lines}"/>'
    # At both ends: of a wide graph one of them is out of sight.
    names = (
        draw.text(x, y + 3.5, name, anchor=end) for name, y in drawn.rows for x, end in ((0, ""), (drawn.width, "end"))
    )
    return dashed + "".join(names)


def _axis(drawn: Arrangement) -> str:
    turn = theme.PALETTE["heat"]["turn"]
    return "".join(draw.text(x - 3, drawn.foot, text, "m", turn=turn) for text, x in drawn.axis)


def _stroked(shape: str, one: int | None, bright: bool) -> str:
    faint = "" if bright else f";opacity:{_SIZES['dim']}"
    if one is None:
        return f'<path style="fill:none;stroke:var(--interp-nan);stroke-dasharray:3 3{faint}" d="{shape}"/>'
    wide = f"stroke-width:{number(width(one))}{faint}"
    return "".join(
        f'<path style="fill:none;stroke:{css};stroke-opacity:{number(opacity)};{wide}" d="{shape}"/>'
        for css, opacity in theme.paint(one / _STEPS)
    )


def strongest(drawn: Arrangement, count: int, most: int) -> list[int]:
    """Return the most influential of the first `count` edges."""
    return np.argsort(-drawn.shares[:count], kind="stable")[:most].tolist()
