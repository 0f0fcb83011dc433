"""Processors that are not alike: equal work may end in other bits on them, and by how much is told."""

from __future__ import annotations

import contextlib
import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from interp.engine.pool.protocol import WorkerLost

if TYPE_CHECKING:
    from interp.engine.pool.protocol import Pool, Reply, Task


def here() -> str:
    """Return what this process computes on: the processor, what torch uses of it, and the GPU.

    Examples
    --------
    >>> here() == here()
    True
    """
    named = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # where there is no such file
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), named)
    graphics = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([f"{named} ({torch.backends.cpu.get_cpu_capability()})", *graphics])


def kinds(pool: Pool) -> list[str]:
    """Return which processors the workers of a pool have, each once."""
    return list(dict.fromkeys(worker.processor for worker in pool.workers() if worker.there and worker.processor))


def spread(pool: Pool, task: Task, reply: Reply) -> str:
    """Run a shard on every kind of processor, and return in words how far what they give is apart.

    Parameters
    ----------
    task, reply
        A shard, and what one of the workers gave.
    """
    unlike = kinds(pool)
    futures = {pool.submit(task, kind): kind for kind in unlike}
    apart: dict[str, float] = {}
    try:
        for future in pool.completed(list(futures)):
            with contextlib.suppress(WorkerLost):  # the last of its kind: it has done nothing that counts
                apart[futures[future]] = difference(reply, future.result())
    finally:
        pool.cancel(list(futures))
    most = max(apart.values(), default=0.0)
    told = f"the workers' processors are unlike ({'; '.join(unlike)})"
    if not most:
        return f"{told}; the first shard has the same bits on all"
    how = f"differs by {most:.1e} at most" if math.isfinite(most) else "differs in more than its last digits"
    return f"{told}: the first shard, which each kind ran, {how} between them"


def difference(first: Reply, second: Reply) -> float:
    """Return the largest difference of two answers' numbers; infinite where they differ in more than numbers."""
    if first.tensors.keys() != second.tensors.keys():
        return math.inf
    arrays = [_between(mine, second.tensors[name]) for name, mine in first.tensors.items()]
    return max([_apart(first.head["value"], second.head["value"]), *arrays])


def _between(mine: Tensor, theirs: Tensor) -> float:
    if (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
        return math.inf
    if not mine.is_floating_point():
        return 0.0 if torch.equal(mine, theirs) else math.inf
    alike = (mine == theirs) | (mine.isnan() & theirs.isnan())
    apart = (mine.double() - theirs.double()).abs().nan_to_num(nan=math.inf)
    return float(apart.masked_fill(alike, 0.0).max()) if apart.numel() else 0.0


def _apart(mine: Any, theirs: Any) -> float:
    if isinstance(mine, float) and isinstance(theirs, float):
        return _between(torch.tensor(mine, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64))
    if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        both = cast("dict[str, Any]", mine)
        return max((_apart(value, theirs[name]) for name, value in both.items()), default=0.0)
    if isinstance(mine, list) and isinstance(theirs, list) and len(cast("Any", mine)) == len(cast("Any", theirs)):
        return max((_apart(a, b) for a, b in zip(cast("Any", mine), cast("Any", theirs), strict=True)), default=0.0)
    return 0.0 if mine == theirs else math.inf
