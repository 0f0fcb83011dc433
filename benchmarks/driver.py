"""What a pool costs the notebook's process, with workers that only wait: 1,000 of them, at 200 shards a second.

``python benchmarks/driver.py [WORKERS] [SECONDS]``: the real scheduler, with seats whose workers are none. Each answers
with arrays of a shard's size after a time drawn for that shard (lognormal, 5 s in the mean with 1,000 workers); every
message is packed and unpacked as one to a process is. Three runs of the same shards: nobody fails; 1 % of the shards
take their worker with them, which is away for a while, and 1 % take eight times as long; shards that take no time, for
what the scheduler can do at most. Printed of each: wall time beside the work's own (the sum of the drawn times, divided
by the workers), the process' CPU seconds a shard, less what the seats took for packing answers, and at the rate that
was asked for its share of one core; and memory.
"""

from __future__ import annotations

import collections
import math
import random
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import psutil
import torch

from interp.engine.model.operation import versions
from interp.engine.pool import messages
from interp.engine.pool.messages import Message
from interp.engine.pool.protocol import Task
from interp.engine.pool.scheduling import Scheduler
from interp.engine.pool.seat import Seat
from interp.engine.pool.travel import Travelling

RATE = 200  # shards a second
SPREAD = 0.3  # of the logarithm of a shard's time
LOST, SLOW = 0.01, 0.01  # shares of the shards
SLOWER = 8
AWAY = 10.0  # seconds that a worker takes to start again
PAIRS, CELLS = 8, 64
NAME = "0" * 32


class Fate:
    """How long each shard takes, and what goes wrong with it: drawn by its number, so the same in every run."""

    def __init__(self, mean: float, *, fails: bool) -> None:
        self.mean, self.fails = mean, fails

    def of(self, shard: int, attempt: int) -> tuple[float, bool]:
        """Return a shard's seconds, and whether its worker ends at it."""
        if not self.mean:
            return 0.0, False
        draw = random.Random(1000 * shard + attempt)
        seconds = self.mean * math.exp(draw.gauss(0, SPREAD) - SPREAD**2 / 2)
        if not self.fails:
            return seconds, False
        kind = draw.random()
        return seconds * (SLOWER if LOST < kind < LOST + SLOW else 1), kind < LOST


@dataclass
class Run:
    """What the seats of one run share.

    Attributes
    ----------
    answer
        What each shard gives.
    tries
        How often each shard was begun.
    own
        CPU seconds that were the workers'.
    """

    fate: Fate
    answer: Mapping[str, torch.Tensor]
    tries: collections.Counter[int] = field(default_factory=lambda: collections.Counter[int]())
    own: list[float] = field(default_factory=list[float])


class Waiting(Seat):
    """A seat whose worker does nothing but wait."""

    def __init__(self, name: str, run: Run) -> None:
        super().__init__(name)
        self._run = run

    def start(self) -> None:
        """Be away for a while, but for the first time."""
        self._heads: collections.deque[dict[str, Any]] = collections.deque([{"do": "start"}])
        self._dropped: set[int] = set()
        self._stop = threading.Event()
        if self.worker.shards:
            self._stop.wait(AWAY)

    def send(self, head: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Take a message."""
        messages.packed(head, tensors)
        self._heads.append(dict(head))

    def receive(self) -> Message:
        """Wait for as long as the shard takes, and answer."""
        head = self._heads.popleft()
        answer: dict[str, Any] = {"to": head.get("number"), "is": "held", "fingerprint": NAME}
        if head["do"] == "start":
            return {"is": "ready", "process": 0, "processor": "", "versions": versions()}, {}
        if head["do"] != "shard":
            return answer, {}
        self._run.tries[head["shard"]] += 1
        seconds, ends = self._run.fate.of(head["shard"], self._run.tries[head["shard"]])
        self._stop.clear()
        if head["shard"] not in self._dropped and self._stop.wait(seconds / 2 if ends else seconds):
            return {**answer, "is": "cancelled"}, {}
        if ends:
            raise EOFError
        began = time.thread_time()
        data = messages.packed({**answer, "is": "done", "head": {"forwards": 1}}, self._run.answer)
        self._run.own.append(time.thread_time() - began)
        return messages.unpacked(data)

    def drop(self, shard: int) -> None:
        """Wait no longer."""
        self._dropped.add(shard)
        self._stop.set()

    def end(self) -> str:
        """Have nothing to say."""
        return ""

    def kill(self) -> None:
        """Wait no longer."""
        self._stop.set()


def head(number: int) -> dict[str, Any]:
    """Return a shard as plain data, as long as a real one."""
    case = {
        "base": [list(range(16)), None],
        "source": [list(range(16)), None],
        "metric": ["logit_diff", None],
        "answer": [number],
        "wrong": [11],
        "positions": None,
        "following": [],
        "position": 15,
        "clean_base": True,
        "source_position": 15,
        "spans": None,
        "aligned": None,
        "heard": None,
    }
    return {"way": "lean", "planner": {"kind": "sites"}, "cells": list(range(CELLS)), "cases": [case] * PAIRS}


def measured(count: int, shards: int, fate: Fate) -> None:
    """Run so many shards on so many workers, and print what that took."""
    values = {"values": torch.rand(PAIRS, CELLS), "reached": torch.ones(PAIRS, CELLS, dtype=torch.bool)}
    run = Run(fate, {**values, "base": torch.rand(PAIRS), "source": torch.rand(PAIRS)})
    model = Travelling("m", NAME, {}, NAME, cast("Any", SimpleNamespace(device="cpu")))
    this = psutil.Process()
    before = this.memory_info().rss
    pool = Scheduler("fakes", [Waiting(f"worker {number}", run) for number in range(count)])
    pool.await_ready()
    seated = this.memory_info().rss
    total = torch.zeros(shards * PAIRS, CELLS)
    wall, cpu, peak = time.perf_counter(), time.process_time(), seated
    futures = {pool.submit(Task("sweep", head(number), (model,))): number for number in range(shards)}
    lost = overtaken = 0
    for done, future in enumerate(pool.completed(list(futures))):
        reply, number = future.result(), futures.pop(future)
        total[number * PAIRS : (number + 1) * PAIRS] = reply.tensors["values"]
        lost += bool(reply.lost)
        overtaken += bool(reply.overtaken)
        if done % 500 == 0:
            peak = max(peak, this.memory_info().rss)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu - sum(run.own)
    pool.close()
    assert bool((total > 0).any(1).all())
    own = sum(fate.of(number, 1)[0] for number in range(shards)) / count
    what = "failures" if fate.fails else "none fails" if fate.mean else "no time"
    print(f"{what}: {shards} shards on {count} workers in {wall:.1f} s; the work alone takes {own:.1f} s")
    share = RATE * cpu / shards
    print(f"  CPU {cpu / shards * 1e3:.2f} ms a shard, at {RATE} shards a second {share:.0%} of a core (bar 30 %)")
    print(f"  {lost} ran again, {overtaken} were overtaken")
    sizes = (size >> 20 for size in (before, seated - before, peak - seated))
    print("  memory: {} MB, {} MB for seats, {} MB for shards".format(*sizes), flush=True)


def main() -> None:
    """Measure all three."""
    torch.set_num_threads(1)
    count, seconds = (int(given) for given in (*sys.argv[1:], *("1000", "30")[len(sys.argv) - 1 :]))
    shards = RATE * seconds
    for fate in (Fate(count / RATE, fails=False), Fate(count / RATE, fails=True), Fate(0, fails=False)):
        measured(count, shards, fate)


if __name__ == "__main__":
    main()
