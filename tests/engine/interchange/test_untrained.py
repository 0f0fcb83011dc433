"""Untrained copies: of the same shape, with weights as training begins with, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp import truth
from interp.engine import memory
from interp.engine.interchange.untrained import untrained
from interp.engine.model import load
from interp.errors import InputError

IDS = (5, 11, 23, 31, 8, 40)


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "native"])
def test_a_copy_is_of_the_same_shape_and_of_its_seed(family: str, lend: Callable[..., Any]) -> None:
    native = family == "native"
    model = load.load(truth.build("ioi").bridge(), options=load.Options(device="cpu")) if native else lend(family)
    ids = IDS if not native else tuple(n % 10 for n in IDS)
    before, state = model.fingerprint(), torch.random.get_rng_state()
    logits = model.activations_of(ids, ["logits"])["logits"].clone()
    first, again, other = (untrained(model, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.fingerprint() == before
    assert first.geometry == model.geometry
    assert (first.dtype, first.device, first.family) == (model.dtype, model.device, model.family)
    found = [one.activations_of(ids, ["logits"])["logits"] for one in (first, again, other)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-3)
    assert not torch.allclose(found[0], logits, atol=1e-3)
    assert torch.equal(model.activations_of(ids, ["logits"])["logits"], logits)
    mine = {parameter.data_ptr() for parameter in model.hf_model.parameters()}
    assert not mine & {parameter.data_ptr() for parameter in first.hf_model.parameters()}
    assert not first.bridge.training
    for one in (first, again, other):
        one.close()


def test_half_precision_stays(folder: Callable[..., Any]) -> None:
    model = load.load(folder("llama"), options=load.Options(device="cpu", dtype="bfloat16"))
    made = untrained(model, 0)
    assert made.dtype == "bfloat16"
    made.close()


def test_what_cannot_be_made_is_refused(folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load.load(folder("gpt2"), options=load.Options(device="cpu"))

    def little(device: torch.device) -> int:  # noqa: ARG001
        return 1000

    monkeypatch.setattr(memory, "free_bytes", little)
    with pytest.raises(InputError, match=r"needs .* and 1.0 kB is free on cpu"):
        untrained(model, 0)
    monkeypatch.undo()
    hf: Any = model.hf_model
    hf.config.quantization_config, hf.quantization_method = {"quant_method": "bitsandbytes"}, "bitsandbytes"
    with pytest.raises(InputError, match="its weights are quantised"):
        untrained(model, 0)
    limited = load.load(folder("llama"), options=load.Options(device="cpu", max_memory=120_000))
    assert limited.streamed is not None
    with pytest.raises(InputError, match="weights stay in their files"):
        untrained(limited, 0)
