"""A hash of everything in a model that a forward's result depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from torch.overrides import _get_current_function_mode_stack  # pyright: ignore
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack  # pyright: ignore
from transformer_lens.hook_points import HookPoint

from interp.engine.model import code, content, functions
from interp.engine.model.values import NOTES, SCALARS, Values, name_of


@dataclass(frozen=True)
class State:
    """What a model is at one moment.

    Attributes
    ----------
    digest
        128 bits in hexadecimal: equal digests, equal results, unless one of the next two says otherwise.
    own_code
        Functions of the user's own that the model runs, as ``module: function``, and what cannot be looked into.
    random
        Whether a module in training mode has active dropout or noise, so that no two forwards are equal.
    """

    digest: str
    own_code: tuple[str, ...]
    random: bool


def fingerprint(modules: Sequence[tuple[str, nn.Module]], *configs: Any) -> str:
    """Return the digest of `inspect`.

    Examples
    --------
    >>> len(fingerprint([("", torch.nn.Linear(2, 2))]))
    32
    """
    return inspect(modules, *configs).digest


# What torch keeps in every module. Children are described by their numbers, hooks are looked for elsewhere.
_TORCH = set(vars(nn.Module())) - {"training"}
_NOISE = ("drop", "jitter", "noise")


def inspect(modules: Sequence[tuple[str, nn.Module]], *configs: Any) -> State:
    """Hash the weights, buffers and plain state of `modules`, and say what no hash can cover.

    The digest covers every parameter and buffer byte for byte (with shape, stride, dtype and device, which of them
    share memory, and whatever else lies in their storages), each module's class, children, scalars (``training``,
    ``eps``, ``scaling`` …), functions (an activation, a replaced ``forward``) and whatever other attributes hold,
    tensors inside any of them too; the values of `configs` and of the modules' own; what was replaced among the
    functions that all these run (see `code`); and modes of torch's that are on. ``tensor._version`` would be cheaper,
    but edits through ``.data``, a numpy view or a merged adapter do not move it.

    Tensors on the CPU are hashed with xxh3 at the rate of memory; those on a device are reduced there (see
    `content.device_hash`), so that weights never travel.
    """
    values = Values(modules)
    described: list[Any] = [values.value(config, "config") for config in configs]
    number = {id(module): index for index, (_, module) in enumerate(modules)}
    training = noisy = False
    for name, module in modules:
        held = module.__dict__
        if isinstance(module, HookPoint):
            if "forward" in held or held["hook_conversion"] is not None:
                own = [held.get(key) for key in ("forward", "hook_conversion")]
                described.append((name, [values.value(one, name) for one in own if one is not None]))
            continue
        kind = type(module)
        values.classes.add(kind)
        training = training or module.training
        noisy = noisy or (isinstance(module, _DropoutNd) and module.p > 0)
        children = [(key, number.get(id(child))) for key, child in held["_modules"].items()]
        described.append((name, name_of(kind), children))
        if any(child is None for _, child in children):
            described.append([values.value(child, name) for child in held["_modules"].values() if child is not None])
        # The bridge's private attributes are notes to itself that forwards change; others' are state (PEFT's switches).
        bridged = kind.__module__.startswith("transformer_lens.")
        for tensors in (held["_parameters"], held["_buffers"]):
            for key, tensor in tensors.items():
                if tensor is not None:
                    described.append((key, values.tensor(tensor, name)))
        for key, value in held.items():
            if key in _TORCH or key in NOTES:
                continue
            if type(value) in SCALARS:
                if not (bridged and key[0] == "_"):
                    described.append((key, value))
                noisy = noisy or (type(value) is float and value > 0 and any(word in key for word in _NOISE))
            elif not bridged:
                described.append((key, values.value(value, f"{name}: {key}")))
            elif (entry := _of_bridge(key, value, values, name)) is not None:
                described.append((key, entry))
    described += _around(values)
    found = code.look(frozenset(values.classes), values.functions)
    for place, now in found.changed:
        described.append((place, name_of(now) if functions.is_own(now) else values.value(now, place)))
    values.contents.append(repr(described).encode("utf-8", "surrogatepass"))
    own = dict.fromkeys((*values.own, *found.own, *values.unseen))
    return State(content.digest(values.contents), tuple(own), training and noisy)


def _of_bridge(key: str, value: Any, values: Values, name: str) -> Any:
    """Describe what a module of the bridge holds: not its templates and tables, through which the model hangs again."""
    place = f"{name}: {key}"
    if isinstance(value, Tensor) or key in {"config", "cfg"}:
        return values.value(value, place) if key[0] != "_" or "processed" in key else None
    if isinstance(value, FunctionType | MethodType):
        return values.function(value, place)
    if (isinstance(value, dict) and "processed" in key) or (isinstance(value, list | tuple) and key[0] != "_"):
        return values.value(value, place)
    if key[0] != "_" and callable(value) and not isinstance(value, nn.Module):
        return values.value(value, place)
    return None


def _around(values: Values) -> list[Any]:
    """Describe what acts on every forward in this process: torch's settings, its modes, kernels of the user's own."""
    modes = (*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack())
    kernels = _kernels(len(_implemented))
    values.own += [f"torch.library: {kernel}" for kernel in kernels]
    for mode in modes:
        values.classes.add(type(mode))
        if functions.is_own(type(mode)):
            values.own.append(f"every function of torch's: {type(mode).__qualname__}")
    return [kernels, [values.value(mode, "mode") for mode in modes]]


_implemented = cast("set[str]", torch.library._impls)  # pyright: ignore
_AT_FIRST = frozenset(_implemented)


@cache
def _kernels(count: int) -> list[str]:  # noqa: ARG001
    """Return the operators of torch's own that somebody gave another implementation from Python."""
    return sorted(name for name in _implemented - _AT_FIRST if name.startswith("aten"))


def settings() -> tuple[Any, ...]:
    """Return torch's settings that move a forward's result, if only by a rounding."""
    backends: Any = torch.backends
    return (
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.is_inference_mode_enabled(),
        tuple(
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        ),
        tuple(
            getattr(backends.cuda, f"{kernel}_sdp_enabled")() for kernel in ("flash", "mem_efficient", "math", "cudnn")
        ),
        (backends.cuda.matmul.allow_tf32, backends.cudnn.enabled, backends.cudnn.allow_tf32, backends.cudnn.benchmark),
        backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        (backends.mkldnn.enabled, backends.mha.get_fastpath_enabled()),
    )
