"""Patterns and probabilities are Hugging Face's own, on random models of four types and on the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

import interp
import models
from interp.engine.model.load import Options, load
from real import PROMPT, STORE

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = {
    "plain": STORE,
    "emoji": "🙂 family 👨‍👩‍👧‍👦 flag 🇫🇷 done",
    "combining": "e\u0301 and a\u0308\u0323 and Z̸͇̎a̷͎͝l̵̛̤g̶̨̈́o̴͉̓",
    "code": "def f(x):\n\treturn {k: v ** 2 for k, v in x.items()}  # ok\n",
    "one token": "a",
}


@cache
def _eager(folder: Path, kind: Any) -> Any:
    return kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def patterns(hf: Any, ids: list[int]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        given = hf(torch.tensor([ids]), output_attentions=True).attentions
    return torch.stack(given)[:, 0].numpy()


def check(hf: Any, result: Any) -> None:
    (ids,) = result.provenance.tokens
    expected = patterns(hf, ids)
    assert result.pattern.shape == expected.shape
    assert float(np.abs(result.pattern - expected).max()) <= 1e-5
    assert float(np.abs(result.pattern.sum(-1) - 1).max()) <= 1e-5
    if result.causal:
        assert float(np.abs(np.triu(result.pattern, 1)).max()) == 0


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2(smollm2: Any, smollm2_folder: Path, text: str) -> None:
    result = interp.attention(TEXTS[text], bos=False if text == "one token" else None)
    assert (len(result.tokens) == 1) == (text == "one token")
    assert result.pattern.shape[:2] == (smollm2.geometry.n_layers, 9)
    check(_eager(smollm2_folder, AutoModelForCausalLM), result)


def test_smollm2_with_300_tokens(smollm2: Any, smollm2_folder: Path) -> None:
    ids = [smollm2.tokens.bos_id, *torch.randint(100, 40_000, (299,), generator=torch.manual_seed(0)).tolist()]
    check(_eager(smollm2_folder, AutoModelForCausalLM), interp.attention(ids))


@pytest.mark.parametrize("text", [*TEXTS, "300 tokens"])
def test_minilm(minilm: Any, minilm_folder: Path, text: str) -> None:
    if text == "one token":
        result = interp.attention("dog", bos=False)
        assert len(result.tokens) == 1
    else:
        result = interp.attention("a man walks his dog " * 58 if text == "300 tokens" else TEXTS[text])
        assert result.tokens[0] == "[CLS]"
        assert result.tokens[-1] == "[SEP]"
    assert minilm.geometry.causal is False
    check(_eager(minilm_folder, AutoModel), result)


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Any:
    """Return a random model with room for 320 tokens, and the same one loaded by interp."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "N_CTX", 320)
        tokenizer = models.tokenizer(encoder=request.param == "bert")
        hf, again = (models.FAMILIES[request.param](len(tokenizer)) for _ in range(2))
    hf.set_attn_implementation("eager")
    return hf, load(again, tokenizer=tokenizer, name=request.param, options=Options(device="cpu"))


@pytest.mark.parametrize("text", [*TEXTS, "300 tokens"])
@pytest.mark.parametrize("pair", ["gpt2", "llama", "neox", "bert"], indirect=True)
def test_random_models(pair: Any, text: str, clean_session: Any) -> None:
    hf, model = pair
    clean_session.models[model.name] = model
    clean_session.current = model.name
    if text == "300 tokens":
        result = interp.attention(torch.randint(10, 300, (300,), generator=torch.manual_seed(0)).tolist())
        assert len(result.tokens) == 300
    else:
        result = interp.attention(TEXTS[text], bos=False if text == "one token" else None)
    check(hf, result)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pair", ["gpt2", "llama", "neox"], indirect=True)
def test_probabilities_of_random_models(pair: Any, text: str, clean_session: Any) -> None:
    hf, model = pair
    clean_session.models[model.name] = model
    clean_session.current = model.name
    _check_predictions(hf, interp.predict(TEXTS[text], top=400))


def _check_predictions(hf: Any, result: Any) -> None:
    (ids,) = result.provenance.tokens
    with torch.no_grad():
        logs = hf(torch.tensor([ids])).logits[0, result.position].double().log_softmax(-1)
    expected = logs.exp()
    assert result.position == len(ids) - 1
    assert [p for _, _, p in result.top] == sorted((p for _, _, p in result.top), reverse=True)
    for _, index, probability in result.top:
        assert abs(probability - float(expected[index])) <= 5e-5
    assert abs(result.entropy - float(-(expected * logs).sum())) <= 1e-4


@pytest.mark.parametrize("pair", ["bert"], indirect=True)
def test_the_masked_word_of_an_encoder(pair: Any, clean_session: Any) -> None:
    hf, model = pair
    clean_session.models[model.name] = model
    clean_session.current = model.name
    result = interp.predict("The cat [MASK] on the mat", top=5)
    (ids,) = result.provenance.tokens
    assert result.tokens[result.position] == "[MASK]"
    with torch.no_grad():
        expected = hf(torch.tensor([ids])).logits[0, result.position].softmax(-1)
    assert [index for _, index, _ in result.top] == expected.topk(5).indices.tolist()
    for text in ("The cat sat", "The [MASK] sat on the [MASK]"):
        with pytest.raises(interp.InputError, match="put one"):
            interp.predict(text)


def test_what_smollm2_says(smollm2: Any, smollm2_folder: Path) -> None:
    hf = _eager(smollm2_folder, AutoModelForCausalLM)
    paris, mary = interp.predict(PROMPT), interp.predict(STORE)
    assert paris.top[0][0] == " Paris"
    assert abs(paris.top[0][2] - 0.75) < 0.02
    assert mary.top[0][0] == " Mary"
    assert paris.tokens[0] == smollm2.tokens.string(smollm2.tokens.bos_id)
    for result in (paris, mary):
        _check_predictions(hf, result)


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 0), ("llama", 1), ("neox", 1)])
def test_value_norms_head_by_head(family: str, layer: int, lend: Callable[..., Any]) -> None:
    model = lend(family)
    result = interp.attention("When Mary and John went", layer=layer)
    norms = result.value_norms()
    run = model.run(result.provenance.tokens[0])
    value = run.activations[f"blocks.{layer}.attn.hook_v"][0]
    w_o = model.bridge.blocks[layer].attn.W_O
    for head in range(model.geometry.n_heads):
        own = value[:, head * model.geometry.n_kv_heads // model.geometry.n_heads]
        for key in range(len(result.tokens)):
            written = own[key] @ w_o[head]
            assert abs(float(written.norm()) - float(norms[0, head, key])) <= 1e-5


def test_value_norms_are_what_a_head_writes(smollm2: Any) -> None:
    """Where a head attends to one key alone, its result is that key's value, written."""
    result = interp.attention("a", layer=[3, 17])
    first = interp.attention(result.provenance.tokens[0][:1], layer=[3, 17])
    run = smollm2.run(first.provenance.tokens[0])
    for row, layer in enumerate((3, 17)):
        written = run.activations[f"blocks.{layer}.attn.hook_result"][0, 0].norm(dim=-1)
        np.testing.assert_allclose(first.value_norms()[row, :, 0], written.numpy(), rtol=1e-5)
