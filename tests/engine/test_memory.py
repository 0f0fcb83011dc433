"""Runs that cannot fit are refused before they start, and memory that runs out loses nothing."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
import torch

from interp.engine import memory
from interp.engine.model.forward import numbers_of
from interp.errors import InputError, OutOfMemory


def test_a_run_that_cannot_fit_says_what_it_needs_and_what_fits(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import interp

    model = lend("llama")
    free = 10_000
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)  # noqa: ARG005
    ids = [1 + n % 50 for n in range(45)]
    before = model.forwards
    with pytest.raises(InputError, match=r"needs .* for 45 tokens and 10\.0 kB is free on cpu") as caught:
        interp.attention(ids)
    assert model.forwards == before
    fits = int(re.search(r"about (\d+) tokens fit", str(caught.value)).group(1))  # type: ignore[union-attr]
    sites = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.geometry.n_layers)]
    assert 4 * numbers_of(model.geometry, fits, sites) <= free < 4 * numbers_of(model.geometry, fits + 2, sites)
    assert interp.attention(ids[:fits]).pattern.shape[-1] == fits


def test_the_estimate_is_what_the_store_then_holds(lend: Any) -> None:
    import interp

    model = lend("gpt2")
    interp.attention(list(range(1, 41)))
    sites = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.geometry.n_layers)]
    patterns = 4 * (numbers_of(model.geometry, 40, sites) - numbers_of(model.geometry, 40, []))
    logits = model.geometry.d_vocab * 4
    assert model.store.ledger().ram_bytes == patterns + logits


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException) -> None:
    assert memory.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("not enough memory"), KeyboardInterrupt()]
)
def test_what_does_not(error: BaseException) -> None:
    assert not memory.is_out_of_memory(error)


def test_a_real_allocation_that_fails_becomes_one_line_and_pins_nothing(lend: Any) -> None:
    model = lend("gpt2")

    def body(operation: Any) -> Any:  # noqa: ARG001
        held = torch.ones(12_345)
        return held + torch.empty(2**50)  # a petabyte: the allocator itself refuses

    with pytest.raises(OutOfMemory, match="out of memory in trying") as caught:
        model.operate("trying", {}, body)
    assert caught.value.__context__ is None
    gc.collect()
    assert not [t for t in gc.get_objects() if type(t) is torch.Tensor and t.numel() == 12_345]
    assert model._operation is None


def test_readable() -> None:
    assert [memory.readable(n) for n in (0, 999, 1000, 12_345, 5.38e8, 1.5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 kB",
        "538 MB",
        "1.5 TB",
    ]
