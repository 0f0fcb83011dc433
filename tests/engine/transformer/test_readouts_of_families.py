"""What is read off one run or off the weights, where an embedding, a half block or a logit is more than a product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
import zoo
from interp.engine import exactness
from interp.engine.readouts import neurons, ov_qk
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.errors import InputError
from interp.methods._shared.circuit.component import _effects
from interp.methods._shared.heads import flow

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

IDS = [5, 9, 12, 33, 7, 50, 61, 90]
RIGHT, WRONG = 7, 9
# Scaled embeddings, norms behind a half, caps, factors, an embedding's norm, a scale of logits, ALiBi, experts.
FAMILIES = [
    "gemma",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "granite",
    "bloom",
    "cohere2",
    "mpt",
    "opt",
    "mixtral",
    "gpt_oss",
]
# What a family's weights do that no block has a place for → the setting that makes them do it.
UNLIKE: dict[str, dict[str, Any]] = {
    "stablelm": {"qk_layernorm": True},
    "cohere": {"use_qk_norm": True},
    "opt": {"word_embed_proj_dim": 16},
}


def loaded(session: Any, family: str, hf: Any) -> Any:
    interp.load(hf, tokenizer=zoo.tokenizer(family), name=family, device="cpu")
    return session.get()


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, clean_session: Any) -> Any:
    return loaded(clean_session, request.param, zoo.drawn(request.param))


def test_effects_of_components_and_heads_are_the_parts_of_the_logit_difference(model: Any) -> None:
    parts = interp.dla(IDS, answer=RIGHT, wrong=WRONG)
    assert parts.total == pytest.approx(parts.logit, abs=1e-4)
    assert np.abs(parts.per_position.sum(-1) - parts.heads).max() < 1e-4
    net = network.read(model)
    with torch.no_grad():
        for name, part in parts.contributions.items():
            kind, _, layer = name.partition(" ")
            node = f"{layer}.mlp" if kind == "mlp" else name
            if kind == "mlp" or "." in name:
                effect = model.operate("circuit", {}, lambda _, node=node: _effects(model, net, [IDS], node))[0]
                assert float(effect[RIGHT] - effect[WRONG]) == pytest.approx(part, abs=1e-4), name
        run = flow.run(net, torch.tensor([IDS]))
        towards = flow.direction(net, run.end, torch.tensor([[RIGHT, WRONG]]))
        assert np.abs(flow.direct(net, run, towards)[0] - parts.heads).max() < 1e-4


def test_saliency_is_that_of_the_models_own_embeddings(model: Any) -> None:
    hf = zoo.drawn(model.name)

    def metric(factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        held: list[torch.Tensor] = []

        def put(module: Any, given: Any, made: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
            held.append((made.detach() * factor).requires_grad_())
            return held[0]

        handle = hf.get_input_embeddings().register_forward_hook(put)
        logits = hf(torch.tensor([IDS])).logits[0, -1]
        handle.remove()
        return logits[RIGHT] - logits[WRONG], held[0]

    value, embeddings = metric(1.0)
    expected = (torch.autograd.grad(value, embeddings)[0] * embeddings)[0].sum(-1).detach().double().numpy()
    found = interp.saliency(IDS, answer=RIGHT, wrong=WRONG, method="gradient-input")
    assert found.provenance.path == "gradients"
    assert np.abs(found.attribution - expected).max() < 1e-5
    whole = interp.saliency(IDS, answer=RIGHT, wrong=WRONG, baseline="zero")
    assert whole.value == pytest.approx(float(value.detach()), abs=1e-4)
    assert whole.reference == pytest.approx(float(metric(0.0)[0].detach()), abs=1e-4)


def test_saliency_without_hooks_is_the_hooked_one(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [{"baseline": "zero"}, {"baseline": "mean"}, {"method": "gradient-input"}]
    lean = [interp.saliency(IDS, answer=RIGHT, wrong=WRONG, **each) for each in asked]
    model.store.clear()
    monkeypatch.setattr(network, "FAMILIES", {})
    for each, result in zip(asked, lean, strict=True):
        hooked = interp.saliency(IDS, answer=RIGHT, wrong=WRONG, **each)
        assert hooked.provenance.path.startswith("hooked")
        assert np.abs(result.attribution - hooked.attribution).max() < 1e-4, each
        assert result.reference == pytest.approx(hooked.reference, abs=1e-4)


def without_biases(hf: Any) -> Any:
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if name.endswith(("bias", "embed_positions.weight")):
                parameter.zero_()
    return hf


@pytest.fixture
def unbiased(request: pytest.FixtureRequest, clean_session: Any) -> Any:
    return loaded(clean_session, request.param, without_biases(zoo.drawn(request.param)))


@pytest.mark.parametrize("unbiased", FAMILIES, indirect=True)
def test_circuits_of_weights_are_what_a_head_of_layer_0_does(unbiased: Any) -> None:
    """Of what layer 0 gets of a token: scaled, normed. Caps and ALiBi come after the product of queries and keys."""
    net = network.read(unbiased)
    layer, turns, group = net.layers[0], net.rotations(len(IDS))[0], net.n_heads // net.n_kv_heads
    with torch.no_grad():
        stream = net.embed(torch.tensor(IDS))
        q, k, v = layer.project(stream)
        q, k = layer.turn_queries(q, turns), layer.turn_keys(k, turns)
        sizes = layer.norm1.size(stream)
        towards = ov_qk.unembedding(net, torch.tensor([RIGHT, WRONG]))
        for head in range(net.n_heads):
            for query, key in ((6, 4), (3, 3), (7, 0)):
                circuit = ov_qk.qk(net, 0, head, 0 if turns is None else query - key)
                found = circuit.left[IDS[query]] @ circuit.right[IDS[key]]
                found = found if layer.q_norm is not None else found / sizes[query] / sizes[key]
                assert float(found) == pytest.approx(float(q[query, head] @ k[key, head // group]), abs=1e-4)
            z = torch.zeros(len(IDS), net.n_heads, net.d_head)
            z[:, head] = v[:, head // group]
            written = ov_qk.along(net, layer, z, towards[0] - towards[1])[:, head] * sizes
            behind = layer.o.size(z.flatten(-2))
            row = ov_qk.ov(net, 0, head).rows(torch.tensor(IDS))
            torch.testing.assert_close(
                row[:, RIGHT] - row[:, WRONG], written if behind is None else written * behind, atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("family", ["granite", "bloom", "olmo2", "cohere2"])
def test_what_a_neuron_writes_by_its_weights_is_its_part_of_a_logit(family: str, clean_session: Any) -> None:
    model = loaded(clean_session, family, without_biases(zoo.drawn(family)))
    net = network.read(model)
    top = 3
    made = neurons.static(model, {1: list(range(net.d_mlp))}, top)
    parts = interp.dla(IDS, answer=RIGHT, wrong=WRONG, top=1)
    name, _ = parts.neurons[0]
    layer, number = (int(word.removeprefix("L")) for word in name.split()[::2])
    if layer != 1:
        made = neurons.static(model, {layer: list(range(net.d_mlp))}, top)
    right, wrong = int(made.promoted[number, 0]), int(made.suppressed[number, 0])
    held: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        end = forward(net, torch.tensor([IDS]), {"neuron": lambda at, acting: held.__setitem__(at, acting[0, -1])})
        size = net.final.size(end[0, -1]) * (net.layers[layer].down.size(held[layer]) or 1.0)
    expected = (made.promoted_values[number, 0] - made.suppressed_values[number, 0]) * held[layer][number] / size
    found = dict(interp.dla(IDS, answer=right, wrong=wrong, top=net.d_mlp * len(net.layers)).neurons)
    assert found[name] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("family", UNLIKE)
def test_weights_that_no_block_has_are_refused_in_one_line_or_left_out(family: str, clean_session: Any) -> None:
    model = loaded(clean_session, family, zoo.drawn(family, **UNLIKE[family]))
    with pytest.raises(exactness.Unreadable):
        network.weights(model)
    for ask in (lambda: interp.ov("0.1"), lambda: interp.qk("0.1"), interp.compose):
        with pytest.raises(InputError, match="use %interp attention"):
            ask()
    assert any("without copying" in note for note in interp.heads(n=2).notes)
    assert any("left out" in note for note in interp.neurons("0.1", [IDS]).notes)
    assert interp.saliency(IDS, method="gradient-input").provenance.path.startswith("hooked")
