"""trace: what the command gives, on random and real models; its files, its groups, its checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
import zoo
from engine.features import made
from interp.engine.features import held
from interp.engine.features.attribution import Tracer
from interp.errors import InputError
from interp.methods._shared.trace import derived, making
from interp.methods._shared.trace.result import TraceResult

PROMPT = "When Mary and John went to the store, John gave a drink to"


def random_set(model: Any, name: str = "random", **more: Any) -> None:
    g = model.geometry
    some = tuple(made.random(layer, g.d_model, **more) for layer in range(g.n_layers))
    held.hold(model, held.FeatureSet(name, "tests", "random", some))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(made, "WIDTH", 96)
    loaded = interp.load()
    random_set(loaded)
    return loaded


@pytest.fixture
def graph(model: Any) -> TraceResult:  # noqa: ARG001
    found = interp.trace(PROMPT, target=" Mary", against=" John")
    assert isinstance(found, TraceResult)
    return found


def test_nodes_and_edges_name_each_other(graph: TraceResult) -> None:
    names = graph.names
    assert len(set(names)) == len(names) == len(graph.nodes)
    table = graph.to_frame()
    assert set(table.source) | set(table.target) <= set(names)
    assert list(table.influence) == sorted(table.influence, reverse=True)
    assert graph.nodes_frame().shape[0] == len(names)
    net = graph.graph()
    assert net.number_of_edges() == len(graph.weights)
    assert net.nodes[names[-1]]["kind"] == "logit"
    assert graph.outputs[0][0] == " Mary"
    assert graph.against == (" John", graph.provenance.tokens_taken[1][2])


def test_the_kept_edges_of_a_whole_graph_sum_to_the_logit(model: Any) -> None:
    whole = interp.trace(PROMPT, target=" Mary", against=" John", nodes=1.0, edges=1.0)
    assert whole.gap < 1e-5
    logit = len(whole.kinds) - 1
    total = float(whole.weights[whole.edge_targets == logit].astype(float).sum())
    logits = interp.predict(PROMPT)
    dla = interp.dla(PROMPT, answer=" Mary", wrong=" John")
    assert float(whole.preactivations[logit]) == pytest.approx(dla.logit, abs=1e-3)
    biases = dla.logit - total
    assert abs(biases) < 0.6 * float(np.abs(whole.weights[whole.edge_targets == logit]).sum())
    assert logits.top
    shares = whole.direct + whole.loadings.sum(1) + whole.other
    np.testing.assert_allclose(shares, whole.weights, atol=1e-4 * float(np.abs(whole.weights).max()))
    assert model is not None


def test_the_likeliest_tokens_without_a_target(model: Any) -> None:
    found = interp.trace("The capital of France is")
    chances = [p for _, _, p in found.outputs]
    assert len(chances) == 10 or sum(chances) >= 0.95
    assert found.kinds.count("logit") == len(chances)
    assert found.against is None
    assert model is not None


def test_pruned(graph: TraceResult) -> None:
    less = graph.prune(0.4, 0.9)
    assert 1 < len(less.kinds) < len(graph.kinds)
    assert set(less.names) <= set(graph.names)
    ends = {less.names[n] for n in less.edge_sources} | {less.names[n] for n in less.edge_targets}
    assert ends | {less.names[-1]} == set(less.names)
    with pytest.raises(InputError, match="no share"):
        graph.prune(0)


def test_validated_in_the_model(graph: TraceResult) -> None:
    checked = interp.validate(graph, top=3)
    assert isinstance(checked, TraceResult)
    assert checked.check is not None
    found = checked.check
    assert found.foretold.shape == found.measured.shape == (6, len(found.nodes))
    assert float(np.abs(found.measured[~found.downstream]).max(initial=0)) < 1e-3 * float(np.abs(found.measured).max())
    pearson, signs, count = found.of(np.ones(len(found.nodes), bool))
    assert -1 <= pearson <= 1
    assert 0 <= signs <= 1
    assert count == int(found.downstream.sum())
    name = graph.top(1)[0][0]
    (move,) = graph.moved(name, -1)
    row = list(found.changed).index(graph.number(name))
    assert move.measured == pytest.approx(float(found.measured[row, -1]), abs=1e-4)
    assert move.foretold == pytest.approx(float(found.foretold[row, -1]), rel=1e-4)


def test_what_is_refused(model: Any, graph: TraceResult) -> None:
    for words, message in (
        ({"target": " Mary", "against": " Mary"}, "must differ"),
        ({"against": " Mary"}, "give --target"),
        ({"nodes": 0}, "no share"),
        ({"most": 0}, "use 1 or more"),
        ({"position": 99}, "positions are"),
        ({"head": "2.0"}, "--from 14 --to 3"),
        ({"head": "2.0", "from_": 3, "to": 5}, "comes after it"),
        ({"head": "2.0,2.1", "from_": 3, "to": 2}, "name one"),
        ({"features": "none"}, "called"),
    ):
        with pytest.raises(InputError, match=message):
            interp.trace(PROMPT, **words)
    with pytest.raises(InputError, match="is for circuits"):
        interp.validate(graph, on="same")
    with pytest.raises(InputError, match="no feature"):
        graph.moved("embed@1", -1)
    random_set(model)  # others of the same name
    held.hold(model, held.FeatureSet("random", "x", "x", (made.random(0, 128),)))
    with pytest.raises(InputError, match="run the cell again"):
        graph.validate()


def test_what_a_held_run_cannot_be_is_refused_in_one_line(model: Any) -> None:
    import torch

    handle = model.hf_model.transformer.h[0].register_forward_hook(lambda *_: None)  # pyright: ignore
    with pytest.raises(InputError, match="hooks of the user's own"):
        interp.trace(PROMPT)
    handle.remove()
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(InputError, match="autocast"):
        interp.trace(PROMPT)
    model.bridge.train()
    with pytest.raises(InputError, match="training"):
        interp.trace(PROMPT)
    model.bridge.eval()


def test_the_same_graph_comes_from_the_store(model: Any, graph: TraceResult) -> None:
    again = interp.trace(PROMPT, target=" Mary", against=" John")
    assert again.provenance.forwards == 0
    np.testing.assert_array_equal(again.weights, graph.weights)
    np.testing.assert_array_equal(again.loadings, graph.loadings)
    model.store.clear()
    anew = interp.trace(PROMPT, target=" Mary", against=" John")
    assert anew.provenance.forwards > 0
    np.testing.assert_array_equal(anew.weights, graph.weights)


def test_features_of_the_stream_make_no_graph(model: Any) -> None:
    from dataclasses import replace

    from interp.engine.features.places import Place

    one = made.random(1, 128)
    at = Place(1, "resid_post")
    held.hold(model, held.FeatureSet("sae", "x", "x", (replace(one, kind="sae", reads=at, writes=(at,)),)))
    with pytest.raises(InputError, match="transcoders"):
        interp.trace(PROMPT)


def test_the_stream_that_an_mlp_reads_is_a_site_too(model: Any) -> None:
    found = []
    for point in ("mlp_in", "resid_mid"):
        random_set(model, point=point)
        found.append(interp.trace(PROMPT, target=" Mary", against=" John"))
    assert found[0].names == found[1].names
    np.testing.assert_array_equal(found[0].weights, found[1].weights)


def test_layers_without_features_are_said(model: Any) -> None:
    held.hold(model, held.FeatureSet("one", "x", "x", (made.random(1, 128),)))
    found = interp.trace(PROMPT)
    assert any("layers 0, 2, 3 have no features" in note for note in found.notes)
    assert {node.layer for node in found.nodes if node.kind == "feature"} <= {1}


def test_few_targets_are_said(model: Any) -> None:
    found = interp.trace(PROMPT, most=20)
    assert found.explored == 20
    assert any("most influential of" in note for note in found.notes)
    assert model is not None


def test_one_attention_score(model: Any) -> None:
    found = interp.trace(PROMPT, head="1.0", from_=-1, to=3)
    assert float(found.pairs.sum()) == pytest.approx(found.score, abs=1e-3 * max(1, abs(found.score)))
    pattern = interp.attention(PROMPT, layer=1).pattern
    assert found.weight == pytest.approx(float(pattern[0, 0, -1, 3]), abs=1e-5)
    assert found.top(1)[0][2] == pytest.approx(found.pairs.flat[np.abs(found.pairs).argmax()])
    assert found.to_frame().shape == (100, 3)
    assert "score" in repr(found)
    assert model is not None


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mixtral"])
def test_half_precision_is_computed_in_single(family: str) -> None:
    model = interp.load(zoo.drawn(family).bfloat16(), tokenizer=zoo.tokenizer(family), name=family)
    import dictionaries

    dictionaries.hold(model)
    found = interp.trace(interp.Prompt(ids=(5, 9, 12, 33, 7, 50)), nodes=1.0, edges=1.0)
    assert found.gap < 1e-5
    assert found.provenance.dtype == "bfloat16"
    assert any("computed in float32" in note for note in found.notes)
    (move,) = found.moved(found.top(1)[0][0], -1)[:1]
    assert np.isfinite(move.measured)


def test_super_nodes_by_themselves(model: Any) -> None:
    from dataclasses import replace

    one = made.random(0, 128)
    # Every feature of layer 0 is there twice: the two write the same and lead to the same.
    twice = replace(
        one,
        encoder=one.encoder.repeat_interleave(2, 0),
        bias=one.bias.repeat_interleave(2),
        decoders=(one.decoders[0].repeat_interleave(2, 0) / 2,),
    )
    held.hold(model, held.FeatureSet("twice", "x", "x", (twice,)))
    found = interp.trace(PROMPT, nodes=0.95, group="auto")
    pairs = [{name.partition("@")[0] for name in inside} for inside in found.groups.values()]
    twins = [{f"0.{2 * n}", f"0.{2 * n + 1}"} for n in range(one.width)]
    there = {name.partition("@")[0] for name, kind in zip(found.names, found.kinds, strict=True) if kind == "feature"}
    both = [twin for twin in twins if twin <= there]
    assert both
    assert all(any(twin <= pair for pair in pairs) for twin in both)


def test_neuronpedia_there_and_back(graph: TraceResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (name, _), (other, _) = graph.top(2)
    graph.groups["names"] = (name, other)
    path = graph.save_neuronpedia("graph.json", scan="bundled")
    data = json.loads(path.read_text())
    assert set(data) == {"metadata", "qParams", "nodes", "links"}
    assert len(data["links"]) == len(graph.weights)
    assert {node["feature_type"] for node in data["nodes"]} == {
        "embedding",
        "cross layer transcoder",
        "mlp reconstruction error",
        "logit",
    }
    ids = {node["node_id"] for node in data["nodes"]}
    assert len(ids) == len(graph.kinds)
    assert all(link["source"] in ids and link["target"] in ids for link in data["links"])
    back = interp.load_graph(path)
    assert back.names == tuple(name if not name.startswith("logit") else "logit: Mary" for name in sorted_names(graph))
    assert {key: set(held) for key, held in back.groups.items()} == {"names": {name, other}}
    assert sorted(back.weights.tolist()) == pytest.approx(sorted(graph.weights.tolist()), rel=1e-5)
    assert float(back.influences[back.number(name)]) > 0
    path.write_text(json.dumps({"nodes": [], "links": []}))
    with pytest.raises(InputError, match="no list"):
        interp.load_graph(path)
    path.write_text(json.dumps({"nodes": [{"a": 1}], "links": [{"a": 1}]}))
    with pytest.raises(InputError, match="holds no attribution graph"):
        interp.load_graph(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="no JSON object"):
        interp.load_graph(path)


def sorted_names(graph: TraceResult) -> list[str]:
    """A file has nodes by layer and position alone."""
    order = sorted(range(len(graph.kinds)), key=lambda n: (graph.node_layers[n], graph.node_positions[n]))
    return [graph.names[n] for n in order]


def test_saved_and_read(graph: TraceResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    back = interp.load_graph(graph.save("g.json"))
    assert back.names == graph.names
    for name in (
        "weights",
        "influences",
        "effects",
        "fires",
        "heads",
        "loadings",
        "direct",
        "other",
        "edge_sources",
        "activations",
    ):
        np.testing.assert_array_equal(getattr(back, name), getattr(graph, name))
    assert back.replacement == graph.replacement
    assert back.outputs == graph.outputs


def adds_up(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace `model` by many random features a layer, and assert that nothing of the logit is left over."""
    monkeypatch.setattr(made, "WIDTH", 512)
    random_set(model, n_layers=0)
    encoded = model.operate("x", {}, lambda _: model.encode(interp.Prompt(PROMPT)))  # pyright: ignore[reportUnknownLambdaType]
    given = making.standing(model, held.current(model))

    def rows(_: Any) -> tuple[Any, Any]:
        frozen = making.frozen_run(model, encoded, given)
        asked = making.Asked(None, None, len(encoded.ids) - 1, 0.8, 0.98, 150)
        reads, _outputs = making.readings(model, frozen, asked)
        return making.traced_of(model, frozen, reads, asked, held.current(model)), frozen

    traced, _ = model.operate("x", {}, rows)
    assert traced.gap < 1e-5
    assert isinstance(making.tracer_of(traced.sources.frozen), Tracer)


@pytest.mark.slow
def test_smollm2(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # gemma 3 is loaded elsewhere
    adds_up(smollm2, monkeypatch)


def test_effects_are_what_the_graph_foretells_without_a_node(graph: TraceResult) -> None:
    for name, _ in graph.top(4):
        (move,) = graph.moved(name, -1)
        assert move.foretold == pytest.approx(-float(graph.effects[graph.number(name)]), abs=1e-5)
    logit = len(graph.kinds) - 1
    assert graph.effects[logit] == pytest.approx(float(graph.preactivations[logit]))


@pytest.mark.usefixtures("model")
def test_effects_of_a_whole_graph_follow_from_its_edges() -> None:
    whole = interp.trace(PROMPT, target=" Mary", against=" John", nodes=1.0, edges=1.0)
    found = derived.effects(
        whole.kinds,
        whole.node_layers,
        whole.activations,
        whole.influences,
        whole.edge_sources,
        whole.edge_targets,
        whole.weights,
    )
    inner = np.array([kind != "logit" for kind in whole.kinds])
    scale = float(np.abs(whole.effects[inner]).max())
    np.testing.assert_allclose(found[inner], whole.effects[inner], atol=1e-4 * scale)


def test_where_features_fire(model: Any, graph: TraceResult) -> None:
    given = held.current(model)

    def active(_: Any) -> dict[int, Any]:
        encoded = model.encode(interp.Prompt(PROMPT))
        frozen = making.frozen_run(model, encoded, making.standing(model, given))
        dense = {}
        for layer, one in frozen.dictionaries.items():
            codes = one.activated(one.pre(frozen.shown(layer, one.reads.point)))
            dense[layer] = np.zeros((len(encoded.ids), one.width), np.float32)
            dense[layer][codes.rows.numpy(), codes.features.numpy()] = codes.values.numpy()
        return dense

    dense = model.operate("x", {}, active)
    features = [n for n, kind in enumerate(graph.kinds) if kind == "feature"]
    assert features
    for n in features:
        layer, feature = int(graph.node_layers[n]), int(graph.node_features[n])
        np.testing.assert_allclose(graph.fires[n], dense[layer][:, feature], rtol=1e-5)
        assert graph.fires[n, graph.node_positions[n]] == graph.activations[n]
    others = [n for n in range(len(graph.kinds)) if n not in features]
    assert not graph.fires[others].any()
    known = derived.fires(
        graph.kinds,
        graph.node_layers,
        graph.node_positions,
        graph.node_features,
        graph.activations,
        len(graph.tokens),
    )
    np.testing.assert_array_equal(known[known > 0], graph.fires[known > 0])
