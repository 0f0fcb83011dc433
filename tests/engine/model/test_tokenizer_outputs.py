"""What a tokenizer returns is a prompt: ids, the mask and the token types, in lists, arrays or tensors."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch

import interp
import models
import zoo
from interp.engine.model.load import Options, load
from interp.errors import InputError
from interp.ids import TypedIds, differing, typed
from interp.prompts import as_prompt

TEXT = "When Mary and John went"
# Families that place a token by its own table, by the mask, by rotation, by distance, and by a state.
FAMILIES = ["gpt2", "opt", "xglm", "llama", "gpt_neox", "bloom", "mistral", "lfm2", "mamba", "bert", "roberta"]


def loaded(family: str, session: Any) -> tuple[Any, Any, Any]:
    """Return Hugging Face's model, the same loaded by interp, and the tokenizer, which pads."""
    hf = zoo.FAMILIES[family]()
    encoder = family in {"bert", "roberta"}
    tokenizer = models.tokenizer(encoder=encoder)
    if not encoder:
        tokenizer.pad_token = tokenizer.eos_token
    if family == "roberta":
        hf.config.pad_token_id = hf.roberta.embeddings.padding_idx = tokenizer.pad_token_id
    model = load(copy.deepcopy(hf), tokenizer=tokenizer, options=Options(device="cpu"))
    session.models["own"], session.current = model, "own"
    return hf, model, tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_ends_are_left_out_as_in_huggingfaces_generate(family: str, side: str, clean_session: Any) -> None:
    hf, model, tokenizer = loaded(family, clean_session)
    encoded = tokenizer(TEXT, padding="max_length", max_length=20, padding_side=side, return_tensors="pt")
    mask = encoded["attention_mask"]
    assert 0 in mask
    given: dict[str, Any] = {"input_ids": encoded["input_ids"], "attention_mask": mask}
    if family != "roberta" and "position_ids" in inspect.signature(hf.forward).parameters:
        given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)  # as generate makes them
    with torch.no_grad():
        expected = hf(**given).logits[0][mask[0].bool()]
    run = model.run(encoded)
    assert len(run.tokens.ids) == int(mask.sum())
    assert float((run.logits[0] - expected).abs().max()) <= 1e-4
    said = " ".join(interp.tokens(encoded).notes)
    assert ("positions count from the first" in said) == (side == "left")
    assert f"{20 - int(mask.sum())} masked tokens" in said


def test_every_form_of_a_tokenizers_output_is_the_same_prompt(clean_session: Any) -> None:
    loaded("bert", clean_session)
    tokenizer = interp.model.bridge.tokenizer
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    options: dict[str, Any] = {"padding": "max_length", "max_length": 24}
    plain = tokenizer("Mary gave", "the drink", **options)
    batch = tokenizer([["Mary gave", "the drink"]], **options, return_tensors="pt")
    forms = [
        plain,
        dict(plain),
        batch,
        {name: value.numpy() for name, value in batch.items()},
        {name: value[0].numpy() for name, value in batch.items()},
        {name: value[0] for name, value in batch.items()},
        {name: value.tolist() for name, value in batch.items()},
        {name: tuple(value[0].tolist()) for name, value in batch.items()},
        {name: [np.int64(one) for one in value] for name, value in plain.items()},
        {**plain, "attention_mask": [one == 1 for one in plain["attention_mask"]]},
        {**plain, "attention_mask": torch.tensor(plain["attention_mask"], dtype=torch.float32)},
        {**plain, "special_tokens_mask": [0] * 24, "offset_mapping": [(0, 1)] * 24},
    ]
    expected = interp.attention(("Mary gave", "the drink"))
    for form in forms:
        result = interp.attention(form)
        np.testing.assert_array_equal(result.pattern, expected.pattern)
        assert result.provenance.tokens == expected.provenance.tokens
        assert result.provenance.types == expected.provenance.types
        assert "two sentences are read" not in " ".join(result.notes)
    assert interp.neurons("0.1", texts=[plain, "a b"]).provenance.arguments["texts"][1] == "a b"
    assert len(interp.neurons("0.1", texts=batch).provenance.arguments["texts"]) == 1


def test_a_mapping_without_types_says_nothing_of_them(clean_session: Any) -> None:
    _, _, tokenizer = loaded("bert", clean_session)
    encoded = tokenizer("Mary gave", "the drink")
    assert "token_type_ids" not in encoded
    result = interp.attention(encoded)
    assert "every token has the type 0" in " ".join(result.notes)
    # As Hugging Face's own forward of what this tokenizer returns.
    pair = interp.attention(("Mary gave", "the drink"))
    np.testing.assert_array_equal(pair.pattern, result.pattern)
    assert "the tokenizer by itself gives no token types" in " ".join(pair.notes)


def test_decoders_take_types_that_say_nothing(clean_session: Any) -> None:
    for family, said in (("llama", False), ("gpt2", True)):
        loaded(family, clean_session)
        result = interp.attention({"input_ids": [5, 9, 12], "token_type_ids": [0, 0, 0]})
        np.testing.assert_array_equal(result.pattern, interp.attention([5, 9, 12]).pattern)
        assert ("would take them for words" in " ".join(result.notes)) == said
        with pytest.raises(InputError, match="tells no types apart; leave token_type_ids out"):
            interp.attention({"input_ids": [5, 9, 12], "token_type_ids": [0, 0, 1]})


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({}, "has input_ids"),
        ({"attention_mask": [1]}, "has input_ids.*this one has attention_mask"),
        ({"input_ids": []}, "prompt is empty"),
        ({"input_ids": [[]]}, "prompt is empty"),
        ({"input_ids": [[1, 2], [3, 4]]}, r"input_ids has 2 rows; give one, such as \{name: rows\[:1\]"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.int64)}, "2 rows"),
        ({"input_ids": torch.ones(1, 1, 3, dtype=torch.int64)}, "lies deeper"),
        ({"input_ids": [5, 6, 7], "attention_mask": [1, 0, 1]}, "hole at position 1"),
        ({"input_ids": [5, 6], "attention_mask": [0, 0]}, "leaves every token out"),
        ({"input_ids": [5, 6], "attention_mask": [1]}, "attention_mask has 1 numbers and input_ids 2"),
        ({"input_ids": [5, 6], "attention_mask": [2, 1]}, "holds 1 for what is read"),
        ({"input_ids": [5, 6], "token_type_ids": [0]}, "token_type_ids has 1 numbers"),
        ({"input_ids": [5, 6], "token_type_ids": [0, -1]}, "token type -1"),
        ({"input_ids": [5.5, 6]}, "must hold whole numbers"),
        ({"input_ids": [5, float("nan")]}, "must hold whole numbers"),
        ({"input_ids": [True, 5]}, "must hold whole numbers"),
        ({"input_ids": "abc"}, "is a list of numbers, not str"),
        ({"input_ids": [5, 6], "position_ids": [0, 1]}, "leave 'position_ids' out"),
        ({"input_ids": [5, 10**6]}, "outside the vocabulary"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(lend: Any, prompt: Any, words: str) -> None:
    lend("bert")
    with pytest.raises(InputError, match=words) as refused:
        interp.attention(prompt)
    assert len(str(refused.value)) <= 400
    assert "\n" not in str(refused.value)


def test_typed_ids_keep_their_types_and_are_equal_to_no_others() -> None:
    ids = TypedIds((5, 6, 7), (0, 1, 1))
    assert ids == TypedIds((5, 6, 7), (0, 1, 1))
    assert hash(ids) == hash(copy.deepcopy(ids))
    assert (5, 6, 7) != ids != TypedIds((5, 6, 7), (0, 0, 1))
    assert len({ids: 0, (5, 6, 7): 1}) == 2
    assert ids[1:] == TypedIds((6, 7), (1, 1))
    assert ids[:1] == (5,)
    assert type(typed((5, 6), (0, 0))) is tuple
    assert differing(ids, (5, 9, 7)) == (1, 2)
    assert as_prompt(ids).plain == {"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1]}
    with pytest.raises(InputError, match="2 ids and 1 token types"):
        TypedIds((5, 6), (0,))
