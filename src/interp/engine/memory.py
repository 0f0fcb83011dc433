"""How much memory there is, and which exceptions mean that there was not enough."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, Self, TypeVar

import psutil
import torch

Item = TypeVar("Item")

# torch's CPU allocator and some kernels raise a plain RuntimeError.
_SIGNS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory", "bad allocation")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on a device or in the CPU's allocator.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."))
    True
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def free_bytes(device: torch.device) -> int:
    """Return how many bytes an allocation on `device` could get now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return psutil.virtual_memory().available


def empty_cache(device: torch.device) -> None:
    """Give the memory that torch holds in reserve back to `device`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def halving(items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], object], device: torch.device) -> None:
    """Call `run` with `size` items at a time, with half as many from where memory ran out on.

    Raises
    ------
    RuntimeError, MemoryError
        There is not enough for a single one.

    Examples
    --------
    >>> halving([1, 2, 3], 2, print, torch.device("cpu"))
    [1, 2]
    [3]
    """
    first = 0
    while first < len(items):
        some = items[first : first + size]
        try:
            run(some)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(some) == 1:
                raise
            traceback.clear_frames(error.__traceback__)
            empty_cache(device)
            size = len(some) // 2
            continue
        first += len(some)


class Divisible(Protocol):
    """Work that can be done in two parts."""

    def halves(self) -> tuple[Self, ...]:
        """Return the two parts, or nothing where there is nothing to halve."""
        ...


Piece = TypeVar("Piece", bound=Divisible)


def halving_pieces(
    pieces: Iterable[Piece],
    limit: int,
    rows: Callable[[Piece], int],
    run: Callable[[Piece], object],
    device: torch.device,
) -> None:
    """Call `run` with pieces of at most `limit` rows, in order, with half as many from where memory ran out on.

    Raises
    ------
    RuntimeError, MemoryError
        There is not enough for a piece that cannot be halved.
    """
    waiting = list(pieces)
    while waiting:
        piece = waiting.pop(0)
        count = rows(piece)
        if count > limit and (halves := piece.halves()):
            waiting[:0] = halves
            continue
        try:
            run(piece)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not piece.halves():
                raise
            traceback.clear_frames(error.__traceback__)
            empty_cache(device)
            limit = count // 2
            waiting.insert(0, piece)


def readable(count: float) -> str:
    """Return a number of bytes in the largest unit that leaves it above 1.

    Examples
    --------
    >>> readable(538_060_032)
    '538 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
