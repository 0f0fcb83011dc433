"""Weights that stay in their files: read a layer ahead of their use, and given back after it.

`safetensors` maps a file into memory, and torch computes with the mapped pages as they are: no weight is copied, and
what is in memory are pages that the kernel can take back at any time. What is asked of it here is which ones to have:

1. before a layer is used, the next one's pages are read, by a thread of their own;
2. a layer that has been used is let go of, but for as many of the first ones as `limit` has room for: a sweep goes
   through the layers in order, again and again, and what it has let go of last it needs last.

A page that this process has written to is its own memory and nobody's file's; it is never let go of.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from torch import Tensor, nn

from interp.engine import memory
from interp.engine.model import hooks, mapped
from interp.errors import InputError

_DROP, _AHEAD, _READ = 4, 3, 22  # MADV_DONTNEED, MADV_WILLNEED, MADV_POPULATE_READ (Linux 5.14)


class Streamed:
    """The weights of a model whose layers are used in order.

    Parameters
    ----------
    blocks
        The model's layers.
    rest
        All other weights: embeddings and the unembedding, of which mostly a few rows are read. They are let go of when
        a command ends.
    limit
        How many bytes of weights may be in memory; ``None`` where `on_disk` says what stays.
    on_disk
        The addresses of the weights that are to be let go of; all where there is a limit.

    Attributes
    ----------
    read
        How many bytes of layers have been asked of the files so far.
    by_rows
        Whether the model's own forward moves rows instead: never.
    takes, where
        How many bytes of copies there are: none. Where the layers are, if that is worth a word.

    Raises
    ------
    InputError
        Three layers, or the weights that are not in a file as they are used, are more than `limit`.
    """

    by_rows, takes, where = False, 0, ""

    def __init__(
        self, blocks: Sequence[nn.Module], rest: nn.Module, limit: int | None, on_disk: Collection[int] = ()
    ) -> None:
        seen: set[int] = set()
        every = [_tensors(module, seen) for module in (*blocks, rest)]
        mappings = mapped.Mappings()
        *layers, others = (
            [
                one
                for one in some
                if (limit is not None or one.data_ptr() in on_disk) and mappings.holds(one.data_ptr(), one.nbytes)
            ]
            for some in every
        )
        self._sizes = [sum(tensor.nbytes for tensor in layer) for layer in layers]
        whole = sum(tensor.nbytes for tensor in itertools.chain(*every))
        copied = whole - sum(self._sizes) - sum(tensor.nbytes for tensor in others)
        needed = 3 * max(self._sizes) + copied
        if limit is not None and needed > limit:
            most = f"three layers take {memory.readable(3 * max(self._sizes))}"
            besides = f", and what is not in the files as it is used {memory.readable(copied)}" if copied else ""
            raise InputError(
                f"--max-memory {memory.readable(limit)} is too little: {most}{besides}; "
                f"give {memory.readable(1.01 * needed)} or more"
            )
        room = 0 if limit is None else limit - needed
        self._kept = sum(total <= room for total in itertools.accumulate(self._sizes))
        self._layers, self._others = layers, others
        self._asked: dict[int, Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, "interp-weights")
        self.read = 0

    def use(self, layer: int) -> None:
        """Have that layer's weights in memory, and the next one's on their way; let go of those that are done with."""
        hooks.undisturbed(lambda: self._use(layer))

    def _use(self, layer: int) -> None:
        now = self._ask(layer)
        if layer + 1 < len(self._layers):
            self._ask(layer + 1)
        now.result()
        # One more behind: what a patch of a layer's output is made of is read when the next one begins.
        for other in [n for n in self._asked if n >= self._kept and not layer - 1 <= n <= layer + 1]:
            self._asked.pop(other).result()
            let_go(self._layers[other])

    def begin(self, state: str) -> None:
        """Begin a command; pages that an edit has written to are never let go of."""

    def enter(self, layer: int) -> None:
        """Do as `use` does, in a forward with hooks."""
        self.use(layer)

    def leave(self) -> None:
        """End such a forward."""

    def rest(self) -> None:
        """Let go of all but the first layers."""
        for future in self._asked.values():
            future.result()
        self._asked = {layer: future for layer, future in self._asked.items() if layer < self._kept}
        let_go(itertools.chain(*self._layers[self._kept :], self._others))

    def _ask(self, layer: int) -> Future[None]:
        if layer not in self._asked:
            self.read += self._sizes[layer]
            self._asked[layer] = self._thread.submit(bring, self._layers[layer])
        return self._asked[layer]


def _tensors(module: nn.Module, seen: set[int]) -> list[Tensor]:
    """Return a module's weights and buffers, each stretch of memory once; they keep their files mapped."""
    found: list[Tensor] = []
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.nbytes and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            found.append(tensor.detach())
    return found


def bring(tensors: Iterable[Tensor]) -> None:
    """Read the pages of tensors that are mapped from files."""
    for start, end in _pages(tensors, outward=True):
        if _advise(start, end, _READ):
            _advise(start, end, _AHEAD)  # an older kernel


def let_go(tensors: Iterable[Tensor]) -> None:
    """Have the kernel take back the pages of tensors that are their files'."""
    for start, end in _pages(tensors, outward=False):
        own = mapped.own_pages(start, end)
        if own is not None and not own.any():
            _advise(start, end, _DROP)


def _pages(tensors: Iterable[Tensor], *, outward: bool) -> Iterable[tuple[int, int]]:
    page = mapped.PAGE
    for tensor in tensors:
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        first, last = (start // page, -(-end // page)) if outward else (-(-start // page), end // page)
        if last > first:
            yield first * page, last * page


def _advise(start: int, end: int, what: int) -> int:
    if sys.platform != "linux":  # the kernel reads what is touched, and takes back what it needs, unasked
        return 0
    return _library().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), what)


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
