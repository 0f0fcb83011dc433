"""The grid of heads: one thumbnail per head, a row per layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.spec import Node
from interp.views.kit import cells, draw, raster, theme
from interp.views.kit.draw import Drawing

if TYPE_CHECKING:
    from interp.methods.heads.attention import AttentionResult

# The room for the grid, and the sizes a thumbnail and the space around it may take there, in CSS pixels.
_ROOM = (418, 420)
_LARGEST, _SMALLEST = 56, 12
_LEFT, _TOP, _BETWEEN = 26, 13, 16


@dataclass(frozen=True)
class _Plan:
    side: int
    gap: int
    scale: float
    blocks: int

    @property
    def pitch(self) -> float:
        return (self.side + self.gap) * self.scale


def classes(result: AttentionResult) -> dict[str, tuple[int, int]]:
    """Return, for each class of head that is labelled, its colour's number and how many heads have it."""
    held = [label for name, label in result.labels.items() if _place(result, name) is not None]
    return {label: (n % theme.CLASSES, held.count(label)) for n, label in enumerate(sorted(set(held)))}


def grid(result: AttentionResult, chosen: tuple[int, int], themes: Sequence[str]) -> Drawing:
    """Return the thumbnails of every head, `chosen` (indices into the pattern) ringed, labelled heads dotted.

    Many layers stand in several blocks side by side, so that all of them are seen at once.
    """
    layers, heads, length, _ = result.pattern.shape
    plan = _plan(layers, heads, length)
    rows = math.ceil(layers / plan.blocks)
    wide, pitch, inner = heads * plan.pitch, plan.pitch, plan.side * plan.scale
    stride = _LEFT + wide + _BETWEEN
    body: list[str] = []
    for block in range(plan.blocks):
        first = block * rows
        held = range(first, min(first + rows, layers))
        x = block * stride + _LEFT
        for head in cells.ticks(heads, pitch, 16):
            body.append(draw.text(x + head * pitch + inner / 2, 8, str(result.heads[head]), anchor="middle"))
        for row in cells.ticks(len(held), pitch, 11):
            y = _TOP + row * pitch + inner / 2 + 3.5
            body.append(draw.text(x - 5, y, f"L{result.layers[first + row]}", anchor="end"))
        tiles = "".join(
            f"M{draw.number(x + head * pitch)} {draw.number(_TOP + row * pitch)}"
            f"h{draw.number(inner)}v{draw.number(inner)}h-{draw.number(inner)}z"
            for row in range(len(held))
            for head in range(heads)
        )
        body.append(f'<path class="interp-tile" d="{tiles}"/>')
        atlas = _atlas(result, held, plan)
        size = (atlas.shape[1] * plan.scale, atlas.shape[0] * plan.scale)
        body.append(draw.images(x, _TOP, size, atlas, themes))

    def corner(layer: int, head: int) -> tuple[float, float]:
        return (layer // rows) * stride + _LEFT + head * pitch, _TOP + (layer % rows) * pitch

    body.append(_dots(result, corner, inner))
    if layers * heads > 1:
        x, y = corner(*chosen)
        side = draw.number(inner + 3)
        body.append(
            f'<rect class="interp-ring" x="{draw.number(x - 1.5)}" y="{draw.number(y - 1.5)}" width="{side}" '
            f'height="{side}" rx="3"/>'
        )
    return Drawing(*_size(layers, heads, plan), "".join(body))


def size(result: AttentionResult) -> tuple[float, float]:
    """Return how wide and how high the thumbnails of every head are, in CSS pixels."""
    layers, heads, length, _ = result.pattern.shape
    return _size(layers, heads, _plan(layers, heads, length))


def _size(layers: int, heads: int, plan: _Plan) -> tuple[float, float]:
    stride = _LEFT + heads * plan.pitch + _BETWEEN
    return plan.blocks * stride - _BETWEEN + 2, _TOP + math.ceil(layers / plan.blocks) * plan.pitch + 1


def _plan(layers: int, heads: int, length: int) -> _Plan:
    """Choose how many blocks the layers stand in so that thumbnails are largest, and how many pixels one has."""

    def room(blocks: int) -> float:
        across = (_ROOM[0] - blocks * _LEFT - (blocks - 1) * _BETWEEN) / (heads * blocks)
        return min(_LARGEST, across, (_ROOM[1] - _TOP) / math.ceil(layers / blocks))

    blocks = max(range(1, 5), key=lambda n: (room(n), -n))
    pitch = max(_SMALLEST, room(blocks))
    if length >= pitch:
        # Whole blocks of tokens, so that a diagonal stays one; up to half again as many pixels as are drawn.
        side = math.ceil(length / math.ceil(length / (1.5 * pitch)))
        return _Plan(side, 2, pitch / (side + 2), blocks)
    side = length * max(1, 12 // length)
    exact = pitch / (side + 1)
    # Whole and half pixels to a pixel are sharpest.
    scale = next((s for s in (math.floor(n * exact) / n for n in (1, 2, 4)) if s >= 0.9 * exact), exact)
    return _Plan(side, 1, scale, blocks)


def _atlas(result: AttentionResult, held: range, plan: _Plan) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pitch = plan.side + plan.gap
    heads = result.pattern.shape[1]
    atlas = np.zeros((len(held) * pitch - plan.gap, heads * pitch - plan.gap), np.uint8)
    for row, layer in enumerate(held):
        for head in range(heads):
            y, x = row * pitch, head * pitch
            atlas[y : y + plan.side, x : x + plan.side] = raster.steps(result.pattern[layer, head], plan.side)
    return atlas


def _dots(result: AttentionResult, corner: Callable[[int, int], tuple[float, float]], inner: float) -> str:
    numbers = classes(result)
    size = min(2.5, inner / 6)
    marks: list[str] = []
    for name, label in result.labels.items():
        place = _place(result, name)
        if place is not None:
            x, y = corner(*place)
            marks.append(
                f'<circle cx="{draw.number(x + inner - size - 1)}" cy="{draw.number(y + size + 1)}" '
                f'r="{draw.number(size)}" style="fill:var(--interp-k{numbers[label][0]})"/>'
            )
    return "".join(marks)


def _place(result: AttentionResult, name: str) -> tuple[int, int] | None:
    """Return a head's indices into the pattern; ``None`` for one that this result does not hold."""
    node = Node.parse(name)
    try:
        return result.layers.index(node.layer), result.heads.index(node.head)
    except ValueError:
        return None
