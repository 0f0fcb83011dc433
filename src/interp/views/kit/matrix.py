"""One head's attention matrix, large, with its tokens on both axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import draw, raster
from interp.views.kit.draw import ADVANCE, Drawing
from interp.views.kit.text import columns, labels

# Up to this many tokens every weight is a drawn cell; above, the matrix is one image.
DRAWN = 48
_SIDE = 300
_LARGEST = 390
_LABEL = 12
_FONT = 10.0
_TURN = 55


def matrix(
    weights: NDArray[np.float32],
    tokens: Sequence[str],
    themes: Sequence[str],
    *,
    causal: bool,
    edge: tuple[int, int] | None = None,
) -> Drawing:
    """Return the matrix of one head: a row per query, a column per key.

    Parameters
    ----------
    weights
        ``float32 [query, key]``.
    tokens
        One per position.
    themes
        Which themes the picture must serve.
    causal
        Whether keys after the query are drawn as absent rather than as zero.
    edge
        The (query, key) to outline.

    Examples
    --------
    >>> matrix(np.eye(2, dtype=np.float32), ["a", "b"], ["light"], causal=True).height > 0
    True
    """
    count = len(tokens)
    cell, pixels = scale(count)
    side = count * cell
    names = labels(tokens, _LABEL)
    shown = _ticks(count, cell)
    numbered = len(shown) < count
    left = max(columns(names[n]) + (len(str(n)) + 1) * numbered for n in shown) * _FONT * ADVANCE + 6
    turned = math.radians(_TURN)
    right, below = 0.0, 0.0
    body: list[str] = []
    for n in shown:
        label = f"{n} {names[n]}" if numbered else names[n]
        at = (n + 0.5) * cell
        length = columns(label) * _FONT * ADVANCE
        right = max(right, left + at + length * math.cos(turned) + 4)
        below = max(below, length * math.sin(turned) + 12)
        body.append(draw.text(left - 6, at + 3.5, f"{names[n]} {n}" if numbered else label, "m", "end"))
        body.append(draw.text(left + at - 3, side + 10, label, "m", turn=_TURN))
    body.append(f'<g transform="translate({draw.number(left)} 0)">')
    body.append(
        _mask(count, cell)
        if causal
        else f'<rect class="interp-mask" width="{draw.number(side)}" height="{draw.number(side)}"/>'
    )
    if count <= DRAWN:
        body += [draw.cells(raster.steps(weights), cell), _hatch(weights, cell)]
    else:
        body.append(draw.images(0, 0, (side, side), raster.steps(weights, pixels), themes))
    if cell >= 5:
        lines = "".join(
            f"M{draw.number(n * cell)} 0V{draw.number(side)}M0 {draw.number(n * cell)}H{draw.number(side)}"
            for n in range(1, count)
        )
        body.append(f'<path class="interp-cut" d="{lines}"/>')
    if edge is not None:
        body.append(_ring(edge, cell))
    body.append("</g>")
    return Drawing(max(right, left + side + 2), side + below + 2, "".join(body))


def scale(count: int) -> tuple[float, int]:
    """Return the side of a cell in CSS pixels, and of the picture in pixels: less than `count` if cells are pooled.

    Examples
    --------
    >>> scale(15), scale(300), scale(512)
    ((20.0, 15), (1.0, 300), (0.75, 256))
    """
    if count <= DRAWN:
        return min(40.0, math.floor(2 * _SIDE / count) / 2), count
    pixels = math.ceil(count / math.ceil(count / _LARGEST))
    return math.floor(2 * _LARGEST / pixels) / 2 * pixels / count, pixels


def _ticks(count: int, cell: float) -> range:
    """Return the positions that are labelled: all of them where there is room, else round numbers."""
    if cell >= 9:
        return range(count)
    return range(0, count, next(n for n in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if n * cell >= 14))


def _mask(count: int, cell: float) -> str:
    if count <= DRAWN:
        steps = "".join(f"V{draw.number(n * cell)}H{draw.number((n + 1) * cell)}" for n in range(1, count))
        return f'<path class="interp-mask" d="M{draw.number(cell)} 0{steps}V0z"/>'
    side = draw.number(count * cell)
    return f'<path class="interp-mask" d="M0 0L{side} {side}V0z"/>'


def _hatch(weights: NDArray[np.float32], cell: float) -> str:
    """Return diagonal strokes over the cells that are not finite."""
    strokes: list[str] = []
    for query, key in np.argwhere(~np.isfinite(weights)).tolist():
        x, y, half = key * cell, query * cell, cell / 2
        for x1, y1, x2, y2 in ((0, cell, cell, 0), (0, half, half, 0), (half, cell, cell, half)):
            strokes.append(f"M{draw.number(x + x1)} {draw.number(y + y1)}L{draw.number(x + x2)} {draw.number(y + y2)}")
    return f'<path class="interp-hatch" d="{"".join(strokes)}"/>' if strokes else ""


def _ring(edge: tuple[int, int], cell: float) -> str:
    side = max(cell, 6)
    x, y = ((n + 0.5) * cell - side / 2 for n in (edge[1], edge[0]))
    return (
        f'<rect class="interp-ring" style="stroke-width:1.5" x="{draw.number(x)}" y="{draw.number(y)}" '
        f'width="{draw.number(side)}" height="{draw.number(side)}" rx="2"/>'
    )
