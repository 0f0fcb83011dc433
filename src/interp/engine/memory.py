"""How much memory there is, and which exceptions mean that there was not enough."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import psutil
import torch

from interp.engine import cgroup
from interp.errors import InputError
from interp.results.costs import scaled

# Positions that run together, unless memory is short. Matrix products are at their full rate from about 240 rows, so
# more gain nothing, and fewer lose less to an interrupt; a sweep's rows are of many layers, so that a wave has more.
ROWS = 2048
WAVE_ROWS = 4096
GRADIENT_ROWS = 512  # that are differentiated together: of fewer a product is slower, of more a stop loses more
FIRST_ROWS = 128  # of the first of them, so that there is soon something to see
WATCHED_ROWS = 1024  # of a wave while somebody looks: four times as many steps, for a few percent more time
LOGIT_ROWS = 256  # that are unembedded at once

Item = TypeVar("Item")
Made = TypeVar("Made")

# torch's CPU allocator and some kernels raise a plain RuntimeError; the last is what oneDNN says of it.
_SIGNS = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad allocation",
    "could not create a primitive",
)


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
    available = psutil.virtual_memory().available
    left = cgroup.free_bytes()
    return available if left is None else min(available, left)


def empty_cache(device: torch.device) -> None:
    """Give the memory that torch holds in reserve back to `device`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def attempt(run: Callable[[], object], device: torch.device, *, last: bool = False) -> bool:
    """Call `run`; return whether memory was enough, no frame of it keeping a tensor alive where it was not.

    Raises
    ------
    RuntimeError, MemoryError
        Another error; or there was not enough memory, and this was the `last` thing to try.
    """
    try:
        run()
        return True
    except (RuntimeError, MemoryError) as error:
        if last or not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
    empty_cache(device)
    return False


def retried(make: Callable[[], Made], device: torch.device) -> Made:
    """Call `make`, which cannot be halved; where memory runs out, once more with all that can be had."""
    made: list[Made] = []
    if not attempt(lambda: made.append(make()), device):
        return make()
    return made[0]


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
        if attempt(lambda some=some: run(some), device, last=len(some) == 1):
            first += len(some)
        else:
            size = len(some) // 2


class Divisible(Protocol):
    """Work that can be done in two parts."""

    def halves(self) -> tuple[Self, ...]:
        """Return the two parts, or nothing where there is nothing to halve."""
        ...


Piece = TypeVar("Piece", bound=Divisible)


@dataclass(frozen=True)
class Stretch:
    """Pairs that are run together, and the part of an integral's points, from `first` to `last`, that they are run at.

    Whether `last` belongs to it is for its user to say: halves meet there.
    """

    cases: tuple[int, ...]
    first: int
    last: int

    def halves(self) -> tuple[Stretch, ...]:
        """Return two stretches, of half the pairs, or of half the points; none where there is nothing to halve."""
        if len(self.cases) > 1:
            half = len(self.cases) // 2
            return replace(self, cases=self.cases[:half]), replace(self, cases=self.cases[half:])
        if self.last - self.first > 1:
            half = (self.first + self.last) // 2
            return replace(self, last=half), replace(self, first=half)
        return ()


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
        elif not attempt(lambda piece=piece: run(piece), device, last=not piece.halves()):
            limit = count // 2
            waiting.insert(0, piece)


def size_of(text: str) -> int:
    """Return the bytes that a size such as ``4GB`` or ``200 MB`` names; a number alone is in gigabytes.

    Raises
    ------
    InputError
        It names none.

    Examples
    --------
    >>> size_of("200MB"), size_of("1.5")
    (200000000, 1500000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower(), re.ASCII)
    size = 0.0
    if found is not None:
        number, unit, binary = found.groups()
        size = float(number) * (1024 if binary else 1000) ** "_kmgt".index(unit or "g")
    if not 1 <= size < float("inf"):
        raise InputError(f"{text!r} is no size; type one such as 4GB or 200MB")
    return int(size)


def readable(count: float) -> str:
    """Return a number of bytes in the largest unit that leaves it above 1.

    Examples
    --------
    >>> readable(538_060_032)
    '538 MB'
    """
    return scaled(count, "B")
