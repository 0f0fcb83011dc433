"""The bytes of tensors: hashed where they lie, whole storages at once."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import xxhash
from torch import Tensor

from interp.engine.model.mapped import Key, Mappings

_CHUNK = 1 << 22  # elements hashed at once on a device: 32 MB of weights beside them
_PIECE = 1 << 24  # bytes that one core hashes at once
_FEW = 1 << 24  # bytes that are hashed sooner than the kernel lists what is mapped
PLAIN = {Tensor, torch.nn.Parameter, torch.nn.Buffer}

Place = tuple[int, int, torch.device]
Bytes = Any  # a buffer: the memory of a storage itself, or a few bytes that stand for it

_known: dict[Key | None, bytes] = {}  # a file's bytes → the hashes of their pieces
_MOST = 1 << 16  # tensors that are remembered


def inner(tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Yield what a tensor of a class of its own holds beside its storage: tensors inside it, scales, attributes."""
    if tensor.is_quantized:
        if tensor.qscheme() in {torch.per_tensor_affine, torch.per_tensor_symmetric}:
            yield "scale", (tensor.q_scale(), tensor.q_zero_point())
        else:
            yield "scales", tensor.q_per_channel_scales()
            yield "zero points", tensor.q_per_channel_zero_points()
            yield "axis", tensor.q_per_channel_axis()
    if type(tensor) not in PLAIN:
        yield from vars(tensor).items()
        if hasattr(tensor, "__tensor_flatten__"):  # a wrapper: torchao's quantised weights, DTensor
            names, context = tensor.__tensor_flatten__()  # pyright: ignore
            yield from ((name, getattr(tensor, name)) for name in names)
            yield "context", context


def place(tensor: Tensor) -> Place:
    """Return where the storage of a tensor is and its size in bytes; a negative size for a tensor that has none."""
    if type(tensor) not in PLAIN and hasattr(tensor, "__tensor_flatten__"):
        return (id(tensor), 0, tensor.device)
    try:
        storage = tensor.untyped_storage()
        return (0, 0, tensor.device) if tensor.is_meta else (storage.data_ptr(), storage.nbytes(), tensor.device)
    except (RuntimeError, NotImplementedError):  # a kind of tensor of its own: sparse, quantised, sharded
        return (id(tensor), -1, tensor.device)


def digest(contents: Sequence[Bytes]) -> str:
    """Return 128 bits in hexadecimal: the hash of all pieces' hashes, in order, which as many cores take as torch uses.

    xxh3 reads at the rate of one core; a model's weights come faster from memory than that. What is still a file's and
    was hashed as such (`mapped`) is not read again, unless it is little.
    """
    views = [memoryview(one).cast("B") if memoryview(one).nbytes else memoryview(b"") for one in contents]
    stored = sum(len(view) for one, view in zip(contents, views, strict=True) if isinstance(one, ctypes.Array))
    mappings = Mappings() if stored > _FEW else None
    keys = [
        mappings.key(ctypes.addressof(one), len(view)) if mappings and isinstance(one, ctypes.Array) else None
        for one, view in zip(contents, views, strict=True)
    ]
    pieces = [
        view[start : start + _PIECE]
        for key, view in zip(keys, views, strict=True)
        if key not in _known
        for start in range(0, len(view), _PIECE)
    ]
    threads = min(torch.get_num_threads(), sum(len(piece) == _PIECE for piece in pieces))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            hashes = iter(list(pool.map(xxhash.xxh3_128_digest, pieces)))
    else:
        hashes = map(xxhash.xxh3_128_digest, pieces)
    # The lengths too: where one storage ends and the next begins.
    whole = xxhash.xxh3_128(repr([len(view) for view in views]).encode())
    for key, view in zip(keys, views, strict=True):
        found = _known.get(key) if key is not None else None
        if found is None:
            found = b"".join(next(hashes) for _ in range(0, len(view), _PIECE))
            if key is not None:
                if len(_known) >= _MOST:
                    _known.clear()
                _known[key] = found
        whole.update(found)
    return whole.hexdigest()


def content(tensor: Tensor, where: Place) -> Bytes:
    """Return the bytes of a tensor's storage, or a hash of them.

    Tensors on the CPU are not copied: the memory itself is returned. Others are reduced on their device, or hashed as
    soon as they are copied.
    """
    address, size, device = where
    if size == 0:
        return b""
    if device.type == "cpu" and size > 0:
        return (ctypes.c_ubyte * size).from_address(address)
    if size > 0:
        memory = torch.empty(0, dtype=torch.uint8, device=device).set_(tensor.untyped_storage())
    else:
        dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
        memory = dense.contiguous().reshape(-1).view(torch.uint8)
    if device.type == "cuda":
        return device_hash(memory).to_bytes(16, "little")
    return xxhash.xxh3_128_digest(memory.cpu().numpy().tobytes())


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
