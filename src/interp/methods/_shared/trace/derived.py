"""What a graph's own nodes and edges say of effects and activations, where no run is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int32]


def effects(
    kinds: Sequence[str], layers: Int, activations: Any, logits: Float, sources: Int, targets: Int, weights: Any
) -> Float:
    """Return what the logits, by their weights, would lose without each node, along the edges given.

    Parameters
    ----------
    logits
        ``float64 [node]``: the weights of logits; of other nodes they do not count.
    """
    ends = np.array([kind == "logit" for kind in kinds])
    found = np.where(ends, logits, 0.0)
    activations = np.asarray(activations, float)
    # What a unit of a node's value is worth: a feature's activation follows its pre-activation.
    features = np.array([kind == "feature" for kind in kinds]) & np.isfinite(activations) & (activations != 0)
    for layer in np.unique(layers)[::-1]:
        own = layers[targets] == layer
        into = targets[own]
        unit = np.where(ends[into], found[into], 0.0)
        unit = np.where(features[into], found[into] / np.where(features, activations, 1.0)[into], unit)
        np.add.at(found, sources[own], unit * np.asarray(weights, float)[own])
    return np.where(ends, np.nan, found)


def fires(kinds: Sequence[str], layers: Int, positions: Int, features: Int, activations: Any, tokens: int) -> Any:
    """Return each feature's activations at the tokens at which it is a node, ``float32 [node, position]``."""
    out = np.zeros((len(kinds), tokens), np.float32)
    names = list(zip(layers.tolist(), features.tolist(), strict=True))
    held: dict[tuple[int, int], list[int]] = {}
    for number, kind in enumerate(kinds):
        if kind == "feature":
            held.setdefault(names[number], []).append(number)
    for same in held.values():
        row = np.zeros(tokens, np.float32)
        row[positions[same]] = np.nan_to_num(np.asarray(activations)[same])
        out[same] = row
    return out
