"""Estimates that are made in a pool: a shard is some pairs of one length, whose gradients are taken there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.engine import exactness
from interp.engine.memory import GRADIENT_ROWS
from interp.engine.patching.cases import by_shape
from interp.engine.pool import sharing

if TYPE_CHECKING:
    from interp.engine.patching.attribution import Job
    from interp.engine.pool.protocol import Pool

# Positions of a shard's pairs, at all points: a few of what is differentiated together.
ROWS = 4 * GRADIENT_ROWS


def cut(job: Job) -> list[tuple[int, ...]]:
    """Return the pairs of each shard, the longest first; a batch shares its shortest prefix."""
    found: list[tuple[int, ...]] = []
    for numbers in reversed(by_shape(job.given)):
        length = len(job.given[numbers[0]].base)
        size = max(1, ROWS // (length * (job.last + 1)))
        numbers.sort(key=lambda number: job.given[number].start)
        found += [tuple(numbers[n] for n in some) for some in sharing.slices(len(numbers), size)]
    return found


def run(job: Job, pool: Pool, way: exactness.Way, check: exactness.Check) -> None:
    """Make an estimate's shards in a pool, and take in what they give."""
    shards = cut(job)
    job.compared = shards[0]

    def take(number: int, found: Mapping[str, Any]) -> None:
        _take(job, shards[number], found)
        job.on_step(int(job.done.sum()), len(job.given))

    heads = [{"cases": tuple(job.given[n] for n in shard), **job.asks(shard)} for shard in shards]
    job.where = sharing.run(pool, "estimate", (job.model, job.source_model), heads, take, way=way, check=check)


def _take(job: Job, shard: tuple[int, ...], found: Mapping[str, Any]) -> None:
    answer = job.answer
    answer.base[list(shard)], answer.source[list(shard)] = found["base"], found["source"]
    if found["neurons"] is not None and not answer.neurons:
        answer.neurons = [found["neurons"][0] * 0.0 for _ in job.given]
    for row, number in enumerate(shard):
        answer.nodes[number] = {site: values[row] for site, values in found["nodes"].items()}
        if found["neurons"] is not None:
            answer.neurons[number] = found["neurons"][row]
    job.done[list(shard)] = True
