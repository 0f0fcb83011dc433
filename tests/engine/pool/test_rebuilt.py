"""Models that no file holds: another process makes one of the same shape, and with the weights it is the same one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers

import interp
import models
import zoo
from interp.engine.model.load import Options, load
from interp.engine.pool import rebuilt, travel
from interp.engine.pool.here import Here
from interp.errors import InputError
from interp.spec import Prompt

from .test_pool import PAIRS, same


def made(family: str) -> Any:
    return zoo.FAMILIES[family]() if family == "native" else zoo.drawn(family)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gpt_neox", "gemma3_text", "qwen3", "mixtral", "gpt_oss", "bert", "native"]
)
def test_one_like_it_is_made_of_its_configuration(family: str, dtype: torch.dtype) -> None:
    given = made(family)
    if family == "native":
        given.original_model.to(dtype)
    else:
        given = given.to(dtype)  # its buffers, too, which loading leaves in float32
    model = load(given, name="own", options=Options())
    sent = json.loads(json.dumps(rebuilt.description(model)))
    other = rebuilt.rebuilt("own", sent)
    assert other.fingerprint() != model.fingerprint()  # its weights are any
    travel.change(other, travel.changed(model, travel.digests(other)))
    assert other.fingerprint() == model.fingerprint()


def test_its_tokenizer_comes_with_it() -> None:
    model = load(made("llama"), tokenizer=models.tokenizer(), name="own", options=Options())
    other = rebuilt.rebuilt("own", json.loads(json.dumps(rebuilt.description(model))))
    text = Prompt("Mary went to the store")
    assert other.encode(text).ids == model.encode(text).ids


@pytest.mark.usefixtures("small_shards")
def test_a_model_in_memory_goes_to_workers_as_it_is(clean_session: Any, session_with: Any, two: Any) -> None:
    model = clean_session.load(made("llama"), name="own")
    session_with(Here())
    here = interp.patch(pairs=PAIRS)
    session_with(two)
    same(here, interp.patch(pairs=PAIRS))
    with torch.no_grad():
        model.bridge.blocks[1].attn.o.weight.mul_(1.5)
    changed = interp.patch(pairs=PAIRS)
    session_with(Here())
    same(interp.patch(pairs=PAIRS), changed)


class Own(transformers.LlamaForCausalLM):
    """A class of the user's."""


def test_a_class_of_the_user_s_is_refused(clean_session: Any, session_with: Any, two: Any) -> None:
    clean_session.load(Own(transformers.LlamaConfig(**zoo.settings("llama"))), name="own")
    session_with(two)
    with pytest.raises(InputError, match="own is held in this notebook alone, and a worker cannot make a Own"):
        interp.patch(pairs=PAIRS)
    asked = {"kind": "pipeline", "config_kind": "LlamaConfig", "config": {}, "tokenizer": {}, "device": "cpu"}
    with pytest.raises(InputError, match="is no model of transformers' here"):
        rebuilt.rebuilt("own", asked)
