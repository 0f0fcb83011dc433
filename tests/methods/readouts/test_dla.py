"""Direct logit attribution: parts that sum to the logit, each equal to what it is elsewhere, on four families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.model.load import Options, load
from interp.errors import InputError
from interp.methods.readouts.dla import place
from interp.sites import Site
from interp.spec import Intervention, as_prompt
from real import PROMPT, STORE

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "neox", "bert")
CAUSAL = FAMILIES[:3]
# Norms behind parts, gains kept as gain − 1, capped or scaled logits, a norm behind the embedding.
MORE = ("gemma2", "cohere", "bloom")


def text(family: str) -> str:
    return "Mary gave the [MASK] to John" if family == "bert" else "Mary gave the drink to John and"


@pytest.fixture
def biased(folder: Callable[..., Path], clean_session: Any) -> Callable[[str], Any]:
    """Return ``biased(family)``: a model whose biases and norm gains are random too; at first they are 0 and 1."""

    def of(family: str) -> Any:
        model = load(folder(family), name=family, options=Options(device="cpu"))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.hf_model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        clean_session.models[model.name], clean_session.current = model, model.name
        return model

    return of


def activation(model: Any, prompt: str, name: str) -> torch.Tensor:
    tokens = model.encode(as_prompt(prompt))
    return model.activations(tokens, [name])[name][0].double()


@pytest.mark.parametrize("position", [None, 0, 3, -1])
@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
def test_the_parts_sum_to_the_models_logit(biased: Any, family: str, position: int | None) -> None:
    model = biased(family)
    logits = model.run(text(family)).logits[0].double()
    one = interp.dla(text(family), answer=" and", position=position)
    two = interp.dla(text(family), answer=" and", wrong=" to", position=position)
    a, b = one.answer[1], two.wrong[1]
    at = one.position
    assert one.logit == pytest.approx(float(logits[at, a]), abs=1e-5)
    assert one.total == pytest.approx(float(logits[at, a]), abs=1e-4)
    assert two.total == pytest.approx(float(logits[at, a] - logits[at, b]), abs=1e-4)
    assert sum(one.contributions.values()) == one.total
    assert any("direct effects only" in note for note in one.notes)
    np.testing.assert_allclose(one.per_position.sum(-1), one.heads, atol=1e-5)
    for name, value in one.contributions.items():
        kind, layer, head = place(name)
        if kind == "head":
            assert one.heads[layer, head] == value


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_are_parts_where_the_model_has_them(biased: Any, family: str) -> None:
    biased(family)
    kinds = {place(name)[0] for name in interp.dla(text(family)).contributions}
    expected = {
        "gpt2": {"embed", "pos_embed", "head", "mlp", "attn_bias", "norm_bias"},
        "llama": {"embed", "head", "mlp"},
        "neox": {"embed", "head", "mlp", "attn_bias", "norm_bias"},
        "bert": {
            *("embed", "pos_embed", "type_embed", "head", "mlp", "attn_bias"),
            *("norm_bias", "head_bias", "unembed_bias"),
        },
    }
    assert kinds == expected[family]


@pytest.mark.parametrize("family", CAUSAL)
def test_each_part_is_its_vector_through_the_frozen_norm(biased: Any, family: str) -> None:
    """The long way round: every component's vector in the residual stream, centred, scaled, gained, unembedded."""
    model = biased(family)
    result = interp.dla(text(family), answer=" and", wrong=" to")
    end = activation(model, text(family), Site("resid_post", 1).hook_name)[-1]
    final = model.bridge.ln_final.original_component
    centred = family != "llama"
    around = end - end.mean() if centred else end
    eps = final.eps if centred else final.variance_epsilon
    scale = (around.square().mean() + eps).sqrt()
    weight = model.bridge.unembed.original_component.weight.detach().double()
    direction = weight[result.answer[1]] - weight[result.wrong[1]]

    def part(vector: torch.Tensor) -> float:
        moved = vector - vector.mean() if centred else vector
        return float(moved / scale * final.weight.detach().double() @ direction)

    with torch.no_grad():
        for layer in range(2):
            block = model.bridge.blocks[layer]
            z = activation(model, text(family), Site("z", layer).hook_name)[-1]
            for head in range(4):
                expected = part(z[head] @ block.attn.W_O[head].double())
                assert result.contributions[f"{layer}.{head}"] == pytest.approx(expected, abs=1e-6)
            mlp = activation(model, text(family), Site("mlp_out", layer).hook_name)[-1]
            assert result.contributions[f"mlp {layer}"] == pytest.approx(part(mlp), abs=1e-6)
        embedded = activation(model, text(family), "hook_embed")[-1]
        assert result.contributions["embed"] == pytest.approx(part(embedded), abs=1e-6)


def test_norms_behind_parts_and_a_cap_are_frozen_one_by_one(biased: Any) -> None:
    """Gemma 2: W_O, its own norm's gain and scale, the final norm's, the unembedding, the cap's ratio at this logit."""
    model = biased("gemma2")
    result = interp.dla(text("gemma2"), answer=" and", top=1000)
    hf = model.hf_model

    def gained(norm: Any, vector: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        return vector / (around.square().mean() + norm.eps).sqrt() * (1 + norm.weight.detach().double())

    end = activation(model, text("gemma2"), Site("resid_post", 1).hook_name)[-1]
    weight = hf.lm_head.weight.detach().double()[result.answer[1]]
    raw = float(gained(hf.model.norm, end, end) @ weight)
    ratio = 3 * np.tanh(raw / 3) / raw
    for layer, block in enumerate(hf.model.layers):
        z = activation(model, text("gemma2"), Site("z", layer).hook_name)[-1]
        weights = model.bridge.blocks[layer].attn.W_O.detach().double()
        each = torch.einsum("hd,hdm->hm", z, weights)
        acting = activation(model, text("gemma2"), Site("neuron", layer).hook_name)[-1]
        write = model.bridge.blocks[layer].mlp.W_out.detach().double()
        for norm, parts, name in (
            (block.post_attention_layernorm, each, "{}.{}"),
            (block.post_feedforward_layernorm, acting[:, None] * write, "L{} neuron {}"),
        ):
            for n, vector in enumerate(parts):
                written = gained(norm, vector, parts.sum(0))
                expected = ratio * float(gained(hf.model.norm, written, end) @ weight)
                named = name.format(layer, n)
                found = result.contributions.get(named) if "." in named else dict(result.neurons)[named]
                assert found == pytest.approx(expected, abs=1e-5), named
    assert any("caps or scales" in note and "behind a component" in note for note in result.notes)


@pytest.mark.parametrize("family", CAUSAL)
def test_neurons_and_their_bias_make_the_mlp(biased: Any, family: str) -> None:
    model = biased(family)
    result = interp.dla(text(family), answer=" and", top=10_000)
    assert [abs(value) for _, value in result.neurons] == sorted((abs(v) for _, v in result.neurons), reverse=True)
    for layer in range(2):
        count = model.bridge.blocks[layer].mlp.W_out.shape[0]
        parts = {name: value for name, value in result.neurons if name.startswith(f"L{layer} ")}
        assert len(parts) == count
    assert len(interp.dla(text(family), answer=" and", top=3).neurons) == 3
    if family == "llama":  # no bias
        for layer in range(2):
            total = sum(value for name, value in result.neurons if name.startswith(f"L{layer} "))
            assert total == pytest.approx(result.contributions[f"mlp {layer}"], abs=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_taking_a_last_layers_part_out_changes_the_logits_by_it(biased: Any, family: str) -> None:
    """With the scale put back, what ablation of a part without later layers changes is exactly that part."""
    model = biased(family)
    result = interp.dla(text(family), answer=" and", wrong=" to")
    off = Intervention(Site("z", 1), head=2, mode="zero")
    run = model.run(text(family), interventions=[off])
    # A sequential block's MLP reads what its attention wrote; its own output then changes too.
    whole = interp.dla(text(family), answer=" and", wrong=" to").contributions
    end = activation(model, text(family), Site("resid_post", 1).hook_name)[-1]
    changed = run.activations[Site("resid_post", 1).hook_name][0, -1].double()
    mlp = run.activations[Site("mlp_out", 1).hook_name][0, -1].double()
    final = model.bridge.ln_final.original_component
    centred = family != "llama"
    around = end - end.mean() if centred else end
    scale = (around.square().mean() + (final.eps if centred else final.variance_epsilon)).sqrt()
    weight = model.bridge.unembed.original_component.weight.detach().double()
    direction = (weight[result.answer[1]] - weight[result.wrong[1]]) * final.weight.detach().double() / scale
    direction = direction - direction.mean() if centred else direction
    moved = activation(model, text(family), Site("mlp_out", 1).hook_name)[-1] - mlp
    assert whole["1.2"] == pytest.approx(float((end - changed - moved) @ direction), abs=1e-5)


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("family", CAUSAL)
def test_heads_and_components_are_transformer_lens_own(folder: Any, family: str) -> None:
    """transformer-lens measures on folded weights; folding moves the bias of the norm and of the values, no head."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.tools.analysis import direct_logit_attribution

    model = interp.load(folder(family), name="ours")
    ids = torch.tensor([model.encode(as_prompt(text(family))).ids])
    ours = interp.dla(text(family), answer=" and", wrong=" to")
    peer = TransformerBridge.boot_transformers(str(folder(family)), device="cpu")
    peer.enable_compatibility_mode()
    ends = {"answer_tokens": ours.answer[1], "incorrect_tokens": ours.wrong[1]}
    parts = direct_logit_attribution(peer, ids, unit="component", **ends)
    values = dict(zip(parts.labels, parts.attribution.flatten().tolist(), strict=True))
    for layer in range(2):
        heads = ours.heads[layer].sum() + ours.contributions.get(f"attn_bias {layer}", 0.0)
        assert heads == pytest.approx(values[f"{layer}_attn_out"], abs=1e-4)
        assert ours.contributions[f"mlp {layer}"] == pytest.approx(values[f"{layer}_mlp_out"], abs=1e-4)
    assert ours.contributions["embed"] == pytest.approx(values["embed"], abs=1e-4)
    heads = direct_logit_attribution(peer, ids, unit="head", **ends)
    named = dict(zip(heads.labels, heads.attribution.flatten().tolist(), strict=True))
    for layer in range(2):
        for head in range(4):
            assert ours.heads[layer, head] == pytest.approx(named[f"L{layer}H{head}"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"answer": " and", "wrong": " and"}, "must differ"),
        ({"answer": ""}, "empty"),
        ({"wrong": " Marmalade"}, "wrong answer"),
        ({"position": 99}, "positions are 0–"),
        ({"position": -99}, "−1 is the last"),
        ({"top": 0}, "--top"),
    ],
)
def test_what_cannot_be_attributed_is_refused_in_one_line(lend: Any, arguments: dict[str, Any], words: str) -> None:
    lend("gpt2")
    with pytest.raises(InputError) as caught:
        interp.dla(text("gpt2"), **arguments)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_answer_that_is_not_given_is_the_models_own(lend: Any) -> None:
    lend("neox")
    top = interp.predict(text("neox")).top[0]
    result = interp.dla(text("neox"))
    assert result.answer == top[:2]
    assert result.position == len(result.tokens) - 1
    assert interp.dla(text("neox"), position=-1).position == result.position
    assert interp.dla(text("neox"), answer=" and").provenance.forwards == 0, "another token needs no other run"


@pytest.mark.usefixtures("clean_session")
def test_a_model_that_does_more_than_add_is_refused_or_said(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = interp.load(folder("llama"), name="own")
    model.bridge.hook_dict["blocks.1.hook_resid_pre"].add_hook(lambda tensor, hook: tensor * 1.5)  # noqa: ARG005
    assert any("hooks of yours change" in note for note in interp.dla(text("llama")).notes)
    monkeypatch.setattr(model, "user_hooks", lambda: ())  # as if the model itself did so
    with pytest.raises(InputError, match="more than add"):
        interp.dla(text("llama"))


@pytest.mark.usefixtures("clean_session")
def test_weights_that_are_nan_are_told(folder: Any) -> None:
    model = interp.load(folder("gpt2"), name="broken")
    with torch.no_grad():
        model.hf_model.transformer.h[1].mlp.c_proj.weight[0, 0] = float("nan")
    result = interp.dla(text("gpt2"), answer=" and")
    assert any("first in" in note for note in result.notes)
    assert "interp-hatch" in result.html()


def test_pictures_and_table_say_what_the_arrays_say(lend: Any) -> None:
    lend("gpt2")
    result = interp.dla(text("gpt2"), answer=" and", wrong=" to")
    table = result.to_frame()
    assert table["contribution"].sum() == pytest.approx(result.total)
    assert len(table) == len(result.contributions)
    name, value = result.top(1)[0]
    kind, layer, head = place(name)
    drawn = f"L{layer}H{head}" if kind == "head" else f"L{layer} MLP" if kind == "mlp" else ""
    for shown in (result.html(), result.svg("dark")):
        assert f"{value:+.3f}".replace("-", "−") in shown
        assert drawn in shown
        assert "Direct logit attribution" in shown
    figure = result.to_plotly()
    np.testing.assert_allclose(np.array(figure.data[1].z)[:, :4], result.heads, rtol=1e-6)
    assert sum(figure.data[0].x) == pytest.approx(result.total)


def test_the_magic_keeps_the_space_of_an_answer(shell: Any, lend: Any) -> None:
    lend("gpt2")
    ran = shell.run_cell('%%interp dla --answer " and" --wrong " to" --position -2 -o d\n' + text("gpt2"))
    assert ran.success
    found = shell.user_ns["d"]
    assert (found.answer[0], found.wrong[0]) == (" and", " to")
    assert found.position == len(found.tokens) - 2


def test_smollm2(smollm2: Any) -> None:
    result = interp.dla(PROMPT, answer=" Paris")
    logits = smollm2.run(PROMPT).logits[0, -1]
    assert result.total == pytest.approx(float(logits[result.answer[1]]), abs=1e-4)
    pair = interp.dla(STORE, answer=" Mary", wrong=" John")
    assert pair.total == pytest.approx(pair.logit, abs=1e-4)
    assert pair.logit > 3
    assert pair.heads.shape == (30, 9)
    assert pair.per_position.shape == (30, 9, 15)
    # The head that moves the name reads it where the giver's name was repeated.
    strongest = np.unravel_index(pair.heads.argmax(), pair.heads.shape)
    assert pair.per_position[strongest].max() > 0.5 * pair.heads[strongest]
