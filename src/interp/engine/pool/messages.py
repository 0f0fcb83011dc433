"""Messages between processes: plain data and arrays in safetensors' own format, which cannot carry code."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_LENGTH = struct.Struct("<Q")
_MOST = 1 << 38  # bytes of a message
_PIECE = 1 << 26  # that are read at once: a length alone takes no memory
Message = tuple[dict[str, Any], dict[str, Tensor]]


class Garbled(EOFError):
    """What came is no message, so that nothing after it can be: its sender is not listened to any more."""


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
    """Return what `packed` was given.

    Raises
    ------
    Garbled
        It is nothing that `packed` makes.
    """
    try:
        (size,) = _LENGTH.unpack_from(data)
        head = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["head"])
        tensors = load(data)
    except (ValueError, TypeError, LookupError, RecursionError, struct.error, SafetensorError) as error:
        raise Garbled(f"sent {len(data)} bytes that are no message") from error
    if not isinstance(head, dict):
        raise Garbled("sent a message that is no object")
    return cast("dict[str, Any]", head), tensors


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
        The other end is gone, or (`Garbled`) what it sent is no message.
    """
    (size,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    if size > _MOST:
        raise Garbled(f"sent a message of {size} bytes, which none has")
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
    pieces: list[bytes] = []
    while size > 0:
        pieces.append(stream.read(min(size, _PIECE)))
        size -= len(pieces[-1])
        if not pieces[-1]:
            raise EOFError("the other end of the pipe is gone")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
