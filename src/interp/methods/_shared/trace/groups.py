"""Super-nodes found by themselves: features that are labelled alike, or write and act alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from interp.engine.features.attribution import Traced
    from interp.methods._shared.trace.result import TraceResult
    from interp.results.tables import Float

_NEAR = 0.6  # the least mean of both cosines, of what is written and of what is led to, between any two in a group


def automatic(result: TraceResult, traced: Traced, entries: Mapping[int, int]) -> dict[str, tuple[str, ...]]:
    """Return super-nodes: features with the same label, then features that are near in what they write and lead to.

    Groups are joined while all pairs across them are near (complete linkage).

    Parameters
    ----------
    entries
        Node → the number of its feature among the sources of `traced`.
    """
    numbers = sorted(entries, key=lambda number: -result.influences[number])
    labels = [result.labels.get(result.names[number].partition("@")[0], "") for number in numbers]
    near = _nearness(result, traced, [entries[number] for number in numbers], numbers)
    same = np.array([[bool(a) and a == b for b in labels] for a in labels]).reshape(near.shape)
    near = np.where(same, 1.0, near)
    held = [[n] for n in range(len(numbers))]
    while len(held) > 1:
        linked = np.array([[near[np.ix_(a, b)].min() for b in held] for a in held])
        np.fill_diagonal(linked, -1.0)
        first, second = np.unravel_index(int(linked.argmax()), linked.shape)
        if linked[first, second] < _NEAR:
            break
        held[int(first)] += held[int(second)]
        del held[int(second)]
    found: dict[str, tuple[str, ...]] = {}
    for group in held:
        if len(group) > 1:
            strongest = min(group)
            said = labels[strongest] or result.names[numbers[strongest]].partition("@")[0]
            found[_free(said, found)] = tuple(result.names[numbers[n]] for n in sorted(group))
    return found


def _free(name: str, taken: Mapping[str, object]) -> str:
    number = 2
    while (said := name if number == 2 and name not in taken else f"{name} {number}") in taken:
        number += 1
    return said


def _nearness(result: TraceResult, traced: Traced, entries: Sequence[int], numbers: Sequence[int]) -> Float:
    """Return how near features are, ``[feature, feature]``: the mean cosine of what they write, and of their edges."""
    import torch

    held = traced.sources
    chosen = torch.tensor(list(entries), dtype=torch.int64)
    written = torch.stack([held.written(chosen, layer) for layer in range(len(held.frozen))]).sum(0)
    led = np.zeros((len(numbers), len(result.kinds)))
    place = {number: n for n, number in enumerate(numbers)}
    for source, target, weight in zip(result.edge_sources, result.edge_targets, result.weights, strict=True):
        if int(source) in place:
            led[place[int(source)], int(target)] = weight
    return (_cosines(written.double().cpu().numpy()) + _cosines(led)) / 2


def _cosines(rows: Float) -> Float:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return unit @ unit.T
