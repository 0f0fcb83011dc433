"""What is said about attention patterns: which head is shown large, which edge is its strongest, its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.spec import Node
from interp.views.kit.text import signed
from interp.views.kit.theme import PALETTE

if TYPE_CHECKING:
    from interp.methods.heads.attention import AttentionResult

# Of a head's numbers, which are means over queries: what they are called, how many digits they have, in which unit.
_STATS: dict[str, dict[str, Any]] = PALETTE["stats"]


def interesting(result: AttentionResult) -> tuple[int, int]:
    """Return the indices of the head that is shown large.

    It is the head whose queries put the largest weight, on average, on a single token other than the first, themselves
    and their neighbours: one that looks something up rather than rests on a fixed place. In a bidirectional model the
    last token, a resting place too, does not count either.
    """
    _, _, length, _ = result.pattern.shape
    positions = np.arange(length)
    far = np.abs(positions[:, None] - positions[None, :]) > 1
    far[:, 0] = False
    if not result.causal:
        far[:, -1] = False
    # Layer by layer: a copy of the whole pattern could be as large as the model.
    scores = np.stack([np.where(far & np.isfinite(layer), layer, 0).max(-1).mean(-1) for layer in result.pattern])
    layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(layer), int(head)


def opening(result: AttentionResult) -> tuple[int, int]:
    """Return the indices of the head that a picture and a view open with: a classified one, else an interesting one."""
    for name in result.labels:
        node = Node.parse(name)
        if node.layer in result.layers and node.head in result.heads:
            return result.layers.index(node.layer), result.heads.index(node.head)
    return interesting(result)


def largest(weights: NDArray[np.float32]) -> float:
    """Return the largest finite weight, or 1 where there is none above 0.

    Examples
    --------
    >>> largest(np.array([0.5, np.inf], np.float32))
    0.5
    """
    finite = weights[np.isfinite(weights)]
    top = float(finite.max()) if finite.size else 0.0
    return top if top > 0 else 1.0


def strongest(weights: NDArray[np.float32]) -> tuple[int, int] | None:
    """Return the (query, key) of the largest weight on a token other than the first and the query itself.

    Where there is none, the largest of all; ``None`` if no weight is finite.

    Examples
    --------
    >>> strongest(np.array([[1, 0, 0], [1, 0, 0], [0.3, 0.6, 0.1]], np.float32))
    (2, 1)
    """
    finite = np.where(np.isfinite(weights), weights, -1)
    if finite.max() < 0:
        return None
    beyond = finite.copy()
    np.fill_diagonal(beyond, -1)
    beyond[:, 0] = -1
    table = beyond if beyond.max() > 0 else finite
    query, key = divmod(int(table.argmax()), weights.shape[1])
    return query, key


def most(weights: NDArray[np.float32], count: int = 3) -> list[tuple[int, float]]:
    """Return the (position, weight) of the largest finite weights of one row, largest first.

    Examples
    --------
    >>> [n for n, _ in most(np.array([0.1, 0.7, 0.2], np.float32), 2)]
    [1, 2]
    """
    order = np.argsort(-np.where(np.isfinite(weights), weights, -1), kind="stable")[:count]
    return [(int(n), float(weights[n])) for n in order if np.isfinite(weights[n]) and weights[n] > 0]


def statistics(result: AttentionResult, head: tuple[int, int]) -> list[str]:
    """Return a head's statistics in words and numbers."""
    words: list[str] = []
    for name, values in result.stats.items():
        called = _STATS.get(name, {"name": name.replace("_", " "), "unit": ""})
        value = statistic(name, float(values[head]))
        said = f"{value}{called['unit']}" if value else "not a number"
        words.append(f"{called['name']} {said}")
    return words


def statistic(name: str, value: float) -> str:
    """Return one of a head's numbers as it is written everywhere; nothing where it is not a number.

    Examples
    --------
    >>> statistic("entropy", 1.236), statistic("distance", -0.01), statistic("entropy", np.nan)
    ('1.24', '0.0', '')
    """
    if not math.isfinite(value):
        return ""
    text = f"{value:.{_STATS.get(name, {'digits': 3})['digits']}f}"
    # What rounds to nothing has no sign.
    return text.removeprefix("-") if not float(text) else text.replace("-", "−")


def weight(value: float) -> str:
    """Return a weight as it is written everywhere.

    Examples
    --------
    >>> weight(0.25), weight(0.0004), weight(0.0)
    ('0.250', '0.0004', '0')
    """
    return signed(value).removeprefix("+")


def remarks(result: AttentionResult) -> list[str]:
    """Return what must be said about weights that are not finite, and the result's own notes."""
    bad = np.stack([~np.isfinite(layer).all((-1, -2)) for layer in result.pattern])
    said: list[str] = []
    if bad.any():
        layer, head = np.argwhere(bad)[0].tolist()
        count = int(bad.sum())
        said.append(
            f"{count} head{'s hold' if count > 1 else ' holds'} weights that are not finite (hatched), from layer "
            f"{result.layers[layer]} on: L{result.layers[layer]}H{result.heads[head]} is the first"
        )
    return [*said, *result.notes]
