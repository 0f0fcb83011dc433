"""What loading promises: nothing is installed or asked of a hub, no pickle is opened, no bare size is built."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import models
from interp.engine.model.load import Options, load
from interp.errors import InputError

CPU = Options(device="cpu")


@pytest.fixture
def folder_of(folder: Any, tmp_path: Path) -> Any:
    def copied(family: str = "gpt2", **settings: Any) -> Path:
        target = tmp_path / family
        shutil.copytree(folder(family), target)
        raw = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps(raw | settings))
        return target

    return copied


@pytest.fixture
def promised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what was started, asked or opened although it must not be: each such call fails."""
    import os
    import socket
    import subprocess

    import huggingface_hub.constants

    asked: list[str] = []

    def refuse(name: str) -> Any:
        def call(*arguments: Any, **_: Any) -> Any:
            asked.append(f"{name}{arguments[:1]}")
            raise OSError(f"{name} is not to be called")

        return call

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for owner, names in (
        (subprocess, ("Popen", "run", "check_call", "check_output")),
        (os, ("system", "fork", "execv", "execve", "execvp", "posix_spawn", "popen")),
        (socket, ("getaddrinfo", "create_connection")),
        (torch, ("load",)),
        (pickle, ("load", "loads")),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, refuse(f"{owner.__name__}.{name}"))
    return asked


def llava() -> Any:
    text = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "vocab_size": 340,
    }
    seen = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4}
    heads = {"num_attention_heads": 4}
    config = transformers.LlavaConfig(
        text_config={**text, **heads, "num_key_value_heads": 2},
        vision_config={"model_type": "clip_vision_model", **seen, **heads},
        image_token_index=3,
    )
    return transformers.LlavaForConditionalGeneration(config)


@pytest.mark.parametrize("tokenizer", [True, False])
def test_nothing_is_installed_for_a_model_that_sees(tokenizer: bool, promised: list[str], tmp_path: Path) -> None:
    tok = models.tokenizer() if tokenizer else None
    loaded = load(llava(), tokenizer=tok, options=CPU)
    assert loaded.geometry.n_layers == 2
    assert promised == []
    llava().save_pretrained(tmp_path / "llava")
    if tok is not None:
        tok.save_pretrained(tmp_path / "llava")
    with contextlib.suppress(InputError):
        load(tmp_path / "llava", options=CPU)
    assert promised == []


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("pytorch_model.bin", "pickle"),
        ("pytorch_model.BIN", "pickle"),
        ("model.PT", "pickle"),
        ("../../../../etc/passwd", "pickle"),
        ("../model.safetensors", "outside of its folder"),
        ("/etc/model.safetensors", "outside of its folder"),
        ("C:\\\\model.safetensors", "outside of its folder"),
        ("gone.safetensors", "gone"),
        (3, "which file"),
    ],
)
def test_an_index_names_safetensors_of_its_folder_alone(
    named: Any, says: str, folder_of: Any, promised: list[str]
) -> None:
    target = folder_of()
    (target / "model.safetensors").rename(target / "other.safetensors")
    (target / "pytorch_model.bin").write_bytes(b"not to be opened")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": named}}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=says) as refusal:
        load(target, options=CPU)
    assert "\n" not in str(refusal.value)
    assert promised == []


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": []}}', "[" * 99999, "{"])
def test_an_index_that_is_none_is_refused(index: str, folder_of: Any) -> None:
    target = folder_of()
    (target / "model.safetensors").rename(target / "other.safetensors")
    (target / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError) as refusal:
        load(target, options=CPU)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["model.BIN", "model.Pt", "weights.PTH", "x.CKPT", "x.PKL", "x.pickle"])
def test_a_pickle_is_one_in_any_case(name: str, tmp_path: Path, promised: list[str]) -> None:
    (tmp_path / name).write_bytes(b"not to be opened")
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(InputError, match="pickle"):
            load(source, options=CPU)
    assert promised == []


def test_a_configuration_may_not_name_a_pickle(folder_of: Any, promised: list[str]) -> None:
    target = folder_of(transformers_weights="adapter_model.bin")
    (target / "adapter_model.bin").write_bytes(b"not to be opened")
    with pytest.raises(InputError, match="pickle"):
        load(target, options=CPU)
    assert promised == []


def test_an_adapter_beside_a_model_is_refused_and_asks_no_hub(folder_of: Any, promised: list[str]) -> None:
    target = folder_of()
    (target / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    with pytest.raises(InputError, match="a folder of their own"):
        load(target, options=CPU)
    (target / "config.json").unlink()
    (target / "model.GGUF").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="a folder of their own"):
        load(target / "model.GGUF", options=CPU)
    assert promised == []


@pytest.mark.parametrize(
    "settings",
    [
        {"vocab_size": 10**9},
        {"hidden_size": 2**16, "num_attention_heads": 2**9},
        {"intermediate_size": 10**8},
        {"num_hidden_layers": 10**6},
    ],
)
def test_no_configuration_asks_for_more_than_its_weights_hold(settings: dict[str, int], folder_of: Any) -> None:
    target = folder_of("llama", **settings)
    with pytest.raises(InputError, match="lacks sizes, or is another model's") as refusal:
        load(target, options=CPU)
    assert len(str(refusal.value)) <= 400


def test_a_configuration_without_sizes_is_refused(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "mistral", "gpt_neox", "gemma2"):
        target = tmp_path / kind
        target.mkdir()
        (target / "config.json").write_text(json.dumps({"model_type": kind}))
        save_file({"a": torch.zeros(160, 160)}, target / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=r"lacks sizes, or is another model's|cannot wrap"):
            load(target, options=CPU)


@pytest.mark.parametrize("kind", [["llama"], {"a": 1}, 3, None, "nope"])
def test_a_type_that_is_none_is_refused(kind: Any, folder_of: Any) -> None:
    with pytest.raises(InputError) as refusal:
        load(folder_of("llama", model_type=kind, architectures=None), options=CPU)
    assert "\n" not in str(refusal.value)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


@pytest.mark.parametrize(
    "field",
    [
        text("a") + struct.pack("<IIQ", 9, 0, 2**40),  # an array of 2⁴⁰ bytes
        text("a") + struct.pack("<IIQ", 9, 8, 2**62),  # … of texts
        text("a") + struct.pack("<IQ", 8, 2**62),  # a text of 2⁶² bytes
        struct.pack("<Q", 2**63),
        b"",
    ],
)
def test_no_length_in_a_gguf_is_believed_beyond_its_end(field: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + field)
    with pytest.raises(InputError, match="cannot be read as a GGUF file"):
        load(file, options=CPU)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "blank"),
        (" ", "blank"),
        ("~nosuchuser/x", "full path"),
        ("x" * 300, "255 bytes"),
        ("owner/ünï", "neither a folder nor a hub name"),
        ("model.gguf", "there is no file"),
        ("owner/model.GGUF", "there is no file"),
        ("model.safetensors", "there is no file"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
    ],
)
def test_a_name_that_is_none_asks_no_hub(source: str, says: str, promised: list[str]) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        load(source, options=CPU)
    assert "\n" not in str(refusal.value)
    assert promised == []


def test_the_bundled_model_is_loaded_by_its_name(shell: Any, promised: list[str]) -> None:
    shell.run_cell("%interp load bundled -o loaded")
    assert shell.user_ns["loaded"].name == "bundled"
    assert promised == []
