"""Attention matrices as bytes: pooled, quantised, cut into messages that every front end can take."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.views.attention_reading import largest

Float = NDArray[np.float32]

MESSAGE = 450_000  # bytes of payload in a message; with its frame it stays below 500 kB
TILE = 448  # the side of a float16 tile that fits
WHOLE = 700  # tokens up to which a head travels in one message
_STEPS = 254  # of a uint8's range; what is left stands for what is no number
OVERVIEW = 512  # the side of what stands for a larger head


def thumbnail_side(heads: int, tokens: int, room: int = MESSAGE) -> int:
    """Return the side of each head's thumbnail, so that all of them fit into `room` bytes.

    Examples
    --------
    >>> thumbnail_side(144, 512), thumbnail_side(144, 15)
    (55, 15)
    """
    return max(1, min(64, tokens, isqrt(max(0, min(room, MESSAGE)) // heads)))


def bins(tokens: int, side: int) -> NDArray[np.intp]:
    """Return where each of `side` bins of tokens begins. The first token, a common sink, has a bin of its own.

    Examples
    --------
    >>> bins(9, 5).tolist()
    [0, 1, 3, 5, 7]
    """
    if tokens <= side or side < 2:
        return np.arange(min(tokens, side))
    return np.concatenate([[0], 1 + np.arange(side - 1) * (tokens - 1) // (side - 1)])


def pool(matrices: Float, side: int) -> Float:
    """Shrink ``[…, query, key]`` to `side`, each cell the largest weight it stands for (so that lines survive)."""
    tokens = matrices.shape[-1]
    if tokens <= side:
        return matrices
    starts = bins(tokens, side)
    return np.maximum.reduceat(np.maximum.reduceat(matrices, starts, axis=-2), starts, axis=-1)


def quantise(values: Float, scale: float) -> NDArray[np.uint8]:
    """Return `values` of the range 0 to `scale` in 254 steps: off by at most 1/508 of the range.

    What is not finite becomes 255.

    Examples
    --------
    >>> quantise(np.array([0.0, 0.5, 1.0, np.nan], np.float32), 1.0).tolist()
    [0, 127, 254, 255]
    """
    finite = np.isfinite(values)
    steps = np.clip(np.where(finite, values, 0.0) / (scale or 1.0), 0.0, 1.0) * _STEPS
    return np.where(finite, np.floor(steps + 0.5), 255).astype(np.uint8)


def atlas(patterns: NDArray[Any], side: int, norms: Float | None = None) -> bytes:
    """Return every head's thumbnail, ``uint8 [layer, head, side, side]``.

    Weights are of the range 0 to 1; value-weighted ones (where `norms` is given) of each head's own range.
    """
    parts: list[bytes] = []
    for index, layer in enumerate(patterns):
        small = pool(layer if norms is None else layer * norms[index][:, None, :], side)
        parts += [quantise(head, 1.0 if norms is None else largest(head)).tobytes() for head in small]
    return b"".join(parts)


def head(matrix: Float, causal: bool, scale: float) -> tuple[dict[str, Any], bytes]:
    """Return one head for one message: how to read it, and its bytes.

    float16 where that fits, else uint8, of ``value / scale``; a causal head is its lower triangle, row by row; above
    `WHOLE` tokens it is an overview, each cell the largest weight of its bin.
    """
    tokens = matrix.shape[-1]
    side = tokens if tokens <= WHOLE else OVERVIEW
    cells = pool(matrix, side) if side < tokens else matrix
    flat = cells[np.tril_indices(side)] if causal else cells.reshape(-1)
    if side == tokens and flat.size * 2 <= MESSAGE:
        kind, data = "f2", half(flat, scale)
    else:
        kind, data = "u1", quantise(flat, scale).tobytes()
    return {"side": side, "type": kind, "triangle": causal, "scale": scale}, data


def half(values: Float, scale: float) -> bytes:
    """Return ``values / scale`` as little-endian float16."""
    with np.errstate(invalid="ignore", over="ignore"):
        return (values / np.float32(scale)).astype("<f2").tobytes()
