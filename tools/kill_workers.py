"""Kill worker processes at random moments of a sweep, and compare what it gives, bit for bit, with this process alone.

    python tools/kill_workers.py [KILLS] [SECONDS] [SEED]

The bundled model is swept on two processes. Before each sweep a moment is drawn: any of it; while a worker that starts
imports, loads and compares; in the middle of an answer, of which the pipe holds a part; any moment for both at once.
A sweep is asked anew each time, so that nothing is known of it. Prints how many were killed, how often a result says
that a shard ran again, and which processes are left; exits with 1 where any bit differed, a sweep gave none, or a
process stayed.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, cast

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil

import interp
from interp.engine.patching import pooled
from interp.engine.pool.here import Here
from interp.engine.pool.processes import Processes
from interp.errors import InputError
from interp.interface.session import session

MOMENTS = ("any", "start", "answer", "both")
START = 4.0  # seconds that a worker takes about until it has a model
_PIPE = 4096  # bytes that a pipe holds at least


class _Cut:
    """The pipe of a worker that is killed as soon as the length of its next answer is read."""

    def __init__(self, stream: BinaryIO, end: Callable[[], None]) -> None:
        self._stream = stream
        self._end: Callable[[], None] | None = end
        with contextlib.suppress(OSError):
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE)

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if size == 8 and self._end is not None:
            end, self._end = self._end, None
            end()
        return data

    def close(self) -> None:
        self._stream.close()


killed: list[int] = []  # processes


def kill(worker: Any) -> None:
    """Kill a worker's process where it runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.process, signal.SIGKILL)
        killed.append(worker.process)


def armed(pool: Processes, moment: str, draw: random.Random, span: float) -> list[threading.Thread]:
    """See to it that workers are killed while the sweep runs that is asked next, which takes about `span` seconds."""
    workers = pool.workers()
    victim = draw.randrange(len(workers))

    def later(seconds: float, *those: Any) -> threading.Thread:
        timer = threading.Timer(seconds, lambda: [kill(one) for one in those])
        timer.start()
        return timer

    if moment == "any":
        return [later(draw.random() * span, workers[victim])]
    if moment == "both":
        return [later(draw.random() * span, *workers)]
    if moment == "start":
        kill(workers[victim])
        return [later(draw.random() * START, workers[victim])]
    process = cast("Any", pool)._seats[victim].process
    process.stdout = _Cut(process.stdout, lambda: kill(workers[victim]))
    return []


def main() -> int:
    """Kill so many; return whether anything was wrong."""
    wanted, seconds, seed = (int(given) for given in (*sys.argv[1:], *("100", "3600", "0")[len(sys.argv) - 1 :]))
    draw = random.Random(seed)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    interp.load(device="cpu")
    pooled.ROWS = 1000
    asked: dict[str, Any] = {"task": "ioi", "n": 8, "by": "head-position", "site": "z"}

    def swept(pool: Any) -> tuple[float, Any]:
        interp.model.store.clear()
        session.pool = pool
        began = time.perf_counter()
        found = interp.patch(**asked)
        return time.perf_counter() - began, found

    _, whole = swept(Here())
    pool = Processes(2)
    pool.await_ready()
    swept(pool)
    span, _ = swept(pool)
    print(f"a sweep of {whole.provenance.path.split(' in ')[-1]}: {span:.1f} s on two", flush=True)
    moments: collections.Counter[str] = collections.Counter()
    again = 0
    wrong: list[str] = []
    began = time.monotonic()
    while len(killed) < wanted and time.monotonic() - began < seconds:
        moment = MOMENTS[moments.total() % len(MOMENTS)]
        moments[moment] += 1
        pool.await_ready()
        timers = armed(pool, moment, draw, span)
        try:
            _, found = swept(pool)
            for name in ("per_pair", "patched", "effect", "done"):
                if not np.array_equal(getattr(whole, name), getattr(found, name), equal_nan=True):
                    wrong.append(f"{moment}: other bits in {name}")
            again += sum("ran again elsewhere" in note for note in found.notes)
        except InputError as error:
            wrong.append(f"{moment}: {error}")
        for timer in timers:
            timer.join()
        if moments.total() % len(MOMENTS) == 0:
            past = time.monotonic() - began
            print(
                f"{len(killed)} killed in {past:.0f} s, {again} times it is said; wrong: {wrong or 'none'}", flush=True
            )
    pool.close()
    session.pool = None
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    left |= {process for process in killed if psutil.pid_exists(process)}
    print(f"{len(killed)} workers killed in {moments.total()} sweeps, {dict(moments)}: {again} times a shard ran again")
    print(f"wrong: {wrong or 'none'}; processes left: {sorted(left) or 'none'}")
    return int(bool(wrong or left))


if __name__ == "__main__":
    sys.exit(main())
