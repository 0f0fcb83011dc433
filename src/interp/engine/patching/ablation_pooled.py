"""An ablation that runs in a pool: what parts become is taken of all references first, then samples are measured.

A shard of the measuring is some samples and some conditions of them, and the run without anything taken away, from
which the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.patching import pooled
from interp.engine.patching.moments import Filled
from interp.engine.patching.pooled import Shard
from interp.engine.pool import sharing

if TYPE_CHECKING:
    from interp.engine.patching.ablation import Job
    from interp.engine.pool.protocol import Pool


def cut(job: Job) -> list[Shard]:
    """Return the shards of the measuring: samples, the longest first, and conditions but the unablated one."""
    order = sorted(range(len(job.samples)), key=lambda n: (-len(job.samples[n].ids), n))
    found = pooled.pieces([len(job.samples[n].ids) for n in order], range(1, len(job.conditions)))
    return [Shard(tuple(order[n] for n in shard.cases), shard.cells) for shard in found]


def run(job: Job, pool: Pool, way: exactness.Way, check: exactness.Check = exactness.unchecked) -> None:
    """Run an ablation's shards in a pool, and take in what they give."""
    fillings = job.fillings
    fillings.filled = _filled(job, pool, way) if fillings.averages else None
    shards = cut(job)
    asked = {"parts": tuple(job.parts), "mode": fillings.mode, "seed": fillings.seed}
    heads = [{**asked, "filled": fillings.filled, **_of(job, shard)} for shard in shards]
    job.compared = Shard(shards[0].cases, (0, *shards[0].cells))

    def take(number: int, values: Tensor) -> None:
        shard = shards[number]
        # The unablated run is the same in each shard of a sample but for a rounding: the first in order says it.
        first = int(shard.cells[0] != 1)
        where = torch.tensor((0, *shard.cells)[first:])[:, None], torch.tensor(shard.cases)
        job.driver.record(where, values[first:])
        job.driver.step()

    job.where = sharing.run(pool, "ablation", [job.model], heads, take, way=way, check=check)


def _of(job: Job, shard: Shard) -> dict[str, object]:
    """Return what of an ablation is one shard's own."""
    fillings = job.fillings
    taken = [fillings.taken[n] for n in shard.cases] if fillings.taken else []
    own = sorted(set(taken))
    return {
        "samples": tuple(job.samples[n] for n in shard.cases),
        "numbers": shard.cases,
        "conditions": ((), *(job.conditions[n] for n in shard.cells)),
        "at": tuple(tuple(fillings.at[n]) for n in shard.cases) if fillings.at else (),
        "references": tuple(fillings.references[n] for n in own),
        "taken": tuple(own.index(n) for n in taken),
    }


def _filled(job: Job, pool: Pool, way: exactness.Way) -> Filled:
    """Return what is taken of all references, some of which are run in each shard."""
    fillings = job.fillings
    asked = {"way": way, "parts": tuple(job.parts), "spread": fillings.spread, "aligned": fillings.aligned}
    shards = pooled.pieces([len(ids) for ids in fillings.references], range(1))
    found: dict[int, Filled] = {}

    def take(number: int, some: Filled) -> None:
        found[number] = some

    heads = [{**asked, "references": tuple(fillings.references[n] for n in shard.cases)} for shard in shards]
    sharing.run(pool, "filling", [job.model], heads, take, way=way)
    return Filled.together([found[number] for number in range(len(shards))])
