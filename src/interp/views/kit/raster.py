"""Small indexed PNG files of weights, with nothing but zlib and numpy."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import theme as themes

# Palette entries beyond the steps of the scale.
HATCH = themes.LEVELS + 1
_LEVEL = 7  # of zlib: 9 takes seven times as long here for 2 % fewer bytes


def steps(weights: NDArray[np.floating], size: int | None = None) -> NDArray[np.uint8]:
    """Return a square of weights as palette entries; what is not finite is hatched.

    Parameters
    ----------
    weights
        ``[query, key]``.
    size
        The side of the picture. A smaller one keeps the largest weight of each block, so that a single strong edge
        among many tokens is not averaged away; a larger one, a multiple, repeats.

    Examples
    --------
    >>> steps(np.eye(2), 4)[0].tolist()
    [32, 32, 0, 0]
    """
    count = weights.shape[0]
    side = count if size is None else size
    lost = ~np.isfinite(weights)
    known = np.where(lost, 0, weights) if lost.any() else weights
    if side < count:
        starts = np.arange(side) * count // side
        known, lost = _pool(known, starts), _pool(lost, starts)
    picture = themes.level(known)
    if side > count:
        picture, lost = (np.kron(part, np.ones((side // count,) * 2, part.dtype)) for part in (picture, lost))
    if lost.any():
        rows, cells = np.indices(lost.shape)
        stripe = (rows + cells) % max(2, min(4, side // 3)) == 0
        picture = np.where(lost & stripe, HATCH, np.where(lost, 0, picture)).astype(np.uint8)
    return picture


def data_uri(picture: NDArray[np.uint8], theme: str) -> str:
    """Return palette entries, ``[row, column]``, as the ``data:`` address of a PNG in a theme's colours.

    Examples
    --------
    >>> data_uri(np.zeros((1, 1), np.uint8), "light")[:22]
    'data:image/png;base64,'
    """
    return "data:image/png;base64," + base64.b64encode(png(picture, theme)).decode()


def png(picture: NDArray[np.uint8], theme: str) -> bytes:
    """Return palette entries, ``[row, column]``, as a PNG file in a theme's colours; entry 0 is transparent.

    Examples
    --------
    >>> png(np.zeros((2, 3), np.uint8), "dark")[1:4]
    b'PNG'
    """
    table = [*themes.sequential(theme), (*_rgb(themes.colour("nan", theme)), 255)]
    height, width = picture.shape
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = picture
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", b"".join(bytes(colour[:3]) for colour in table)),
        (b"tRNS", bytes(colour[3] for colour in table)),
        (b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _pool(square: NDArray[Any], starts: NDArray[np.integer]) -> NDArray[Any]:
    return np.maximum.reduceat(np.maximum.reduceat(square, starts, 0), starts, 1)


def _rgb(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
