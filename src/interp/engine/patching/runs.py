"""Plain runs of prompts as the incremental forward continues them, from the store or computed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.exactness import Unreadable
from interp.engine.patching.cases import Ids
from interp.engine.transformer import network
from interp.engine.transformer.base_runs import PARTS, Asked, Base, Running
from interp.ids import types_of

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network

# Prompt → another one of them that it agrees with, and up to where.
Wanted = Mapping[Ids, tuple[Ids | None, int]]
NAMES = tuple(f"replay:{part}" for part in PARTS)  # in the store
_LOGITS, _END = "replay:last_logits", "replay:end"


def logits_after(model: LoadedModel, ids: Ids) -> Tensor | None:
    """Return the logits after a prompt, ``[d_vocab]``, of a technique's own run; ``None`` where there was none."""
    if (known := model.recall(ids, [_LOGITS])) is not None:
        return known[_LOGITS]
    if (held := model.recall(ids, [_END])) is not None:
        end = held[_END]
    elif (held := model.recall(ids, NAMES[:1])) is not None:
        end = held[NAMES[0]][-1, -1:]
    else:
        return None
    try:
        net = network.read(model, half=True)
    except Unreadable:
        return None
    logits = net.unembed(net.ending(end))[0]
    model.keep(ids, {_LOGITS: logits})
    return logits


def keep_end(model: LoadedModel, ids: Ids, end: Tensor) -> None:
    """Store the stream after the last layer at a prompt's last position, ``[d_model]``, for `logits_after`."""
    model.keep(ids, {_END: end.detach()[None]})


class PlainRuns:
    """The runs of prompts, which a wave can take along: a layer of theirs, then that layer of the wave's.

    Where one is not in the store all are run: the last bits depend on what runs together, and the same question must
    have the same answer whatever the store holds.

    Attributes
    ----------
    found
        Prompt → its run: whole where it comes from the store, else so far as it is.
    """

    def __init__(self, model: LoadedModel, net: Network, wanted: Wanted) -> None:
        self._model, self._last = model, len(net.layers) - 1
        prompts = sorted(wanted, key=lambda ids: wanted[ids][0] is not None)  # after those that they are like
        # All at once where each time the files are read once more.
        most = memory.WAVE_ROWS // max(map(len, prompts), default=1)
        self._size = max(1, most if net.streamed is None else len(prompts))
        held = {ids: parts for ids in prompts if (parts := model.recall(ids, NAMES)) is not None}
        if len(held) == len(prompts):
            tensors = {ids: torch.tensor(ids, device=model.device) for ids in held}
            self.found = {ids: Base(tensors[ids], *(parts[name] for name in NAMES)) for ids, parts in held.items()}
            self._running = None
            return
        asked: list[Asked] = []
        for ids in prompts:
            like, start = wanted[ids]
            place = None if like is None else prompts.index(like)
            asked.append(
                Asked(torch.tensor(ids, device=model.device), place, 0 if like is None else start, types_of(ids))
            )
        self._running = memory.retried(lambda: Running(net, asked, self._alive), model.device)
        self.found = dict(zip(prompts, self._running.runs, strict=True))

    @property
    def light(self) -> bool:
        """Whether all can be taken along at once."""
        return len(self.found) <= self._size

    def through(self, layer: int) -> None:
        """Run all layers up to and including that one that are not done."""
        if self._running is not None:
            self._running.through(layer)
            if self._running.done > self._last:
                self._finished()

    def complete(self) -> None:
        """Run what is left, as many prompts at a time as fit."""
        if (running := self._running) is None:
            return

        def some(chosen: Sequence[int]) -> None:
            part = running.only(chosen)
            if len(chosen) > 1:
                part.through(self._last)
            else:
                memory.retried(lambda: part.through(self._last), self._model.device)

        memory.halving(range(len(self.found)), self._size, some, self._model.device)
        self._finished()

    def _alive(self, layers: int) -> None:
        count = len(self.found)
        self._model.alive(f"running {count} prompts unpatched, {count * layers // (self._last + 1)}/{count}")

    def _finished(self) -> None:
        """Keep what is there now in the store."""
        self._running = None
        self._model.count(len(self.found))
        for ids, run in self.found.items():
            self._model.keep(ids, {name: getattr(run, part) for name, part in zip(NAMES, PARTS, strict=True)})
