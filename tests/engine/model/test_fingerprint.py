"""The hash of a model's state, and its variant for devices."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interp.engine.model import content
from interp.engine.model.content import device_hash
from interp.engine.model.fingerprint import fingerprint, inspect

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64, torch.bool]


def values(size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    raw = torch.randint(0, 256, (size * dtype.itemsize,), dtype=torch.uint8, generator=torch.manual_seed(seed))
    return raw % 2 == 1 if dtype is torch.bool else raw.view(dtype)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), size=st.integers(1, 70), dtype=st.sampled_from(DTYPES))
def test_a_change_of_one_bit_changes_the_device_hash(data: st.DataObject, size: int, dtype: torch.dtype) -> None:
    tensor = values(size, dtype)
    before = device_hash(tensor)
    assert device_hash(tensor.clone()) == before
    changed = tensor.clone()
    if dtype is torch.bool:
        place = data.draw(st.integers(0, size - 1))
        changed[place] = ~changed[place]
    else:
        place = data.draw(st.integers(0, size * dtype.itemsize - 1))
        changed.view(torch.uint8)[place] ^= 1 << data.draw(st.integers(0, 7))
    assert device_hash(changed) != before


@settings(max_examples=100, deadline=None)
@given(size=st.integers(2, 60), data=st.data())
def test_a_changed_order_changes_the_device_hash(size: int, data: st.DataObject) -> None:
    tensor = values(size, torch.int64)
    i, j = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    swapped = tensor.clone()
    swapped[i], swapped[j] = tensor[j].clone(), tensor[i].clone()
    assert (device_hash(swapped) == device_hash(tensor)) == torch.equal(swapped, tensor)


def test_chunks_do_not_change_the_device_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = values(1001, torch.float32)
    whole = device_hash(tensor)
    monkeypatch.setattr(content, "_CHUNK", 7)
    assert device_hash(tensor) == whole
    assert device_hash(tensor.clone().neg_()) != whole


def test_words_that_do_not_begin_at_eight_bytes() -> None:
    tensor = values(101, torch.uint8)
    assert device_hash(tensor[1:]) == device_hash(tensor[1:].clone())
    assert device_hash(tensor[3:50]) != device_hash(tensor[4:51])


def test_an_empty_tensor_has_a_hash() -> None:
    assert isinstance(device_hash(torch.zeros(0)), int)
    assert len(fingerprint([("", nn.Linear(0, 3))])) == 32


def test_dtype_shape_and_stride_are_part_of_the_state() -> None:
    class Holder(nn.Module):
        def __init__(self, tensor: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("held", tensor)

    zeros = torch.zeros(4, 4)
    variants = [zeros, zeros.view(2, 8), zeros.half().repeat(1, 2), zeros.as_strided((4, 4), (1, 4)), zeros.int()]
    assert len({fingerprint([("", Holder(variant))]) for variant in variants}) == len(variants)


def test_it_is_the_same_for_the_same_state() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1), nn.LayerNorm(4)).eval()
    named = list(module.named_modules())
    first = inspect(named, {"a": 1})
    module(torch.ones(2, 3)).sum().backward()
    assert inspect(named, {"a": 1}) == first
    assert inspect(named, {"a": 2}).digest != first.digest


def test_dropout_in_training_mode_is_random() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1)).eval()
    named = list(module.named_modules())
    assert not inspect(named).random
    module.train()
    assert inspect(named).random
    module[1].p = 0.0
    assert not inspect(named).random


def test_code_of_the_user_is_named() -> None:
    class Mine(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    plain = nn.Linear(2, 2)
    assert inspect([("plain", plain)]).own_code == ()
    assert "Mine.forward" in inspect([("mine", Mine(2, 2))]).own_code[0]
    plain.forward = lambda x: x  # type: ignore[method-assign]
    assert "plain: forward" in inspect([("plain", plain)]).own_code[0]
    activation = nn.Module()
    activation.act = torch.relu  # type: ignore[assignment]
    assert inspect([("act", activation)]).own_code == ()


def test_a_function_at_a_freed_address_is_another_function() -> None:
    module: Any = nn.Module()
    digests: set[str] = set()
    for factor in range(20):
        module.act = functools.partial(torch.mul, other=float(factor))
        digests.add(fingerprint([("act", module)]))
        assert fingerprint([("act", module)]) in digests
        del module.act  # and its address with it
    assert len(digests) == 20


def test_weights_retied_are_another_state() -> None:
    """x, x, y and x, y, x are the same storages in the same order, once each."""
    parts = [nn.Linear(3, 3, bias=False) for _ in range(3)]
    named = list(enumerate(parts))
    x, y = parts[0].weight, parts[2].weight
    parts[1].weight = x
    first = fingerprint([(str(n), part) for n, part in named])
    parts[1].weight, parts[2].weight = y, x
    assert fingerprint([(str(n), part) for n, part in named]) != first


def test_as_many_cores_as_there_are_give_the_same_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_PIECE", 64)
    source = torch.Generator().manual_seed(0)
    buffers = [bytes(torch.randint(256, (size,), generator=source).tolist()) for size in (1000, 0, 63, 64, 65)]
    found: set[str] = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.add(content.digest(buffers))
    assert len(found) == 1
    for at in (0, 500, 999):
        changed = bytearray(buffers[0])
        changed[at] ^= 1
        assert content.digest([changed, *buffers[1:]]) not in found
    assert content.digest([buffers[0] + buffers[2], b"", *buffers[3:]]) not in found
