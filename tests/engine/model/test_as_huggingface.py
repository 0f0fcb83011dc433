"""Where bare ids, or a tuned prompt, are not what Hugging Face computes, it is said or refused."""

from __future__ import annotations

from typing import Any

import pytest

import interp
import models
import zoo
from interp.engine.model.load import Options, load
from interp.errors import InputError


def noted(family: str, tokenizer: Any, ids: list[int], session: Any) -> str:
    session.models["own"] = load(zoo.FAMILIES[family](), tokenizer=tokenizer, options=Options(device="cpu"))
    session.current = "own"
    return " ".join(interp.attention(ids).notes)


def test_padding_among_ids_is_said(clean_session: Any) -> None:
    tokenizer = models.tokenizer()
    tokenizer.pad_token = tokenizer.eos_token  # as most decoders have it
    pad = tokenizer.pad_token_id
    assert "4 padding tokens" in noted("llama", tokenizer, [pad, pad, pad, pad, 5, 9, 12], clean_session)
    assert "padding" not in noted("llama", tokenizer, [pad, 5, 9, 12], clean_session)
    encoder = models.tokenizer(encoder=True)
    ids = [*encoder("Mary gave")["input_ids"], encoder.pad_token_id]
    assert "1 padding tokens" in noted("bert", encoder, ids, clean_session)
    assert not noted("bert", encoder, ids[:-1], clean_session)


def test_ids_of_two_sentences_are_said_to_be_read_as_one(clean_session: Any) -> None:
    encoder = models.tokenizer(encoder=True)
    first, second = (encoder(text)["input_ids"] for text in ("Mary gave", "the drink"))
    assert "every token has the type 0" in noted("bert", encoder, [*first, *second[1:]], clean_session)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_virtual_tokens_are_refused(kind: str) -> None:
    peft = pytest.importorskip("peft")
    settings = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(zoo.FAMILIES["llama"](), settings)
    with pytest.raises(InputError, match=r"virtual tokens before every prompt.*get_base_model\(\)"):
        load(model, tokenizer=models.tokenizer(), options=Options(device="cpu"))
    assert load(model.get_base_model(), tokenizer=models.tokenizer(), options=Options(device="cpu")).doubt == ""
