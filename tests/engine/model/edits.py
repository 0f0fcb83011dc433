"""Ways in which a user may change a loaded model between two commands, each as one named function."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from transformer_lens.patching import layer_pos_patch_setter

from interp.engine.model.loaded import LoadedModel


class Inapplicable(Exception):
    """This model, as it now is, has nothing for the edit to act on."""


@dataclass
class Subject:
    """A model that is edited, what runs around its forwards, and what puts global state back."""

    model: LoadedModel
    family: str
    autocast: torch.dtype | None = None
    undo: list[Callable[[], Any]] = field(default_factory=list)

    @property
    def bridge(self) -> Any:
        return self.model.bridge

    def part(self, name: str) -> nn.Module:
        """Return the Hugging Face module behind a part of the bridge, such as ``blocks.0.attn.q``."""
        found: Any = self.bridge
        for piece in name.split("."):
            found = found[int(piece)] if piece.isdigit() else getattr(found, piece, None)
            if found is None:
                raise Inapplicable(f"{self.family} has no {name}")
        return found.original_component

    def weight(self, name: str = "blocks.0.attn.q.weight") -> nn.Parameter:
        """Return a parameter, such as ``blocks.0.attn.q.weight``."""
        owner, _, key = name.rpartition(".")
        found = getattr(self.part(owner), key, None)
        if not isinstance(found, nn.Parameter):
            raise Inapplicable(f"{self.family} has no parameter {name}")
        return found


@dataclass(frozen=True)
class Edit:
    """`moves`: whether the answers must change; ``None`` where that depends on the model."""

    apply: Callable[[Subject], Any]
    moves: bool | None


EDITS: dict[str, Edit] = {}


def edit(name: str, moves: bool | None = True) -> Callable[[Callable[[Subject], Any]], Callable[[Subject], Any]]:
    def declare(function: Callable[[Subject], Any]) -> Callable[[Subject], Any]:
        EDITS[name] = Edit(function, moves)
        return function

    return declare


def noise(tensor: torch.Tensor, scale: float = 0.1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tensor.numel())
    return torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * scale


def replace(subject: Subject, name: str, module: nn.Module) -> None:
    """Put `module` where the Hugging Face module behind the bridge's part `name` is."""
    old = subject.part(name)
    for parent in (subject.model.hf_model, subject.bridge):
        for owner in list(parent.modules()):
            for key, child in list(owner._modules.items()):
                if child is old:
                    owner._modules[key] = module


# -- every kind of weight, in place ----------------------------------------------------------------------------------

for _name in [
    "embed.weight",
    "pos_embed.weight",
    "blocks.0.ln1.weight",
    "blocks.0.ln1.bias",
    "blocks.1.ln2.weight",
    "blocks.0.attn.q.weight",
    "blocks.0.attn.k.weight",
    "blocks.0.attn.v.weight",
    "blocks.1.attn.o.weight",
    "blocks.0.attn.q.bias",
    "blocks.1.attn.v.bias",
    "blocks.0.mlp.in.weight",
    "blocks.1.mlp.out.weight",
    "blocks.1.mlp.out.bias",
    "ln_final.weight",
    "unembed.weight",
]:

    def _in_place(subject: Subject, name: str = _name) -> None:
        with torch.no_grad():
            subject.weight(name).add_(noise(subject.weight(name)))

    edit(f"in place: {_name}")(_in_place)


# -- every way of writing to a weight --------------------------------------------------------------------------------


@edit(".data +=")
def _data_add(subject: Subject) -> None:
    subject.weight().data += noise(subject.weight())


@edit(".data = another tensor")
def _data_set(subject: Subject) -> None:
    subject.weight().data = subject.weight().data + noise(subject.weight())


@edit("numpy view")
def _numpy(subject: Subject) -> None:
    if subject.weight().dtype == torch.bfloat16:
        raise Inapplicable("numpy has no bfloat16")
    subject.weight().detach().numpy()[...] += 0.07


@edit("one element through numpy")
def _numpy_one(subject: Subject) -> None:
    if subject.weight().dtype == torch.bfloat16:
        raise Inapplicable("numpy has no bfloat16")
    subject.weight().detach().numpy()[1, 1] += 2.0


@edit("one bit of one byte")
def _one_bit(subject: Subject) -> None:
    subject.weight("ln_final.weight").data.view(torch.uint8)[-1] ^= 0x40


@edit("untyped storage, one byte")
def _storage(subject: Subject) -> None:
    storage = subject.weight("blocks.0.attn.v.weight").untyped_storage()
    # The exponent's low bit of the last element, in a little-endian float of any width.
    storage[len(storage) - 1] = storage[len(storage) - 1] ^ 0x80


@edit("another Parameter object")
def _parameter(subject: Subject) -> None:
    weight = subject.weight()
    subject.part("blocks.0.attn.q").weight = nn.Parameter(weight.detach() + noise(weight))


@edit("an equal Parameter object", moves=False)
def _equal_parameter(subject: Subject) -> None:
    subject.part("blocks.0.attn.q").weight = nn.Parameter(subject.weight().detach().clone())


@edit("copy_ from another layer")
def _copy(subject: Subject) -> None:
    subject.weight("blocks.0.attn.k.weight").data.copy_(subject.weight("blocks.1.attn.k.weight").data + 0.01)


@edit("nn.init")
def _init(subject: Subject) -> None:
    nn.init.normal_(subject.weight(), 0.0, 0.3)


@edit("load_state_dict")
def _load_state_dict(subject: Subject) -> None:
    held = {name: value.clone() for name, value in subject.part("blocks.1.attn.o").state_dict().items()}
    held["weight"] += noise(held["weight"])
    subject.part("blocks.1.attn.o").load_state_dict(held)


@edit("load_state_dict, assigned")
def _assign(subject: Subject) -> None:
    held = {name: value.clone() for name, value in subject.part("blocks.0.attn.v").state_dict().items()}
    held["weight"] += noise(held["weight"])
    subject.part("blocks.0.attn.v").load_state_dict(held, assign=True)


@edit("an optimiser's step")
def _optimiser(subject: Subject) -> None:
    weight = subject.weight("blocks.0.attn.k.weight").requires_grad_()
    weight.grad = noise(weight)
    torch.optim.SGD([weight], lr=1.0).step()
    weight.grad = None


@edit("set_ to another storage")
def _set(subject: Subject) -> None:
    weight = subject.weight()
    with torch.no_grad():
        weight.set_((weight.detach() + noise(weight)).contiguous())  # pyright: ignore[reportArgumentType]


@edit("swapped weights")
def _swap(subject: Subject) -> None:
    a, b = subject.weight("blocks.0.attn.v.weight"), subject.weight("blocks.1.attn.v.weight")
    held = a.data.clone()
    a.data.copy_(b.data)
    b.data.copy_(held * 0.9)


@edit("the same bytes, another stride")
def _transposed(subject: Subject) -> None:
    weight = subject.weight("blocks.0.attn.o.weight")
    if weight.shape[0] != weight.shape[1]:
        raise Inapplicable("not square")
    weight.data = weight.data.t()


@edit("a non-contiguous copy, equal in value", moves=None)
def _strided(subject: Subject) -> None:
    weight = subject.weight()
    weight.data = weight.data.t().contiguous().t()


@edit("a layer's weight shared with another")
def _tie(subject: Subject) -> None:
    subject.part("blocks.1.attn.q").weight = subject.weight()


@edit("the unembedding tied to the embedding", moves=None)
def _tie_unembed(subject: Subject) -> None:
    subject.part("unembed").weight = subject.weight("embed.weight")


@edit("the unembedding untied and changed")
def _untie(subject: Subject) -> None:
    weight = subject.weight("unembed.weight")
    subject.part("unembed").weight = nn.Parameter(weight.detach() + noise(weight))


# -- dtype, device, gradients ----------------------------------------------------------------------------------------


@edit(".half()")
def _half(subject: Subject) -> None:
    subject.bridge.half()


@edit(".double()", moves=None)
def _double(subject: Subject) -> None:
    subject.bridge.double()


@edit(".float()", moves=None)
def _float(subject: Subject) -> None:
    subject.bridge.float()


@edit(".to(bfloat16)", moves=None)
def _bfloat16(subject: Subject) -> None:
    subject.bridge.to(torch.bfloat16)


@edit("the inner model's .to(float64)", moves=None)
def _inner_double(subject: Subject) -> None:
    subject.model.hf_model.to(torch.float64)


@edit("to float16 and back", moves=None)
def _round_trip(subject: Subject) -> None:
    subject.bridge.half()
    subject.bridge.float()


@edit(".to(cpu)", moves=False)
def _cpu(subject: Subject) -> None:
    subject.bridge.to("cpu")


@edit("requires_grad off", moves=False)
def _frozen(subject: Subject) -> None:
    subject.bridge.requires_grad_(False)


@edit("requires_grad on", moves=False)
def _trainable(subject: Subject) -> None:
    subject.weight().requires_grad_(True)


@edit("a backward pass, gradients kept", moves=False)
def _backward(subject: Subject) -> None:
    weight = subject.weight()
    weight.requires_grad_(True)
    weight.grad = torch.ones_like(weight)


# -- buffers, numbers, functions, modules ----------------------------------------------------------------------------


@edit("rotary inv_freq")
def _inv_freq(subject: Subject) -> None:
    rotary: Any = subject.part("rotary_emb")
    rotary.inv_freq.mul_(1.5)


@edit("rotary attention_scaling")
def _attention_scaling(subject: Subject) -> None:
    rotary: Any = subject.part("rotary_emb")
    rotary.attention_scaling *= 1.5


@edit("a buffer of its own, unused", moves=False)
def _buffer(subject: Subject) -> None:
    subject.model.hf_model.register_buffer("my_note", torch.ones(3), persistent=False)


@edit("a norm's eps", moves=None)  # the bridge's own norms read it from the configuration
def _eps(subject: Subject) -> None:
    norm: Any = subject.part("blocks.0.ln1")
    for name in ("eps", "variance_epsilon"):
        if hasattr(norm, name):
            setattr(norm, name, getattr(norm, name) + 0.5)


@edit("the bridge's eps in its configuration", moves=None)
def _cfg_eps(subject: Subject) -> None:
    subject.bridge.cfg.eps = subject.bridge.cfg.eps + 0.5


@edit("attention's scaling", moves=None)
def _scaling(subject: Subject) -> None:
    attention: Any = subject.part("blocks.0.attn")
    for owner in (attention, subject.bridge.blocks[0].attn):
        for name in ("scaling", "scale_attn_weights", "norm_factor"):
            if hasattr(owner, name):
                setattr(owner, name, getattr(owner, name) * 0.5)


@edit("a scalar of the Hugging Face configuration", moves=None)
def _config(subject: Subject) -> None:
    subject.model.hf_model.config.my_scalar = 3


@edit("a nested value of the configuration", moves=None)
def _nested_config(subject: Subject) -> None:
    parameters = getattr(subject.model.hf_model.config, "rope_parameters", None)
    if not parameters:
        raise Inapplicable("no rotary positions")
    parameters["rope_theta"] = 77.0


@edit("another activation module", moves=True)
def _activation(subject: Subject) -> None:
    mlp: Any = subject.part("blocks.0.mlp")
    for name in ("act", "act_fn"):
        if isinstance(getattr(mlp, name, None), nn.Module):
            setattr(mlp, name, nn.Sigmoid())


@edit("another function inside the activation", moves=True)
def _activation_function(subject: Subject) -> None:
    mlp: Any = subject.part("blocks.0.mlp")
    activation = getattr(mlp, "act", None)
    if not hasattr(activation, "act"):
        raise Inapplicable("the activation holds no function")
    activation.act = torch.tanh


@edit("a replaced submodule", moves=True)
def _submodule(subject: Subject) -> None:
    old: Any = subject.part("blocks.0.ln1")
    new = nn.LayerNorm(old.weight.shape[0], dtype=old.weight.dtype)
    replace(subject, "blocks.0.ln1", new)
    new.weight.data += 0.5


@edit("layers in another order")
def _order(subject: Subject) -> None:
    a, b = subject.weight("blocks.0.mlp.out.weight"), subject.weight("blocks.1.mlp.out.weight")
    subject.part("blocks.0.mlp.out").weight, subject.part("blocks.1.mlp.out").weight = b, a


@edit("a replaced forward")
def _forward(subject: Subject) -> None:
    module: Any = subject.part("blocks.0.attn.q")
    old = module.forward
    module.forward = lambda x: old(x) * 1.5


@edit("a replaced forward that reads a list")
def _closure(subject: Subject) -> None:
    module: Any = subject.part("blocks.0.attn.k")
    if not hasattr(module, "my_factor"):
        old, factor = type(module).forward, [1.0]
        module.forward = types.MethodType(lambda self, x: old(self, x) * factor[0], module)
        module.__dict__["my_factor"] = _Opaque(factor)
    module.__dict__["my_factor"].held[0] += 0.3


class _Opaque:
    def __init__(self, held: list[float]) -> None:
        self.held = held


@edit("a replaced forward, a partial")
def _partial(subject: Subject) -> None:
    module: Any = subject.part("blocks.1.mlp.out")
    old = module.forward

    def scaled(x: torch.Tensor, *, by: float) -> torch.Tensor:
        return old(x) * by

    module.forward = functools.partial(scaled, by=0.4)


@edit("a forward replaced on the class")
def _class_forward(subject: Subject) -> None:
    kind: Any = type(subject.part("blocks.0.attn.q"))
    old = kind.forward
    kind.forward = lambda self, *inputs: old(self, *inputs) * 1.1
    subject.undo.append(lambda: setattr(kind, "forward", old))


@edit("a replaced forward taken off", moves=None)
def _forward_off(subject: Subject) -> None:
    for module in subject.model.hf_model.modules():
        module.__dict__.pop("forward", None)


@edit("a parametrisation")
def _parametrisation(subject: Subject) -> None:
    class Halved(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 0.5

    weight = subject.weight("blocks.1.attn.v.weight")
    del weight
    parametrize.register_parametrization(subject.part("blocks.1.attn.v"), "weight", Halved())


# -- adapters --------------------------------------------------------------------------------------------------------


def _adapter(subject: Subject) -> Any:
    found = [m for m in subject.model.hf_model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
    if not found:
        target = subject.part("blocks.0.attn.v")
        if not isinstance(target, nn.Linear):
            raise Inapplicable("nothing that PEFT adapts")
        names = [n for n, m in subject.model.hf_model.named_modules() if m is target]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = peft.LoraConfig(r=2, target_modules=names[:1], init_lora_weights=False)
            peft.inject_adapter_in_model(config, subject.model.hf_model)
        found = [m for m in subject.model.hf_model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
        for layer in found:
            layer.to(subject.part("blocks.0.attn.q").weight.dtype)
    return found


@edit("a LoRA adapter injected")
def _lora(subject: Subject) -> None:
    if any(isinstance(m, peft.tuners.lora.LoraLayer) for m in subject.model.hf_model.modules()):
        raise Inapplicable("there already")
    _adapter(subject)


@edit("a LoRA adapter merged", moves=None)
def _lora_merge(subject: Subject) -> None:
    for layer in _adapter(subject):
        layer.unmerge() if layer.merged else layer.merge()


@edit("a LoRA adapter switched off or on", moves=None)
def _lora_switch(subject: Subject) -> None:
    for layer in _adapter(subject):
        layer.enable_adapters(layer.disable_adapters)


@edit("a LoRA adapter scaled", moves=None)
def _lora_scale(subject: Subject) -> None:
    for layer in _adapter(subject):
        layer.scale_layer(1.7)


@edit("a LoRA update merged by hand")
def _lora_by_hand(subject: Subject) -> None:
    weight = subject.weight("blocks.0.attn.v.weight")
    down, up = noise(weight[:, :2], 0.5), noise(weight[:2], 0.5)
    weight.data += down @ up


# -- transformer-lens ------------------------------------------------------------------------------------------------


@edit("compatibility mode", moves=None)
def _compatibility(subject: Subject) -> None:
    subject.bridge.enable_compatibility_mode()


@edit("split q, k, v inputs on", moves=None)
def _split_on(subject: Subject) -> None:
    subject.bridge.set_use_split_qkv_input(True)


@edit("split q, k, v inputs off", moves=None)
def _split_off(subject: Subject) -> None:
    subject.bridge.set_use_split_qkv_input(False)


@edit("results per head on", moves=None)
def _result_on(subject: Subject) -> None:
    subject.bridge.set_use_attn_result(True)


@edit("a hook through the bridge")
def _bridge_hook(subject: Subject) -> None:
    subject.bridge.add_hook("blocks.0.hook_resid_pre", lambda tensor, hook: tensor * 0.5 + 1)  # noqa: ARG005


@edit("a hook that reads a list")
def _bridge_hook_closure(subject: Subject) -> None:
    factors: list[float] = subject.bridge.__dict__.setdefault("my_factors", [])
    if not factors:
        subject.bridge.add_hook("blocks.1.attn.hook_v", lambda tensor, hook: tensor * sum(factors))  # noqa: ARG005
    factors.append(0.4)


@edit("a hook of transformer-lens' own")
def _library_hook(subject: Subject) -> None:
    with torch.no_grad():
        given = torch.ones(1, 64, subject.model.geometry.d_model, dtype=getattr(torch, subject.model.dtype))
    hook = functools.partial(_patched, cache={"blocks.1.hook_in": given}, index=[0, 1])
    hook.func.__module__ = layer_pos_patch_setter.__module__
    subject.bridge.add_hook("blocks.1.hook_resid_pre", hook)


def _patched(tensor: torch.Tensor, hook: Any, cache: dict[str, torch.Tensor], index: list[int]) -> torch.Tensor:  # noqa: ARG001
    return layer_pos_patch_setter(tensor.clone(), index, next(iter(cache.values())))


@edit("the bridge's hooks taken off", moves=None)
def _reset_hooks(subject: Subject) -> None:
    subject.bridge.reset_hooks(including_permanent=True)


@edit("run_with_cache by the user", moves=False)
def _run_with_cache(subject: Subject) -> None:
    with torch.no_grad():
        subject.bridge.run_with_cache(torch.tensor([[1, 2, 3]]))


# -- torch's hooks, modes and contexts -------------------------------------------------------------------------------


@edit("a torch forward hook")
def _torch_hook(subject: Subject) -> None:
    subject.part("blocks.0.mlp").register_forward_hook(lambda module, inputs, output: output * 1.5)  # noqa: ARG005


@edit("a torch pre-hook")
def _torch_pre_hook(subject: Subject) -> None:
    subject.part("blocks.0.attn.v").register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.5, *inputs[1:]))  # noqa: ARG005


@edit("a hook on every module there is")
def _global_hook(subject: Subject) -> None:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
        return output * 1.01 if isinstance(module, nn.Embedding) else None

    handle = nn.modules.module.register_module_forward_hook(hook)
    subject.undo.append(handle.remove)


@edit("torch's pruning")
def _pruned(subject: Subject) -> None:
    prune.l1_unstructured(subject.part("ln_final"), "weight", 0.5)
    prune.l1_unstructured(subject.part("blocks.0.mlp.out"), "weight", 0.5)


@edit("train()", moves=None)
def _train(subject: Subject) -> None:
    subject.bridge.train()


@edit("eval()", moves=None)
def _eval(subject: Subject) -> None:
    subject.bridge.eval()


@edit("dropout set to zero", moves=None)
def _no_dropout(subject: Subject) -> None:
    for module in subject.model.hf_model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


@edit("dropout set to a half", moves=None)
def _dropout(subject: Subject) -> None:
    for module in subject.model.hf_model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
        if hasattr(module, "attention_dropout") and not isinstance(module.attention_dropout, nn.Module):
            module.attention_dropout = 0.5


@edit("autocast to bfloat16", moves=None)
def _autocast(subject: Subject) -> None:
    subject.autocast = torch.bfloat16


@edit("no autocast", moves=None)
def _no_autocast(subject: Subject) -> None:
    subject.autocast = None


@edit("another matmul precision", moves=None)
def _precision(subject: Subject) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    subject.undo.append(lambda: torch.set_float32_matmul_precision(before))
