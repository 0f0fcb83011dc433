"""A pool of worker processes on this machine, of one thread each, which talk by pipes: nothing listens anywhere."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, BinaryIO, cast

from torch import Tensor

import interp
from interp.engine import exactness
from interp.engine.model import hooks
from interp.engine.model.operation import versions
from interp.engine.pool import messages, travel
from interp.engine.pool.messages import Message
from interp.engine.pool.protocol import Reply, Task, Worker, WorkerLost
from interp.engine.pool.travel import Travelling
from interp.errors import InputError, OutOfMemory

_TRIES = 3  # workers that one shard may take with it, and times that one worker is started again without an answer
_LOOK = 0.02  # seconds between looks at workers that start
_PATIENCE = 5.0  # seconds until a worker that was told to end is ended


class _Entry:
    """A shard on its way."""

    def __init__(self, number: int, task: Task) -> None:
        self.number, self.task = number, task
        self.future: Future[Reply] = Future()
        self.lost: list[str] = []


class _Ejected(Exception):
    """A worker that must not be asked for anything: what it has is not what the kernel has."""


class _Seat:
    """One worker: its process, the thread that feeds it, and what is known of it."""

    def __init__(self, number: int) -> None:
        self.worker = Worker(f"worker {number}")
        self.process: subprocess.Popen[bytes] | None = None
        self.running: int | None = None
        self._writing = threading.Lock()
        self._errors: Any = None
        self._recipes: dict[str, tuple[dict[str, Any], str]] = {}  # what its models were loaded by

    def start(self) -> None:
        """Start its process, and wait until it can be asked for something."""
        ours = str(Path(interp.__file__).parents[1])
        paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",  # the kernel has fetched what there is to fetch
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # read when it has ended
        self.worker.state, self.worker.held = "starting", {}
        self._recipes.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "interp.engine.pool.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C in a terminal is for the kernel
        )
        self.worker.process = self.process.pid

    def greeted(self) -> None:
        """Wait for its first word, and eject it where its libraries are others."""
        head, _ = self._heard()
        here, there = versions(), cast("dict[str, str]", head["versions"])
        if other := next((name for name in here if there.get(name) != here[name]), None):
            raise _Ejected(f"it has {other} {there.get(other)}, the kernel {here[other]}")
        self.worker.state = "ready"

    def say(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send a message."""
        assert self.process is not None
        assert self.process.stdin is not None
        with self._writing:
            messages.sent(cast("BinaryIO", self.process.stdin), head, tensors)
        self.worker.nbytes += sum(tensor.nbytes for tensor in (tensors or {}).values())

    def _heard(self) -> Message:
        assert self.process is not None
        assert self.process.stdout is not None
        head, tensors = messages.received(cast("BinaryIO", self.process.stdout))
        self.worker.seen = time.monotonic()
        self.worker.nbytes += sum(tensor.nbytes for tensor in tensors.values())
        return head, tensors

    def asked(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Message:
        """Send a message and return its answer.

        Raises
        ------
        InputError, OutOfMemory, exactness.Unreadable
            What the worker says that it was.
        """
        self.say(head, tensors)
        found, more = self._heard()
        why = found.get("why", "")
        if found["is"] == "refused":
            raise InputError(why)
        if found["is"] == "memory":
            raise OutOfMemory(f"{self.worker.name} ran out of memory: {why}")
        if found["is"] == "unreadable":
            raise exactness.Unreadable(why)
        if found["is"] == "failed":
            raise InputError(f"{self.worker.name} failed at a shard: {why}; %interp disconnect runs it here")
        return found, more

    def hold(self, model: Travelling) -> None:
        """See to it that the worker has a model.

        Raises
        ------
        InputError
            It was changed in what does not travel.
        _Ejected
            What it was loaded from is another one there.
        """
        held = self.worker.held
        if held.get(model.name) == model.fingerprint:
            return
        recipe = (dict(model.recipe), model.loaded)
        held.pop(model.name, None)
        if self._recipes.get(model.name) != recipe:
            self._recipes.pop(model.name, None)
            answer, _ = self.asked({"do": "load", "name": model.name, "recipe": recipe[0]})
            found = answer["fingerprint"]
            if found != model.loaded:
                raise _Ejected(
                    f"its {model.name} is another one (fingerprint {found[:8]} instead of {model.loaded[:8]}): the "
                    "files were changed, or are read otherwise there"
                )
            self._recipes[model.name] = recipe
        else:
            found = ""  # as it was for an earlier command
        if found != model.fingerprint:
            there, _ = self.asked({"do": "digests", "name": model.name})
            tensors = travel.changed(model.model, there["digests"])
            answer, _ = self.asked({"do": "change", "name": model.name}, tensors)
            if answer["fingerprint"] != model.fingerprint:
                raise travel.more_than_weights(model.name)
        self.worker.device = str(model.model.device)
        held[model.name] = model.fingerprint

    def run(self, entry: _Entry) -> Reply | None:
        """Return what a shard gave; nothing where it is not wanted any more."""
        for model in entry.task.models:
            self.hold(model)
        self.running = entry.number
        self.worker.state = "busy"
        try:
            if entry.future.cancelled():
                return None
            task = entry.task
            names = [model.name for model in task.models]
            asked = {"do": "shard", "shard": entry.number, "job": task.job, "head": dict(task.head), "models": names}
            head, tensors = self.asked(asked, task.tensors)
        finally:
            self.running = None
        self.worker.state = "ready"
        if head["is"] == "cancelled":
            return None
        self.worker.shards += 1
        return Reply(head["head"], tensors, tuple(entry.lost))

    def end(self) -> str:
        """End its process, and return its last words."""
        process = self.process
        if process is None:
            return ""
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not sent yet has nobody to go to
                    stream.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        self._errors.close()
        self.process = None
        return lines[-1] if lines and process.returncode != 0 else ""


class Processes:
    """See `interp.engine.pool.protocol.Pool`.

    Parameters
    ----------
    count
        How many worker processes.
    """

    local = False

    def __init__(self, count: int) -> None:
        self.name = f"{count} process{'' if count == 1 else 'es'}"
        self._waiting: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._entries: dict[Future[Reply], _Entry] = {}
        self._numbers = itertools.count()
        self._seats = [_Seat(number) for number in range(1, count + 1)]
        self._closed = False
        self._left = count
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._feed, args=(seat,), daemon=True) for seat in self._seats]
        hooks.undisturbed(self._begin)

    def _begin(self) -> None:
        for seat in self._seats:
            seat.start()
        for thread in self._threads:
            thread.start()

    def await_ready(self) -> None:
        """Wait until every worker can be asked for something.

        Raises
        ------
        WorkerLost
            One of them cannot be started.
        """
        while any(seat.worker.state == "starting" for seat in self._seats):
            time.sleep(_LOOK)
        bad = next((seat.worker for seat in self._seats if seat.worker.state != "ready"), None)
        if bad is not None:
            raise WorkerLost(f"{bad.name} {bad.state}")

    # -- the kernel's side -----------------------------------------------------------------------------------------

    def submit(self, task: Task) -> Future[Reply]:
        """Take a shard."""
        entry = _Entry(next(self._numbers), task)
        self._entries[entry.future] = entry
        self._waiting.put(entry)
        if not self._left:
            self._strand()
        return entry.future

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        """Yield futures as they end."""
        ended: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
        count = 0
        for future in futures:
            future.add_done_callback(ended.put)
            count += 1
        for _ in range(count):
            future = ended.get()
            self._entries.pop(future, None)
            yield future

    def cancel(self, futures: Iterable[Future[Reply]]) -> None:
        """Let go of shards."""
        for future in futures:
            entry = self._entries.pop(future, None)
            if entry is None or not future.cancel():
                continue
            for seat in self._seats:
                if seat.running == entry.number:
                    with contextlib.suppress(OSError):  # it is gone, and the shard with it
                        seat.say({"do": "cancel", "shard": entry.number})

    def workers(self) -> Sequence[Worker]:
        """Return what is known of each worker."""
        return [seat.worker for seat in self._seats]

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        for future in list(self._entries):
            self.cancel([future])
        for _ in self._seats:
            self._waiting.put(None)
        for seat in self._seats:
            if seat.process is not None and seat.process.poll() is None:
                seat.process.kill()  # what it does is not wanted, and it has nothing of its own to put in order
        for thread in self._threads:
            thread.join()

    # -- a worker's thread -----------------------------------------------------------------------------------------

    def _feed(self, seat: _Seat) -> None:
        """Give one worker shards, one after the other; start it again where its process ends."""
        fruitless = 0
        entry: _Entry | None = None
        last = ""
        while not self._closed and fruitless < _TRIES:
            try:
                if seat.process is None:
                    seat.start()
                seat.greeted()
                while (entry := self._waiting.get()) is not None:
                    self._answer(seat, entry)
                    entry, fruitless = None, 0
                break
            except (EOFError, OSError):
                fruitless += 1
                last = seat.end()
                if entry is not None and not self._closed:
                    self._again(seat, entry)
                entry = None
            except _Ejected as error:
                last = f"is refused: {error}"
                if entry is not None:
                    self._waiting.put(entry)
                break
        seat.end()
        seat.worker.state = last if last.startswith("is refused") else f"ended{f' ({last})' if last else ''}"
        with self._counting:
            self._left -= 1
        if not self._left and not self._closed:
            self._strand()

    def _answer(self, seat: _Seat, entry: _Entry) -> None:
        """Let a worker do one shard."""
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            if entry.future.cancelled():
                return
            try:
                reply = seat.run(entry)
            except (EOFError, OSError, _Ejected):  # the worker's end, not the shard's
                raise
            except Exception as error:
                seat.worker.state = "ready"
                entry.future.set_exception(error)
                return
            if reply is not None:
                entry.future.set_result(reply)

    def _again(self, seat: _Seat, entry: _Entry) -> None:
        """Let another worker do a shard whose worker ended."""
        entry.lost.append(seat.worker.name)
        if len(entry.lost) < _TRIES:
            self._waiting.put(entry)
            return
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            entry.future.set_exception(
                WorkerLost(
                    f"{' and '.join(dict.fromkeys(entry.lost))} ended {_TRIES} times at one shard: it may need more "
                    "memory than there is; connect fewer workers, or %interp disconnect"
                )
            )

    def _strand(self) -> None:
        """Say of every shard that waits that nobody is left to take it."""
        why = "; ".join(f"{seat.worker.name} {seat.worker.state}" for seat in self._seats)
        while True:
            try:
                entry = self._waiting.get_nowait()
            except queue.Empty:
                return
            if entry is not None:
                with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
                    entry.future.set_exception(
                        WorkerLost(f"no worker is left: {why}; %interp connect again, or %interp disconnect")
                    )
