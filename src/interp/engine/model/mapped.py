"""Weights that are still their file's: known without being read, once they have been hashed.

`safetensors` maps a file into memory: a page is read when it is touched, and a page that is written to becomes memory
of this process alone. The kernel says which (``/proc/self/maps``, ``/proc/self/pagemap``). Where every page of a tensor
is its file's, and the file is the one that it was (device, inode, size, times of change), its bytes are those that were
hashed. Where the kernel does not say so (other systems, files on layered file systems), tensors are read as ever.
"""

from __future__ import annotations

import bisect
import os
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# File as it was, offset, size → the hashes of its pieces.
Key = tuple[int, ...]

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_SETTLED = 2 * 10**9  # nanoseconds
_OF_INTEREST = re.compile(rb"^.*\.safetensors$", re.MULTILINE)
_PRESENT, _SWAPPED, _OF_FILE = (np.uint64(1 << bit) for bit in (63, 62, 61))


@dataclass(frozen=True)
class _Mapping:
    """A stretch of this process's memory that is a file's, privately."""

    start: int
    end: int
    offset: int
    device: tuple[int, int]
    inode: int
    path: str

    @cached_property
    def file(self) -> tuple[int, ...] | None:
        """The file as it is now; ``None`` where another one is in its place."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        if (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino) != (*self.device, self.inode):
            return None
        # Clocks of file systems are coarse: a file that has just been written may be written again in the same tick.
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @cached_property
    def own(self) -> NDArray[np.bool_] | None:
        """Which pages are no longer the file's, ``[page]``; ``None`` where the kernel does not say."""
        return own_pages(self.start, self.end)

    @cached_property
    def written(self) -> bool:
        """Whether any page is no longer the file's, as far as the kernel says."""
        return self.own is not None and bool(self.own.any())


def own_pages(start: int, end: int) -> NDArray[np.bool_] | None:
    """Return which pages of a stretch of memory are this process's alone, ``[page]``; ``None`` where nobody says."""
    count = (end - start) // PAGE
    try:
        with open("/proc/self/pagemap", "rb") as pages:
            pages.seek(start // PAGE * 8)
            flags = np.frombuffer(pages.read(count * 8), dtype=np.uint64)
    except OSError:
        return None
    if len(flags) != count:
        return None
    held = (flags & (_PRESENT | _SWAPPED)) != 0
    return held & ((flags & _OF_FILE) == 0)


class Mappings:
    """This process's mapped files at one moment."""

    def __init__(self) -> None:
        self._found = _read()
        self._starts = [mapping.start for mapping in self._found]

    def holds(self, address: int, size: int) -> bool:
        """Whether bytes are where a file is mapped."""
        return self._around(address, size) is not None

    def _around(self, address: int, size: int) -> _Mapping | None:
        at = bisect.bisect_right(self._starts, address) - 1
        return None if at < 0 or size <= 0 or address + size > self._found[at].end else self._found[at]

    def key(self, address: int, size: int) -> Key | None:
        """Return what tells bytes that are a file's from all others; ``None`` for what is, or may be, no file's."""
        mapping = self._around(address, size)
        if mapping is None or mapping.file is None or mapping.own is None:
            return None
        first, last = ((place - mapping.start) // PAGE for place in (address, address + size - 1))
        if mapping.written and mapping.own[first : last + 1].any():
            return None
        return (*mapping.file, mapping.offset + address - mapping.start, size)


def _read() -> list[_Mapping]:
    try:
        text = Path("/proc/self/maps").read_bytes()
    except OSError:
        return []
    found: list[_Mapping] = []
    for line in _OF_INTEREST.findall(text):
        place, rights, offset, device, inode, *path = os.fsdecode(line).split(maxsplit=5)
        # Not shared ones: another process may write to those without the file's times saying so.
        if not path or inode == "0" or rights[3] != "p" or not path[0].endswith(".safetensors"):
            continue
        start, end = (int(edge, 16) for edge in place.split("-"))
        major, minor = (int(number, 16) for number in device.split(":"))
        found.append(_Mapping(start, end, int(offset, 16), (major, minor), int(inode), path[0]))
    return found
