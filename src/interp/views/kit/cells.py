"""What pictures of cells share: which labels are written and where, the lines between cells, what lies on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import draw
from interp.views.kit.draw import number
from interp.views.kit.text import columns

_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # between labels that are written

Size = tuple[float, float]  # a cell's width and height, in CSS pixels


def ticks(count: int, pitch: float, least: float) -> range:
    """Return which of `count` labels to write so that they stand at least `least` pixels apart.

    Examples
    --------
    >>> list(ticks(12, 5, 11)), list(ticks(12, 12, 11)) == list(range(12))
    ([0, 5, 10], True)
    """
    return range(0, count, next((n for n in _STEPS if n * pitch >= least), 10**6))


def row_labels(labels: Sequence[str], x: float, pitch: float, top: float = 0.0) -> str:
    """Return the labels of rows, which end at `x`, none of them higher than `top`.

    Examples
    --------
    >>> row_labels(["L0"], 10, 20)
    '<text class="interp-t" x="10" y="13.5" text-anchor="end">L0</text>'
    """
    held = ticks(len(labels), pitch, 11)
    return "".join(draw.text(x, max(top, (n + 0.5) * pitch + 3.5), labels[n], anchor="end") for n in held)


def number_labels(labels: Sequence[str], left: float, pitch: float, y: float) -> str:
    """Return short labels below columns, the first of which begins at `left`.

    Examples
    --------
    >>> number_labels(["0"], 0, 20, 50)
    '<text class="interp-t" x="10" y="50" text-anchor="middle">0</text>'
    """
    held = ticks(len(labels), pitch, 0.8 * (7 + 6 * max(columns(label) for label in labels)))
    return "".join(draw.text(left + (n + 0.5) * pitch, y, labels[n], anchor="middle") for n in held)


def rectangles(held: NDArray[np.bool_], size: Size) -> str:
    """Return the path of the cells, ``[row, column]``, that are held.

    Examples
    --------
    >>> rectangles(np.array([[False, True]]), (8, 4))
    'M8 0h8v4h-8z'
    """
    wide, high = size
    return "".join(
        f"M{number(x * wide)} {number(y * high)}h{number(wide)}v{number(high)}h-{number(wide)}z"
        for y, x in np.argwhere(held).tolist()
    )


def hatch(x: float, y: float, wide: float, high: float) -> str:
    """Return three diagonal strokes over a rectangle: its value is not finite.

    Examples
    --------
    >>> hatch(0, 0, 8, 8)[:38]
    '<path class="interp-hatch" d="M0 8L8 0'
    """
    return f'<path class="interp-hatch" d="{_strokes(x, y, wide, high)}"/>'


def hatched(held: NDArray[np.bool_], size: Size) -> str:
    """Return the same over each of the cells, ``[row, column]``, that are held.

    Examples
    --------
    >>> hatched(np.zeros((2, 2), bool), (8, 8))
    ''
    """
    wide, high = size
    shape = "".join(_strokes(x * wide, y * high, wide, high) for y, x in np.argwhere(held).tolist())
    return f'<path class="interp-hatch" d="{shape}"/>' if shape else ""


def lines(count: tuple[int, int], size: Size) -> str:
    """Return the lines between rows and between columns.

    Examples
    --------
    >>> lines((1, 2), (8, 8))
    '<path class="interp-cut" d="M8 0V8"/>'
    """
    (rows, held), (wide, high) = count, size
    down = "".join(f"M{number(n * wide)} 0V{number(rows * high)}" for n in range(1, held))
    across = "".join(f"M0 {number(n * high)}H{number(held * wide)}" for n in range(1, rows))
    return f'<path class="interp-cut" d="{down}{across}"/>'


def outline(across: float, down: float) -> str:
    """Return the line around all cells.

    Examples
    --------
    >>> outline(8, 8)
    '<rect class="interp-base" fill="none" width="8" height="8"/>'
    """
    return f'<rect class="interp-base" fill="none" width="{number(across)}" height="{number(down)}"/>'


def outlined(cell: tuple[int, int], size: Size) -> str:
    """Return the ring around one cell, (row, column), which can be seen around the smallest.

    Examples
    --------
    >>> 'width="6" height="8"' in outlined((0, 0), (2, 8))
    True
    """
    wide, high = (max(side, 6) for side in size)
    x, y = (cell[1] + 0.5) * size[0] - wide / 2, (cell[0] + 0.5) * size[1] - high / 2
    return (
        f'<rect class="interp-ring" style="stroke-width:1.5" x="{number(x)}" y="{number(y)}" '
        f'width="{number(wide)}" height="{number(high)}" rx="2"/>'
    )


def _strokes(x: float, y: float, wide: float, high: float) -> str:
    ends = ((0, 1, 1, 0), (0, 0.5, 0.5, 0), (0.5, 1, 1, 0.5))
    return "".join(
        f"M{number(x + a * wide)} {number(y + b * high)}L{number(x + c * wide)} {number(y + d * high)}"
        for a, b, c, d in ends
    )
