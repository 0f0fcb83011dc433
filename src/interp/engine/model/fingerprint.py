"""A hash of everything in a model that a forward's result depends on."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, cast

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from transformer_lens.hook_points import HookPoint

_SCALARS = {bool, int, float, str, bytes, type(None), torch.dtype, torch.device}
_CHUNK = 1 << 22  # elements hashed at once on a device: 32 MB of weights beside them

# Packages whose modules are what their class, scalars, functions and tensors say. Code from anywhere else may read
# anything: a global, a list in a closure.
_KNOWN = {"torch", "transformers", "transformer_lens", "transformers_modules", "peft", "accelerate", "bitsandbytes"}


@dataclass(frozen=True)
class State:
    """What a model is at one moment.

    Attributes
    ----------
    digest
        128 bits in hexadecimal: equal digests, equal results, unless one of the next two says otherwise.
    own_code
        Functions of the user's own that the model runs, as ``module: function``.
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


def inspect(modules: Sequence[tuple[str, nn.Module]], *configs: Any) -> State:
    """Hash the weights, buffers and plain state of `modules`, and say what no hash can cover.

    The digest covers every parameter and buffer byte for byte (with shape, stride, dtype and device, which of them
    share memory, and whatever else lies in their storages), tensors that were left as plain attributes (processed
    weights), each module's class, its scalars (``training``, ``eps``, ``scaling`` …) and functions (an activation, a
    replaced ``forward``), and the plain values of `configs` and of the modules' own. ``tensor._version`` would be
    cheaper, but edits through ``.data``, a numpy view or a merged adapter do not move it.

    Tensors on the CPU are hashed with xxh3 at the rate of memory; those on a device are reduced there (see
    `device_hash`), so that weights never travel.
    """
    state = xxhash.xxh3_128()
    seen = {id(config) for config in configs}
    described: list[Any] = [_plain(vars(config)) if hasattr(config, "__dict__") else config for config in configs]
    hashed: dict[tuple[int, int, torch.device], int] = {}
    classes: dict[type, tuple[int, bool]] = {}
    own: list[str] = []
    training = noisy = False
    for name, module in modules:
        if isinstance(module, HookPoint):
            continue
        kind = type(module)
        if kind not in classes:
            classes[kind] = (_serial(kind.forward), _is_own(kind.forward))
        if classes[kind][1]:
            own.append(f"{name}: {kind.forward.__qualname__}")
        training = training or module.training
        noisy = noisy or (isinstance(module, _DropoutNd) and module.p > 0)
        described.append((name, kind.__qualname__, classes[kind][0]))
        # The bridge's private attributes are notes to itself that forwards change; others' are state (PEFT's switches).
        bridged = kind.__module__.startswith("transformer_lens.")
        for key, value in module.__dict__.items():
            sort = type(value)
            if sort is FunctionType or sort is MethodType:
                described.append((key, _serial(value)))
                if _is_own(value):
                    own.append(f"{name}: {key} = {value.__qualname__}")
            elif key[0] == "_" and (bridged or sort not in _SCALARS):
                continue
            elif sort in _SCALARS:
                described.append((key, value))
                noisy = noisy or (sort is float and value > 0 and any(word in key for word in _NOISE))
            elif sort is list or sort is tuple:
                if all(type(item) in _SCALARS for item in value):
                    described.append((key, value))
            elif sort is dict:
                described.append((key, _plain(value)))
            elif key == "config" or key == "cfg":
                if id(value) not in seen:
                    seen.add(id(value))
                    described.append((key, _plain(vars(value))))
            elif callable(value) and not isinstance(value, nn.Module):
                described.append((key, _serial(value)))
                if _is_own(value):
                    own.append(f"{name}: {key} = {sort.__qualname__}")
        for key, tensor in _tensors(module):
            held = tensor.detach()
            # Whole storages, once each: a slice or a transposed weight is then not copied. Where a tensor lies in its
            # storage is part of the description.
            place = _place(tensor)
            if place not in hashed:
                hashed[place] = len(hashed)
                state.update(_content(held, place))
            layout = (held.storage_offset(), held.shape, held.stride(), held.dtype, str(held.device))
            described.append((key, hashed[place], layout, held.requires_grad))
    state.update(repr(described).encode("utf-8", "surrogatepass"))
    return State(state.hexdigest(), tuple(own), training and noisy)


_NOISE = ("drop", "jitter", "noise")


def _is_own(function: Any) -> bool:
    """Whether a function, a partial or a callable object comes from code that is not a known package's."""
    package = getattr(getattr(function, "func", function), "__module__", None)
    return package is not None and package.partition(".")[0] not in _KNOWN


def _plain(values: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Return what is plain data among `values`, mappings and configurations inside them too."""
    found: list[tuple[Any, Any]] = []
    for key, value in values.items():
        if str(key).startswith("_"):
            continue
        if type(value) in _SCALARS:
            found.append((key, value))
        elif isinstance(value, list | tuple):
            if all(type(item) in _SCALARS for item in cast("list[Any]", value)):
                found.append((key, value))
        elif isinstance(value, dict):
            found.append((key, _plain(cast("dict[Any, Any]", value))))
        elif hasattr(value, "to_dict"):  # a configuration inside a configuration
            found.append((key, _plain(vars(value))))
    return found


_serials: dict[int, tuple[Any, int]] = {}
_next_serial = itertools.count()


def _serial(function: Any) -> int:
    """Return a number for `function` that no other object ever gets: an address is given again once it is free."""
    reference, number = _serials.get(id(function), (None, 0))
    if reference is not None and (reference() is function if type(reference) is weakref.ref else reference is function):
        return number
    number = next(_next_serial)
    address = id(function)
    try:
        held: Any = weakref.ref(function, lambda _: _serials.pop(address, None))
    except TypeError:  # kept alive, and its address with it
        held = function
    _serials[address] = (held, number)
    return number


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for held in (module._parameters, module._buffers):  # pyright: ignore[reportPrivateUsage]
        for key, tensor in held.items():
            if tensor is not None:
                yield key, tensor
    for key, value in module.__dict__.items():
        if key[0] == "_" and "processed" not in key:
            continue
        if isinstance(value, Tensor):
            yield key, value
        elif type(value) is dict:
            for inner, tensor in cast("dict[Any, Any]", value).items():
                if isinstance(tensor, Tensor):
                    yield f"{key}.{inner}", tensor


def _place(tensor: Tensor) -> tuple[int, int, torch.device]:
    """Return where the storage of a tensor is and its size in bytes; a negative size for a tensor that has none."""
    try:
        storage = tensor.untyped_storage()
        return (0, 0, tensor.device) if tensor.is_meta else (storage.data_ptr(), storage.nbytes(), tensor.device)
    except (RuntimeError, NotImplementedError):  # a kind of tensor of its own: sparse, quantised, sharded
        return (id(tensor), -1, tensor.device)


def _content(tensor: Tensor, place: tuple[int, int, torch.device]) -> Any:
    address, size, device = place
    if size == 0:
        return b""
    if device.type == "cpu" and size > 0:
        return (ctypes.c_ubyte * size).from_address(address)
    if size > 0:
        memory = torch.empty(0, dtype=torch.uint8, device=device).set_(tensor.untyped_storage())
    else:
        dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
        memory = dense.contiguous().reshape(-1).view(torch.uint8)
    return device_hash(memory).to_bytes(16, "little") if device.type == "cuda" else memory.cpu().numpy()


def device_hash(flat: Tensor) -> int:
    """Return a 128-bit hash of a contiguous 1-d tensor, reduced on its own device.

    Two sums of words times odd pseudo-random weights, modulo 2⁶⁴ (multiply-shift hashing; Dietzfelbinger et al. 1997).
    An odd weight is invertible, so a change of any one word always changes the sums; changes of several words collide
    by chance in about one of 2⁶³.

    Parameters
    ----------
    flat
        ``[elements]``, any dtype.
    """
    words = _words(flat)
    sums = [0, 0]
    for start in range(0, words.numel(), _CHUNK):
        chunk = words[start : start + _CHUNK]
        index = torch.arange(start, start + chunk.numel(), device=words.device, dtype=torch.int64)
        for which, seed in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)):
            weights = _mixed(index + _signed(seed)) | 1
            sums[which] += int((chunk * weights).sum().item())
    return (sums[0] % 2**64) | (sums[1] % 2**64) << 64


def _words(flat: Tensor) -> Tensor:
    content = flat.view(torch.uint8)
    whole = content.numel() // 8 * 8
    words = (
        content[:whole].view(torch.int64) if content.data_ptr() % 8 == 0 else content[:whole].clone().view(torch.int64)
    )
    rest = content[whole:]
    if rest.numel() == 0:
        return words
    last = torch.zeros(8, dtype=torch.uint8, device=flat.device)
    last[: rest.numel()] = rest
    return torch.cat([words, last.view(torch.int64)])


def _mixed(values: Tensor) -> Tensor:
    """Mix bits as splitmix64 does (Steele et al. 2014), with arithmetic shifts, which torch has for int64."""
    values = (values ^ (values >> 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> 27)) * _signed(0x94D049BB133111EB)
    return values ^ (values >> 31)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
