"""A sweep that runs in a pool: cut into shards by what is asked, never by who is there, and put together again.

A shard is some pairs and some cells of them. It is swept as if it were all there is, so that what it gives depends on
nothing else: any number of workers, in whatever order they end, gives the same bits. A sample is compared with the
hooked forward in this process, as that of every sweep is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.memory import WAVE_ROWS
from interp.engine.patching.cases import Case
from interp.engine.pool import sharing

if TYPE_CHECKING:
    from interp.engine.patching.waves import Sweep
    from interp.engine.pool.protocol import Pool

# Positions of patched runs in a shard: a few waves, so that what is shared among them is worth sharing.
ROWS = 4 * WAVE_ROWS


@dataclass(frozen=True)
class Shard:
    """Some pairs, and some cells of each."""

    cases: tuple[int, ...]
    cells: tuple[int, ...]


def cut(cases: Sequence[Case], cells: Sequence[int], way: exactness.Way) -> list[Shard]:
    """Return the shards of a sweep over `cells` of each of `cases`, in order.

    Small pairs go together, up to `ROWS` positions of patched runs; a large one is cut. With hooks, where nothing is
    shared, each pair goes by itself.
    """
    return pieces([len(case.base) for case in cases], cells, way)


def pieces(lengths: Sequence[int], cells: Sequence[int], way: exactness.Way = "lean") -> list[Shard]:
    """Return the shards of `cells` of each of some prompts of these lengths; see `cut`."""
    found: list[Shard] = []
    together: list[int] = []
    rows = 0
    for number, length in enumerate(lengths):
        own = len(cells) * length
        if together and (way == "hooked" or rows + own > ROWS):
            found.append(Shard(tuple(together), tuple(cells)))
            together, rows = [], 0
        most = max(1, ROWS // length) if way == "lean" else 64
        if len(cells) > most:
            found += [Shard((number,), tuple(cells[start : start + most])) for start in range(0, len(cells), most)]
            continue
        together.append(number)
        rows += own
    return [*found, Shard(tuple(together), tuple(cells))] if together else found


def run(sweep: Sweep, pool: Pool, way: exactness.Way, check: exactness.Check = exactness.unchecked) -> None:
    """Run a sweep's shards in a pool, and take in what they give."""
    shards = cut(sweep.given, sweep.chosen.tolist(), way)
    asked = {"way": way, "planner": dict(sweep.planner.travels or {}), "shape": tuple(sweep.swept.values.shape[1:])}
    features = sweep.planner.features
    heads = [
        {
            **asked,
            "cases": tuple(sweep.given[n] for n in shard.cases),
            "cells": shard.cells,
            "features": None if features is None else features.part(shard.cases),
        }
        for shard in shards
    ]
    sweep.compared = shards[0]

    def take(number: int, found: Mapping[str, Tensor]) -> None:
        _take(sweep, shards[number], found)
        sweep.driver.step()

    models = (sweep.model, sweep.source_model)
    sweep.where = sharing.run(pool, "sweep", models, heads, take, way=way, check=check)


def _take(sweep: Sweep, shard: Shard, tensors: Mapping[str, Tensor]) -> None:
    """Take in what a shard gave."""
    cases = torch.tensor(shard.cases)
    where = cases[:, None], torch.tensor(shard.cells)
    sweep.values[where] = tensors["values"]
    sweep.reached[where] = tensors["reached"]
    # The same in each shard of a pair but for a rounding: the first in order says it.
    if shard.cells[0] == int(sweep.chosen[0]):
        sweep.swept.base[cases], sweep.swept.source[cases] = tensors["base"], tensors["source"]
    sweep.done[where] = True
