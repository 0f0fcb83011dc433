"""Circuits of known shape, made without a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from interp.methods._shared.circuit.result import CircuitResult
from interp.results import Provenance
from interp.results.effects import PairChecks


def blank(layers: int, heads: int, group: int = 1, **given: Any) -> CircuitResult:
    """Return a circuit without edges, of a model whose MLPs read what its heads write."""
    writers, readers, wrote, reads = ["embed"], [], [-1.0], []
    for layer in range(layers):
        inputs = [f"{layer}.{n}.{kind}" for kind in "qkv" for n in range(heads if kind == "q" else heads // group)]
        readers += [*inputs, f"{layer}.mlp"]
        reads += [float(layer)] * len(inputs) + [layer + 0.5]
        writers += [*(f"{layer}.{n}" for n in range(heads)), f"{layer}.mlp"]
        wrote += [layer + 0.2] * heads + [layer + 0.7]
    readers.append("logits")
    reads.append(np.inf)
    exists = np.array(wrote)[:, None] < np.array(reads)[None]
    scores = np.where(exists, 0.0, np.nan)
    fields: dict[str, Any] = {
        "writers": tuple(writers),
        "readers": tuple(readers),
        "exists": exists,
        "scores": scores,
        "per_pair": scores[None].astype(np.float32),
        "by_position": np.zeros((*exists.shape, 0), np.float32),
        "kept": np.zeros_like(exists),
        "method": "eap-ig",
        "steps": 5,
        "ablation": "corrupted",
        "level": "edge",
        "metric": "logit-diff",
        "clean_metric": np.array([3.4]),
        "ablated_metric": np.array([-1.2]),
        "group_size": group,
        "positions": ("<bos>", " a"),
        "checks": PairChecks((("<bos>", " a"),), (("<bos>", " b"),), ((1,),), (), ()),
        "task": "induction",
        "provenance": Provenance(model="test-model", technique="circuit", tokens=[[0, 1]]),
    }
    return CircuitResult(**(fields | given))


def planted(edges: dict[tuple[str, str], float], layers: int = 6, heads: int = 4, **given: Any) -> CircuitResult:
    """Return the circuit of exactly these edges."""
    result = blank(layers, heads, **given)
    scores, kept = result.scores.copy(), result.kept.copy()
    for (writer, reader), score in edges.items():
        at = result.writers.index(writer), result.readers.index(reader)
        assert result.exists[at]
        scores[at], kept[at] = score, True
    return replace(result, scores=scores, kept=kept)


def random(layers: int, heads: int, edges: int, group: int = 1, seed: int = 0, **given: Any) -> CircuitResult:
    """Return the circuit of about so many of a random model's strongest edges."""
    result = blank(layers, heads, group, **given)
    rng = np.random.default_rng(seed)
    sizes = rng.gamma(0.35, 1, (len(result.writers), 1)) * rng.gamma(0.35, 1, (1, len(result.readers)))
    scores = np.where(result.exists, sizes * (rng.standard_normal(result.exists.shape) * 0.3 + 0.25), np.nan)
    scores[0] += 0.3
    scores[:, -1] += 0.3
    order = np.argsort(-np.where(result.exists, np.abs(np.nan_to_num(scores)), -1), axis=None)

    def strongest(count: int) -> Any:
        marked = np.zeros(order.size, bool)
        marked[order[:count]] = True
        return result.connected(marked.reshape(scores.shape) & result.exists)

    low, high = 0, order.size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if strongest(middle).sum() <= edges else (low, middle)
    return replace(result, scores=scores, kept=strongest(low))


# embed → 1.0 → 2.1 → logits, with a helper, an opponent, and a way that needs two edges at once.
SMALL = {
    ("embed", "1.0.k"): 0.5,
    ("1.0", "2.1.k"): 0.9,
    ("2.1", "logits"): 1.0,
    ("embed", "2.1.q"): 0.3,
    ("embed", "0.mlp"): 0.05,
    ("0.mlp", "4.2.v"): 0.6,
    ("4.2", "logits"): -0.4,
    ("1.0", "1.mlp"): 0.02,
    ("1.mlp", "logits"): 0.01,
}
