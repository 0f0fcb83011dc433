"""Cells with something written in them: a row per layer or head, a column per token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.views.kit import cells, draw, heatmap, theme
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.text import columns

_FONT = 10.0
_HIGH, _PAD, _LEAST = 17, 8, 26
_ABOVE = 18  # what the names of spans take


@dataclass(frozen=True)
class Cell:
    """What is in a place of the grid.

    Attributes
    ----------
    text
        As it is shown.
    value
        In 0 … 1 for sequential colours, −1 … 1 for diverging ones; NaN is hatched.
    """

    text: str
    value: float


def grid(
    held: Sequence[Sequence[Cell]],
    rows: Sequence[str],
    columns_: Sequence[str],
    *,
    signed: bool = False,
    level: bool = False,
    ring: tuple[int, int] | None = None,
    spans: Mapping[str, Sequence[int]] | None = None,
) -> Drawing:
    """Return the cells, ``[row][column]``, as wide as the longest text in them, labelled at the left and below.

    Parameters
    ----------
    held
        All rows of one length.
    rows, columns_
        Labels; those of the columns are tokens.
    signed
        Whether colours diverge from zero.
    level
        Whether cells are made as wide as the columns' labels, so that these need not be turned.
    ring
        The (row, column) to outline.
    spans
        Name → columns that it is written over.

    Examples
    --------
    >>> grid([[Cell("a", 0.5)]], ["L0"], ["x"]).height > 17
    True
    """
    advance = _FONT * ADVANCE
    longest = max(columns(label) for label in columns_)
    widest = max([*(columns(cell.text) for row in held for cell in row), longest * level])
    size = wide, _ = max(_LEAST, math.ceil(widest * advance + _PAD)), _HIGH
    left = heatmap.margin(rows)
    count = len(held), len(columns_)
    across, down = count[1] * wide, count[0] * _HIGH
    values = np.array([[cell.value for cell in row] for row in held])
    known = np.where(np.isfinite(values), values, 0.0)
    painted = heatmap.colours(known, size) if signed else draw.cells(theme.level(known), *size)
    middles = [left + (x + 0.5) * wide for x in range(count[1])]
    right, bottom = 0.0, down + 18.0
    if longest * advance > wide - 4:
        placed = list(zip(middles, columns_, strict=True))
        named, right, bottom = heatmap.turned_labels(placed, down + 11)
        bottom += 4
    else:
        pairs = zip(middles, columns_, strict=True)
        named = "".join(draw.text(middle, down + 13, label, "m", "middle") for middle, label in pairs)
    body = [
        cells.row_labels(rows, left - 6, _HIGH),
        named,
        f'<g transform="translate({number(left)} 0)">',
        f'<rect class="interp-tile" width="{across}" height="{down}"/>',
        f'<g shape-rendering="crispEdges">{painted}</g>',
        cells.hatched(~np.isfinite(values), size),
        cells.lines(count, size),
        *(_written(cell, x, y, wide, signed) for y, row in enumerate(held) for x, cell in enumerate(row) if cell.text),
        cells.outlined(ring, size) if ring is not None else "",
        "</g>",
    ]
    whole = Drawing(max(left + across, right) + 2, bottom + 2, "".join(body))
    if not spans:
        return whole
    over = "".join(_bracket(name, run, left, wide) for name, own in spans.items() for run in _runs(own))
    return Drawing(whole.width, whole.height + _ABOVE, over + draw.group(whole, 0, _ABOVE))


def _runs(columns_: Sequence[int]) -> list[range]:
    """Return neighbours together: a range of columns for each piece of a span."""
    found: list[range] = []
    for at in sorted(columns_):
        found[-1:] = (
            [range(found[-1].start, at + 1)] if found and found[-1].stop == at else [*found[-1:], range(at, at + 1)]
        )
    return found


def _bracket(name: str, run: range, left: float, wide: float) -> str:
    start, stop = left + run.start * wide + 2, left + run.stop * wide - 2
    path = f"M{number(start)} {_ABOVE - 2}v-3H{number(stop)}v3"
    room = max(2, int((stop - start + 2) / (_FONT * ADVANCE)))
    shown = name if columns(name) <= room else f"{name[: room - 1]}…"
    line = '<path style="fill:none;stroke:var(--interp-muted);stroke-width:1"'
    return f'{line} d="{path}"/>' + draw.text((start + stop) / 2, _ABOVE - 8, shown, "t", "middle")


def _written(cell: Cell, x: int, y: int, wide: float, signed: bool) -> str:
    style = f' style="fill:{heatmap.fills(cell.value, signed)[1]}"'
    return draw.text((x + 0.5) * wide, (y + 0.5) * _HIGH + 3.5, cell.text, "m", "middle", more=style)
