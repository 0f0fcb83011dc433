"""Attribution graphs: edges against autograd through a naive held forward, and that they make up what they lead to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from engine.features import made
from engine.transformer.test_every_family import IDS, KNOWN
from interp.engine.features.attribution import Reading, Tracer, trace
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.frozen import Frozen
from interp.engine.features.influence import Influence
from interp.engine.features.loadings import head_loadings
from interp.engine.features.scores import score_pairs
from interp.engine.features.sources import sources
from interp.engine.model.load import Options, load
from interp.engine.transformer import network

pytestmark = pytest.mark.usefixtures("one_thread")


def loaded(family: str) -> Any:
    return load(
        zoo.drawn(family), tokenizer=zoo.tokenizer(family), name=family, options=Options(device="cpu", dtype="float32")
    )


def held(model: Any, kind: str = "topk", *, cross: bool = False, some: bool = False) -> Frozen:
    """Return a prompt's run with random dictionaries for its MLPs: for all of them, or for the first alone."""
    g = model.geometry
    net = network.read(model)
    layers = range(1 if some else g.n_layers)
    dictionaries = {
        n: made.random(n, g.d_model, n_layers=g.n_layers if cross else 0, **made.KINDS[kind]) for n in layers
    }
    return Frozen(net, IDS, dictionaries)


def readings(frozen: Frozen) -> list[Reading]:
    rows = frozen.network.unembed.weight.detach()
    return [Reading(rows[3] - rows[4], 0.25, len(IDS) - 1, 1.0), Reading(rows[7] - rows.mean(0), 0.0, 3, 0.5)]


def _norm(norm: Any, x: Tensor, at: Tensor) -> Tensor:
    """A norm of x of which the denominator is that at `at`."""
    x = x if norm.rms else x - x.mean(-1, keepdim=True)
    out = x / norm.size(at.detach())[..., None] * norm.weight
    return out if norm.bias is None else out + norm.bias


def _pre(one: Dictionary, frozen: Frozen, stream: Tensor) -> Tensor:
    """All pre-activations of the stream that an MLP reads, with the sizes that the run has."""
    layer = frozen.layers[one.layer]
    x = stream
    if one.reads.point != "mlp_in":
        x = _norm(layer.block.norm2, stream, layer.read)
        if one.reads.point == "mlp_unit":
            bias = layer.block.norm2.bias
            x = (x if bias is None else x - bias) / layer.block.norm2.weight
    shown, taken = frozen.shown(one.layer, one.reads.point), one.taken
    if taken.centre or taken.normed == "layer":
        x = x - x.mean(-1, keepdim=True)
    if taken.normed == "layer":
        x = x / (shown.std(-1, keepdim=True) + 1e-5)
    if taken.normed == "token":
        x = x / shown.norm(dim=-1, keepdim=True) * shown.shape[-1] ** 0.5
    return x * taken.scale if taken.offset is None else x * taken.scale - taken.offset


def naive(frozen: Frozen) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Run the held model by autograd's own operations.

    Returns what marks the places that are written (zeros, with a gradient: the embedding's, then each MLP's), the
    pre-activations by layer, and the end.
    """
    marks = [torch.zeros_like(frozen.start, requires_grad=True) for _ in range(len(frozen) + 1)]
    x, pres = frozen.start.detach() + marks[0], []
    for index, layer in enumerate(frozen.layers):
        block = layer.block
        normed = _norm(block.norm1, x, x)
        v = block.v.weight @ normed.mT if block.v.bias is None else block.v.weight @ normed.mT + block.v.bias[:, None]
        heads = v.mT.unflatten(-1, (block.n_kv_heads, block.d_head))
        heads = heads.repeat_interleave(block.n_heads // block.n_kv_heads, 1)
        z = torch.einsum("hqk,khd->qhd", layer.pattern.detach(), heads).flatten(-2)
        raw = z @ block.o.weight.T
        raw = raw if block.o.bias is None else raw + block.o.bias
        added = (raw if block.o.norm is None else _norm(block.o.norm, raw, raw)) * block.o.scale
        middle = x + added
        read = x if block.parallel else middle
        out = layer.written.detach() + marks[index + 1]
        one = frozen.dictionaries.get(index)
        if one is not None:
            ready = _pre(one, frozen, read)
            pre = ready @ one.encoder.T + one.bias
            pres.append(one.act.magnitudes(pre))
            if one.skip is not None:
                size = one.taken.factor(frozen.shown(index, one.reads.point))
                skipped = ready @ one.skip * size
                out = out + skipped - skipped.detach()
        x = middle + out
    return marks, pres, x


def agree(frozen: Frozen) -> None:
    traced = trace(frozen, readings(frozen), most=10**9, batch=7)
    held = traced.sources
    assert traced.gap < 1e-5
    marks, pres, end = naive(frozen)
    assert torch.allclose(end, frozen.end, atol=1e-4)
    total = 0
    normed = _norm(frozen.network.final, end, end)
    wanted = [
        *(pres[held.layers[t]][held.positions[t], held.features[t]] for t in traced.targets.tolist()[::11]),
        *(normed[one.position] @ one.direction + one.bias for one in traced.readings),
    ]
    rows = [*range(0, len(traced.targets), 11), *range(len(traced.targets), len(traced.edges))]
    entries = torch.arange(held.n_features)
    written = [held.written(entries, layer) for layer in range(len(frozen))]
    for row, value in zip(rows, wanted, strict=True):
        assert abs(float(value.detach()) - float(traced.values[row])) <= 1e-4 * max(1.0, abs(float(value.detach())))
        slopes = torch.autograd.grad(value, marks, retain_graph=True, allow_unused=True, materialize_grads=True)
        found = torch.stack([(slopes[n + 1][held.positions] * written[n]).sum(-1) for n in range(len(frozen))]).sum(0)
        errors = torch.cat([(slopes[layer + 1] * held.errors[layer]).sum(-1) for layer in range(len(frozen))])
        expected = torch.cat([found, errors, (slopes[0] * frozen.start).sum(-1)])
        scale = float(expected.abs().max())
        assert torch.allclose(expected, traced.edges[row], atol=2e-5 * scale), row
        total += int((expected.abs() > 1e-3 * scale).sum())
    assert total > 20  # there was something to compare


@pytest.mark.slow
@pytest.mark.parametrize("family", KNOWN)
def test_edges_are_those_of_autograd_and_sum_to_what_they_lead_to(family: str) -> None:
    model = loaded(family)
    with torch.enable_grad():
        for cross in (False, True):
            agree(held(model, cross=cross))


@pytest.mark.slow
@pytest.mark.parametrize("family", KNOWN)
def test_the_heads_shares_sum_to_the_edge(family: str) -> None:
    for kind in ("topk", "skip"):
        frozen = held(loaded(family), kind)
        traced = trace(frozen, readings(frozen), most=40)
        rows, entries = traced.edges.nonzero(as_tuple=True)
        heads, direct = head_loadings(traced, rows, entries)
        edges = traced.edges[rows, entries]
        assert torch.allclose(heads.sum((1, 2)) + direct, edges, atol=2e-5 * float(edges.abs().max()))
        if frozen.network.layers[0].n_heads > 1:
            assert float(heads.abs().max()) > 1e-3 * float(edges.abs().max())


def test_a_heads_share_is_what_the_edge_loses_without_its_last_step() -> None:
    """Of the last layer's heads alone all that comes through them is their share: cut them one by one."""
    frozen = held(loaded("llama"))
    traced = trace(frozen, readings(frozen)[:1], most=0)
    row = torch.zeros(len(traced.sources), dtype=torch.int64)
    heads, _ = head_loadings(traced, row, torch.arange(len(row)))
    last = frozen.layers[-1]
    for head in range(last.block.n_heads):
        pattern = last.pattern.clone()
        pattern[head] = 0
        frozen.layers[-1] = replace(last, pattern=pattern)
        cut = Tracer(traced.sources).of_readings(traced.readings)[0][0]
        frozen.layers[-1] = last
        assert torch.allclose(traced.edges[0] - cut, heads[:, -1, head], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", KNOWN)
def test_pairs_of_sources_sum_to_the_score(family: str) -> None:
    frozen = held(loaded(family), "skip")
    tracer = Tracer(sources(frozen))
    for layer, head, query, key in ((1, 3, 7, 2), (1, 0, 5, 5), (0, 1, 6, 0)):
        block, before = frozen.layers[layer].block, frozen.layers[layer].before
        q, k, _ = block.project(before)
        q, k = block.turn_queries(q, frozen.turns[layer]), block.turn_keys(k, frozen.turns[layer])
        shared = head // (block.n_heads // block.n_kv_heads)
        expected = float(q[query, head] @ k[key, shared] * block.scale)
        found = score_pairs(tracer, layer, head, query, key)
        assert found.score == pytest.approx(expected, abs=1e-4 * max(1, abs(expected)))
        size = float(found.pairs.abs().sum())
        assert float(found.pairs.double().sum()) == pytest.approx(expected, abs=1e-4 * max(size, 1e-3))
        # What is written after the key's position, or in this layer, is in neither.
        assert all(tracer.sources.layers[s] < layer for s in found.keys.tolist() if s < tracer.sources.n_features)
        assert len(found.keys) <= len(found.queries) or query == key


@pytest.mark.parametrize("kind", made.KINDS)
@pytest.mark.parametrize("family", ["gpt2", "gemma3_text", "gpt_neox"])
def test_of_every_kind_of_dictionary(family: str, kind: str) -> None:
    agree(held(loaded(family), kind))


def test_an_mlp_without_a_dictionary_is_an_error_as_a_whole() -> None:
    frozen = held(loaded("llama"), some=True)
    agree(frozen)
    traced = trace(frozen, readings(frozen), most=10**9)
    assert torch.equal(traced.sources.errors[1], frozen.layers[1].written)
    assert set(traced.sources.layers.tolist()) == {0}


def test_influence_is_the_sum_over_all_ways() -> None:
    frozen = held(loaded("llama"))
    traced = trace(frozen, readings(frozen), most=10**9)
    found, held_ = Influence(traced), traced.sources
    # (I − A)⁻¹ − I, written out as a matrix over all nodes, the readings the last two.
    size = len(held_) + len(traced.readings)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    share = traced.edges.double().abs() / traced.edges.double().abs().sum(1, keepdim=True)
    for row, node in enumerate([*traced.targets.tolist(), len(held_), len(held_) + 1]):
        matrix[node, : len(held_)] = share[row]
    ways = torch.linalg.inv(torch.eye(size, dtype=torch.float64) - matrix) - torch.eye(size, dtype=torch.float64)
    expected = torch.tensor([1.0, 0.5], dtype=torch.float64) @ ways[-2:, : len(held_)]
    assert torch.allclose(found.nodes, expected, rtol=1e-5, atol=1e-8)
    tokens, errors = expected[held_.first_embedding :].sum(), expected[held_.first_error : held_.first_embedding].sum()
    assert found.replacement == pytest.approx(float(tokens / (tokens + errors)), rel=1e-5)
    weights = torch.cat([expected[traced.targets], torch.tensor([1.0, 0.5])])
    explained = 1 - share[:, held_.first_error : held_.first_embedding].sum(1)
    assert found.completeness == pytest.approx(float(explained @ weights / weights.sum()), rel=1e-5)


def test_what_is_kept_has_its_share_and_no_loose_ends() -> None:
    frozen = held(loaded("llama"))
    traced = trace(frozen, readings(frozen), most=10**9)
    found = Influence(traced)
    nodes, edges = found.kept(0.8, 0.98)
    assert 0 < int(nodes.sum()) < len(nodes)
    assert not edges[:, ~nodes].any()
    assert bool(edges.any(0)[nodes].all())
    kept_rows = torch.zeros(len(edges), dtype=torch.bool)
    kept_rows[: len(traced.targets)] = nodes[traced.targets]
    kept_rows[len(traced.targets) :] = True
    assert not edges[~kept_rows].any()
    every, _ = found.kept(1.0, 1.0)
    assert int(every.sum()) > int(nodes.sum())


def test_a_budget_takes_the_most_influential_first() -> None:
    frozen = held(loaded("llama"), "relu")
    whole = trace(frozen, readings(frozen), most=10**9)
    some = trace(frozen, readings(frozen), most=20)
    assert len(some.targets) == 20
    influence = Influence(whole).nodes
    chosen = influence[some.targets].sum()
    assert float(chosen) >= 0.7 * float(influence[: whole.sources.n_features].topk(20).values.sum())
    rows = {int(t): row for row, t in enumerate(whole.targets)}
    for row, target in enumerate(some.targets.tolist()):
        assert torch.allclose(some.edges[row], whole.edges[rows[target]], atol=1e-6)
    assert Influence(some).completeness < Influence(whole).completeness  # what is left out counts as unexplained
