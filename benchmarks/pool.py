"""What workers give: one and two processes beside each other, and what a shard costs beside its work, on Ray, too.

``python benchmarks/pool.py [PAIRS]``: what a pool takes for shards of the bundled model that are next to nothing, less
what the same shards take in this process, a shard, by a worker process and, where Ray is installed, by an actor of a
local one; and, unless PAIRS is 0, a sweep of every head of SmolLM2 over so many pairs (64) by one
worker and by two, in turns, as a ratio of wall times. Bits are compared. One thread everywhere; the ratio means
something on two cores that nobody else uses.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import importlib.util
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import fetch_smollm2
import numpy as np
import torch

import interp
from interp.engine.patching import pooled
from interp.engine.pool.here import Here
from interp.engine.pool.processes import Processes
from interp.engine.pool.ray import Ray
from interp.interface.session import session

TURNS = 3
SMALL = 100  # pairs of the bundled model, each a shard


def timed(pool: Any, **asked: Any) -> tuple[float, Any]:
    """Return how long a sweep takes that nobody has asked before, and its result."""
    interp.model.store.clear()
    session.pool = pool
    began = time.perf_counter()
    result = interp.patch(**asked)
    return time.perf_counter() - began, result


def side_by_side(one: Any, two: Any, count: int) -> None:
    """Print how much sooner two workers are through than one."""
    interp.load(fetch_smollm2.fetch(), name="SmolLM2", device="cpu")
    for pool in (one, two):  # each worker has loaded the model, and has been compared
        timed(pool, task="ioi", n=8)
    ratios: list[float] = []
    for _ in range(TURNS):
        (alone, first), (both, second) = (timed(pool, task="ioi", n=count) for pool in (one, two))
        assert np.array_equal(first.per_pair, second.per_pair)
        ratios.append(alone / both)
        print(f"{count} pairs, every head of SmolLM2: 1 worker {alone:.1f} s, 2 workers {both:.1f} s", flush=True)
    print(f"one / two: {statistics.median(ratios):.2f} (bar 1.8)", flush=True)


def overhead(one: Any, bar: int) -> None:
    """Print what a shard costs in a worker beyond what it costs here, and what it may."""
    interp.load(name="bundled", device="cpu")
    pooled.ROWS = 1
    asked = {"task": "ioi", "n": SMALL, "layer": 3}
    costs: list[float] = []
    for pool in (one, Here()):
        timed(pool, **asked)
    for _ in range(TURNS):
        there, first = timed(one, **asked)
        here, second = timed(Here(), **asked)
        shards = int(first.provenance.path.split()[2])
        assert np.array_equal(first.per_pair, second.per_pair)
        costs.append((there - here) / shards)
        print(f"{shards} shards: {there / shards * 1e3:.1f} ms each on {one.name}, {here / shards * 1e3:.1f} ms here")
    print(f"overhead of a shard on {one.name}: {statistics.median(costs) * 1e3:.1f} ms (bar {bar})", flush=True)


def main() -> None:
    """Measure all of it."""
    torch.set_num_threads(1)
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    pools: list[Any] = []
    try:
        pools.append(Processes(1))
        pools[0].await_ready()
        overhead(pools[0], 20)
        if importlib.util.find_spec("ray") is not None:
            pools.append(Ray(count=1))
            pools[1].await_ready()
            overhead(pools[1], 50)
            pools.pop().close()
        pooled.ROWS = 4 * pooled.WAVE_ROWS
        if pairs:
            pools.append(Processes(2))
            pools[1].await_ready()
            side_by_side(*pools, pairs)
    finally:
        session.pool = None
        for pool in pools:
            pool.close()


if __name__ == "__main__":
    main()
