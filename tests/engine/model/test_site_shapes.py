"""Sites are what the table says, or the model does not have them."""

from __future__ import annotations

from typing import Any

import pytest

import interp
import zoo
from interp.engine.model.load import Options, load
from interp.errors import InputError
from interp.sites import Site
from interp.spec import Intervention


def taken(family: str, session: Any, tokenizer: Any = None) -> Any:
    model = load(zoo.FAMILIES[family](), tokenizer=tokenizer, name=family, options=Options(device="cpu"))
    session.models[family], session.current = model, family
    return model


def test_heads_of_latent_attention_are_refused_where_the_bridge_cuts_them_otherwise(clean_session: Any) -> None:
    model = taken("deepseek_v2", clean_session)
    assert {"resid_pre", "attn_out", "mlp_out", "pattern"} <= set(model.sites)
    assert not {"q", "k", "v", "z"} & set(model.sites)
    with pytest.raises(InputError, match=r"has no z \(here it is \[1, 7, 8, 4\] on 7 tokens"):
        model.run([1, 2, 3], [Intervention(Site("z", 0), head=1, mode="zero")])


def test_routed_experts_have_no_neurons_and_the_dense_layers_below_them_do(clean_session: Any) -> None:
    model = taken("deepseek_v2", clean_session)
    assert (model.neurons(0), model.neurons(1)) == (48, 0)
    assert interp.neurons("0.47", texts=[[1, 2, 3, 4]]).neurons == ("0.47",)
    with pytest.raises(InputError, match="no neuron 48"):
        interp.neurons("0.48", texts=[[1, 2, 3, 4]])
    with pytest.raises(InputError, match="layer 1 of deepseek_v2 has no neuron, unlike layer 0"):
        interp.neurons("1.3", texts=[[1, 2, 3, 4]])
    taken("mixtral", clean_session)
    with pytest.raises(InputError, match="mixtral has no neuron; it has resid_pre"):
        interp.neurons("1.3", texts=[[1, 2, 3, 4]])
    assert interp.dla([1, 2, 3, 4]).neurons == ()


@pytest.mark.parametrize("family", ["opt", "xglm"])
def test_the_number_of_neurons_is_read_off_the_activation(family: str, clean_session: Any) -> None:
    assert taken(family, clean_session).neurons(1) == 40
    with pytest.raises(InputError, match="neurons are 0–39"):
        interp.neurons("1.40", texts=[[1, 2, 3, 4]])


def test_a_model_without_attention_says_what_it_has(clean_session: Any) -> None:
    taken("mamba", clean_session)
    with pytest.raises(InputError, match=r"^mamba has no pattern; it has resid_pre, resid_post$"):
        interp.attention([1, 2, 3])


def test_layers_of_another_kind_are_named(clean_session: Any) -> None:
    taken("lfm2", clean_session)
    with pytest.raises(InputError, match="layer 0 of lfm2 has no pattern, unlike layer 1"):
        interp.attention([1, 2, 3])
    assert interp.attention([1, 2, 3], layer=1).pattern.shape == (1, 4, 3, 3)


def test_a_norm_without_weights_adds_up(clean_session: Any) -> None:
    taken("olmo", clean_session)
    found = interp.dla([1, 2, 3, 4])
    assert found.total == pytest.approx(found.logit, abs=1e-4)


def test_answers_are_tokens_that_have_a_logit(clean_session: Any) -> None:
    model = taken("native_fewer_outputs", clean_session)
    size = model.geometry.d_vocab_out
    assert size == model.geometry.d_vocab - 40
    pair = {"clean": [5, 9, 12], "corrupted": [5, 9, 13], "wrong": 4}
    with pytest.raises(InputError, match=f"outside the vocabulary; ids are 0–{size - 1}"):
        interp.patch(**pair, answer=size)
    assert interp.patch(**pair, answer=size - 1).effect.shape == (2, 4)
    found = interp.ov("0.1")
    assert found.positivity != found.positivity
    assert "not the same ones" in " ".join(found.notes)
    assert "copying" not in interp.heads(n=4).scores


def test_attention_alone_needs_no_hooks(clean_session: Any) -> None:
    taken("native_attention_only", clean_session)
    assert interp.patch([5, 9, 12], [5, 9, 13], answer=3, wrong=4).provenance.path == "replay"
    assert -1 <= interp.ov("0.1").positivity <= 1
    assert interp.compose().scores["q"].shape == (2, 4, 2, 4)
    found = interp.dla([5, 9, 12])
    assert found.total == pytest.approx(found.logit, abs=1e-4)


@pytest.mark.parametrize("family", ["bert_pretraining", "bert_nsp", "bert_qa", "bert_tokens", "bert_choice"])
def test_other_heads_are_refused_in_memory_with_what_takes_them(family: str) -> None:
    with pytest.raises(InputError, match=r"AutoModelForMaskedLM, or give interp.load its folder"):
        load(zoo.FAMILIES[family](), tokenizer=zoo.tokenizer(family), options=Options(device="cpu"))


@pytest.mark.parametrize("family", ["bert_pretraining", "bert_nsp", "bert_qa", "bert_tokens"])
def test_other_heads_are_taken_from_a_folder(family: str, tmp_path: Any, clean_session: Any) -> None:
    zoo.FAMILIES[family]().save_pretrained(tmp_path)
    zoo.tokenizer(family).save_pretrained(tmp_path)
    interp.load(tmp_path, device="cpu")
    assert clean_session.get().geometry.causal is False
    assert interp.attention("Mary gave the drink").pattern.shape[:2] == (2, 4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_lens_is_trained_in_every_dtype(dtype: str, clean_session: Any) -> None:
    import torch

    model = zoo.FAMILIES["gpt2"]().to(getattr(torch, dtype))
    clean_session.models["own"] = load(model, name="own", options=Options(device="cpu"))
    clean_session.current = "own"
    found = interp.lens_train([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], steps=20)
    assert found.weights.dtype == "float32"
    assert (found.tuned_kl <= found.logit_kl + 1e-3).all()
