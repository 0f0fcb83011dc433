"""Circuits that run in a pool: cut into shards by what is asked, never by who is there.

A shard of subsets is some pairs with some masks. It makes what its pairs carry by itself; the mean over all pairs is
given to it. A shard of gradients is what is differentiated together: some pairs of one length, at some points of the
integral. Which points come next depends on all pairs, and is decided where they meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.engine.memory import GRADIENT_ROWS
from interp.engine.patching.gradients import stretches
from interp.engine.patching.pooled import cut
from interp.engine.pool import sharing

if TYPE_CHECKING:
    from interp.engine.circuits.eap import EdgeGradients
    from interp.engine.circuits.subgraph import Subset
    from interp.engine.patching.driver import OnStep
    from interp.engine.pool.protocol import Pool

# Positions of a shard's runs. Each costs as many reads as the model has inputs, so that fewer are worth sharing than of
# a sweep's; and ACDC, which decides what to run by what came out, asks for few at a time.
ROWS = GRADIENT_ROWS


def run(subset: Subset, pool: Pool, masks: Tensor, chosen: Sequence[int], into: Tensor, on_step: OnStep) -> None:
    """Run masks on the pairs `chosen` in a pool, and fill `into`, ``float64 [mask, pair]``, as shards end."""
    shards = cut([subset.given[number] for number in chosen], range(len(masks)), "lean", ROWS)
    asked = [
        {
            "ablation": subset.ablation,
            "carried": subset.carried,
            "cases": tuple(subset.given[chosen[n]] for n in shard.cases),
            "masks": masks[list(shard.cells)],
        }
        for shard in shards
    ]
    done = 0

    def take(number: int, values: Tensor) -> None:
        nonlocal done
        shard = shards[number]
        into[shard.cells[0] : shard.cells[-1] + 1, list(shard.cases)] = values
        done += values.numel()
        subset.forwards += values.numel()
        on_step(done, into.numel())

    subset.shards += len(shards)
    sharing.run(pool, "subsets", [subset.model], asked, take)


def add(job: EdgeGradients, pool: Pool, rows: Sequence[int], on_step: OnStep) -> None:
    """Add what the pairs `rows` get from the points as they are now, computed in a pool, as shards end."""
    answer, asked = job.answer, job.asked
    cases = [job.given[row] for row in rows]
    pieces = list(stretches(cases, len(job.points), closed=False))
    every = {
        "ablation": job.ablation,
        "constant": asked.constant,
        "integral": asked.integral,
        "points": job.points,
        "weights": job.weights,
        "positions": asked.positions,
        "total": job.total,
    }
    shards = [{**every, "cases": tuple(cases[n] for n in piece.cases)} for piece in pieces]
    waiting: dict[int, Tensor] = {}  # parts at positions, a sum over pairs: added in the order of shards
    done = added = 0

    def take(number: int, found: Mapping[str, Any]) -> None:
        nonlocal done, added
        of = [rows[n] for n in pieces[number].cases]
        answer.per_pair[of] += found["values"]
        answer.clean[of], answer.ablated[of] = found["clean"], found["ablated"]
        if answer.by_position is not None:
            waiting[number] = found["by_position"]
            while added in waiting:
                answer.by_position += waiting.pop(added)
                added += 1
        job.done[of] = True
        done += len(of)
        on_step(done, len(rows))

    job.shards += len(shards)
    try:
        sharing.run(pool, "gradients", [job.model], shards, take)
    finally:
        for number in sorted(waiting):
            assert answer.by_position is not None
            answer.by_position += waiting[number]
