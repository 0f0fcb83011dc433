"""A command's work as shards: known ones are recalled, the others run in its pool, and each is taken in as it ends.

A shard is cut by what is asked, never by who is there, and runs as if it were all there is (`alone`): any number of
workers, in whatever order they end, gives the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from interp.engine import exactness
from interp.engine.pool import messages, plain
from interp.engine.pool.protocol import Task
from interp.engine.pool.travel import travelling
from interp.errors import InputError
from interp.sites import FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool, Reply
    from interp.metric import Metric

Take = Callable[[int, Any], None]


def pool_of(model: LoadedModel, *others: LoadedModel, metric: Metric | None = None) -> Pool | None:
    """Return where the shards of the command under way run; ``None`` where its work is not cut into any.

    Parameters
    ----------
    others
        Models that run, too.
    metric
        What is measured.

    Raises
    ------
    InputError
        It runs code of the user's, which does not travel.
    """
    operation = model.operation
    pool = None if operation is None else operation.pool
    if operation is None or pool is None or operation.random:
        return None
    changes = operation.interventions
    if any(one.site.kind is FEATURES for one in changes):  # of a set that is loaded here
        return None
    own = f"the metric {metric.name} is a function of yours" if metric and metric.function is not None else ""
    if any(one.mode == "function" for one in changes):
        own = "an intervention is a function of yours"
    for one in (model, *others):
        if one.user_hooks():
            own = f"hooks or functions of yours are on {one.name}"
    if own and not pool.local:
        raise InputError(f"{own}, and no code goes to workers: %interp disconnect runs this here")
    return None if own else pool


def run(
    pool: Pool,
    job: str,
    models: Sequence[LoadedModel],
    shards: Sequence[Mapping[str, Any]],
    take: Take,
    *,
    way: exactness.Way = "lean",
    check: exactness.Check = exactness.unchecked,
) -> str:
    """Run shards in a pool, and return what a provenance says of them, such as ``" in 12 shards on 4 processes"``.

    Parameters
    ----------
    job
        A name in `protocol.JOBS`: what is called with the models and each shard's values.
    models
        The model of the command, and others that run.
    shards
        What is asked of each: arguments of the job, which `plain` can write.
    take
        Called with a shard's number and what it gave, as it ends, in any order.
    way, check
        See `exactness.run`; it compares what the first shard gave.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C: the others are let go of.
    """
    model = models[0]
    assert model.operation is not None
    travellers = tuple(travelling(one, local=pool.local) for one in dict.fromkeys(models))
    numbers = [list(dict.fromkeys(models)).index(one) for one in models]
    tasks = [_task(job, way, model, numbers, travellers, shard) for shard in shards]
    names = [_name(task) for task in tasks]
    waiting: list[int] = []
    for number, name in enumerate(names):
        known = model.recall((), [name])
        if known is None:
            waiting.append(number)
        else:
            data, tensors = messages.unpacked(known[name].numpy().tobytes())
            take(number, plain.whole(data["value"], tensors))
    if shards and 0 not in waiting:
        check()
    model.alive(f"{len(shards)} shards on {pool.name}")
    futures: dict[Future[Reply], int] = {}
    notes: dict[str, None] = {}
    try:
        for number in waiting:
            futures[pool.submit(tasks[number])] = number
        for future in pool.completed(list(futures)):
            number, reply = futures[future], future.result()
            take(number, plain.whole(reply.head["value"], reply.tensors))
            held = bytearray(messages.packed({"value": reply.head["value"]}, reply.tensors))
            model.keep((), {names[number]: torch.frombuffer(held, dtype=torch.uint8)})
            model.count(reply.head["forwards"])
            notes |= dict.fromkeys(reply.head["notes"])
            if reply.lost:
                notes[f"{' and '.join(dict.fromkeys(reply.lost))} ended at a shard, which then ran again elsewhere"] = (
                    None
                )
            if reply.overtaken:
                slow = " and ".join(reply.overtaken)
                notes[f"{slow} had not done a shard yet when another worker was through with it"] = None
            if number == 0:
                check()
    finally:
        pool.cancel(list(futures))
        model.operation.notes.extend(notes)
    return said(len(shards), pool)


def said(count: int, pool: Pool) -> str:
    """Return what a provenance says of `count` shards."""
    return f" in {count} shard{'' if count == 1 else 's'} on {pool.name}"


def slices(count: int, size: int) -> list[range]:
    """Return `count` things as shards of `size`, in order.

    Examples
    --------
    >>> slices(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(count, start + size)) for start in range(0, count, size)]


def _task(
    job: str,
    way: exactness.Way,
    model: LoadedModel,
    numbers: Sequence[int],
    travellers: tuple[Any, ...],
    shard: Mapping[str, Any],
) -> Task:
    tensors: dict[str, Tensor] = {}
    assets: dict[str, Any] = {}
    assert model.operation is not None
    changes = plain.flat(tuple(model.operation.interventions), tensors, assets)
    head = {"way": way, "models": list(numbers), "changes": changes, "asked": plain.flat(dict(shard), tensors, assets)}
    return Task(job, head, travellers, tensors, assets)


def _name(task: Task) -> tuple[str, str]:
    """Return what a shard's answer is called in the store."""
    made = xxhash.xxh3_128(json.dumps([task.job, task.head, [one.fingerprint for one in task.models[1:]]]).encode())
    for name, tensor in task.tensors.items():
        held = tensor.detach().cpu().contiguous()
        made.update(f"{name} {held.dtype} {list(held.shape)}".encode())
        made.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return "shard", made.hexdigest()
