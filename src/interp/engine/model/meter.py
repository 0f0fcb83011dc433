"""The most memory that a command has in use at a time, above what was in use when it started.

On CUDA torch counts it. Elsewhere a thread looks every few milliseconds: at what C's allocator has given out where that
can be asked (glibc), since a process keeps what is freed and uses it again, so that its size says little; else at the
size of the process. There, what earlier commands left may be freed meanwhile, so that the largest rise is the answer.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

import psutil
import torch

_INTERVAL = 0.004  # seconds between two looks
_SELDOM = 30  # how many times as long as one takes
_TRIED = 1 << 26  # bytes by which it is found out whether the allocator that is asked is the one that is used


class _Account(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        ]
    ]


@cache
def _used() -> Callable[[], int]:
    """Return what tells how many bytes are in use."""
    asked = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if asked is not None:
        asked.restype = _Account

        def given() -> int:
            account = asked()
            return account.uordblks + account.hblkhd

        before = given()
        tried = torch.empty(_TRIED, dtype=torch.uint8)
        if given() - before >= tried.nbytes:
            return given
    process = psutil.Process()
    return lambda: process.memory_info().rss


class Meter:
    """One command's memory.

    Parameters
    ----------
    device
        Where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._before = 0  # of a device
        self._least = self._rise = 0

    def start(self) -> None:
        """Begin to look."""
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
            self._before = torch.cuda.memory_allocated(self._cuda)
            return
        self._least = _used()()
        self._thread = threading.Thread(target=self._watch, name="interp-memory", daemon=True)
        self._thread.start()

    def most(self) -> int:
        """Return the most bytes so far."""
        if self._cuda is not None:
            return max(0, torch.cuda.max_memory_allocated(self._cuda) - self._before)
        self._look()
        return self._rise

    def stop(self) -> None:
        """Look no longer."""
        self._over.set()

    def _look(self) -> None:
        used = _used()()
        self._least = min(self._least, used)
        self._rise = max(self._rise, used - self._least)

    def _watch(self) -> None:
        # In a large heap a look takes most of a millisecond, in which nobody else can allocate.
        wait = _INTERVAL
        while not self._over.wait(wait):
            before = time.perf_counter()
            self._look()
            wait = max(_INTERVAL, _SELDOM * (time.perf_counter() - before))
