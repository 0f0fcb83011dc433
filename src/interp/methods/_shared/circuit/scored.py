"""Scores of a model's edges by every method that ranks edges, for comparing them where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import OutOfMemory

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case
    from interp.results.tables import Float

SHARES = (0.6, 0.3, 0.1, 0.03, 0.01)  # acdc's thresholds, of the whole model's metric
DRAWS = 200  # of random scores, of which the mean is taken


def scores_by(
    method: str,
    model: LoadedModel,
    cases: Sequence[Case],
    edges: Sequence[tuple[str, str]],
    *,
    ablation: str,
    seed: int,
) -> tuple[Float, Float]:
    """Return a method's score of each edge, ``[edge]``, and of each pair, ``[pair, edge]``, where it has those.

    For ``random`` there is one row of scores for each draw.
    """
    from interp.engine.circuits.acdc import acdc, survived
    from interp.engine.circuits.eap import attribute_edges
    from interp.engine.circuits.edges import ends
    from interp.engine.circuits.exact import exact_edges
    from interp.engine.circuits.subgraph import Subset

    if method == "random":
        return np.random.default_rng(seed).random((DRAWS, len(edges))), np.zeros((0, len(edges)))
    if method == "trace":
        each = _traced(model, cases, edges)
        return each.mean(0), each
    if method == "acdc":
        runs = Subset(model, cases, ablation)
        whole = abs(float(runs.run(runs.whole[None]).mean()))
        thresholds = [share * whole for share in SHARES]
        scores = survived(acdc(runs, thresholds), thresholds, runs.exists)
        each = scores[None][:0]
    elif method == "exact":
        made = exact_edges(model, cases, ablation=ablation)
        if made.interrupt is not None:
            raise made.interrupt
        if made.stopped:
            raise OutOfMemory(f"selfcheck's models are small, and yet: {made.stopped}")
        scores, each = made.scores, made.per_pair
    else:
        made = attribute_edges(model, cases, ablation=ablation, steps=None if method == "eap-ig" else 1)
        if made.interrupt is not None:
            raise made.interrupt
        scores, each = made.scores, made.per_pair
    writers, readers = ({node.name: n for n, node in enumerate(nodes)} for nodes in ends(model))
    at = ([writers[writer] for writer, _ in edges], [readers[reader] for _, reader in edges])
    return scores.double().numpy()[at], each.double().numpy()[:, at[0], at[1]]


def _traced(model: LoadedModel, cases: Sequence[Case], edges: Sequence[tuple[str, str]]) -> Float:
    """Return the edges of attribution graphs by the MLPs' own neurons, ``[pair, edge]``, of the clean prompts."""
    from interp.engine.features.attribution import Reading, Tracer
    from interp.engine.features.components import component_edges, neurons
    from interp.engine.features.frozen import Frozen
    from interp.engine.features.sources import sources
    from interp.engine.transformer import network

    net = network.read(model)
    dictionaries = {layer: neurons(net, layer) for layer in range(model.geometry.n_layers)}
    rows = net.unembed.weight
    each: list[list[float]] = []
    for case in cases:
        right, wrong = case.scorer.answer[0], case.scorer.wrong[0]
        ids = case.base if case.clean_base else case.source
        tracer = Tracer(sources(Frozen(net, ids, dictionaries)))
        found = component_edges(tracer, Reading(rows[right] - rows[wrong], 0.0, case.position, 1.0))
        each.append([found[edge] for edge in edges])
    return np.array(each)
