"""Plain runs of prompts as the incremental forward continues them, from the store or computed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from interp.engine import memory
from interp.engine.patching.cases import Ids
from interp.engine.transformer import base_runs
from interp.engine.transformer.base_runs import PARTS, Asked, Base

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network

Runs = dict[Ids, Base]
# Prompt → another one of them that it agrees with, and up to where.
Wanted = Mapping[Ids, tuple[Ids | None, int]]
NAMES = tuple(f"replay:{part}" for part in PARTS)  # in the store


def plain_runs(model: LoadedModel, net: Network, wanted: Wanted) -> Runs:
    """Return the runs of prompts."""
    missing = sorted(wanted, key=lambda ids: wanted[ids][0] is not None)  # after those that they are like
    held = {ids: parts for ids in missing if (parts := model.recall(ids, NAMES)) is not None}
    if len(held) == len(missing):
        tensors = {ids: torch.tensor(ids, device=model.device) for ids in held}
        return {ids: Base(tensors[ids], *(parts[name] for name in NAMES)) for ids, parts in held.items()}
    # Where one is missing all are run: the last bits depend on what runs together, and the same question must have the
    # same answer whatever the store holds.
    found: Runs = {}

    def some(chosen: Sequence[Ids]) -> None:
        if len(chosen) > 1:
            found.update(_made(model, net, wanted, chosen, found))
        else:
            found.update(memory.retried(lambda: _made(model, net, wanted, chosen, found), model.device))

    memory.halving(missing, max(1, memory.WAVE_ROWS // max(map(len, wanted), default=1)), some, model.device)
    return found


def _made(model: LoadedModel, net: Network, wanted: Wanted, chosen: Sequence[Ids], found: Runs) -> Runs:
    """Run `chosen` together and keep what comes out in the store."""
    asked: list[Asked] = []
    for ids in chosen:
        tensor = torch.tensor(ids, device=model.device)
        like, start = wanted[ids]
        if like is None:
            asked.append(Asked(tensor))
        else:
            known = found[like] if like in found else chosen.index(like)
            asked.append(Asked(tensor, known, min(start, len(ids) - 1)))
    before, count, depth = len(found), len(wanted), len(net.layers)

    def alive(layer: int) -> None:
        model.alive(f"running {count} prompts unpatched, {before + len(chosen) * layer // depth}/{count}")

    made = dict(zip(chosen, base_runs.run(net, asked, alive), strict=True))
    model.count(len(made))
    for ids, run in made.items():
        model.keep(ids, {name: getattr(run, part) for name, part in zip(NAMES, PARTS, strict=True)})
    return made
