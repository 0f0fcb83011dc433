"""What all drivers share, with workers that are threads: slow ones, lost ones, and ones that say things twice."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.engine.features.dictionary import Taken
from interp.engine.model.operation import versions
from interp.engine.pool import messages, plain, protocol, seat
from interp.engine.pool.messages import Message
from interp.engine.pool.protocol import Reply, Task, WorkerLost
from interp.engine.pool.scheduling import Scheduler
from interp.engine.pool.seat import Seat
from interp.engine.pool.worker import Loop
from interp.errors import InputError

PATIENCE = 60.0


class Threaded(Seat):
    """A worker's loop in a thread; `doing` is called before it is given a message, in the seat's own thread."""

    def __init__(
        self, name: str, doing: Callable[[Mapping[str, Any]], None] = lambda _: None, *, processor: str = "one"
    ) -> None:
        super().__init__(name)
        self.processor = processor
        self.doing, self.heard, self.dropped, self.starts = doing, list[str](), list[int](), 0

    def start(self) -> None:
        self.starts += 1
        self._words: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.loop = Loop(lambda head, tensors: self._words.put(messages.packed(head, tensors)))
        threading.Thread(target=self.loop.serve, daemon=True).start()
        self._words.put(
            messages.packed(
                {"is": "ready", "process": 0, "processor": self.processor, "versions": dict(versions())}, {}
            )
        )

    def send(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.heard.append(head["do"])
        self.doing(head)
        self.loop.ask(*messages.unpacked(messages.packed(head, tensors)))

    def receive(self) -> Message:
        if data := self._words.get():
            return messages.unpacked(data)
        raise EOFError

    def again(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Say something that nobody asked for."""
        self._words.put(messages.packed(head, tensors))

    def drop(self, shard: int) -> None:
        self.dropped.append(shard)
        self.loop.drop(shard)

    def end(self) -> str:
        return ""

    def kill(self) -> None:
        self._words.put(b"")


def double(
    models: Any, step: Callable[[], None], *, x: int, y: Tensor, factors: tuple[Taken, ...], fail: bool = False
) -> tuple[int, Tensor]:
    """Return a tensor times what the assets say; wait, or fail, where it is told to."""
    assert not models
    while slow.get(threading.get_ident(), 0.0) > time.monotonic():
        step()
        time.sleep(0.01)
    if fail:
        raise InputError("this shard fails")
    return x, y * sum(one.scale for one in factors)


slow: dict[int, float] = {}  # thread → until when it is slow


@pytest.fixture(autouse=True)
def _job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(protocol.JOBS, "double", f"{__name__}:double")
    slow.clear()
    yield
    slow.clear()


def factor(value: int) -> Taken:
    """Return something that a worker keeps, of four bytes."""
    return Taken(scale=float(value), offset=torch.zeros(1))


def task(x: int, factors: Mapping[str, Taken] | None = None, **more: Any) -> Task:
    assets = {"two": factor(2)} if factors is None else factors
    tensors: dict[str, Tensor] = {}
    asked = plain.flat({"x": x, "y": torch.full((3,), float(x)), **more}, tensors)
    asked["map"].append(["factors", [{"asset": digest} for digest in assets]])
    head = {"way": "lean", "models": [], "changes": [], "asked": asked}
    return Task("double", head, (), tensors, assets)


def answered(reply: Reply) -> tuple[int, Tensor]:
    return plain.whole(reply.head["value"], reply.tensors)


def _x(head: Mapping[str, Any]) -> int:
    """Return which one a message asks for."""
    return dict(head["head"]["asked"]["map"][:1])["x"]


def soon(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def values(pool: Scheduler, tasks: list[Task]) -> list[float]:
    futures = [pool.submit(one) for one in tasks]
    ended = list(pool.completed(futures))
    assert sorted(map(id, ended)) == sorted(map(id, futures))
    replies = [future.result() for future in futures]
    return [float(answered(one)[1][0]) for one in replies]


@pytest.fixture
def pool_of() -> Iterator[Callable[..., Scheduler]]:
    pools: list[Scheduler] = []

    def make(*seats: Seat, ready: bool = True) -> Scheduler:
        pools.append(Scheduler("threads", seats))
        if ready:
            pools[-1].await_ready()
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
        assert not any(thread.is_alive() for thread in pool._threads)


def test_shards_get_their_arrays_and_assets(pool_of: Any) -> None:
    seats = Threaded("a"), Threaded("b")
    pool = pool_of(*seats)
    assert values(pool, [task(x) for x in range(20)]) == [2.0 * x for x in range(20)]
    assert sum(worker.shards for worker in pool.workers()) == 20
    assert all(one.heard.count("asset") <= 1 for one in seats)


def test_assets_are_sent_once_and_make_room_for_others(pool_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "_ASSETS", 8)  # two of them
    only = Threaded("a")
    pool = pool_of(only)
    assets = {str(n): factor(n) for n in range(1, 5)}

    def use(*names: str) -> tuple[float, list[str]]:
        before = len(only.heard)
        (value,) = values(pool, [task(1, {name: assets[name] for name in names})])
        return value, only.heard[before:]

    assert use("1", "2") == (3.0, ["asset", "asset", "shard"])
    assert use("2") == (2.0, ["shard"])
    assert use("3") == (3.0, ["forget", "asset", "shard"])  # 1 was unused for longest
    assert use("2", "3") == (5.0, ["shard"])
    assert use("1", "2", "3") == (6.0, ["asset", "shard"])  # more than there is room for, all of it needed
    assert use("4") == (4.0, ["forget", "asset", "shard"])
    assert set(only.loop._assets) == {"1", "4"}


def test_a_word_that_comes_twice_or_late_is_dropped(pool_of: Any) -> None:
    only = Threaded("a")
    late: list[Mapping[str, Any]] = []

    def twice(head: Mapping[str, Any]) -> None:
        if head["do"] == "shard":  # an answer that could be taken for this one's, before it
            only.again({"to": head["number"] - 1, "is": "done", "head": {}}, {"y": torch.full((3,), 77.0)})
            late.append(head)

    only.doing = twice
    pool = pool_of(only)
    assert values(pool, [task(x) for x in range(5)]) == [2.0 * x for x in range(5)]
    assert len(late) == 5


def test_a_slow_worker_is_overtaken(pool_of: Any) -> None:
    first, second = Threaded("quick"), Threaded("slow")
    pool = pool_of(first, second)
    values(pool, [task(x) for x in range(8)])
    (thread,) = [one.ident for one in threading.enumerate() if getattr(one, "_target", None) == second.loop.serve]
    assert thread is not None
    slow[thread] = time.monotonic() + PATIENCE
    futures = [pool.submit(task(x)) for x in range(8)]
    replies = [future.result(PATIENCE / 2) for future in futures]
    assert [float(answered(reply)[1][0]) for reply in replies] == [2.0 * x for x in range(8)]
    assert [reply.overtaken for reply in replies if reply.overtaken] == [("slow",)]
    assert [worker.overtaken for worker in pool.workers()] == [0, 1]
    assert len(second.dropped) == 1
    soon(lambda: second.worker.state == "ready")  # it let go at its next step
    assert not second.loop._dropped


def test_an_error_is_the_shard_s_and_the_next_one_runs(pool_of: Any) -> None:
    pool = pool_of(Threaded("a"))
    bad, good = pool.submit(task(1, fail=True)), pool.submit(task(2))
    with pytest.raises(InputError, match="this shard fails"):
        bad.result(PATIENCE)
    assert float(answered(good.result(PATIENCE))[1][0]) == 4.0


def test_a_shard_that_takes_workers_with_it_is_given_up(pool_of: Any) -> None:
    def dies(head: Mapping[str, Any]) -> None:
        if head["do"] == "shard" and _x(head) == 5:
            raise EOFError

    seats = Threaded("a", dies), Threaded("b", dies)
    pool = pool_of(*seats)
    futures = [pool.submit(task(x)) for x in range(8)]
    with pytest.raises(WorkerLost, match="ended 3 times at one shard"):
        futures[5].result(PATIENCE)
    rest = [future.result(PATIENCE) for x, future in enumerate(futures) if x != 5]
    assert [answered(reply)[0] for reply in rest] == [0, 1, 2, 3, 4, 6, 7]
    assert sum(one.starts for one in seats) == 5


def test_what_a_worker_does_not_know_is_refused() -> None:
    said: list[Mapping[str, Any]] = []
    loop = Loop(lambda head, tensors: said.append(head))  # noqa: ARG005
    threading.Thread(target=loop.serve, daemon=True).start()
    loop.ask({"do": "exec", "number": 3}, {})
    soon(lambda: bool(said))
    assert said == [{"to": 3, "is": "refused", "why": said[0]["why"]}]
    assert said[0]["why"].startswith("a worker does not know that: 'exec' is none of ")
