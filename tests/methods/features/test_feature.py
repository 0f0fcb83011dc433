"""One feature looked at: planted ones are found where they are, weights say what the formulas do, refusals."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from engine.features import made
from interp.engine.features import held
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.places import Place
from interp.errors import InputError, Interrupted
from interp.views import feature as view

FAMILIES = ("gpt2", "llama", "neox")
TEXTS = [
    "Mary gave the drink to John",
    "John gave the drink to Mary",
    "The store is near the house and Mary went to the store",
    "When Mary and John went to the store, John gave a drink to Mary",
]


def hold(model: Any, *dictionaries: Dictionary) -> None:
    held.hold(model, held.FeatureSet("made", "here", "SAELens", dictionaries))


def planted(model: Any, token: str) -> Dictionary:
    """Return an SAE of layer 0's input, of a model that turns by positions, with one feature: the token is this one."""
    words = model.hf_model.get_input_embeddings().weight.detach()
    (index,) = model.tokens.tokenizer(token, add_special_tokens=False)["input_ids"]
    row = words[index] / words[index].norm()
    along = words @ row
    others = torch.cat([along[:index], along[index + 1 :]]).max()
    place = Place(0, "resid_pre")
    act = Act("jumprelu", threshold=((others + along[index]) / 2)[None])
    return Dictionary("sae", place, (place,), row[None], torch.zeros(1), (row[None],), (None,), act=act)


@pytest.mark.parametrize("token", [" Mary", " the"])
def test_a_planted_token_is_found_wherever_it_stands(token: str, lend: Any) -> None:
    model = lend("llama")
    hold(model, planted(model, token))
    result = interp.feature("0.0", TEXTS, context=3)
    every = [model.tokens.encode(interp.Prompt(text)).strings for text in TEXTS]
    bos = int(model.tokens.encode(interp.Prompt("a")).ids[0] == model.tokens.bos_id)
    count = Counter(string for strings in every for string in strings[bos:])
    assert result.fired == count[token] > 1
    assert result.tokens_read == sum(count.values())
    assert result.texts == len(TEXTS)
    assert result.density == pytest.approx(count[token] / sum(count.values()))
    assert result.histogram.sum() == result.fired
    assert {one.tokens[one.peak] for one in result.exemplars} == {token}
    places = {(n, at) for n, strings in enumerate(every) for at, one in enumerate(strings) if one == token}
    assert {(one.text, one.position) for one in result.exemplars} <= places
    assert sum(one.times for one in result.exemplars) == result.fired
    for one in result.exemplars:
        first = max(0, one.position - 3)
        assert one.tokens == tuple(every[one.text][first : one.position + 4])
        assert one.around[one.peak] == pytest.approx(one.activation) == pytest.approx(result.most, rel=1e-5)
        assert np.isnan(one.around[0]) == bool(bos and not first)
    assert result.tokens[0] == (token, pytest.approx(1.0, abs=1e-5))


def test_places_with_the_same_tokens_around_are_one_with_a_number(lend: Any) -> None:
    model = lend("llama")
    hold(model, planted(model, " Mary"))
    result = interp.feature("0.0", [TEXTS[0], TEXTS[1], TEXTS[1], TEXTS[1]], context=2)
    assert max(one.times for one in result.exemplars) == 3


def unembedding(model: Any, family: str) -> Tensor:
    """Return W_U with the final norm's gain, written out."""
    hf = model.hf_model
    weight = hf.get_output_embeddings().weight.detach().double()
    final = {
        "gpt2": lambda: hf.transformer.ln_f,
        "llama": lambda: hf.model.norm,
        "neox": lambda: hf.gpt_neox.final_layer_norm,
    }
    out = weight * final[family]().weight.detach().double()
    out = out if family == "llama" else out - out.mean(1, keepdim=True)
    return out - out.mean(0)


def attention(model: Any, family: str, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's norm's gain, W_V and W_O, ``[head, d_head, d_model]`` both, of Hugging Face's own weights."""
    hf, width, heads = model.hf_model, model.geometry.d_model, model.geometry.n_heads
    if family == "gpt2":
        block = hf.transformer.h[layer]
        v, o = block.attn.c_attn.weight[:, 2 * width :].T, block.attn.c_proj.weight
        return block.ln_1.weight, v.view(heads, -1, width), o.view(heads, -1, width)
    if family == "llama":
        block = hf.model.layers[layer]
        v, o = block.self_attn.v_proj.weight, block.self_attn.o_proj.weight.T
        return block.input_layernorm.weight, v.view(-1, width // heads, width), o.reshape(heads, -1, width)
    block = hf.gpt_neox.layers[layer]
    v = block.attention.query_key_value.weight.view(heads, 3, -1, width)[:, 2]
    return block.input_layernorm.weight, v, block.attention.dense.weight.T.reshape(heads, -1, width)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_weights_say_is_the_formulas(family: str, lend: Any) -> None:
    model = lend(family)
    one = made.random(1, model.geometry.d_model, point="mlp_in")
    hold(model, one)
    result = interp.feature("1.5", TEXTS)
    string = model.tokens.string
    logits = unembedding(model, family) @ one.decoders[0][5].double()
    for shown, largest in ((result.promoted, True), (result.suppressed, False)):
        best = logits.topk(len(shown), largest=largest)
        assert [name for name, _ in shown] == [string(int(n)) for n in best.indices]
        np.testing.assert_allclose([value for _, value in shown], best.values.numpy(), rtol=1e-4)
    cosines = torch.nn.functional.cosine_similarity(one.decoders[0], one.decoders[0][5][None], dim=1)
    cosines[5] = -2
    best = cosines.topk(len(result.near))
    assert [name for name, _ in result.near] == [f"1.{int(n)}" for n in best.indices]
    np.testing.assert_allclose([value for _, value in result.near], best.values.numpy(), rtol=1e-4)
    words = model.hf_model.get_input_embeddings().weight.detach()
    words = words if family == "llama" else words - words.mean(1, keepdim=True)
    along = torch.nn.functional.cosine_similarity(words, one.encoder[5][None], dim=1)
    assert [name for name, _ in result.tokens] == [string(int(n)) for n in along.topk(len(result.tokens)).indices]
    # A head moves a stream's change by its OV; the encoder, of length 1, takes what comes to it.
    layers = 1 if family == "neox" else 2  # beside each other, the MLP reads what stands before the attention
    expected = {}
    unit = one.encoder[5] / one.encoder[5].norm()
    for layer in range(layers):
        gain, v, o = attention(model, family, layer)
        for head in range(len(o)):
            read = v[head * len(v) // len(o)] * gain
            read = read if family == "llama" else read - read.mean(1, keepdim=True)
            expected[f"L{layer}H{head}"] = float(((o[head] @ unit) @ read).norm())
    found = dict(result.heads)
    best = sorted(expected, key=lambda name: -expected[name])[: len(found)]
    assert list(found) == best
    np.testing.assert_allclose([found[name] for name in best], [expected[name] for name in best], rtol=1e-4)


def test_what_is_active_together_is_said_with_its_share(lend: Any) -> None:
    model = lend("gpt2")
    one = made.random(0, model.geometry.d_model, act=made.relu)
    hold(
        model, replace(one, encoder=torch.cat([one.encoder[:5], one.encoder[4:5], one.encoder[6:]]), bias=one.bias * 0)
    )
    result = interp.feature("0.4", TEXTS)
    assert result.together[0] == ("0.5", pytest.approx(1.0))
    assert result.shares[0] == pytest.approx(1.0)


def test_a_second_feature_over_the_same_texts_runs_nothing(lend: Any) -> None:
    model = lend("gpt2")
    hold(model, made.random(0, model.geometry.d_model))
    first = interp.feature("0.3", TEXTS, seed=8)
    second = interp.feature("0.4", TEXTS, seed=8)
    assert first.provenance.forwards > 0
    assert second.provenance.forwards == 0
    assert second.provenance.path == "store"
    assert second.provenance.features == first.provenance.features != {}


@pytest.mark.parametrize("kind", ["z", "neuron", "attn_out", "resid_post", "mlp_out", "mlp_unit"])
def test_every_place_that_is_read_is_shown(kind: str, lend: Any) -> None:
    from interp.engine.features.places import widths

    model = lend("gpt2")
    wide = widths(model)[kind]
    draw = torch.Generator().manual_seed(0)
    row = torch.randn(6, wide, generator=draw)
    place = Place(1, kind)
    writes = Place(1, "mlp_out") if kind == "mlp_unit" else place
    decoder = torch.randn(6, widths(model)[writes.point], generator=draw)
    what = "transcoder" if kind == "mlp_unit" else "sae"
    hold(model, Dictionary(what, place, (writes,), row, torch.zeros(6), (decoder,), (None,)))
    result = interp.feature("1.2", TEXTS)
    assert len(result.promoted) == 8
    assert bool(result.heads) == (kind not in {"neuron", "mlp_out"})
    assert bool(result.tokens) == (kind in {"resid_post", "mlp_unit"})
    assert any("what it reads is left out" in note for note in result.notes) == (kind in {"neuron", "mlp_out"})


def test_of_an_encoder_weights_are_left_out_with_the_reason(lend: Any) -> None:
    model = lend("bert")
    place = Place(0, "resid_post")
    eye = torch.eye(model.geometry.d_model)
    hold(model, Dictionary("sae", place, (place,), eye, torch.zeros(len(eye)), (eye,), (None,)))
    result = interp.feature("0.2", TEXTS[:1])
    assert result.promoted == ()
    assert any("left out" in note for note in result.notes)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_steers_as_its_decoder_does(family: str, lend: Any) -> None:
    """What is added is the decoder's row, at the layer's end; the command finds layer and site by itself."""
    model = lend(family)
    layer = 0  # not the middle one
    one = made.random(layer, model.geometry.d_model)
    hold(model, one)
    result = interp.feature(f"{layer}.3", TEXTS)
    np.testing.assert_allclose(result.direction, one.decoders[0][3].numpy(), rtol=1e-6)
    assert (result.layer, result.site) == (layer, "resid_post")
    steered = interp.steer("Mary gave", direction=result, strength=3.0, n=2)
    assert (steered.layer, steered.site) == (layer, "resid_post")
    name = f"blocks.{layer}.hook_resid_post"
    plain = model.run("Mary gave").activations[name]
    changed = model.run("Mary gave", interventions=[steered.intervention(3.0)]).activations[name]
    np.testing.assert_allclose((changed - plain)[0, -1].numpy(), 3 * result.direction, rtol=1e-3, atol=1e-4)


def test_a_feature_that_is_never_active_says_so(lend: Any) -> None:
    model = lend("gpt2")
    one = made.random(0, model.geometry.d_model, act=made.relu)
    hold(model, replace(one, bias=one.bias - 1e6))
    result = interp.feature("0.2", TEXTS)
    assert result.fired == 0
    assert result.exemplars == ()
    assert "0.2 is active nowhere in these texts; give more or others" in result.notes
    assert "never active here" in view.html(result)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"which": "0.99"}, "no feature 99 in layer 0; they are 0–23"),
        ({"which": "7.1"}, "made has no features of layer 7"),
        ({"which": "a"}, "'a' names no feature"),
        ({"which": "0.1", "context": -1}, "--context -1 is no number of tokens"),
        ({"which": "0.1", "texts": []}, "there are no texts"),
        ({"which": "0.1", "texts": ["a", ""]}, "text 1"),
        ({"which": "0.1", "features": "mad"}, "no features are called 'mad'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(call: dict[str, Any], said: str, lend: Any) -> None:
    model = lend("gpt2")
    hold(model, made.random(0, model.geometry.d_model))
    with pytest.raises(InputError, match=re.escape(said)):
        interp.feature(**{"texts": TEXTS, **call})


def test_an_interrupt_shows_what_there_is(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    hold(model, made.random(0, model.geometry.d_model))

    def on_step(done: int, total: int, said: str = "") -> None:  # noqa: ARG001
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr(model, "on_step", on_step)
    with pytest.raises(Interrupted) as caught:
        interp.feature("0.3", TEXTS, seed=7)  # no pass that an earlier test has left
    result = caught.value.result
    assert 0 < result.texts < len(TEXTS)
    assert f"partial: interrupted after {result.texts} of {len(TEXTS)} texts" in result.notes


def test_pictures_and_data(lend: Any, tmp_path: Any) -> None:
    model = lend("gpt2")
    hold(model, made.random(0, model.geometry.d_model))
    held.label(
        model, "made", {"0.3": held.Label("the token is a <name>", {"precision": 0.5, "recall": 1.0, "F1": 0.67})}
    )
    result = interp.feature("0.3", TEXTS)
    assert result.label == "the token is a <name>"
    page = view.html(result)
    assert "the token is a &lt;name&gt;" in page
    assert "F1 0.67 (precision 0.50, recall 1.00)" in page
    assert page.count("interp-centred interp-code") == len(view.Dashboard(result).shown)
    shown = view.Dashboard(result)
    for _, one in shown.shown:
        np.testing.assert_array_equal(np.isnan(shown.values(one)), np.isnan(one.around))  # a BOS has no colour
    for suffix in ("svg", "html", "json", "npz"):
        result.save(tmp_path / f"feature.{suffix}")
    frame = result.to_frame()
    assert len(frame) == len(result.exemplars)
    assert frame.activation.is_monotonic_decreasing
    assert "strongest tenth of its activations" in result.text()


def test_on_a_real_model_it_is_the_hooked_runs(smollm2: Any) -> None:
    """Counts, sums and places of a random transcoder's features in SmolLM2, beside plain runs text by text."""
    from interp.engine.features.places import captured

    one = made.random(11, smollm2.geometry.d_model, act=made.relu)
    hold(smollm2, one)
    result = interp.feature("11.3", TEXTS, context=2)
    values = []
    for text in TEXTS:
        encoded = smollm2.encode(interp.Prompt(text))
        first = int(encoded.ids[0] == smollm2.tokens.bos_id)
        read = captured(smollm2, encoded, [one.reads])[one.reads].float()
        values.append(one.encode(read).column(3)[first:])
    every = torch.cat(values)
    assert result.provenance.path == "forward"
    assert result.fired == int((every > 0).sum()) > 0
    assert result.most == pytest.approx(float(every.max()), rel=1e-3)
    assert result.mean == pytest.approx(float(every[every > 0].mean()), rel=1e-3)
    assert sum(one.times for one in result.exemplars) <= result.fired
    assert len(result.promoted) == len(result.heads) == 8
