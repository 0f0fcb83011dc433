"""Workers whose processors are unlike run the first shard each, and results say how far their answers are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.engine.pool import processors, protocol
from interp.engine.pool.messages import Message
from interp.engine.pool.processes import Processes
from interp.engine.pool.protocol import Reply, WorkerLost
from interp.engine.pool.scheduling import Scheduler

from .test_pool import PAIRS
from .test_scheduling import Threaded, answered, double, task

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def unlike(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Scheduler]]:
    """Return a function that makes a pool of two workers, of which the second one's numbers are off by something."""
    monkeypatch.setitem(protocol.JOBS, "double", f"{double.__module__}:double")
    pools: list[Scheduler] = []

    class Off(Threaded):
        def receive(self) -> Message:
            head, tensors = super().receive()
            return head, {
                name: tensor + off if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
            }

        off = 0.0

    def make(by: float) -> Scheduler:
        nonlocal off
        off = by
        pools.append(Scheduler("threads", [Threaded("1", processor="A"), Off("2", processor="B")]))
        pools[-1].await_ready()
        return pools[-1]

    off = 0.0
    yield make
    for pool in pools:
        pool.close()


def test_a_shard_can_be_for_one_processor(unlike: Any) -> None:
    pool = unlike(0.5)
    wanted = ["A", "B", "B", "", "A"] * 8
    futures = [pool.submit(task(n), kind) for n, kind in enumerate(wanted)]
    for future in pool.completed(list(futures)):
        future.result()
    for n, (kind, future) in enumerate(zip(wanted, futures, strict=True)):
        found = float(answered(future.result())[1][0])
        assert found in ({2.0 * n, 2.0 * n + 0.5} if not kind else {2.0 * n + 0.5 * (kind == "B")})
    with pytest.raises(WorkerLost, match="no worker is left with C"):
        next(iter(pool.completed([pool.submit(task(1), "C")]))).result()


def test_how_far_they_are_apart_is_measured(unlike: Any) -> None:
    pool = unlike(0.25)
    future = pool.submit(task(3), "A")
    (done,) = pool.completed([future])
    assert processors.kinds(pool) == ["A", "B"]
    assert processors.spread(pool, task(3), done.result()) == (
        "the workers' processors are unlike (A; B): the first shard, which each kind ran, differs by 2.5e-01 at most "
        "between them"
    )
    equal = unlike(0.0)
    assert processors.spread(equal, task(3), done.result()).endswith("(A; B); the first shard has the same bits on all")


def reply(value: Any, **tensors: Tensor) -> Reply:
    return Reply({"value": value}, tensors)


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        (reply({"x": [1.0, {"y": 2.0}]}), reply({"x": [1.0, {"y": 2.5}]}), 0.5),
        (reply([math.nan]), reply([math.nan]), 0.0),
        (reply([1, "a"]), reply([1, "b"]), math.inf),
        (reply([1.0]), reply([1.0, 2.0]), math.inf),
        (reply(0, t=torch.tensor([1.0, math.nan])), reply(0, t=torch.tensor([1.25, math.nan])), 0.25),
        (reply(0, t=torch.tensor([1.0, 2.0])), reply(0, t=torch.tensor([1.0, math.nan])), math.inf),
        (reply(0, t=torch.tensor([math.inf])), reply(0, t=torch.tensor([math.inf])), 0.0),
        (reply(0, t=torch.tensor([1, 2])), reply(0, t=torch.tensor([1, 3])), math.inf),
        (reply(0, t=torch.zeros(2)), reply(0, t=torch.zeros(1)), math.inf),
        (reply(0, t=torch.zeros(0)), reply(0, t=torch.zeros(0)), 0.0),
        (reply(0, t=torch.zeros(1)), reply(0), math.inf),
    ],
)
def test_a_difference_of_answers(first: Reply, second: Reply, apart: float) -> None:
    assert processors.difference(first, second) == processors.difference(second, first) == apart


def test_a_result_says_it(lend: Any, session_with: Any, monkeypatch: pytest.MonkeyPatch, two: Processes) -> None:
    lend("gpt2")
    first, second = two.workers()
    assert first.processor == second.processor == processors.here()
    session_with(two)
    assert not [note for note in interp.patch(pairs=PAIRS).notes if "processors" in note]
    monkeypatch.setattr(second, "processor", "another one")
    session_with(two)
    before: Mapping[str, int] = {worker.name: worker.shards for worker in two.workers()}
    found = interp.patch(pairs=PAIRS)
    assert [note for note in found.notes if "processors" in note] == [
        f"the workers' processors are unlike ({first.processor}; another one); the first shard has the same bits on all"
    ]
    assert all(worker.shards > before[worker.name] for worker in two.workers())
