"""A hash of everything in a model that a forward's result depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
import xxhash
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

_SCALARS = (bool, int, float, str, bytes, type(None), torch.dtype)
_CHUNK = 1 << 22  # elements hashed at once on a device: 32 MB of weights beside them


def fingerprint(modules: Sequence[tuple[str, nn.Module]], *configs: Any) -> str:
    """Return a 128-bit hash of the weights, buffers and plain state of `modules`, as 32 hexadecimal digits.

    It covers every parameter and buffer byte for byte (with shape, stride, dtype and device), tensors that were left
    as plain attributes (processed weights), each module's class, scalars (``training``, ``eps``, ``scaling`` …) and
    replaced ``forward``, and the scalars of `configs`. ``tensor._version`` would be cheaper, but edits through
    ``.data``, a numpy view or a merged adapter do not move it.

    Tensors on the CPU are hashed with xxh3 at the rate of memory; those on a device are reduced there (see
    `device_hash`), so that weights never travel.

    Examples
    --------
    >>> len(fingerprint([("", torch.nn.Linear(2, 2))]))
    32
    """
    state = xxhash.xxh3_128()
    described: list[Any] = [_scalars(vars(config)) if hasattr(config, "__dict__") else config for config in configs]
    hashed: set[tuple[int, torch.Size, tuple[int, ...], torch.dtype]] = set()
    for name, module in modules:
        if isinstance(module, HookPoint):
            continue
        described.append((name, type(module).__qualname__, _scalars(module.__dict__)))
        for key, tensor in _tensors(module):
            held = tensor.detach()
            identity = (held.data_ptr(), held.shape, held.stride(), held.dtype)
            described.append((key, identity[1:], str(held.device), held.requires_grad))
            if identity not in hashed:
                hashed.add(identity)
                state.update(_content(held))
    state.update(repr(described).encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def _scalars(attributes: dict[str, Any]) -> list[tuple[str, Any]]:
    # Private attributes are the bridge's notes to itself, which forwards change.
    plain = [(k, v) for k, v in attributes.items() if isinstance(v, _SCALARS) and not k.startswith("_")]
    sequences = [
        (k, v)
        for k, v in attributes.items()
        if isinstance(v, list | tuple)
        and not k.startswith("_")
        and all(isinstance(item, _SCALARS) for item in cast("list[Any]", v))
    ]
    replaced = [("forward", id(attributes["forward"]))] if "forward" in attributes else []
    return [*plain, *sequences, *replaced]


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for held in (module._parameters, module._buffers):  # pyright: ignore[reportPrivateUsage]
        for key, tensor in held.items():
            if tensor is not None:
                yield key, tensor
    for key, value in module.__dict__.items():
        if key.startswith("_") and "processed" not in key:
            continue
        if isinstance(value, Tensor):
            yield key, value
        elif isinstance(value, dict):
            for inner, tensor in cast("dict[Any, Any]", value).items():
                if isinstance(tensor, Tensor):
                    yield f"{key}.{inner}", tensor


def _content(tensor: Tensor) -> Any:
    if tensor.is_meta:
        return b"meta"
    flat = tensor.contiguous().reshape(-1)
    if flat.numel() == 0:
        return b""
    if tensor.device.type == "cpu":
        return flat.view(torch.uint8).numpy()
    if tensor.device.type == "cuda":
        return device_hash(flat).to_bytes(16, "little")
    return flat.cpu().view(torch.uint8).numpy()


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
