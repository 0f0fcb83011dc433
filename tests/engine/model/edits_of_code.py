"""Edits of the code that a model runs: functions replaced where they are looked up, on classes, in registries."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import modeling_llama

from .edits import Inapplicable, Subject, edit

_MISSING = object()


def swap(subject: Subject, owner: Any, name: str, new: Callable[[Any], Any]) -> None:
    """Put ``new(old)`` where `owner` has `name`, until the end."""
    old = getattr(owner, name, _MISSING)
    if old is _MISSING:
        raise Inapplicable(f"no {name} there")
    own = vars(owner).get(name, _MISSING)
    setattr(owner, name, new(old))
    subject.undo.append(lambda: delattr(owner, name) if own is _MISSING else setattr(owner, name, own))


def scaled(by: float) -> Callable[[Any], Any]:
    """Return what makes a function one whose tensors are `by` times as large."""

    def around(old: Any) -> Any:
        def new(*inputs: Any, **named: Any) -> Any:
            found = old(*inputs, **named)
            if isinstance(found, tuple):
                return (_times(found[0], by), *found[1:])
            return _times(found, by)

        return new

    return around


def _times(found: Any, by: float) -> Any:
    return found * by if isinstance(found, torch.Tensor) and found.is_floating_point() else found


def modelling(subject: Subject) -> Any:
    """Return the module in which the model's classes are written."""
    return sys.modules[type(subject.model.hf_model).__module__]


# -- functions where they are looked up ------------------------------------------------------------------------------

for _name in ["embedding", "linear", "layer_norm", "scaled_dot_product_attention", "silu", "gelu"]:

    def _functional(subject: Subject, name: str = _name) -> None:
        swap(subject, F, name, scaled(0.9))

    edit(f"torch.nn.functional.{_name} replaced", moves=None)(_functional)

for _name in ["matmul", "cat", "rsqrt", "addmm", "tanh", "arange", "outer"]:

    def _torch(subject: Subject, name: str = _name) -> None:
        swap(subject, torch, name, scaled(1.1))

    edit(f"torch.{_name} replaced", moves=None)(_torch)

for _name in ["pow", "mean", "transpose", "view", "reshape", "__mul__", "__add__", "expand", "contiguous"]:

    def _method(subject: Subject, name: str = _name) -> None:
        old = getattr(torch.Tensor, name)

        def new(self: torch.Tensor, *inputs: Any, **named: Any) -> Any:
            found = old(self, *inputs, **named)
            return torch.mul(found, 1.02) if isinstance(found, torch.Tensor) and found.is_floating_point() else found

        swap(subject, torch.Tensor, name, lambda _: new)

    edit(f"torch.Tensor.{_name} replaced", moves=None)(_method)

for _name in ["apply_rotary_pos_emb", "rotate_half", "repeat_kv", "eager_attention_forward", "create_causal_mask"]:

    def _modelling(subject: Subject, name: str = _name) -> None:
        swap(subject, modelling(subject), name, scaled(0.5))

    edit(f"the modelling file's {_name} replaced", moves=None)(_modelling)


@edit("rotations that turn queries alone", moves=None)
def _rotary_of_queries(subject: Subject) -> None:
    swap(subject, modelling(subject), "apply_rotary_pos_emb", lambda _: lambda q, k, *more, **named: (q * 0.5, k))  # noqa: ARG005


@edit("a replaced function that takes the other's name", moves=None)
def _wraps(subject: Subject) -> None:
    swap(subject, F, "embedding", lambda old: functools.wraps(old)(scaled(1.4)(old)))


@edit("a function replaced under no_grad", moves=None)
def _under_no_grad(subject: Subject) -> None:
    swap(subject, F, "linear", lambda old: torch.no_grad()(scaled(1.2)(old)))


@edit("one library function in another's place", moves=None)
def _library_for_library(subject: Subject) -> None:
    swap(subject, F, "silu", lambda _: F.relu)
    swap(subject, F, "gelu", lambda _: F.relu)


@edit("rotations of another modelling file", moves=None)
def _rotary_of_another(subject: Subject) -> None:
    swap(subject, modelling(subject), "rotate_half", lambda _: torch.neg)


@edit("a partial of a library function", moves=None)
def _partial_of_library(subject: Subject) -> None:
    swap(subject, F, "silu", lambda _: functools.partial(F.leaky_relu, negative_slope=0.3))


_factor = torch.ones(1)


@edit("a partial that holds a tensor, edited in place", moves=None)
def _partial_with_tensor(subject: Subject) -> None:
    name = "rotate_half" if hasattr(modelling(subject), "rotate_half") else "torch_dtype"
    _factor.add_(0.5)
    if getattr(getattr(modelling(subject), name, None), "keywords", {}).get("other") is not _factor:
        swap(subject, modelling(subject), name, lambda _: functools.partial(torch.mul, other=_factor))
    subject.undo.append(lambda: _factor.fill_(1.0))


@edit("the code of a function exchanged", moves=None)
def _code(subject: Subject) -> None:
    function = getattr(modelling(subject), "rotate_half", None)
    if not isinstance(function, types.FunctionType):
        raise Inapplicable("no such function")
    old = function.__code__
    function.__code__ = (lambda x: x * 0.7).__code__
    subject.undo.append(lambda: setattr(function, "__code__", old))


@edit("the defaults of a function exchanged", moves=None)
def _defaults(subject: Subject) -> None:
    function = getattr(modelling(subject), "eager_attention_forward", None)
    if not isinstance(function, types.FunctionType) or not function.__defaults__:
        raise Inapplicable("no such function")
    old = function.__defaults__
    function.__defaults__ = (0.0,) * len(old)
    subject.undo.append(lambda: setattr(function, "__defaults__", old))


@edit("a builtin's name taken in the modelling file", moves=None)
def _shadowed(subject: Subject) -> None:
    held = vars(modelling(subject))
    if "isinstance" in held:
        raise Inapplicable("there already")
    held["isinstance"] = isinstance
    subject.undo.append(lambda: held.pop("isinstance"))


@edit("a constant of a module that the forward reads", moves=None)
def _constant(subject: Subject) -> None:
    swap(subject, modelling(subject), "Cache", lambda old: type("Cache", (old,), {}))


# -- methods of classes ----------------------------------------------------------------------------------------------

for _where in ["blocks.0.ln1", "blocks.0.attn", "blocks.0.mlp", "blocks.0.attn.q", "embed", "ln_final", "rotary_emb"]:

    def _call(subject: Subject, where: str = _where) -> None:
        kind: Any = type(subject.part(where))
        old = kind.__call__

        def call(self: Any, *inputs: Any, **named: Any) -> Any:
            return scaled(0.8)(old)(self, *inputs, **named)

        swap(subject, kind, "__call__", lambda _: call)

    edit(f"__call__ of the class of {_where}", moves=None)(_call)

for _where in ["blocks.0.ln1", "blocks.0.mlp", "embed", "unembed", "rotary_emb"]:

    def _class_forward(subject: Subject, where: str = _where) -> None:
        swap(subject, type(subject.part(where)), "forward", scaled(1.2))

    edit(f"forward of the class of {_where}", moves=None)(_class_forward)

for _name in ["__call__", "_call_impl", "_wrapped_call_impl"]:

    def _module_method(subject: Subject, name: str = _name) -> None:
        old = getattr(nn.Module, name)

        def call(self: nn.Module, *inputs: Any, **named: Any) -> Any:
            found = old(self, *inputs, **named)
            return _times(found, 1.05) if isinstance(self, nn.Embedding) else found

        swap(subject, nn.Module, name, lambda _: call)

    edit(f"torch.nn.Module.{_name} replaced", moves=None)(_module_method)


@edit("torch.nn.Module.__getattr__ replaced", moves=None)
def _getattr(subject: Subject) -> None:
    old = nn.Module.__getattr__

    def found(self: nn.Module, name: str) -> Any:
        value = old(self, name)
        return value * 1.1 if name == "weight" and isinstance(self, nn.Embedding) else value

    swap(subject, nn.Module, "__getattr__", lambda _: found)


@edit("a property on a class hides a parameter", moves=None)
def _property(subject: Subject) -> None:
    kind: Any = type(subject.part("ln_final"))
    if isinstance(vars(kind).get("weight"), property):
        raise Inapplicable("there already")
    kind.weight = property(lambda self: self._parameters["weight"] * 0.5)
    subject.undo.append(lambda: delattr(kind, "weight"))


@edit("a number on a class hides nothing", moves=False)
def _class_number(subject: Subject) -> None:
    kind: Any = type(subject.part("ln_final"))
    kind.my_number = getattr(kind, "my_number", 0) + 1
    subject.undo.append(lambda: kind.__dict__.get("my_number") is None or delattr(kind, "my_number"))


@edit("the bridge's forward of attention replaced on its class", moves=None)
def _bridge_class(subject: Subject) -> None:
    swap(subject, type(subject.bridge.blocks[0].attn), "forward", scaled(0.6))


@edit("a hook point's forward replaced on the instance", moves=None)
def _hook_point(subject: Subject) -> None:
    point = subject.bridge.hook_dict["blocks.0.hook_mlp_out"]
    point.forward = lambda tensor: tensor * 1.5


@edit("an object of another class")
def _other_class(subject: Subject) -> None:
    part = subject.part("blocks.0.mlp.out")
    kind: Any = type(part)
    old = kind.forward
    part.__class__ = type(kind.__name__, (kind,), {"forward": lambda self, x: old(self, x) * 0.7})


# -- registries ------------------------------------------------------------------------------------------------------


@edit("the attention that is registered, replaced", moves=None)
def _registered(subject: Subject) -> None:
    config: Any = subject.model.hf_model.config
    name = config._attn_implementation
    interface = modelling(subject).ALL_ATTENTION_FUNCTIONS
    old = interface.get_interface(name, modelling(subject).eager_attention_forward)
    interface[name] = scaled(0.5)(old)
    subject.undo.append(lambda: interface._local_mapping.pop(name, None))


@edit("an attention of one's own, registered and chosen", moves=None)
def _own_attention(subject: Subject) -> None:
    AttentionInterface.register("mine", scaled(0.3)(modelling(subject).eager_attention_forward))
    subject.model.hf_model.config._attn_implementation = "mine"
    subject.undo.append(lambda: AttentionInterface._global_mapping.pop("mine", None))


for _name in ["eager", "sdpa"]:

    def _implementation(subject: Subject, name: str = _name) -> None:
        subject.model.hf_model.config._attn_implementation = name

    edit(f"attention by {_name}", moves=None)(_implementation)


@edit("the table of activations", moves=False)
def _activations(subject: Subject) -> None:
    old = dict.__getitem__(ACT2FN, "silu")
    ACT2FN["silu"] = nn.Tanh
    subject.undo.append(lambda: ACT2FN.__setitem__("silu", old))


@edit("the table of rotations", moves=None)
def _rotations(subject: Subject) -> None:
    old = ROPE_INIT_FUNCTIONS["linear"]
    ROPE_INIT_FUNCTIONS["linear"] = lambda *inputs, **named: old(*inputs, **named)
    subject.undo.append(lambda: ROPE_INIT_FUNCTIONS.__setitem__("linear", old))


# -- functions and objects on instances ------------------------------------------------------------------------------


def _mlp(subject: Subject) -> tuple[Any, str]:
    mlp: Any = subject.part("blocks.0.mlp")
    name = next((name for name in ("act", "act_fn") if name in mlp._modules or hasattr(mlp, name)), None)
    if name is None:
        raise Inapplicable("no activation")
    return mlp, name


def _set_activation(subject: Subject, new: Any) -> None:
    mlp, name = _mlp(subject)
    mlp._modules.pop(name, None)
    setattr(mlp, name, new)


@edit("a library function for an activation")
def _plain_activation(subject: Subject) -> None:
    _set_activation(subject, torch.sin)


@edit("a partial for an activation")
def _partial_activation(subject: Subject) -> None:
    _set_activation(subject, functools.partial(F.leaky_relu, negative_slope=0.4))


@edit("a callable object for an activation")
def _object_activation(subject: Subject) -> None:
    class Mine:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0.2

    _set_activation(subject, Mine())


@edit("a bound method of a tensor for an activation")
def _bound_activation(subject: Subject) -> None:
    weight = subject.weight("ln_final.weight")
    _set_activation(subject, torch.full((1,), 0.3, dtype=weight.dtype).mul)


@edit("a module of the user's own for an activation")
def _own_activation(subject: Subject) -> None:
    class Mine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(-0.1, 0.1)

    _set_activation(subject, Mine())


@edit("the whole model's forward on the instance", moves=None)
def _model_forward(subject: Subject) -> None:
    hf: Any = subject.model.hf_model
    old = hf.forward

    @functools.wraps(old)
    def forward(*inputs: Any, **named: Any) -> Any:
        found = old(*inputs, **named)
        found.logits = found.logits * 0.5
        return found

    hf.forward = forward


# -- hooks and modes of torch's --------------------------------------------------------------------------------------


@edit("a pre-hook on every module there is")
def _global_pre_hook(subject: Subject) -> None:
    def hook(module: nn.Module, inputs: Any) -> Any:
        return tuple(_times(one, 1.1) for one in inputs) if type(module).__name__ in {"Linear", "Conv1D"} else None

    subject.undo.append(nn.modules.module.register_module_forward_pre_hook(hook).remove)


@edit("a hook with keywords")
def _keyword_hook(subject: Subject) -> None:
    def hook(module: nn.Module, inputs: Any, named: Any, output: Any) -> Any:  # noqa: ARG001
        return output * 0.9

    subject.part("blocks.1.mlp").register_forward_hook(hook, with_kwargs=True)


@edit("a backward hook", moves=False)
def _backward_hook(subject: Subject) -> None:
    subject.part("blocks.1.mlp").register_full_backward_hook(lambda module, given, out: None)  # noqa: ARG005


@edit("a mode that changes torch's functions", moves=None)
def _function_mode(subject: Subject) -> None:
    class Mine(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            return found * 1.2 if function is F.embedding else found

    _enter(subject, Mine())


@edit("a mode that changes torch's kernels", moves=None)
def _dispatch_mode(subject: Subject) -> None:
    class Mine(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            return found * 1.2 if function is torch.ops.aten.embedding.default else found

    _enter(subject, Mine())


def _enter(subject: Subject, mode: Any) -> None:
    mode.__enter__()
    subject.undo.append(lambda: mode.__exit__(None, None, None))


def _setting(name: str, get: Callable[[], Any], set_: Callable[[Any], Any], new: Any) -> None:
    def apply(subject: Subject) -> None:
        before = get()
        set_(new)
        subject.undo.append(lambda: set_(before))

    edit(name, moves=None)(apply)


_setting("another default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float64)
_setting(
    "deterministic algorithms", torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
)
_setting("no gradients anywhere", torch.is_grad_enabled, torch.set_grad_enabled, False)
_setting(
    "no oneDNN",
    lambda: torch.backends.mkldnn.enabled,
    lambda value: torch._C._set_mkldnn_enabled(value),
    False,
)
_setting("no flash attention", torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, False)
_setting("no plain attention", torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, False)
_setting("another number of threads", torch.get_num_threads, torch.set_num_threads, 2)
_setting("a random seed", torch.initial_seed, torch.manual_seed, 7)


@edit("autocast to float16", moves=None)
def _autocast(subject: Subject) -> None:
    subject.autocast = torch.float16


@edit("inference mode", moves=None)
def _inference(subject: Subject) -> None:
    if torch.is_inference_mode_enabled():
        raise Inapplicable("on already")
    _enter(subject, torch.inference_mode())


@edit("a rotation's file of another family", moves=None)  # the bridge imports it where it runs
def _elsewhere(subject: Subject) -> None:
    if modelling(subject) is modeling_llama:
        raise Inapplicable("its own")
    swap(subject, modeling_llama, "apply_rotary_pos_emb", scaled(0.1))
