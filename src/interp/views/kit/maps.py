"""Small maps side by side, one per score, and short lists below them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import cells, draw, heatmap, theme
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.text import columns, escape

_ROOM = 300  # of a map, in CSS pixels: the height that its rows take at most
_LARGEST, _SMALLEST = 22.0, 3.0
_TOP = 44
_LINE = 16
WIDTH = 1090  # that drawings beside each other may take

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Map:
    """One score.

    Attributes
    ----------
    title, captions
        Its name, and its numbers in words, up to two lines.
    values
        ``float64 [row, column]``; what is not finite is left out.
    rows, columns
        Labels.
    end
        Where the scale of colours ends.
    signed
        Whether values go both ways from zero, or from zero up.
    marks
        (row, column) → the number of the class whose dot it gets.
    """

    title: str
    captions: Sequence[str]
    values: Float
    rows: Sequence[str]
    columns: Sequence[str]
    end: float = 1.0
    signed: bool = False
    marks: Mapping[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])


def draw_map(shown: Map, side: float) -> Drawing:
    """Return a map whose cells are squares of `side`.

    Examples
    --------
    >>> draw_map(Map("a", [""], np.eye(2), ["L0", "L1"], ["0", "1"]), 10).height > 20
    True
    """
    count = shown.values.shape
    left = heatmap.margin(shown.rows)
    across, down = count[1] * side, count[0] * side
    body = [
        f'<text class="interp-t" style="font-size:11.5px;font-weight:600;fill:var(--interp-fg)" x="{left}" y="11">'
        f"{escape(shown.title)}</text>",
        *(draw.text(left, 24 + 12 * n, line) for n, line in enumerate(shown.captions)),
        f'<g transform="translate({left} {_TOP})">',
    ]
    values = np.where(np.isfinite(shown.values), shown.values, 0.0) / shown.end
    size = side, side
    painted = heatmap.colours(values, size) if shown.signed else draw.cells(theme.level(values), side)
    body += [
        f'<g shape-rendering="crispEdges">{painted}</g>',
        cells.lines((count[0], count[1]), size) if side >= 6 else "",
        cells.outline(across, down),
        *(_mark(column, row, kind, side) for (row, column), kind in sorted(shown.marks.items())),
        cells.row_labels(shown.rows, -6, side),
        cells.number_labels(shown.columns, 0, side, down + 12),
        "</g>",
    ]
    wide = max(across, 6.2 * columns(shown.title), *(5.3 * columns(line) for line in shown.captions))
    return Drawing(left + wide + 2, _TOP + down + 16, "".join(body))


def _mark(column: int, row: int, kind: int, side: float) -> str:
    """Return the dot of a class."""
    x, y = number((column + 0.5) * side), number((row + 0.5) * side)
    return (
        f'<circle cx="{x}" cy="{y}" r="{number(max(1.2, min(3.0, side / 4)))}" '
        f'style="fill:var(--interp-k{kind});stroke:var(--interp-bg);stroke-width:1"/>'
    )


def side_of(shape: tuple[int, int], count: int) -> float:
    """Return the side of the cells of `count` maps of a shape, so that they fill the room in few rows.

    Examples
    --------
    >>> side_of((30, 9), 8), side_of((4, 4), 8)
    (10.0, 22.0)
    """
    across = (WIDTH / min(count, 4) - 70) / shape[1]
    side = max(_SMALLEST, min(_LARGEST, _ROOM / shape[0], across))
    return math.floor(2 * side) / 2


def listing(title: str, lines: Sequence[tuple[str, str]], kind: int | None = None) -> Drawing:
    """Return a titled list: a name in front, its numbers behind; `kind` is the class whose dot stands at the title.

    Examples
    --------
    >>> listing("induction", [("L18H6", "0.89")]).height
    40
    """
    x = 0 if kind is None else 12
    body = [
        "" if kind is None else f'<circle cx="4" cy="7" r="3.5" style="fill:var(--interp-k{kind})"/>',
        f'<text class="interp-t" style="font-size:11.5px;font-weight:600;fill:var(--interp-fg)" x="{x}" y="11">'
        f"{escape(title)}</text>",
    ]
    name = max((columns(label) for label, _ in lines), default=0) * 11 * ADVANCE + 10
    for n, (label, value) in enumerate(lines):
        y = 28 + _LINE * n
        body.append(draw.text(0, y, label, "m", more=' style="font-size:11px"'))
        body.append(draw.text(name if value else 0, y, value, more=' style="font-size:11px"'))
    wide = max(
        x + 7.4 * columns(title), *(name + 6.0 * columns(value) if value else name for _, value in lines or [("", "")])
    )
    return Drawing(wide, 24 + _LINE * len(lines), "".join(body))
