"""Attention results of known shape, made without a model."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from interp.methods.heads.attention import AttentionResult
from interp.results import Provenance

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" data-commandlinker-command="terminal:open',
    "' onmouseover='alert(1)",
    "]]><!--",
    "\u202eevil",
    "a\u200db",
    "\0",
    "\x1b[31m",
    "\ufffe",
    "\ud800",
    "\ufeff",
    "\u0301",
    "e\u0301",
    "é",
    " x",
    "␣x",
    "\\x00",
    "\\xF0\\x9F",
    "{brace}",
    "%{z}",
    "x" * 100_000,
    "&amp;",
)


def attention(
    depth: int, width: int, tokens: int | Sequence[str], *, causal: bool = True, seed: int = 0, **fields: object
) -> AttentionResult:
    """Return random patterns: rows sum to 1."""
    names = tuple(f" t{n}" for n in range(tokens)) if isinstance(tokens, int) else tuple(tokens)
    count = len(names)
    raw = np.random.default_rng(seed).gamma(0.2, 1.0, (depth, width, count, count)).astype(np.float32) + 1e-6
    if causal:
        raw = np.tril(raw)
    pattern = (raw / raw.sum(-1, keepdims=True)).astype(np.float32)
    distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    stats = {
        "entropy": -(pattern * np.log(np.maximum(pattern, 1e-9))).sum(-1).mean(-1),
        "distance": (pattern * distance).sum(-1).mean(-1),
        "focus": pattern.max(-1).mean(-1),
        "first_token": pattern[..., 0].mean(-1),
    }
    given = {
        "layers": tuple(range(depth)),
        "heads": tuple(range(width)),
        "provenance": Provenance(model="test-model", technique="attention"),
    }
    return AttentionResult(tokens=names, pattern=pattern, stats=stats, causal=causal, **(given | fields))  # type: ignore[arg-type]


def hostile_attention() -> AttentionResult:
    """Return patterns of tokens, a model's name and labels that would run if they were markup."""
    name = '<img src=x onerror="alert(2)">\u202e'
    labels = {"0.1": "<b onclick=alert(3)>induction</b>"}
    return attention(2, 3, HOSTILE, provenance=Provenance(model=name, technique="attention"), labels=labels)


def decode(png: bytes) -> NDArray[np.uint8]:
    """Return the pixels, ``[row, column, channel]``, of an 8-bit PNG that is not interlaced."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    data, palette, alpha, header, at = b"", b"", b"", (0, 0, 0, 0), 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + content) == struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0]
        if kind == b"IHDR":
            header = struct.unpack(">IIBB", content[:10])
        elif kind == b"PLTE":
            palette = content
        elif kind == b"tRNS":
            alpha = content
        elif kind == b"IDAT":
            data += content
        at += 12 + size
    width, height, depth, colour = header
    assert depth == 8
    channels = {2: 3, 3: 1, 6: 4}[colour]
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    image = np.zeros((height, width * channels), np.uint8)
    for n, row in enumerate(rows):
        up = image[n - 1].astype(int) if n else np.zeros(width * channels, int)
        image[n] = _unfilter(int(row[0]), row[1:].astype(int), up, channels)
    pixels = image.reshape(height, width, channels)
    if colour != 3:
        return pixels
    table = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    opacity = np.frombuffer(alpha, np.uint8)
    return np.concatenate([table[pixels[..., 0]], opacity[pixels]], -1)


def _unfilter(kind: int, line: NDArray[np.int_], up: NDArray[np.int_], step: int) -> NDArray[np.uint8]:
    if kind == 0:
        return line.astype(np.uint8)
    if kind == 2:
        return ((line + up) % 256).astype(np.uint8)
    out, above = line.tolist(), up.tolist()
    for n in range(len(out)):
        left = out[n - step] if n >= step else 0
        corner = above[n - step] if n >= step else 0
        guess = {1: left, 3: (left + above[n]) // 2, 4: _paeth(left, above[n], corner)}[kind]
        out[n] = (out[n] + guess) % 256
    return np.array(out, np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    near: Callable[[int], int] = lambda value: abs(left + up - corner - value)  # noqa: E731
    return min((left, up, corner), key=near)
