"""Saliency without gradients: tokens replaced one by one, Shapley values by enumeration, planted truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp.engine.readouts import perturbed
from interp.errors import InputError

from .test_saliency_of_pairs import made

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "neox", "bert")
METHODS = ("occlusion", "kernel-shap", "lime")


def text(family: str) -> str:
    return "Mary gave the [MASK] to John" if family == "bert" else "Mary gave the drink to"


def replaced(model: Any, prompt: str, answer: int, wrong: int) -> Callable[[tuple[bool, ...]], float]:
    """Return the difference of two logits where the tokens that are not there have the vocabulary's mean embedding."""
    ids = model.tokens.encode(interp.Prompt(prompt)).ids
    weight = model.bridge.embed.original_component.weight.detach()
    mean, own = weight.double().mean(0).float(), weight[list(ids)]
    position = ids.index(model.tokens.tokenizer.mask_token_id) if not model.geometry.causal else -1

    def value(there: tuple[bool, ...]) -> float:
        rows = torch.where(torch.tensor(there)[:, None], own, mean)
        hook = ("embed.hook_out", lambda tensor, hook: rows[None].to(tensor))  # noqa: ARG005
        with torch.no_grad():
            logits = model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=[hook], return_type="logits")
        return float(logits[0, position, answer] - logits[0, position, wrong])

    return value


@pytest.mark.parametrize("family", FAMILIES)
def test_occlusion_is_the_loop_by_hand(lend: Any, family: str) -> None:
    model = lend(family)
    result = interp.saliency(text(family), method="occlusion", answer=" Mary", wrong=" John")
    assert result.answer is not None
    assert result.wrong is not None
    value = replaced(model, text(family), result.answer[1], result.wrong[1])
    count = len(result.tokens)
    whole = value((True,) * count)
    parts = [whole - value(tuple(n != at for n in range(count))) for at in range(count)]
    np.testing.assert_allclose(result.attribution, parts, atol=1e-4)
    assert result.value == pytest.approx(whole, abs=1e-4)
    assert result.reference == pytest.approx(value((False,) * count), abs=1e-4)
    assert not any("warning" in note for note in result.notes)


def shapley(value: Callable[[tuple[bool, ...]], float], count: int) -> list[float]:
    """Return Shapley values by going through all sets."""
    known = {there: value(there) for there in itertools.product((False, True), repeat=count)}
    found = []
    for at in range(count):
        total = 0.0
        for there, held in known.items():
            if there[at]:
                continue
            size = sum(there)
            share = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            total += share * (known[(*there[:at], True, *there[at + 1 :])] - held)
        found.append(total)
    return found


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_kernel_shap_is_the_shapley_values_and_near_them_where_it_samples(lend: Any, family: str) -> None:
    model = lend(family)
    asked = {"answer": " Mary", "wrong": " John", "method": "kernel-shap"}
    result = interp.saliency(text(family), samples=512, **asked)
    assert result.answer is not None
    assert result.wrong is not None
    expected = shapley(replaced(model, text(family), result.answer[1], result.wrong[1]), len(result.tokens))
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(result.attribution, expected, atol=1e-4)
    assert result.error == 0
    rough = interp.saliency(text(family), samples=511, **asked)  # one too few for all sets
    np.testing.assert_allclose(rough.attribution, expected, atol=0.4 * scale)
    assert rough.total == pytest.approx(rough.value - rough.reference, abs=1e-3 * scale + 1e-4)
    assert np.abs(rough.attribution - expected).max() <= 4 * rough.error
    assert any("sampled" in note for note in rough.notes)


def planted(weights: list[float], pair: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Return a function that adds weights for the tokens that are there, and `pair` for the first two together."""

    def function(embeddings: Tensor) -> Tensor:
        there = embeddings[..., 0]
        return there @ torch.tensor(weights) + pair * there[:, 0] * there[:, 1]

    return function


def test_a_linear_function_is_found_exactly_and_by_lime_in_order() -> None:
    weights = [2.0, -1.0, 0.5, 0.0, 3.0, 0.0]
    ones = torch.ones(6, 4)
    asked = (planted(weights), ones, ones * 0)
    for method in METHODS:
        found = perturbed.attributed(method, *asked, 600)
        assert (found.value, found.reference) == (pytest.approx(4.5), pytest.approx(0.0))
        if method == "lime":  # shrunk by its penalty
            assert found.parts.abs().argsort(descending=True)[:4].tolist() == [4, 0, 1, 2]
            assert float(found.parts[[3, 5]].abs().max()) < 0.05
        else:
            np.testing.assert_allclose(found.parts, weights, atol=1e-3)


def test_what_two_tokens_do_together_is_shared_by_shapley_and_counted_twice_by_occlusion() -> None:
    ones = torch.ones(3, 2)
    asked = (planted([0.0, 0.0, 1.0], pair=2.0), ones, ones * 0)
    np.testing.assert_allclose(perturbed.attributed("kernel-shap", *asked, 400).parts, [1.0, 1.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(perturbed.attributed("occlusion", *asked, 400).parts, [2.0, 2.0, 1.0], atol=1e-5)


def test_samples_are_the_same_each_time_and_leave_the_user_s_generator(lend: Any) -> None:
    model = lend("gpt2")
    before = torch.random.get_rng_state()
    found = []
    for samples in (60, 60, 70):
        model.store.clear()
        found.append(interp.saliency(text("gpt2"), method="lime", answer=" Mary", samples=samples))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(found[0].attribution, found[1].attribution)
    assert not np.array_equal(found[0].attribution, found[2].attribution)
    again = interp.saliency(text("gpt2"), method="lime", answer=" Mary", samples=70)
    assert again.provenance.forwards == 0
    np.testing.assert_array_equal(again.attribution, found[2].attribution)


@pytest.mark.parametrize("method", METHODS)
def test_a_counterfactual_stands_for_what_is_not_there(lend: Any, method: Any) -> None:
    lend("llama")
    other = text("llama").replace("Mary", "John")
    result = interp.saliency(text("llama"), method=method, answer=" Mary", counterfactual=other, samples=60)
    same = [a == b for a, b in zip(result.tokens, result.counterfactual, strict=True)]
    assert np.abs(result.attribution[same]).max() < 1e-3
    assert np.abs(result.attribution).max() > 0


def test_over_many_prompts_and_with_interventions(lend: Any) -> None:
    lend("gpt2")
    prompts = ["Mary gave the drink to", "John gave the book to"]
    many = interp.saliency(prompts, method="occlusion", answer=" Mary")
    for row, prompt in zip(many.each_token, prompts, strict=True):
        alone = interp.saliency(prompt, method="occlusion", answer=" Mary").attribution
        np.testing.assert_allclose(row[: len(alone)], alone, atol=1e-5)
    off = [interp.Intervention(interp.Site("z", 0), head=0, mode="zero")]
    changed = interp.saliency(prompts[0], method="occlusion", answer=" Mary", interventions=off)
    assert changed.provenance.path.startswith("hooked")
    assert np.abs(changed.attribution - many.each_token[0][: len(changed.tokens)]).max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_classifier_of_two_sentences(method: Any) -> None:
    model, tokenizer = made("bert")
    pair = ("Mary gave the drink", "John took it")
    result = interp.saliency_of_classifier(pair, model, tokenizer, target=1, method=method, samples=80)
    batch = tokenizer(*pair, return_tensors="pt")
    assert int(batch["token_type_ids"].sum()) > 0
    with torch.no_grad():
        own = model(**batch).logits[0]
        rows = model.bert.embeddings.word_embeddings(batch["input_ids"])[0]
        mean = model.bert.embeddings.word_embeddings.weight.double().mean(0).float()
        rows[3] = mean
        more = {name: batch[name] for name in ("attention_mask", "token_type_ids")}
        without = model(inputs_embeds=rows[None], **more).logits[0]
    assert result.value == pytest.approx(float(own[1]), abs=1e-5)
    if method == "occlusion":
        assert result.attribution[3] == pytest.approx(float(own[1] - without[1]), abs=1e-5)
    assert result.provenance.arguments["method"] == method


def test_what_cannot_be_is_refused(lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match="--samples 5 are too few"):
        interp.saliency(text("gpt2"), method="lime", samples=5)


def test_on_smollm2(smollm2: Any) -> None:
    assert smollm2 is not None
    asked = {"answer": " Paris", "counterfactual": "The capital of Italy is"}
    for method in METHODS[:2]:
        result = interp.saliency("The capital of France is", method=method, **asked)
        position = result.tokens.index(" France")
        assert result.attribution[position] == pytest.approx(result.value - result.reference, abs=1e-3)
        assert result.value - result.reference > 2
        assert np.abs(np.delete(result.attribution, position)).max() < 1e-3
