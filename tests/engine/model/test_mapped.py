"""Weights that are mapped from a file: hashed once, and never taken for what they were before they were changed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from interp.engine.model import content, mapped
from interp.engine.model.load import Options, load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not say which pages are a file's")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mapped, "_SETTLED", 0)  # the file has just been written
    monkeypatch.setattr(content, "_known", {})
    monkeypatch.setattr(content, "_FEW", 0)
    return models.save(tmp_path / "small", "llama")


@pytest.fixture
def model(folder: Path) -> Any:
    return load(str(folder), options=Options(device="cpu"))


def hashed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that says how many bytes were hashed since it was called last."""
    counted = [0]
    digest = content.xxhash.xxh3_128_digest

    def counting(piece: Any) -> bytes:
        counted[0] += len(piece)
        return digest(piece)

    monkeypatch.setattr(content.xxhash, "xxh3_128_digest", counting)

    def taken() -> int:
        found, counted[0] = counted[0], 0
        return found

    return taken


def without_mapping(model: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the fingerprint with every byte read."""
    with monkeypatch.context() as patch:
        patch.setattr(mapped.Mappings, "key", lambda *_: None)
        return model.fingerprint()


def test_a_second_fingerprint_reads_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = hashed(monkeypatch)
    model = load(str(folder), options=Options(device="cpu"))  # which notes what it has found there
    first = model.origin.fingerprint
    assert taken() > model.nbytes * 0.9
    assert model.fingerprint() == first
    assert taken() < model.nbytes * 0.5  # the description, which a small model's weights are little beside
    assert without_mapping(model, monkeypatch) == first


def parameters(model: Any) -> list[torch.Tensor]:
    return list(model.hf_model.parameters())


def in_place(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.view(-1)[0] += 1


def through_numpy(weight: torch.Tensor) -> None:
    weight.detach().numpy().reshape(-1)[-1] -= 1


def through_memory(weight: torch.Tensor) -> None:
    ctypes.c_ubyte.from_address(weight.data_ptr() + weight.nbytes // 2).value ^= 1


@pytest.mark.parametrize("edit", [in_place, through_numpy, through_memory])
def test_an_edit_is_seen_in_every_weight(
    model: Any, monkeypatch: pytest.MonkeyPatch, edit: Callable[[Any], None]
) -> None:
    found = {model.fingerprint()}
    for number, weight in enumerate(parameters(model)):
        edit(weight)
        now = model.fingerprint()
        assert now not in found, number
        assert now == without_mapping(model, monkeypatch)
        found.add(now)


def test_an_edit_that_is_taken_back_gives_the_same_again(model: Any) -> None:
    first, weight = model.fingerprint(), parameters(model)[3]
    kept = weight.detach().clone()
    in_place(weight)
    assert model.fingerprint() != first
    with torch.no_grad():
        weight.copy_(kept)
    assert model.fingerprint() == first


def test_a_file_that_is_written_to_is_read_again(folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.fingerprint()
    path = folder / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        last = file.read(1)
        file.seek(-8, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been written
    now = model.fingerprint()
    assert now != first
    assert now == without_mapping(model, monkeypatch)


def test_a_file_in_the_place_of_another_is_another(folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, path = model.fingerprint(), folder / "model.safetensors"
    weights = {name: tensor + 1 for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})
    assert model.fingerprint() == first  # what is in memory has not changed
    again = load(str(folder), options=Options(device="cpu"))
    assert again.fingerprint() != first
    assert again.fingerprint() == without_mapping(again, monkeypatch)


def test_a_file_that_has_just_been_written_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(str(models.save(tmp_path / "small", "llama")), options=Options(device="cpu"))
    taken = hashed(monkeypatch)
    model.fingerprint()
    taken()
    model.fingerprint()
    assert taken() > model.nbytes * 0.9


def test_without_the_kernels_word_every_byte_is_read(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.fingerprint()
    monkeypatch.setattr(mapped, "_read", list)
    taken = hashed(monkeypatch)
    assert model.fingerprint() == first
    assert taken() > model.nbytes * 0.9
