"""Messages between processes: plain data and arrays in safetensors' own format, which cannot carry code."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from safetensors.torch import load, save
from torch import Tensor

_LENGTH = struct.Struct("<Q")
Message = tuple[dict[str, Any], dict[str, Tensor]]


def packed(head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return plain data and tensors as bytes.

    Examples
    --------
    >>> unpacked(packed({"is": "done"}, {"x": torch.ones(2)}))
    ({'is': 'done'}, {'x': tensor([1., 1.])})
    """
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(held, metadata={"head": json.dumps(head)})


def unpacked(data: bytes) -> Message:
    """Return what `packed` was given."""
    (size,) = _LENGTH.unpack_from(data)
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["head"]), load(data)


def sent(stream: BinaryIO, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """Write one message to a pipe."""
    data = packed(head, tensors or {})
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def received(stream: BinaryIO) -> Message:
    """Read one message from a pipe.

    Raises
    ------
    EOFError
        The other end is gone.
    """
    (size,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    return unpacked(_read(stream, size))


def write(stream: BinaryIO, head: Mapping[str, Any], *parts: bytes) -> None:
    """Write plain data and bytes, which are passed on unread, to a pipe."""
    data = json.dumps({"head": head, "sizes": [len(part) for part in parts]}).encode()
    stream.write(_LENGTH.pack(len(data)) + data)
    for part in parts:
        stream.write(part)
    stream.flush()


def read(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Read what `write` wrote.

    Raises
    ------
    EOFError
        The other end is gone.
    """
    (size,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    found = json.loads(_read(stream, size))
    return found["head"], [_read(stream, size) for size in found["sizes"]]


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other end of the pipe is gone")
    return data
