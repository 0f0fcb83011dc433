"""How alike two attribution graphs are by their features and by the edges between these, wherever in a prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared.trace.parts import TOP_EDGES

if TYPE_CHECKING:
    from interp.methods._shared.trace.result import TraceResult
    from interp.results.tables import Float

    Feature = tuple[int, int]  # its layer and number
    Pair = tuple[Feature, Feature]  # source, target


def alike(graph: TraceResult, other: TraceResult) -> Float:
    """Return how alike another prompt's graph is, ``float64 [figure]``: see `TraceStability`.

    The weighted Jaccard index is Ružička's (1958), "Anwendung mathematisch-statistischer Methoden in der Geobotanik".
    That what a list lacks ranks last in it: Fagin, Kumar and Sivakumar (2003), "Comparing Top k Lists".
    """
    own, theirs = by_feature(graph), by_feature(other)
    again = math.fsum(value for feature, value in own.items() if feature in theirs)
    whole = math.fsum(own.values())
    return np.array(
        [
            weighted_jaccard(own, theirs),
            again / whole if whole else math.nan,
            jaccard(top_pairs(graph), top_pairs(other)),
            spearman(own, theirs),
        ]
    )


def by_feature(graph: TraceResult) -> dict[Feature, float]:
    """Return the influence of each feature, over all positions."""
    found: dict[Feature, list[float]] = {}
    for number, kind in enumerate(graph.kinds):
        if kind == "feature":
            found.setdefault(_feature(graph, number), []).append(float(graph.influences[number]))
    # Exact sums: they do not depend on the order of positions.
    return {feature: math.fsum(values) for feature, values in found.items()}


def top_pairs(graph: TraceResult) -> frozenset[Pair]:
    """Return the pairs of features whose edges are the most influential, over all positions."""
    found: dict[Pair, list[float]] = {}
    ends = zip(graph.edge_sources.tolist(), graph.edge_targets.tolist(), strict=True)
    for (source, target), share in zip(ends, graph.edge_influences.tolist(), strict=True):
        if graph.kinds[source] == graph.kinds[target] == "feature":
            found.setdefault((_feature(graph, source), _feature(graph, target)), []).append(share)
    summed = {pair: math.fsum(shares) for pair, shares in found.items()}
    return frozenset(sorted(summed, key=lambda pair: (-summed[pair], pair))[:TOP_EDGES])


def _feature(graph: TraceResult, number: int) -> Feature:
    return int(graph.node_layers[number]), int(graph.node_features[number])


def weighted_jaccard(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    """Return Σ min / Σ max of two sets of weights, each divided by its sum; NaN where one has none.

    Examples
    --------
    >>> weighted_jaccard({"a": 3.0, "b": 1.0}, {"a": 1.0, "b": 1.0})  # (1/2 + 1/4) / (3/4 + 1/2)
    0.6
    >>> weighted_jaccard({"a": 0.1, "b": 0.7}, {"a": 0.1, "b": 0.7}), weighted_jaccard({"a": 1.0}, {"b": 1.0})
    (1.0, 0.0)
    """
    sums = math.fsum(one.values()), math.fsum(other.values())
    if not all(sums):
        return math.nan
    both = [(one.get(key, 0.0) / sums[0], other.get(key, 0.0) / sums[1]) for key in {**one, **other}]
    return math.fsum(map(min, both)) / math.fsum(map(max, both))


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    """Return how many of the things in either set are in both; NaN of two empty ones."""
    return len(one & other) / len(one | other) if one or other else math.nan


def spearman(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    """Return the rank correlation of two sets of weights, of which what one lacks is 0; NaN where one has no order.

    Examples
    --------
    >>> spearman({"a": 3.0, "b": 1.0}, {"a": 3.0, "b": 2.0}), spearman({"a": 1.0}, {"b": 1.0})
    (1.0, -1.0)
    """
    keys = list({**one, **other})
    if not one or not other:
        return math.nan
    first, second = (_ranks(np.array([held.get(key, 0.0) for key in keys])) for held in (one, other))
    first, second = first - first.mean(), second - second.mean()
    size = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / size if size else math.nan


def _ranks(values: Float) -> Float:
    """Return the places of values in ascending order; equal ones have the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]
