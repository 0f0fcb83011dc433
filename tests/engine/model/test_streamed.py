"""Weights that stay in their files: the same numbers, each layer read once, given back, and no edit of them lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import interp
import models
import zoo
from interp import spec
from interp.engine.model import mapped
from interp.engine.model.load import placement
from interp.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other kernels are not asked for pages")

DEPTH = 6
ONE = spec.Pair(spec.Prompt(ids=(5, 90, 33, 171, 40, 2, 77)), spec.Prompt(ids=(5, 90, 61, 171, 40, 9, 77)), 14, 15)
OTHER = spec.Pair(spec.Prompt(ids=(8, 91, 30, 171, 40, 2, 77)), spec.Prompt(ids=(8, 92, 61, 171, 40, 9, 77)), 14, 15)
PROMPT = list(ONE.clean.ids or ())
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "neuron")

ASKED: dict[str, Callable[[], Any]] = {
    **{site: (lambda site=site: interp.patch(pairs=[ONE], site=site, by="layer")) for site in SITES},
    "by position": lambda: interp.patch(pairs=[ONE], site="resid_pre", by="position"),
    "by head": lambda: interp.patch(pairs=[ONE], site="z", by="head"),
    "attribution": lambda: interp.patch(pairs=[ONE], method="attribution"),
    "lens": lambda: interp.lens(PROMPT),
    "dla": lambda: interp.dla(PROMPT, answer=14),
    "attention": lambda: interp.attention(PROMPT),
    "predict": lambda: interp.predict(PROMPT),
    "ablate": lambda: interp.ablate(pairs=[ONE], heads=["1.0", "4.2"], mode="zero"),
    "circuit": lambda: interp.circuit(pairs=[ONE], method="eap"),
}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Return ``saved(family, dtype)``: the folder of a model of six layers."""

    def of(family: str, dtype: torch.dtype = torch.float32) -> Path:
        settings = zoo.settings(family)
        depth = next(name for name in zoo._DEPTH if name in settings)
        settings = {depth: DEPTH} | ({"layer_types": None} if "layer_types" in settings else {})
        zoo.drawn(family, **settings).to(dtype).save_pretrained(tmp_path / family)
        models.tokenizer().save_pretrained(tmp_path / family)
        return tmp_path / family

    return of


def layer_bytes(model: Any) -> list[int]:
    """Return how many bytes of each layer are in the file as they are used."""
    held = mapped.Mappings()
    return [
        sum(p.nbytes for p in block.parameters() if held.holds(p.data_ptr(), p.nbytes)) for block in model.bridge.blocks
    ]


def smallest(folder: Path) -> Any:
    """Load a folder with as little of its weights in memory as can be."""
    with pytest.raises(InputError, match="three layers take") as refused:
        interp.load(str(folder), device="cpu", max_memory="1kB")
    said = str(refused.value)
    assert "\n" not in said
    return interp.load(str(folder), device="cpu", max_memory=said.partition("; give ")[2].removesuffix(" or more"))


def pages(tensor: torch.Tensor, bit: int) -> int:
    """Return how many pages that are a tensor's alone have a bit of the kernel's set: 63, they are in memory."""
    first, last = -(-tensor.data_ptr() // mapped.PAGE), (tensor.data_ptr() + tensor.nbytes) // mapped.PAGE
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(first * 8)
        flags = np.frombuffer(file.read(max(0, last - first) * 8), np.uint64)
    return int(((flags >> np.uint64(bit)) & np.uint64(1)).sum())


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "mixtral", "opt"])
def test_every_number_is_that_of_the_model_in_memory(family: str, saved: Callable[..., Path]) -> None:
    folder = saved(family)
    resident = interp.load(str(folder), device="cpu")
    lacks = {"gpt_neox": {"resid_mid"}, "mixtral": {"neuron"}, "opt": {"pattern"}}  # what cannot be patched there
    names = [name for name in ASKED if name not in lacks.get(family, ())]
    expected = {name: ASKED[name]().to_frame() for name in names}
    interp.unload(resident.name)
    model = smallest(folder)
    for name in names:
        found = ASKED[name]()
        pd.testing.assert_frame_equal(found.to_frame(), expected[name], rtol=0, atol=1e-6, obj=name)
        assert not found.provenance.path.startswith("hooked"), name
    assert model.streamed.read > 0


def on_disk(family: str) -> dict[str, str]:
    """Return a device map with every second layer on disk."""
    names = {"gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"}
    return {f"{names.get(family, 'model.layers')}.{n}": "disk" for n in range(0, DEPTH, 2)} | {"": "cpu"}


def placed(folder: Path, family: str, how: str) -> Any:
    """Load a folder with a part of it on disk, in one of three ways."""
    where = on_disk(family)
    if how == "file":
        path = folder.parent / "map.json"
        path.write_text(json.dumps(where))
        return interp.load(str(folder), device_map=str(path))
    if how == "dict":
        return interp.load(str(folder), device_map=where)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    where = placement._disjoint(plain, where)
    held = transformers.AutoModelForCausalLM.from_pretrained(
        folder, device_map=where, offload_folder=folder.parent / "spare", attn_implementation="eager"
    )
    ids = torch.tensor([PROMPT])
    before = held(ids).logits
    model = interp.load(held, tokenizer=models.tokenizer(), copy=how == "copied object")
    assert any("stay on disk" in note and "your object is as it was" in note for note in model.notes)
    assert torch.equal(held(ids).logits, before)
    assert any(parameter.is_meta for parameter in held.parameters())
    return model


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("how", ["file", "dict", "object", "copied object"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "mixtral", "opt"])
def test_what_is_placed_partly_on_disk_gives_the_same_numbers(
    family: str, how: str, saved: Callable[..., Path]
) -> None:
    folder = saved(family)
    resident = interp.load(str(folder), device="cpu")
    names = ["resid_pre", "by head", "lens", "predict", "ablate"]
    expected = {name: ASKED[name]().to_frame() for name in names}
    interp.unload(resident.name)
    model = placed(folder, family, how)
    assert not any(parameter.is_meta for parameter in model.hf_model.parameters())
    assert not any(vars(module).keys() & {"_hf_hook", "_old_forward"} for module in model.hf_model.modules())
    for name in names:
        found = ASKED[name]()
        pd.testing.assert_frame_equal(found.to_frame(), expected[name], rtol=0, atol=1e-6, obj=name)
        assert not found.provenance.path.startswith("hooked"), name
        assert not found.provenance.user_hooks
    held = layer_bytes(model)
    first = interp.patch(pairs=[OTHER], site="z", by="head").provenance.weights_read
    assert first == sum(held[0::2]) if family == "llama" else first > 0
    kept = [p for block in model.bridge.blocks[1::2] for p in block.parameters()]
    gone = [p for block in model.bridge.blocks[0::2] for p in block.parameters()]
    if family == "llama":
        assert sum(pages(tensor, 63) for tensor in gone) == 0 < sum(pages(tensor, 63) for tensor in kept)


@pytest.mark.usefixtures("clean_session")
def test_what_is_on_disk_in_another_dtype_is_copied_and_said(saved: Callable[..., Path]) -> None:
    folder = saved("llama", torch.bfloat16)
    interp.load(str(folder), dtype="float32", device="cpu")
    expected = ASKED["by head"]().per_pair
    where = placement._disjoint(transformers.AutoModelForCausalLM.from_pretrained(folder), on_disk("llama"))
    held = transformers.AutoModelForCausalLM.from_pretrained(
        folder, device_map=where, dtype=torch.float32, offload_folder=folder.parent / "spare"
    )
    model = interp.load(held, tokenizer=models.tokenizer())
    assert any("are copied into memory" in note for note in model.notes)
    np.testing.assert_allclose(ASKED["by head"]().per_pair, expected, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("how", ["auto", "balanced"])
def test_a_map_made_by_accelerate_is_that_of_the_machine(how: str, saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    expected = (interp.load(str(folder), device="cpu"), ASKED["by head"]())[1]
    interp.load(str(folder), device_map=how)
    found = ASKED["by head"]()
    atol = 0 if not torch.cuda.is_available() else 1e-4
    np.testing.assert_allclose(found.per_pair, expected.per_pair, rtol=0, atol=atol)


@pytest.mark.usefixtures("clean_session")
def test_a_map_that_cannot_be_is_refused_in_one_line(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("llama")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bad.json").write_text("{")
    wrong: dict[str, Any] = {
        "neither auto nor balanced": "sometimes",
        "says where modules go": str(tmp_path / "list.json"),
        "bad.json": str(tmp_path / "bad.json"),
        "is no device": {"": "moon"},
        "give cpu, disk": {"": 1.5},
        "says where modules go, such": {},
        "did you mean model.layers.0": {"model.layer.0": "cpu", "": "disk"},
        "says nothing of model.embed_tokens.weight; add": {"model.layers": "cpu"},
    }
    if not torch.cuda.is_available():
        wrong |= {"there is no cuda": {"": "cuda:0", "model.layers.0": "cpu"}, "no cuda device": {"": 0}}
    for said, given in wrong.items():
        with pytest.raises(InputError, match=said) as refused:
            interp.load(str(folder), device_map=given)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) <= 400
    with pytest.raises(InputError, match="on disk is float32 there, not bfloat16"):
        interp.load(str(folder), device_map=on_disk("llama"), dtype="bfloat16")
    with pytest.raises(InputError, match="give one of them"):
        interp.load(str(folder), device_map="auto", max_memory="1GB")
    with pytest.raises(InputError, match="give one of them"):
        interp.load(str(folder), device_map="auto", device="cpu")
    with pytest.raises(InputError, match="this model is in memory"):
        interp.load(zoo.drawn("llama"), tokenizer=models.tokenizer(), device_map="auto")
    with torch.device("meta"):
        nothing = type(zoo.drawn("llama"))(zoo.drawn("llama").config)
    with pytest.raises(InputError, match="on the meta device, without values"):
        interp.load(nothing, tokenizer=models.tokenizer())


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_a_sweep_reads_each_layer_once(family: str, saved: Callable[..., Path]) -> None:
    model = smallest(saved(family))
    for site, by in (("z", "head"), ("resid_post", "position"), ("mlp_out", "position"), ("q", "head-position")):
        interp.patch(pairs=[ONE], site=site, by=by)  # the first is compared with the hooked forward
        again = interp.patch(pairs=[OTHER], site=site, by=by)
        assert again.provenance.weights_read == sum(layer_bytes(model)), (site, by)
        model.store.clear()


@pytest.mark.usefixtures("clean_session")
def test_what_was_read_is_given_back(saved: Callable[..., Path]) -> None:
    model = smallest(saved("llama"))
    interp.lens(PROMPT), interp.patch(pairs=[ONE], site="z", by="head")
    weights = [parameter for block in model.bridge.blocks for parameter in block.parameters()]
    assert sum(tensor.nbytes for tensor in weights) > 20 * mapped.PAGE
    assert sum(pages(tensor, 63) for tensor in weights) == 0
    model.streamed.use(2)
    assert all(pages(p, 63) for p in model.bridge.blocks[2].parameters() if p.nbytes > 2 * mapped.PAGE)


@pytest.mark.usefixtures("clean_session")
def test_the_first_layers_stay_where_there_is_room(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    sizes = layer_bytes(interp.load(str(folder), device="cpu"))
    interp.load(str(folder), device="cpu", max_memory=f"{5.1 * max(sizes) / 1e9:.9f}GB")
    interp.patch(pairs=[ONE], site="z", by="head")
    again = interp.patch(pairs=[OTHER], site="z", by="head")
    assert again.provenance.weights_read == sum(sizes[2:])


@pytest.mark.usefixtures("clean_session")
def test_an_edit_of_the_weights_is_kept(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    model = smallest(folder)
    before = interp.patch(pairs=[ONE], site="z", by="head")
    with torch.no_grad():
        for block in model.bridge.blocks:
            block.attn.o.original_component.weight.mul_(1.5)
    edited = [block.attn.o.original_component.weight.clone() for block in model.bridge.blocks]
    after = interp.patch(pairs=[ONE], site="z", by="head")
    interp.lens(PROMPT)
    model.streamed.rest()
    now = [block.attn.o.original_component.weight for block in model.bridge.blocks]
    assert all(map(torch.equal, now, edited))
    assert np.abs(after.per_pair - before.per_pair).max() > 0.01
    own = interp.load(str(folder), device="cpu", name="own")
    with torch.no_grad():
        for block in own.bridge.blocks:
            block.attn.o.original_component.weight.mul_(1.5)
    assert np.array_equal(interp.patch(pairs=[ONE], site="z", by="head").per_pair, after.per_pair)


@pytest.mark.usefixtures("clean_session")
def test_bfloat16_is_taken_as_it_is_stored(saved: Callable[..., Path]) -> None:
    folder = saved("llama", torch.bfloat16)
    model = interp.load(str(folder), device="cpu", max_memory="1GB")
    assert model.dtype == "bfloat16"
    assert any("bfloat16" in note for note in model.notes)
    found = interp.patch(pairs=[ONE], site="z", by="head")
    assert found.provenance.path == "replay"
    interp.load(str(folder), device="cpu", dtype="bfloat16", name="resident")
    assert np.array_equal(found.per_pair, interp.patch(pairs=[ONE], site="z", by="head").per_pair)
    with pytest.raises(InputError, match="these are bfloat16, not float32"):
        interp.load(str(folder), device="cpu", dtype="float32", max_memory="1GB")


@pytest.mark.usefixtures("clean_session")
def test_what_cannot_stay_in_a_file_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("llama")
    for size in ("", "a lot", "-1GB", "0", "1e3GB", "4 cows"):
        with pytest.raises(InputError, match="is no size; type one such as 4GB"):
            interp.load(str(folder), device="cpu", max_memory=size)
    with pytest.raises(InputError, match="this model is in memory"):
        interp.load(zoo.drawn("llama"), tokenizer=models.tokenizer(), max_memory="1GB")
    with pytest.raises(InputError, match="an adapter is merged"):
        interp.load(str(folder), adapter=str(tmp_path), device="cpu", max_memory="1GB")
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="a GGUF file's are unpacked"):
        interp.load(str(tmp_path / "some.gguf"), device="cpu", max_memory="1GB")
