"""Groups of prompts that run together: one after the other, or as the shards of a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def over(
    model: LoadedModel,
    job: str,
    groups: Sequence[Mapping[str, Any]],
    here: Callable[[int], Mapping[str, Any]],
    take: Callable[[int, Mapping[str, Any]], None],
) -> None:
    """Score every group, in the command's pool where there is one.

    Parameters
    ----------
    job
        A name in `interp.engine.pool.protocol.JOBS`.
    groups
        What the job is asked of each.
    here
        Scores the group of a number in this process, by `watched.watch`: name → array.
    take
        Called with a group's number and its scores; of a pool in any order.
    """
    import torch

    from interp.engine import exactness
    from interp.engine.pool import sharing

    pool = sharing.pool_of(model)
    if pool is None:
        for number in range(len(groups)):
            take(number, here(number))
        return
    first: dict[str, Any] = {}
    depth, done, where = model.geometry.n_layers, 0, ""

    def run(way: exactness.Way, check: exactness.Check) -> None:
        nonlocal done, where
        done = 0

        def taken(number: int, scores: Mapping[str, Any]) -> None:
            nonlocal done
            if number == 0:
                first.update(scores)
            take(number, scores)
            done += 1
            model.on_step(done * depth, len(groups) * depth)

        where = sharing.run(pool, job, [model], groups, taken, way=way, check=check)

    def sample() -> Iterator[float]:
        expected = exactness.by("hooked", lambda: here(0))
        for name, values in first.items():
            found, other = (torch.from_numpy(np.nan_to_num(each)) for each in (values, expected[name]))
            yield exactness.difference(found, other)

    path = exactness.run(
        model,
        ("heads", job, pool.name),
        lean=lambda check: run("lean", check),
        hooked=lambda fallback: run("hooked", exactness.unchecked),  # noqa: ARG005
        sample=sample,
    ).path
    model.note(path + where)
