"""Attribution graphs of compiled programs, whose edges and heads are known by construction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp import truth
from interp.engine.features.attribution import Reading, Tracer, trace
from interp.engine.features.components import component_edges, neurons
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.frozen import Frozen
from interp.engine.features.influence import Influence
from interp.engine.features.loadings import head_loadings
from interp.engine.features.scores import score_pairs
from interp.engine.features.sources import sources
from interp.engine.model.load import Options, load
from interp.engine.transformer import network
from interp.methods.checks.selfcheck import auroc

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = 6
# What answers in each program: the head whose output the logits read, or the MLP.
ANSWERS = {"reverse": "2.3", "induction": "2.1", "ioi": "2.1"}


@pytest.fixture(scope="module", params=truth.PROGRAMS)
def program(request: pytest.FixtureRequest) -> Any:
    made = truth.build(request.param)
    return made, load(made.bridge(), name=request.param, options=Options())


def run(program: Any, pair: Any, change: Any = None) -> tuple[Frozen, Reading]:
    _, model = program
    net = network.read(model)
    dictionaries = {layer: neurons(net, layer) for layer in range(model.geometry.n_layers)}
    if change is not None:
        dictionaries = {layer: change(one) for layer, one in dictionaries.items()}
    rows = net.unembed.weight
    direction = rows[pair.answer[0]] - rows[pair.wrong[0]]
    return Frozen(net, pair.clean.ids, dictionaries), Reading(direction, 0.0, len(pair.clean.ids) - 1, 1.0)


def edge_auroc(program: Any, change: Any = None) -> float:
    made, _ = program
    known = made.carried_truth()
    edges = [edge for edge, true in known.items() if true is not None]
    each = []
    for pair in made.pairs(PAIRS).pairs:
        frozen, reading = run(program, pair, change)
        found = component_edges(Tracer(sources(frozen)), reading)
        each.append([found[edge] for edge in edges])
    return auroc(np.abs(np.mean(each, 0)), np.array([bool(known[edge]) for edge in edges]))


def split(one: Dictionary) -> Dictionary:
    """Every feature twice, each half as strong."""
    bias = one.decoder_biases
    return replace(
        one,
        encoder=torch.cat([one.encoder / 2, one.encoder / 2]),
        bias=torch.cat([one.bias / 2, one.bias / 2]),
        decoders=(torch.cat([one.decoders[0], one.decoders[0]]),),
        decoder_biases=bias,
    )


def turned(one: Dictionary) -> Dictionary:
    """Features that read what others write."""
    chance = torch.Generator().manual_seed(one.layer)
    basis = torch.linalg.qr(torch.randn(one.width, one.width, generator=chance)).Q
    return replace(one, encoder=basis @ one.encoder)


def test_the_graph_has_the_true_edges(program: Any) -> None:
    assert edge_auroc(program) >= 0.99
    assert edge_auroc(program, split) >= 0.99


def test_perfect_transcoders_leave_no_error_and_wrong_ones_do(program: Any) -> None:
    made, _ = program
    pair = made.pairs(1).pairs[0]
    frozen, reading = run(program, pair)
    traced = trace(frozen, [reading], most=10**9)
    assert float(traced.sources.errors.abs().max()) < 1e-5
    assert traced.gap < 1e-5
    found = Influence(traced)
    assert found.replacement == pytest.approx(1.0, abs=1e-4)
    assert found.completeness == pytest.approx(1.0, abs=1e-4)
    frozen, reading = run(program, pair, turned)
    wrong = Influence(trace(frozen, [reading], most=10**9))
    assert wrong.replacement < 0.99
    assert wrong.completeness < 0.99


@pytest.mark.parametrize("program", ANSWERS, indirect=True)  # in the fourth an MLP writes the answer
def test_the_head_that_answers_has_the_largest_share(program: Any) -> None:
    made, model = program
    layer, head = map(int, ANSWERS[made.program.name].split("."))
    for pair in made.pairs(PAIRS).pairs:
        frozen, reading = run(program, pair)
        traced = trace(frozen, [reading], most=0)
        every = torch.arange(len(traced.sources))
        heads, direct = head_loadings(traced, torch.zeros_like(every), every)
        strongest = int(traced.edges[0].abs().argmax())
        assert int(heads[strongest].abs().argmax()) == layer * model.geometry.n_heads + head
        assert abs(float(heads[strongest, layer, head])) > 10 * abs(float(direct[strongest]))
        # The answer's own token is what it carries.
        kind = strongest - traced.sources.first_embedding
        assert kind >= 0
        assert pair.clean.ids[kind] == pair.answer[0]


def test_what_makes_an_induction_score() -> None:
    """The head that answers looks where the token before is the last one: its key is what another head wrote there."""
    made = truth.build("induction")
    program = (made, load(made.bridge(), name="induction", options=Options()))
    for pair in made.pairs(PAIRS).pairs:
        frozen, _ = run(program, pair)
        ids = list(pair.clean.ids)
        query = len(ids) - 1
        key = ids.index(ids[-1]) + 1
        held = sources(frozen)
        found = score_pairs(Tracer(held), 2, 1, query, key)
        named = found.pairs[: len(found.queries), : len(found.keys)]
        row, column = divmod(int(named.abs().argmax()), named.shape[1])
        assert int(found.queries[row]) == held.first_embedding + query
        assert int(found.keys[column]) == held.first_embedding + key - 1  # carried to the key by the head before
        assert float(named[row, column]) > 0.5 * found.score


def test_truth_of_what_is_carried_leaves_out_what_only_directs() -> None:
    known = truth.build("induction").carried_truth()
    assert known["embed", "2.1.v"] is True
    assert known["2.1", "logits"] is True
    assert known["0.2", "1.mlp"] is False
    assert known["embed", "0.2.v"] is None  # it only says where the other head looks
    assert not any(reader.endswith((".q", ".k")) for _, reader in known)
