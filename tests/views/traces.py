"""Attribution graphs of known shape, made without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.methods._shared.trace.parts import TraceCheck, TraceStability
from interp.methods._shared.trace.result import TraceResult
from interp.results import Provenance

TOKENS = ("<bos>", " When", " Mary", " and", " John")
HEADS, NAMED = 4, 3

# A node is (kind, layer, position, feature, influence, effect); an edge (source, target, weight, influence).
NODES = [
    ("embedding", -1, 2, -1, 0.5, 1.5),
    ("embedding", -1, 4, -1, 0.2, -0.5),
    ("feature", 0, 2, 7, 0.4, 1.2),
    ("feature", 0, 4, 3, 0.1, -0.6),
    ("error", 0, 4, -1, 0.15, 0.3),
    ("feature", 1, 4, 7, 0.6, 2.0),
    ("logit", 2, 4, -1, 1.0, 3.0),
]
EDGES = [
    (5, 6, 2.0, 0.5),
    (2, 5, 1.2, 0.3),
    (0, 2, 1.5, 0.25),
    (1, 3, 0.8, 0.04),
    (3, 5, -0.6, 0.05),
    (4, 6, 0.3, 0.1),
    (1, 6, -0.5, 0.08),
]


def planted(
    nodes: Sequence[tuple[Any, ...]] = NODES,
    edges: Sequence[tuple[Any, ...]] = EDGES,
    tokens: Sequence[str] = TOKENS,
    **given: Any,
) -> TraceResult:
    """Return the graph of exactly these nodes and edges; its heads have all of an edge but a tenth."""
    kinds, layers, positions, features, influences, effects = (list(column) for column in zip(*nodes, strict=True))
    sources, targets, weights, shares = (list(column) for column in zip(*edges, strict=True)) if edges else ([],) * 4
    count = len(edges)
    weight = np.array(weights, np.float32)
    loadings = weight[:, None] * np.array([0.5, 0.3, -0.1], np.float32)
    feature = np.array([kind == "feature" for kind in kinds])
    fires = np.zeros((len(nodes), len(tokens)), np.float32)
    for number in np.flatnonzero(feature):
        fires[number, positions[number]] = 2.0 + number
        fires[number, 1] = 1.0
    logits = kinds.count("logit")
    fields: dict[str, Any] = {
        "tokens": tuple(tokens),
        "kinds": tuple(kinds),
        "node_layers": np.array(layers, np.int32),
        "node_positions": np.array(positions, np.int32),
        "node_features": np.array(features, np.int32),
        "activations": np.where(feature, 2.0 + np.arange(len(nodes)), np.nan).astype(np.float32),
        "preactivations": np.where(feature, 2.0, np.nan).astype(np.float32),
        "influences": np.array(influences),
        "effects": np.array(effects),
        "fires": fires,
        "outputs": tuple((f" t{n}" if n else " Mary", 10 + n, 0.9 / (n + 1)) for n in range(logits)),
        "position": len(tokens) - 1,
        "most": 100,
        "edge_sources": np.array(sources, np.int32),
        "edge_targets": np.array(targets, np.int32),
        "weights": weight,
        "edge_influences": np.array(shares, float),
        "direct": weight * np.float32(0.2),
        "heads": np.tile(np.array([1, 2, HEADS + 3], np.int32), (count, 1)),
        "loadings": loadings,
        "other": weight * np.float32(0.1),
        "n_layers": 2,
        "n_heads": HEADS,
        "replacement": 0.75,
        "completeness": 0.8,
        "gap": 2e-7,
        "active": 40,
        "explored": 30,
        "kept": (0.8, 0.98),
        "features": ("planted", "0" * 16),
        "provenance": Provenance(model="test-model", technique="trace"),
    }
    return TraceResult(**(fields | given))


def check(result: TraceResult, seed: int = 0) -> TraceCheck:
    """Return what could have been measured: half of the changes have the foretold sign."""
    chance = np.random.default_rng(seed)
    looked = [n for n, kind in enumerate(result.kinds) if kind in {"feature", "logit"}]
    changed = [n for n, kind in enumerate(result.kinds) if kind == "feature"][:20]
    foretold = chance.standard_normal((2 * len(changed), len(looked))).astype(np.float32)
    signs = np.where(np.arange(foretold.size).reshape(foretold.shape) % 2, 1, -1)
    return TraceCheck(
        changed=np.repeat(np.array(changed, np.int32), 2),
        changes=np.tile(np.array([-1, 1], np.float32), len(changed)),
        nodes=np.array(looked, np.int32),
        foretold=foretold,
        measured=(foretold * signs).astype(np.float32),
        downstream=np.ones(foretold.shape, bool),
    )


def measured(result: TraceResult) -> TraceResult:
    """Return the graph with what could have been measured of it."""
    return replace(result, check=check(result))


def stable(result: TraceResult, paraphrases: int = 5, controls: int = 5, seed: int = 0) -> TraceResult:
    """Return the graph with what could be its likeness to those of paraphrases, and of controls."""
    chance = np.random.default_rng(seed)
    found = TraceStability(
        paraphrases=tuple(f"paraphrase {n}" for n in range(paraphrases)),
        controls=tuple(f"control {n}" for n in range(controls)),
        paraphrased=chance.uniform(0.5, 1, (paraphrases, 4)),
        control=chance.uniform(-0.4, 0.3, (controls, 4)).clip([0, 0, 0, -1], 1),
        values=chance.standard_normal(paraphrases),
        shuffled=True,
    )
    return replace(result, stability=found)


def random(
    layers: int, tokens: int, nodes: int, edges: int, logits: int = 1, seed: int = 0, **given: Any
) -> TraceResult:
    """Return a graph of about so many nodes and edges."""
    chance = np.random.default_rng(seed)
    found: set[tuple[Any, ...]] = {("embedding", -1, int(p), -1) for p in range(0, tokens, max(2, tokens // 10))}
    while len(found) < nodes:
        kind = "feature" if chance.random() < 0.7 else "error"
        layer, position = int(chance.integers(layers)), int(chance.integers(tokens))
        found.add((kind, layer, position, int(chance.integers(100)) if kind == "feature" else -1))
    places = sorted(found, key=lambda node: (node[1], node[2], node[3]))
    sizes = chance.gamma(0.4, 0.1, len(places))
    made = [
        (*place, float(size), float(size * chance.standard_normal())) for place, size in zip(places, sizes, strict=True)
    ]
    made += [("logit", layers, tokens - 1, -1, 1.0 / logits, 1.0)] * logits
    joined: dict[tuple[int, int], tuple[float, float]] = {}
    while len(joined) < edges:
        source, target = int(chance.integers(len(places))), int(chance.integers(len(made)))
        if (
            made[source][1] < made[target][1]
            and made[source][2] <= made[target][2]
            and made[target][0] in {"feature", "logit"}
        ):
            joined[source, target] = float(chance.standard_normal()), float(chance.gamma(0.4, 0.02))
    words = tuple(f" w{n}" for n in range(tokens))
    return planted(made, [(*ends, *size) for ends, size in joined.items()], words, n_layers=layers, **given)
