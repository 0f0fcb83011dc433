"""A command's work as shards: known ones are recalled, the others run in its pool, and each is taken in as it ends.

A shard is cut by what is asked, never by who is there, and runs as if it were all there is (`alone`): any number of
workers, in whatever order they end, gives the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from interp.engine import exactness
from interp.engine.pool import messages, plain, processors
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
_KEPT = 2**26  # bytes of one command's answers that are kept for the next one: texts have no end


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
    hooked = next((one.name for one in (model, *others) if one.user_hooks()), "")
    if own and not hooked and pool.trust:
        operation.notes.append(f"{own}, and ran on {pool.name}, which you trust with it")
        return pool
    own = f"hooks or functions of yours are on {hooked}" if hooked else own
    if own and not pool.local:
        instead = "" if hooked else "connect with --trust sends it, or "
        raise InputError(f"{own}, and no code goes to workers: {instead}%interp disconnect runs this here")
    return None if own else pool


def run(
    pool: Pool,
    job: str,
    models: Sequence[LoadedModel],
    shards: Iterable[Mapping[str, Any]],
    take: Take,
    *,
    way: exactness.Way | None = "lean",
    check: exactness.Check = exactness.unchecked,
    keep: bool = True,
) -> str:
    """Run shards in a pool, and return what a provenance says of them, such as ``" in 12 shards on 4 processes"``.

    Parameters
    ----------
    job
        A name in `protocol.JOBS`: what is called with the models and each shard's values.
    models
        The model of the command, and others that run.
    shards
        What is asked of each: arguments of the job, which `plain` can write. They are made as others end: of many, few
        are there at a time.
    take
        Called with a shard's number and what it gave, as it ends, in any order; see `in_order`.
    way, check
        See `exactness.run`; it compares what the first shard gave. ``None``: each shard decides by itself.
    keep
        Whether answers are kept for what is asked next.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C: the others are let go of.
    """
    model = models[0]
    assert model.operation is not None
    held = list(dict.fromkeys(models))
    travellers = tuple(travelling(one, local=pool.local) for one in held)
    numbers = [held.index(one) for one in models]
    changes = tuple(model.operation.interventions)
    names: dict[int, tuple[str, str]] = {}
    notes: dict[str, None] = {}
    count = kept = 0
    first: tuple[int, Task] | None = None  # that nobody knew the answer of
    answer: Reply | None = None

    def asked() -> Iterator[tuple[int, Task]]:
        nonlocal count, first
        for number, shard in enumerate(shards):
            count = number + 1
            task = _task(job, way, changes, numbers, travellers, shard, trusted=pool.trust)
            name = _name(task)
            known = model.recall((), [name]) if keep else None
            if known is None:
                names[number] = name
                first = first or (number, task)
                yield number, task
                continue
            data, tensors = messages.unpacked(known[name].numpy().tobytes())
            take(number, plain.whole(data["value"], tensors))
            if number == 0:
                check()

    def taken(number: int, future: Future[Reply]) -> None:
        nonlocal kept, answer
        reply, name = future.result(), names.pop(number)
        take(number, plain.whole(reply.head["value"], reply.tensors))
        kept += sum(tensor.nbytes for tensor in reply.tensors.values())
        if keep and kept <= _KEPT:
            data = bytearray(messages.packed({"value": reply.head["value"]}, reply.tensors))
            model.keep((), {name: torch.frombuffer(data, dtype=torch.uint8)})
        model.count(reply.head["forwards"])
        notes.update(dict.fromkeys([*reply.head["notes"], *lives(reply)]))
        if first is not None and number == first[0]:
            answer = reply
        if number == 0:
            check()

    model.alive(f"{len(shards)} shards on {pool.name}" if isinstance(shards, Sized) else f"shards on {pool.name}")
    try:
        each(pool, asked(), taken)
        if first is not None and answer is not None and len(processors.kinds(pool)) > 1:
            notes[processors.spread(pool, first[1], answer)] = None
    finally:
        model.operation.notes.extend(notes)
    return said(count, pool)


def each(pool: Pool, tasks: Iterable[tuple[int, Task]], take: Callable[[int, Future[Reply]], None]) -> None:
    """Run numbered tasks in a pool; `take` is given each one's number and its future as it ends, in any order.

    They are drawn as others end. Where `take` raises, or an interrupt comes, the others are let go of.
    """
    waiting: dict[Future[Reply], int] = {}

    def submitted() -> Iterator[Future[Reply]]:
        for number, task in tasks:
            future = pool.submit(task)
            waiting[future] = number
            yield future

    try:
        for future in pool.completed(submitted()):
            take(waiting.pop(future), future)
    finally:
        pool.cancel(list(waiting))


def task(job: str, shard: Mapping[str, Any], models: Sequence[LoadedModel] = (), *, local: bool = False) -> Task:
    """Return a task that decides by itself how it computes, on models that travel as they are.

    Raises
    ------
    InputError
        There is something in it that does not travel.
    """
    travellers = tuple(travelling(one, local=local) for one in models)
    return _task(job, None, (), range(len(models)), travellers, shard)


def lives(reply: Reply) -> list[str]:
    """Return what is worth knowing of the workers that had a shard."""
    found: list[str] = []
    if reply.lost:
        ended = " and ".join(dict.fromkeys(reply.lost))
        found.append(f"{ended} ended at a shard, which then ran again elsewhere")
    if reply.overtaken:
        slow = " and ".join(reply.overtaken)
        found.append(f"{slow} had not done a shard yet when another worker was through with it")
    return found


def said(count: int, pool: Pool) -> str:
    """Return what a provenance says of shards, such as ``" in 12 shards on 4 processes"``."""
    return f" in {count} {'shard' if count < 2 else 'shards'} on {pool.name}"


def in_order(take: Take) -> Take:
    """Return what holds answers back until all before them are there: for sums, whose last bits depend on the order."""
    held: dict[int, Any] = {}
    following = 0

    def taken(number: int, value: Any) -> None:
        nonlocal following
        held[number] = value
        while following in held:
            take(following, held.pop(following))
            following += 1

    return taken


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
    way: exactness.Way | None,
    changes: tuple[Any, ...],
    numbers: Sequence[int],
    travellers: tuple[Any, ...],
    shard: Mapping[str, Any],
    *,
    trusted: bool = False,
) -> Task:
    tensors: dict[str, Tensor] = {}
    assets: dict[str, Any] = {}
    given = (changes, dict(shard))
    changed, asked = plain.with_code(trusted, lambda: plain.flat(given, tensors, assets))
    head = {"way": way, "models": list(numbers), "changes": changed, "asked": asked}
    return Task(job, head, travellers, tensors, assets)


def _name(task: Task) -> tuple[str, str]:
    """Return what a shard's answer is called in the store."""
    made = xxhash.xxh3_128(json.dumps([task.job, task.head, [one.fingerprint for one in task.models[1:]]]).encode())
    for name, tensor in task.tensors.items():
        held = tensor.detach().cpu().contiguous()
        made.update(f"{name} {held.dtype} {list(held.shape)}".encode())
        made.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return "shard", made.hexdigest()
