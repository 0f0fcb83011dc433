"""One head's attention matrix, large, with its tokens on both axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import cells, draw, heatmap, raster
from interp.views.kit.draw import ADVANCE, Drawing
from interp.views.kit.text import columns, labels

# Up to this many tokens every weight is a drawn cell; above, the matrix is one image.
DRAWN = 48
_SIDE = 300
_LARGEST = 390
_LABEL = 12
_FONT = 10.0


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
    names, shown, left, (below, *_) = _labelled(tokens)
    numbered = len(shown) < count
    queries = [(f"{names[n]} {n}" if numbered else names[n], (n + 0.5) * cell + 3.5) for n in shown]
    lost = ~np.isfinite(weights)
    body = [
        *(draw.text(left - 6, y, name, "m", "end") for name, y in queries),
        below,
        f'<g transform="translate({draw.number(left)} 0)">',
        _mask(count, cell)
        if causal
        else f'<rect class="interp-mask" width="{draw.number(side)}" height="{draw.number(side)}"/>',
        draw.cells(raster.steps(weights), cell) + cells.hatched(lost, (cell, cell))
        if count <= DRAWN
        else draw.images(0, 0, (side, side), raster.steps(weights, pixels), themes),
        cells.lines((count, count), (cell, cell)) if cell >= 5 else "",
        cells.outlined(edge, (cell, cell)) if edge is not None else "",
        "</g>",
    ]
    return Drawing(*size(tokens), "".join(body))


def size(tokens: Sequence[str]) -> tuple[float, float]:
    """Return how wide and how high the matrix of a head is with its labels, in CSS pixels.

    Examples
    --------
    >>> [round(part) for part in size(["a", "b"])]
    [94, 99]
    """
    _, _, left, (_, right, bottom) = _labelled(tokens)
    return max(right, left + len(tokens) * scale(len(tokens))[0] + 2), bottom + 4


def _labelled(tokens: Sequence[str]) -> tuple[list[str], Sequence[int], float, tuple[str, float, float]]:
    """Return the labels, which of them are drawn, the room at their left, and those of columns with where they end."""
    count = len(tokens)
    cell, _ = scale(count)
    names = labels(tokens, _LABEL)
    shown = cells.ticks(count, cell, 9 if cell >= 9 else 14)
    numbered = len(shown) < count
    left = max(columns(names[n]) + (len(str(n)) + 1) * numbered for n in shown) * _FONT * ADVANCE + 6
    keys = [(left + (n + 0.5) * cell, f"{n} {names[n]}" if numbered else names[n]) for n in shown]
    return names, shown, left, heatmap.turned_labels(keys, count * cell + 10)


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


def _mask(count: int, cell: float) -> str:
    if count <= DRAWN:
        steps = "".join(f"V{draw.number(n * cell)}H{draw.number((n + 1) * cell)}" for n in range(1, count))
        return f'<path class="interp-mask" d="M{draw.number(cell)} 0{steps}V0z"/>'
    side = draw.number(count * cell)
    return f'<path class="interp-mask" d="M0 0L{side} {side}V0z"/>'
