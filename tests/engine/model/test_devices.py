"""Layers on other devices than the rows: the numbers of the CPU, without hooks, on devices that are pretended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import dispatch_model

import interp
import models
import pretended
import zoo
from interp import spec
from interp.engine.model import carried
from interp.errors import InputError

DEPTH = 6
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "neuron")


def pair(*clean: int, to: dict[int, int]) -> spec.Pair:
    """Return a pair whose corrupted prompt has other tokens at some positions."""
    corrupted = [to.get(n, token) for n, token in enumerate(clean)]
    return spec.Pair(spec.Prompt(ids=clean), spec.Prompt(ids=tuple(corrupted)), 14, 15)


ONE = pair(5, 90, 33, 171, 40, 2, 77, to={2: 61, 5: 9})
OTHER = pair(8, 91, 30, 171, 40, 2, 77, to={1: 92, 2: 61, 5: 9})
PROMPT = list(ONE.clean.ids or ())
MASK = zoo.tokenizer("bert").mask_token_id
MASKED = pair(5, 90, 33, 171, 40, MASK, 77, to={2: 61, 4: 9}), pair(8, 91, 30, 171, 40, MASK, 77, to={1: 92})


def questions(one: spec.Pair) -> dict[str, Callable[[], Any]]:
    """Return every command on a pair."""
    prompt = list(one.clean.ids or ())
    return {
        **{site: (lambda site=site: interp.patch(pairs=[one], site=site, by="layer")) for site in SITES},
        "by head and position": lambda: interp.patch(pairs=[one], site="z", by="head-position"),
        "by neuron": lambda: interp.patch(pairs=[one], site="neuron", by="neuron", layer="1"),
        "attribution": lambda: interp.patch(pairs=[one], method="attribution"),
        "path": lambda: interp.path(pairs=[one], from_="all", to="all"),
        "path past MLPs": lambda: interp.path(pairs=[one], from_=["0.0", "0.1"], to="logits", freeze="none"),
        "ablate": lambda: interp.ablate(pairs=[one], heads=["0.0", "1.2"], mode="zero"),
        "mediate": lambda: interp.mediate(pairs=[one]),
        "lens": lambda: interp.lens(prompt),
        "dla": lambda: interp.dla(prompt, answer=14),
        "attention": lambda: interp.attention(prompt),
        "heads": lambda: interp.heads(n=2),
        "ov": lambda: interp.ov("1.0", tokens=prompt),
        "qk": lambda: interp.qk("1.0", tokens=prompt),
        "compose": lambda: interp.compose(),
        "neurons": lambda: interp.neurons(["the cat sat", "one two three four"], "1.3"),
        "predict": lambda: interp.predict(prompt),
        "loss": lambda: interp.loss([prompt]),
        "generate": lambda: interp.generate(prompt, n=3),
        "saliency": lambda: interp.saliency(prompt, answer=14),
        "circuit": lambda: interp.circuit(pairs=[one], method="eap"),
        "circuit by an integral": lambda: interp.circuit(pairs=[one], method="eap-ig"),
        "circuit, exactly": lambda: interp.circuit(pairs=[one], method="exact"),
    }


def asked(one: spec.Pair = ONE, but: Collection[str] = ()) -> dict[str, Any]:
    """Return what each command says, or its refusal."""
    found: dict[str, Any] = {}
    for name, ask in questions(one).items():
        if name in but:
            continue
        try:
            found[name] = ask()
        except InputError as error:
            found[name] = str(error)
    return found


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare two answers of `asked`, and that both went without hooks, or none did."""
    for name, result in expected.items():
        if isinstance(result, str):
            assert found[name] == result, name
            continue
        assert not isinstance(found[name], str), (name, found[name])
        # Not what is kept: of two edges with one score either may be. Nor shares of a difference that may be small.
        tables = [
            one.to_frame().drop(columns=["kept", "recovery", "proportion"], errors="ignore")
            for one in (found[name], result)
        ]
        assert any(pd.api.types.is_float_dtype(tables[0][column]) for column in tables[0]) or name == "generate", name
        words = [column for column in tables[0] if not pd.api.types.is_float_dtype(tables[0][column])]
        here, there = (table.sort_values(words, ignore_index=True) for table in tables)
        pd.testing.assert_frame_equal(here, there, rtol=1e-5, atol=1e-5, obj=name)
        assert found[name].provenance.path.partition(":")[0] == result.provenance.path.partition(":")[0], name


@pytest.fixture
def elsewhere() -> Iterator[None]:
    with pretended.devices():
        yield


def device_map(model: Any, how: str) -> dict[str, str]:
    """Return a device map of two GPUs: the second layer and the final norm on the other one, or the first layer."""
    (layers,) = {name for name, one in model.named_modules() if isinstance(one, torch.nn.ModuleList) and len(one) == 2}
    found: dict[str, str] = {}

    def place(name: str, module: torch.nn.Module) -> None:
        if name == layers:
            found.update({f"{name}.{n}": f"cuda:{n if how == 'end' else 1 - n}" for n in (0, 1)})
        elif not name or layers.startswith(f"{name}."):
            for child, part in module.named_children():
                place(f"{name}.{child}" if name else child, part)
        else:
            last = how == "end" and name.endswith(("norm", "ln_f"))
            found[name] = "cuda:1" if last else "cuda:0"

    place("", model)
    return found


@pytest.mark.usefixtures("elsewhere")
def test_a_pretended_device_is_as_strict_as_one_that_is_there() -> None:
    here, there, cpu = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1"), torch.ones(2)
    for one, other in ((here, there), (here, cpu), (there, cpu)):
        with pytest.raises(RuntimeError, match="same device"):
            _ = one + other
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([one, other])
    with pytest.raises(TypeError, match="numpy"):
        here.numpy()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(here)
    assert (here * torch.tensor(2.0)).device == torch.device("cuda:0")
    assert here.to("cuda:1").new_zeros(3).device == torch.arange(2, device="cuda:1").device == torch.device("cuda:1")
    moved = here.cpu()
    moved[0] = 5
    assert here.tolist() == [1, 1]
    x = here.clone().requires_grad_()
    (slope,) = torch.autograd.grad((x.to("cuda:1") ** 2).sum(), x)
    assert slope.tolist() == [2, 2]
    assert slope.device == x.device
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        target = torch.zeros(2, device="cuda:0")
        target.copy_(cpu, non_blocking=True)
        done = stream.record_event()
    assert target.isnan().all()
    torch.cuda.current_stream().wait_event(done)
    assert target.tolist() == [1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize(
    ("family", "how"),
    [
        *(("llama", how) for how in ("one", "end", "middle")),
        *((family, "end") for family in ("gpt2", "gemma2", "gpt_neox", "mixtral", "bert")),
    ],
)
def test_every_number_is_that_of_the_model_on_the_cpu(family: str, how: str) -> None:
    model, tokenizer = zoo.drawn(family).eval(), zoo.tokenizer(family)
    one, other = MASKED if family in zoo.ENCODERS else (ONE, OTHER)
    interp.load(zoo.drawn(family), tokenizer=tokenizer, device="cpu")
    expected = asked(one)
    assert not isinstance(expected["z"], str)
    interp.unload()
    with pretended.devices():
        if how == "one":
            pretended.put(model, "cuda:0")
        else:
            model = dispatch_model(model, device_map(model, how))
        held = interp.load(model, tokenizer=tokenizer)
        assert not held.doubt
        assert repr(held).endswith("without hooks)" if how == "one" else "without hooks, layers on 2 devices)")
        assert held.device == torch.device("cuda:0")
        same(asked(one), expected)
        if how != "one":
            sweep = interp.patch(pairs=[other], site="z", by="head")
            away = [p for block in held.bridge.blocks for p in block.parameters() if p.device != held.device]
            assert 0 < sweep.provenance.weights_read <= sum(p.nbytes for p in away)
        interp.unload()


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return ``saved(family)``: the folder of a model of six layers; pinned buffers are smaller than one of them."""
    monkeypatch.setattr(carried, "CHUNK", 3000)

    def of(family: str) -> Path:
        settings = zoo.settings(family)
        depth = next(name for name in zoo._DEPTH if name in settings)
        settings = {depth: DEPTH} | ({"layer_types": None} if "layer_types" in settings else {})
        zoo.drawn(family, **settings).save_pretrained(tmp_path / family)
        models.tokenizer().save_pretrained(tmp_path / family)
        return tmp_path / family

    return of


def least(folder: Path) -> int:
    """Return how many bytes of a GPU's memory a model needs at least."""
    with pytest.raises(InputError, match="4 layers take") as refused:
        interp.load(str(folder), device="cuda", max_memory="1kB")
    return interp.engine.memory.size_of(str(refused.value).partition("; give ")[2].removesuffix(" or more"))


def smallest(folder: Path) -> Any:
    """Load a folder with as little of its weights on the GPU as can be."""
    return interp.load(str(folder), device="cuda", max_memory=f"{least(folder) / 1e9:.9f}GB")


def places(model: Any) -> set[str]:
    """Return on which devices the layers' own weights are."""
    return {p.device.type for block in model.bridge.blocks for p in block.parameters()}


@pytest.mark.slow
@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mixtral"])
def test_from_files_to_a_gpu_every_number_is_that_of_the_model_in_memory(
    family: str, saved: Callable[..., Path]
) -> None:
    folder = saved(family)
    many = {"circuit, exactly", "path"}  # of six layers
    interp.load(str(folder), device="cpu")
    expected = asked(but=many)
    interp.unload()
    with pretended.devices():
        model = smallest(folder)
        assert repr(model).endswith("float32 on cuda:0, without hooks, layers in their files)")
        same(asked(but=many), expected)
        assert places(model) == {"cpu"}
        interp.unload()


@pytest.mark.usefixtures("clean_session", "elsewhere")
def test_a_sweep_moves_each_layer_once_and_the_way_back_once_more(saved: Callable[..., Path]) -> None:
    model = smallest(saved("llama"))
    whole = sum(p.nbytes for block in model.bridge.blocks for p in block.parameters())
    for site, by in (("z", "head"), ("resid_post", "position"), ("mlp_out", "position")):
        interp.patch(pairs=[ONE], site=site, by=by)  # the first is compared with the hooked forward
        assert interp.patch(pairs=[OTHER], site=site, by=by).provenance.weights_read == whole, (site, by)
        model.store.clear()
    interp.patch(pairs=[ONE], method="attribution")
    model.store.clear()
    # Were copies kept in autograd's graph, nothing would be asked for on the way back.
    again = interp.patch(pairs=[OTHER], method="attribution").provenance.weights_read
    assert whole + whole // DEPTH * (DEPTH - carried.AROUND) <= again <= 2 * whole
    assert not model.streamed._copies


@pytest.mark.usefixtures("clean_session", "elsewhere")
def test_the_first_layers_stay_while_nothing_is_edited(saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    size = least(folder)
    layer = sum(p.nbytes for p in interp.load(str(folder), device="cpu").bridge.blocks[0].parameters())
    model = interp.load(str(folder), device="cuda", max_memory=f"{(size + 2.5 * layer) / 1e9:.9f}GB")

    def asked_again(pair: spec.Pair) -> Any:
        model.store.clear()
        return interp.patch(pairs=[pair], site="z", by="head")

    asked_again(ONE)
    assert asked_again(OTHER).provenance.weights_read == (DEPTH - 2) * layer
    with torch.no_grad():
        model.bridge.blocks[0].attn.o.original_component.weight.mul_(2)
    edited = asked_again(OTHER)
    assert edited.provenance.weights_read >= DEPTH * layer
    plain = interp.load(str(folder), device="cpu")
    before = interp.patch(pairs=[OTHER], site="z", by="head").per_pair
    with torch.no_grad():
        plain.bridge.blocks[0].attn.o.original_component.weight.mul_(2)
    after = interp.patch(pairs=[OTHER], site="z", by="head").per_pair
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(edited.per_pair, after, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("clean_session", "elsewhere")
def test_weights_are_in_their_place_again_when_a_hooked_forward_fails(saved: Callable[..., Path]) -> None:
    model = smallest(saved("llama"))
    seen: list[torch.device] = []

    def fail(tensor: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
        seen.append(model.bridge.blocks[3].attn.o.original_component.weight.device)
        raise ValueError("as asked")

    with pytest.raises(ValueError, match="as asked"):
        model.forward([PROMPT], {"blocks.3.attn.hook_out": fail})
    assert seen == [torch.device("cuda:0")]
    assert places(model) == {"cpu"}
