"""Edits of what a model holds beside its parameters: adapters, packed weights, containers, objects, parts, settings."""

from __future__ import annotations

import ctypes
import enum
import types
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import peft
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from .edits import Inapplicable, Subject, edit, noise, replace

# -- adapters --------------------------------------------------------------------------------------------------------


def _linear(subject: Subject, name: str = "blocks.1.attn.v") -> tuple[Any, str]:
    target = subject.part(name)
    if not isinstance(target, nn.Linear):
        raise Inapplicable("nothing that PEFT adapts")
    return target, next(n for n, m in subject.model.hf_model.named_modules() if m is target)


def _two(subject: Subject) -> list[Any]:
    """Return the layers with two LoRA adapters, which are put on if they are not there."""
    layers = [m for m in subject.model.hf_model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    found = [layer for layer in layers if {"a", "b"} <= set(layer.lora_A)]
    if layers and not found:
        raise Inapplicable("another adapter is there")
    if not found:
        target, name = _linear(subject)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for adapter in ("a", "b"):
                config = peft.LoraConfig(r=2, target_modules=[name], init_lora_weights=False)
                peft.inject_adapter_in_model(config, subject.model.hf_model, adapter_name=adapter)
        found = [m for m in subject.model.hf_model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
        for layer in found:
            layer.to(target.weight.dtype)
            layer.requires_grad_(False)
    return found


for _names in (["a"], ["b"], ["a", "b"]):

    def _active(subject: Subject, names: list[str] = _names) -> None:
        for layer in _two(subject):
            layer.set_adapter(names, inference_mode=True)

    edit(f"of two adapters, {' and '.join(_names)}", moves=None)(_active)


@edit("the active adapter, by its private name", moves=None)
def _active_privately(subject: Subject) -> None:
    for layer in _two(subject):
        layer._active_adapter = ["b"] if "a" in layer.active_adapters else ["a"]


@edit("an adapter's scale in its table", moves=None)
def _scaling(subject: Subject) -> None:
    for layer in _two(subject):
        layer.scaling["a"] *= 1.5


@edit("an adapter's weight", moves=None)
def _adapter_weight(subject: Subject) -> None:
    for layer in _two(subject):
        layer.lora_B["a"].weight.data.add_(0.1)


@edit("an adapter deleted", moves=None)
def _deleted(subject: Subject) -> None:
    for layer in _two(subject):
        layer.delete_adapter("b")


@edit("adapters merged", moves=None)
def _merged(subject: Subject) -> None:
    for layer in _two(subject):
        layer.unmerge() if layer.merged else layer.merge(adapter_names=["a"])


@edit("IA3", moves=None)
def _ia3(subject: Subject) -> None:
    _, name = _linear(subject, "blocks.0.attn.k")
    config = peft.IA3Config(target_modules=[name], feedforward_modules=[], init_ia3_weights=False)
    peft.inject_adapter_in_model(config, subject.model.hf_model, adapter_name="ia3")


# -- weights that are no parameters ----------------------------------------------------------------------------------


def _quantised(subject: Subject) -> Any:
    """Return a dynamically quantised Linear, which is put in if it is not there."""
    part = subject.part("blocks.0.mlp.out")
    if not hasattr(part, "_packed_params"):
        if not isinstance(part, nn.Linear) or part.weight.dtype != torch.float32:
            raise Inapplicable("not a Linear in float32")
        part.qconfig = torch.ao.quantization.default_dynamic_qconfig
        part = torch.ao.nn.quantized.dynamic.Linear.from_float(part)
        replace(subject, "blocks.0.mlp.out", part)
    return part


@edit("a Linear quantised", moves=None)
def _quantise(subject: Subject) -> None:
    _quantised(subject)


@edit("a quantised Linear's weights set", moves=None)
def _packed(subject: Subject) -> None:
    part = _quantised(subject)
    part.set_weight_bias(torch.quantize_per_tensor(3 * part.weight().dequantize(), 0.03, 0, torch.qint8), part.bias())


@edit("a quantised Linear's scale", moves=None)
def _packed_scale(subject: Subject) -> None:
    part = _quantised(subject)
    whole = part.weight().int_repr()
    part.set_weight_bias(torch._make_per_tensor_quantized_tensor(whole, 0.011, 0), part.bias())


@edit("a weight as a plain attribute")
def _plain(subject: Subject) -> None:
    part: Any = subject.part("blocks.0.attn.o")
    weight = part.weight.detach()
    part._parameters.pop("weight", None)
    part.__dict__["weight"] = weight + noise(weight)


@edit("a weight as a buffer")
def _as_buffer(subject: Subject) -> None:
    part: Any = subject.part("blocks.0.attn.o")
    weight = part.weight.detach()
    part._parameters.pop("weight", None)
    part._buffers["weight"] = weight * 1.1


class _Scaled(torch.Tensor):
    factor = 1.3

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [one.as_subclass(torch.Tensor) * cls.factor if isinstance(one, cls) else one for one in args]
        return func(*plain, **(kwargs or {}))


@edit("a weight of a class of its own", moves=None)
def _subclass(subject: Subject) -> None:
    part: Any = subject.part("blocks.0.attn.o")
    weight = part.weight.detach().as_subclass(torch.Tensor)
    part._parameters["weight"] = weight.clone().as_subclass(_Scaled)


@edit("a weight that is a slice of a larger tensor, which is edited", moves=None)
def _slice(subject: Subject) -> None:
    weight = subject.weight("blocks.1.attn.o.weight")
    larger = torch.cat([weight.detach(), weight.detach()])
    weight.data = larger[: weight.shape[0]]
    larger.mul_(1.2)


@edit("a weight in a numpy array's memory", moves=None)
def _in_numpy(subject: Subject) -> None:
    weight = subject.weight("blocks.1.attn.o.weight")
    if weight.dtype == torch.bfloat16:
        raise Inapplicable("numpy has no bfloat16")
    held = weight.detach().numpy().copy()
    weight.data = torch.from_numpy(held)
    held *= 1.1


@edit("through DLPack")
def _dlpack(subject: Subject) -> None:
    torch.from_dlpack(subject.weight("blocks.1.attn.q.weight").detach()).mul_(1.3)


@edit("by address")
def _address(subject: Subject) -> None:
    weight = subject.weight("blocks.1.attn.q.weight")
    ctypes.memset(weight.data_ptr(), 0, weight.element_size() * 3)


@edit("several weights at once")
def _foreach(subject: Subject) -> None:
    weights = [subject.weight(f"blocks.{layer}.attn.o.weight").data for layer in range(2)]
    torch._foreach_mul_(weights, 1.1)


@edit("from one vector")
def _vector(subject: Subject) -> None:
    parameters = list(subject.part("blocks.0.ln1").parameters())
    vector = nn.utils.parameters_to_vector(parameters)
    nn.utils.vector_to_parameters(vector * 1.1, parameters)


for _name, _write in {
    "fill_diagonal_": lambda weight: weight.fill_diagonal_(0.5),
    "one row to zero": lambda weight: weight[0].zero_(),
    "clamp_": lambda weight: weight.clamp_(-0.01, 0.01),
    "a negated view": lambda weight: weight.copy_(-weight),
    "index_fill_": lambda weight: weight.index_fill_(1, torch.tensor([1]), 0.4),
    "random bits": lambda weight: weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(3)),
}.items():

    def _written(subject: Subject, write: Any = _write) -> None:
        write(subject.weight("blocks.0.attn.o.weight").data)

    edit(f"in place by {_name}", moves=None)(_written)


# -- parts and their order -------------------------------------------------------------------------------------------


def _layers(subject: Subject) -> Any:
    found = next((m for m in subject.model.hf_model.modules() if isinstance(m, nn.ModuleList) and len(m) == 2), None)
    if found is None:
        raise Inapplicable("no list of layers")
    return found


@edit("two parts exchanged", moves=None)
def _exchanged(subject: Subject) -> None:
    owners = [
        subject.model.hf_model.get_submodule(_path(subject, f"blocks.{n}.mlp").rpartition(".")[0]) for n in (0, 1)
    ]
    names = [_path(subject, f"blocks.{n}.mlp").rpartition(".")[2] for n in (0, 1)]
    first, second = (owner._modules[name] for owner, name in zip(owners, names, strict=True))
    owners[0]._modules[names[0]], owners[1]._modules[names[1]] = second, first


def _path(subject: Subject, name: str) -> str:
    part = subject.part(name)
    found = next((n for n, m in subject.model.hf_model.named_modules(remove_duplicate=False) if m is part), None)
    if found is None:
        raise Inapplicable(f"no {name} in the model")
    return found


@edit("one layer twice", moves=None)
def _twice(subject: Subject) -> None:
    layers = _layers(subject)
    layers._modules["1"] = layers._modules["0"]


@edit("layers in the other order", moves=None)
def _reversed(subject: Subject) -> None:
    layers = _layers(subject)
    layers._modules["0"], layers._modules["1"] = layers._modules["1"], layers._modules["0"]


@edit("half of the model in another dtype", moves=None)
def _half(subject: Subject) -> None:
    subject.part("blocks.1.mlp").to(torch.float64)


@edit("one buffer in another dtype", moves=None)
def _buffer_dtype(subject: Subject) -> None:
    rotary: Any = subject.part("rotary_emb")
    rotary.inv_freq = rotary.inv_freq.double()


@edit("the rotation's frequencies as they were at first", moves=False)
def _original(subject: Subject) -> None:
    rotary: Any = subject.part("rotary_emb")
    rotary.original_inv_freq = rotary.original_inv_freq * 2


@edit("weight normalisation", moves=None)
def _weight_norm(subject: Subject) -> None:
    part: Any = subject.part("blocks.0.mlp.out")
    if parametrize.is_parametrized(part):
        part.parametrizations.weight.original0.data.mul_(1.5)
    else:
        parametrizations.weight_norm(part)


@edit("spectral normalisation", moves=None)
def _spectral(subject: Subject) -> None:
    if parametrize.is_parametrized(subject.part("blocks.1.mlp.out")):
        raise Inapplicable("there already")
    parametrizations.spectral_norm(subject.part("blocks.1.mlp.out"))


@edit("an output capture by transformers", moves=False)
def _captured(subject: Subject) -> None:
    with torch.no_grad():
        subject.model.hf_model(torch.tensor([[1, 2, 3]]), output_hidden_states=True)


# -- what no library reads, and code of the user's own might ----------------------------------------------------------


class _Mode(enum.Enum):
    A = 1
    B = 2


@dataclass
class _Record:
    tensor: torch.Tensor = field(default_factory=lambda: torch.ones(2))
    numbers: list[float] = field(default_factory=list[float])


def _attribute(subject: Subject, name: str, make: Any, change: Any) -> None:
    part: Any = subject.part("blocks.0.mlp")
    held = part.__dict__
    if name in held:
        held[name] = change(held[name]) or held[name]
    else:
        held[name] = make()


for _name, _make, _change in [
    ("a list of numbers", lambda: [1.0], lambda held: held.append(2.0)),
    ("a private list", lambda: ["a"], lambda held: held.append("b")),
    ("a set", lambda: {"a"}, lambda held: held.add("b")),
    ("a table of tensors", lambda: {"a": {"b": torch.ones(2)}}, lambda held: held["a"]["b"].add_(1) is None),
    ("a record with a tensor", _Record, lambda held: held.numbers.append(1.0)),
    ("a tuple of tensors", lambda: (torch.ones(2),), lambda held: held[0].mul_(2) is None),
    ("a numpy array", lambda: np.ones(2), lambda held: held.fill(3.0)),
    ("a namespace", lambda: types.SimpleNamespace(a=1), lambda held: setattr(held, "a", 2)),
    ("a queue", lambda: deque([1]), lambda held: held.append(1)),
    ("an enumeration", lambda: _Mode.A, lambda _: _Mode.B),
    ("a generator", lambda: torch.Generator().manual_seed(1), lambda held: torch.rand(1, generator=held) is None),
    ("a module in a list", lambda: [nn.Linear(2, 2)], lambda held: held[0].weight.data.add_(1) is None),
    ("a circle", lambda: [types.SimpleNamespace()], lambda held: setattr(held[0], "back", held)),
    ("something that cannot be looked into", lambda: iter([1, 2]), lambda held: next(held, 0) is None),
]:

    def _held(subject: Subject, name: str = _name, make: Any = _make, change: Any = _change) -> None:
        key = name.replace(" ", "_")
        _attribute(subject, f"_{key}" if "private" in name else key, make, change)

    edit(f"on a module: {_name}", moves=False)(_held)


# -- configurations --------------------------------------------------------------------------------------------------

for _key in ["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "hidden_act", "attention_dropout", "use_cache"]:

    def _config(subject: Subject, key: str = _key) -> None:
        config: Any = subject.model.hf_model.config
        if not hasattr(config, key):
            raise Inapplicable(f"no {key}")
        value = getattr(config, key)
        setattr(
            config, key, (not value) if isinstance(value, bool) else value * 2 if isinstance(value, float) else "relu"
        )

    edit(f"the configuration's {_key}", moves=None)(_config)


@edit("a setting of the bridge", moves=None)
def _bridge_setting(subject: Subject) -> None:
    subject.bridge.cfg.default_prepend_bos = not subject.bridge.cfg.default_prepend_bos


@edit("settings of generation", moves=False)
def _generation(subject: Subject) -> None:
    subject.model.hf_model.generation_config.temperature = 0.5


@edit("sizes of heads on the attention", moves=None)
def _head_scale(subject: Subject) -> None:
    attention: Any = subject.part("blocks.1.attn")
    for name in ("scaling", "scale_attn_by_inverse_layer_idx", "scale_attn_weights"):
        if name in attention.__dict__:
            value = attention.__dict__[name]
            attention.__dict__[name] = (not value) if isinstance(value, bool) else value * 0.5
