"""Circuits that run in a pool: cut into shards by what is asked, never by who is there.

A shard of subsets is some pairs with some masks. It makes what its pairs carry by itself; the mean over all pairs is
given to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine.memory import GRADIENT_ROWS
from interp.engine.patching.pooled import cut
from interp.engine.pool import sharing

if TYPE_CHECKING:
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

    sharing.run(pool, "subsets", [subset.model], asked, take)
    subset.shards += len(shards)
