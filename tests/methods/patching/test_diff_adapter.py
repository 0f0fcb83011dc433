"""diff of one model with its adapter on and off, against two models loaded by hand."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

import interp
import models
from interp.engine.model.load import without_adapter
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN = "When Mary and John went to the store, John gave a drink to"
OTHER = "When John and Mary went to the store, Mary gave a drink to"
PAIRS = [(CLEAN, OTHER, " Mary", " John")]
WAYS = ["flag", "object with a folder", "adapter folder", "peft object"]


def adapted(family: str) -> tuple[Any, Any]:
    """Return a PEFT model whose adapter changes layer 1 alone, and the model without it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        plain = models.FAMILIES[family](len(models.tokenizer()))
        config = peft.LoraConfig(
            r=4,
            target_modules=["c_fc"] if family == "gpt2" else ["up_proj"],
            layers_to_transform=[1],
            init_lora_weights=False,
            fan_in_fan_out=family == "gpt2",
            task_type="CAUSAL_LM",
        )
        return peft.get_peft_model(copy.deepcopy(plain), config).eval(), plain


def loaded(session: Any, way: str, family: str, place: Path) -> Any:
    """Load the model with its adapter as "tuned", without as "base"; return what must be kept."""
    wrapped, plain = adapted(family)
    plain.save_pretrained(place / "base")
    models.tokenizer().save_pretrained(place / "base")
    wrapped.peft_config["default"].base_model_name_or_path = str(place / "base")
    wrapped.save_pretrained(place / "lora")
    session.load(place / "base", name="base", device="cpu")
    if way == "flag":
        session.load(place / "base", adapter=place / "lora", name="tuned", device="cpu")
    elif way == "object with a folder":
        session.load(plain, tokenizer=models.tokenizer(), adapter=place / "lora", name="tuned", device="cpu")
        return plain
    elif way == "adapter folder":
        session.load(place / "lora", name="tuned", device="cpu")
    else:
        session.load(wrapped, tokenizer=models.tokenizer(), name="tuned", device="cpu")
        return wrapped
    return None


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("way", WAYS)
def test_one_model_alone_is_compared_with_itself_without_its_adapter(
    way: str, family: str, tmp_path: Path, clean_session: Any
) -> None:
    kept = loaded(clean_session, way, family, tmp_path)
    result = interp.diff("tuned", pairs=PAIRS, tokens=3)
    both = interp.diff("base", "tuned", pairs=PAIRS, tokens=3)
    np.testing.assert_array_equal(result.values, both.values)
    np.testing.assert_array_equal(result.tuned_values, both.tuned_values)
    assert [name for name, effect in zip(result.components, result.effect, strict=True) if effect] == ["1.mlp"]
    assert (result.base, result.tuned) == ("tuned without its adapter", "tuned")
    assert result.tuned_fingerprint == both.tuned_fingerprint
    if "object" not in way:  # an object's configuration says no folder
        assert result.base_fingerprint == both.base_fingerprint
    assert result.provenance.model == "tuned"
    assert result.provenance.path == "forward"
    assert result.code().startswith("interp.diff(base='tuned', ")
    assert list(clean_session.models) == ["base", "tuned"]
    assert clean_session.current == "tuned"
    del kept


def test_the_model_without_its_adapter_is_let_go_of(
    tmp_path: Path, clean_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(clean_session, "flag", "gpt2", tmp_path)
    made: list[Any] = []

    def seen(model: Any) -> Any:
        found = without_adapter(model)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr("interp.engine.model.load.without_adapter", seen)
    interp.diff("tuned", pairs=PAIRS)
    gc.collect()
    assert [one() for one in made] == [None]


def test_a_model_without_an_adapter_is_refused(tmp_path: Path, clean_session: Any) -> None:
    kept = loaded(clean_session, "peft object", "gpt2", tmp_path)
    with pytest.raises(InputError, match="base was loaded without an adapter; name two models, or load one with"):
        interp.diff("base", pairs=PAIRS)
    del kept
    gc.collect()
    with pytest.raises(InputError, match="the object that the model was loaded from is gone"):
        interp.diff("tuned", pairs=PAIRS)
