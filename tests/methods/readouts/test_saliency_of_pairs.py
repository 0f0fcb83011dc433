"""A classifier of two sentences (NLI) is explained on the logits that Hugging Face gives for the pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

import interp
import models
import zoo
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

PAIR = ("Mary gave John", "the drink")
_SIZES: dict[str, Any] = {
    "vocab_size": zoo.ENCODED,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "id2label": {0: "entailment", 1: "neutral", 2: "contradiction"},
    "label2id": {"entailment": 0, "neutral": 1, "contradiction": 2},
}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "deberta-v2": {"type_vocab_size": 2},
}


def made(kind: str) -> tuple[Any, Any]:
    config: Any = transformers.CONFIG_MAPPING[kind](**_SIZES | KINDS[kind])
    model: Any = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    tokenizer = models.tokenizer(encoder=True)
    if getattr(config, "type_vocab_size", 0) > 1:
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return zoo.spread(model), tokenizer


def of_huggingface(model: Any, tokenizer: Any) -> tuple[Any, dict[str, Any]]:
    encoded = tokenizer(*PAIR, return_tensors="pt")
    with torch.no_grad():
        return model(**encoded, output_attentions=True), encoded


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_huggingfaces_own(kind: str) -> None:
    model, tokenizer = made(kind)
    out, encoded = of_huggingface(model, tokenizer)
    logits = out.logits[0].tolist()
    for prompt in (PAIR, encoded, {name: value.tolist() for name, value in encoded.items()}):
        result = interp.saliency_of_classifier(prompt, model, tokenizer)
        assert (result.answer or ("", -1))[1] == int(np.argmax(logits))
        assert result.value == pytest.approx(max(logits), abs=1e-4)
        assert list(result.provenance.tokens[0]) == encoded["input_ids"][0].tolist()
        assert abs(result.gap) < 0.05
    named = interp.saliency_of_classifier(PAIR, model, tokenizer, target="contradiction", wrong="entailment")
    assert named.value == pytest.approx(logits[2] - logits[0], abs=1e-4)
    again = eval(named.code().partition("  #")[0], {"interp": interp, "model": model, "tokenizer": tokenizer})
    assert again.value == named.value


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_types_reach_gradients_and_attention(kind: str) -> None:
    model, tokenizer = made(kind)
    out, encoded = of_huggingface(model, tokenizer)
    embedding = model.get_input_embeddings()
    moved: Any = embedding(encoded["input_ids"]).detach().requires_grad_()
    types = encoded["token_type_ids"]
    assert types.any()
    model(inputs_embeds=moved, token_type_ids=types).logits[0, 1].backward()
    expected = (moved.grad * moved)[0].sum(-1).detach()
    result = interp.saliency_of_classifier(PAIR, model, tokenizer, target=1, method="gradient-input")
    assert float(np.abs(result.attribution - expected.numpy()).max()) <= 1e-5
    bare = interp.saliency_of_classifier(encoded["input_ids"], model, tokenizer, target=1, method="gradient-input")
    assert abs(bare.value - float(out.logits[0, 1])) > 1e-3
    seen = torch.eye(len(types[0]), dtype=torch.float64)
    for pattern in out.attentions:
        step = pattern[0].double().mean(0) + torch.eye(len(seen))
        seen = step / step.sum(-1, keepdim=True) @ seen
    rolled = interp.saliency_of_classifier(PAIR, model, tokenizer, method="rollout")
    assert float(np.abs(rolled.attribution - seen[0].numpy()).max()) <= 1e-5
    assert rolled.provenance.types == types.tolist()


def test_a_counterfactual_pair() -> None:
    model, tokenizer = made("bert")
    other = ("Mary gave John", "the store")
    if len(tokenizer(*other)["input_ids"]) != len(tokenizer(*PAIR)["input_ids"]):
        other = ("John gave Mary", "the drink")
    result = interp.saliency_of_classifier(PAIR, model, tokenizer, target=1, counterfactual=other)
    typed = tokenizer(*other, return_tensors="pt", return_token_type_ids=True)
    with torch.no_grad():
        assert result.reference == pytest.approx(float(model(**typed).logits[0, 1]), abs=1e-4)
    with pytest.raises(InputError, match="line up"):
        interp.saliency_of_classifier(PAIR, model, tokenizer, counterfactual=("Mary", "the drink to the store"))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (("a", ""), "second sentence of the prompt is empty"),
        (("a", "b", "c"), "a tuple of 3 texts"),
        (["a", "b"], "one prompt at a time"),
        (None, "a prompt is a text"),
    ],
)
def test_what_is_no_pair_is_refused(prompt: Any, words: str) -> None:
    model, tokenizer = made("distilbert")
    with pytest.raises(InputError, match=words):
        interp.saliency_of_classifier(prompt, model, tokenizer)
