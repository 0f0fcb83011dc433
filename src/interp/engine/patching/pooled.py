"""A sweep that runs in a pool: cut into shards by what is asked, never by who is there, and put together again.

A shard is some pairs and some cells of them. It is swept as if it were all there is, so that what it gives depends on
nothing else: any number of workers, in whatever order they end, gives the same bits. A sample is compared with the
hooked forward in this process, as that of every sweep is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import xxhash

from interp.engine import exactness
from interp.engine.memory import WAVE_ROWS
from interp.engine.patching.cases import Case
from interp.engine.pool.protocol import Task
from interp.engine.pool.travel import travelling
from interp.errors import InputError
from interp.ids import types_of

if TYPE_CHECKING:
    from interp.engine.patching.waves import Sweep
    from interp.engine.pool.protocol import Pool, Reply

# Positions of patched runs in a shard: a few waves, so that what is shared among them is worth sharing.
ROWS = 4 * WAVE_ROWS
Way = Literal["lean", "hooked"]
_PARTS = ("values", "reached", "base", "source")


@dataclass(frozen=True)
class Shard:
    """Some pairs, and some cells of each."""

    cases: tuple[int, ...]
    cells: tuple[int, ...]


def pool_of(sweep: Sweep) -> Pool | None:
    """Return where a sweep's shards run; ``None`` where it is not cut into any.

    Raises
    ------
    InputError
        It runs code of the user's, which does not travel.
    """
    operation = sweep.model.operation
    pool = None if operation is None else operation.pool
    if operation is None or pool is None or sweep.planner.travels is None:
        return None
    if operation.interventions or operation.random:
        return None
    metric = sweep.given[0].scorer.metric
    own = f"the metric {metric.name} is a function of yours" if metric.function is not None else ""
    for model in (sweep.model, sweep.source_model):
        if model.user_hooks():
            own = f"hooks or functions of yours are on {model.name}"
    if own and not pool.local:
        raise InputError(f"{own}, and no code goes to workers: %interp disconnect runs this here")
    return None if own else pool


def cut(cases: Sequence[Case], cells: Sequence[int], way: Way) -> list[Shard]:
    """Return the shards of a sweep over `cells` of each of `cases`, in order.

    Small pairs go together, up to `ROWS` positions of patched runs; a large one is cut. With hooks, where nothing is
    shared, each pair goes by itself.
    """
    found: list[Shard] = []
    together: list[int] = []
    rows = 0
    for number, case in enumerate(cases):
        own = len(cells) * len(case.base)
        if together and (way == "hooked" or rows + own > ROWS):
            found.append(Shard(tuple(together), tuple(cells)))
            together, rows = [], 0
        most = max(1, ROWS // len(case.base)) if way == "lean" else 64
        if len(cells) > most:
            pieces = (tuple(cells[start : start + most]) for start in range(0, len(cells), most))
            found += [Shard((number,), piece) for piece in pieces]
            continue
        together.append(number)
        rows += own
    return [*found, Shard(tuple(together), tuple(cells))] if together else found


def run(sweep: Sweep, pool: Pool, way: Way, check: exactness.Check = exactness.unchecked) -> None:
    """Run a sweep's shards in a pool, and take in what they give."""
    model = sweep.model
    shards = cut(sweep.given, sweep.chosen.tolist(), way)
    kinds = dict.fromkeys((model, sweep.source_model))
    models = tuple(travelling(one, local=pool.local) for one in kinds)
    names = {shard: _name(sweep, shard, way, models[-1].fingerprint) for shard in shards}
    sweep.compared = shards[0]
    waiting: list[Shard] = []
    for shard in shards:
        if (known := model.recall((), names[shard])) is None:
            waiting.append(shard)
        else:
            _take(sweep, shard, dict(zip(_PARTS, known.values(), strict=True)))
    if shards[0] not in waiting:
        check()
    model.alive(f"{len(shards)} shards on {pool.name}")
    futures: dict[Future[Reply], Shard] = {}
    try:
        for shard in waiting:
            futures[pool.submit(Task("sweep", _head(sweep, shard, way), models))] = shard
        for future in pool.completed(list(futures)):
            shard, reply = futures[future], future.result()
            _take(sweep, shard, reply.tensors)
            model.keep((), dict(zip(names[shard], (reply.tensors[part] for part in _PARTS), strict=True)))
            model.count(reply.head["forwards"])
            if reply.lost:
                lost = " and ".join(dict.fromkeys(reply.lost))
                sweep.swept.notes.append(f"{lost} ended at a shard, which then ran again elsewhere")
            if reply.overtaken:
                slow = " and ".join(reply.overtaken)
                sweep.swept.notes.append(f"{slow} had not done a shard yet when another worker was through with it")
            if shard is shards[0]:
                check()
            sweep.driver.step()
    finally:
        pool.cancel(list(futures))
    count = f"{len(shards)} shard{'' if len(shards) == 1 else 's'}"
    sweep.where = f" in {count} on {pool.name}"


def _take(sweep: Sweep, shard: Shard, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take in what a shard gave."""
    cases = torch.tensor(shard.cases)
    where = cases[:, None], torch.tensor(shard.cells)
    sweep.values[where] = tensors["values"]
    sweep.reached[where] = tensors["reached"]
    # The same in each shard of a pair but for a rounding: the first in order says it.
    if shard.cells[0] == int(sweep.chosen[0]):
        sweep.swept.base[cases], sweep.swept.source[cases] = tensors["base"], tensors["source"]
    sweep.done[where] = True


def _head(sweep: Sweep, shard: Shard, way: Way) -> dict[str, Any]:
    """Return a shard as plain data."""
    return {
        "way": way,
        "planner": dict(sweep.planner.travels or {}),
        "shape": list(sweep.swept.values.shape[1:]),
        "cases": [_plain(sweep.given[number]) for number in shard.cases],
        "cells": list(shard.cells),
        "crossed": sweep.source_model is not sweep.model,
    }


def _name(sweep: Sweep, shard: Shard, way: Way, source: str) -> list[tuple[str, str, str]]:
    """Return what a shard's answer is called in the store."""
    asked = json.dumps([_head(sweep, shard, way), source]).encode()
    digest = xxhash.xxh3_128_hexdigest(asked)
    return [("shard", digest, part) for part in _PARTS]


def _plain(case: Case) -> dict[str, Any]:
    scorer = case.scorer
    return {
        "base": [case.base, types_of(case.base)],
        "source": [case.source, types_of(case.source)],
        "metric": [scorer.metric.name, scorer.metric.positions],
        "answer": scorer.answer,
        "wrong": scorer.wrong,
        "positions": scorer.positions,
        "following": scorer.following,
        "position": case.position,
        "clean_base": case.clean_base,
        "source_position": case.source_position,
        "spans": case.spans,
        "aligned": case.aligned,
        "heard": case.heard,
    }
