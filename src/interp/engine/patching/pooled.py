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


def cut(cases: Sequence[Case], cells: Sequence[int], way: exactness.Way, most_rows: int | None = None) -> list[Shard]:
    """Return the shards of a sweep over `cells` of each of `cases`, in order.

    Small pairs go together, up to `most_rows` positions of patched runs (`ROWS` when not given); a large one is cut.
    With hooks, where nothing is shared, each pair goes by itself.
    """
    most_rows = ROWS if most_rows is None else most_rows
    found: list[Shard] = []
    together: list[int] = []
    rows = 0
    for number, case in enumerate(cases):
        own = len(cells) * len(case.base)
        if together and (way == "hooked" or rows + own > most_rows):
            found.append(Shard(tuple(together), tuple(cells)))
            together, rows = [], 0
        most = max(1, most_rows // len(case.base)) if way == "lean" else 64
        if len(cells) > most:
            pieces = (tuple(cells[start : start + most]) for start in range(0, len(cells), most))
            found += [Shard((number,), piece) for piece in pieces]
            continue
        together.append(number)
        rows += own
    return [*found, Shard(tuple(together), tuple(cells))] if together else found


def run(sweep: Sweep, pool: Pool, way: exactness.Way, check: exactness.Check = exactness.unchecked) -> None:
    """Run a sweep's shards in a pool, and take in what they give."""
    shards = cut(sweep.given, sweep.chosen.tolist(), way)
    planner = dict(sweep.planner.travels or {})
    job = planner.pop("job", "sweep")
    asked = {"way": way, "planner": planner, "shape": tuple(sweep.swept.values.shape[1:])}
    heads = [{**asked, "cases": tuple(sweep.given[n] for n in shard.cases), "cells": shard.cells} for shard in shards]
    sweep.compared = shards[0]

    def take(number: int, found: Mapping[str, Tensor]) -> None:
        _take(sweep, shards[number], found)
        sweep.driver.step()

    models = (sweep.model, sweep.source_model)
    sweep.where = sharing.run(pool, job, models, heads, take, way=way, check=check)


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
