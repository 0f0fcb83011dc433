"""What all drivers share: the shards that wait, a thread for each worker, and what becomes of a shard that has none."""

from __future__ import annotations

import contextlib
import itertools
import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace

from interp.engine.model import hooks
from interp.engine.pool.messages import Garbled
from interp.engine.pool.protocol import Reply, Task, Worker, WorkerLost
from interp.engine.pool.seat import Ejected, Entry, Seat

_TRIES = 3  # workers that one shard may take with it
_LIVES = 5  # of one worker in which it answers nothing, one after the other
_LOOK = 0.02  # seconds between looks at workers that start
# A shard that has run for so many times the median of those done, and for so many seconds, is given to an idle worker.
_SLOW, _SLOWEST = 2.0, 1.0
# Shards for each worker that are there at once, counted from the oldest that has not ended: enough to keep all busy,
# and few enough that those of a million texts are not all in memory.
_AHEAD = 8
_OVERSEE = 0.25  # seconds between looks for such shards


class Scheduler:
    """See `interp.engine.pool.protocol.Pool`.

    Parameters
    ----------
    name
        What results and tables call it.
    seats
        The workers, which are started.
    """

    local = False
    trust = False
    lasting = False

    def __init__(self, name: str, seats: Sequence[Seat]) -> None:
        self.name = name
        self._seats = list(seats)
        self._waiting: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._entries: dict[Future[Reply], Entry] = {}
        self._numbers = itertools.count()
        self._closed = False
        self._left = len(self._seats)
        self._lock = threading.Lock()  # of what the workers' threads write; the kernel's own takes none
        self._running: set[Entry] = set()
        self._took: deque[float] = deque(maxlen=256)  # seconds, of shards that are done
        self._begun: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._feed, args=(seat,), daemon=True) for seat in self._seats]
        self._threads.append(threading.Thread(target=self._oversee, daemon=True))
        hooks.undisturbed(self._begin)

    def _begin(self) -> None:
        for seat in self._seats:
            with contextlib.suppress(Ejected, OSError):  # its thread will see that
                seat.begin()
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
        bad = next((seat.worker for seat in self._seats if not seat.worker.there), None)
        if bad is not None:
            raise WorkerLost(f"{bad.name} {bad.state}")

    # -- the kernel's side -------------------------------------------------------------------------------------------

    def submit(self, task: Task, processor: str = "") -> Future[Reply]:
        """Take a shard; where a `processor` is named, for a worker that has it."""
        if not self._entries:
            self._took.clear()  # how long another command's took says nothing of this one's
        entry = Entry(next(self._numbers), task, processor)
        self._entries[entry.future] = entry
        self._waiting.put(entry)
        if not self._left:
            self._strand()
        return entry.future

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        """Yield futures as they end."""
        ended: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
        source = iter(futures)
        del futures  # what was yielded is its taker's to keep, or to let go of
        order: deque[Future[Reply]] = deque()  # from the oldest that has not ended
        running = 0
        while True:
            while order and order[0].done():
                order.popleft()
            for future in itertools.islice(source, max(0, _AHEAD * len(self._seats) - len(order))):
                future.add_done_callback(ended.put)
                order.append(future)
                running += 1
            if not running:
                return
            future = ended.get()
            running -= 1
            self._entries.pop(future, None)
            yield future

    def cancel(self, futures: Iterable[Future[Reply]]) -> None:
        """Let go of shards."""
        for future in futures:
            entry = self._entries.pop(future, None)
            if entry is not None and future.cancel():
                for seat in list(entry.began):
                    seat.drop(entry.number)

    def workers(self) -> Sequence[Worker]:
        """Return what is known of each worker."""
        return [seat.worker for seat in self._seats]

    def close(self) -> None:
        """End all workers."""
        self._closed = True
        for future in list(self._entries):
            self.cancel([future])
        for _ in self._seats:
            self._waiting.put(None)
        self._begun.put(False)
        for seat in self._seats:
            seat.kill()  # what it does is not wanted, and it has nothing of its own to put in order
        for thread in self._threads:
            thread.join()

    # -- a worker's thread -------------------------------------------------------------------------------------------

    def _feed(self, seat: Seat) -> None:
        """Give one worker shards, one after the other; start it again where it ends."""
        fruitless, ejected, last = 0, False, ""
        while not self._closed and fruitless < _LIVES:
            entry: Entry | None = None
            answered = False
            try:
                if not seat.up:
                    seat.begin()
                seat.greeted()
                while (entry := self._waiting.get()) is not None:
                    if entry.processor in ("", seat.worker.processor):
                        self._answer(seat, entry)
                        answered = True
                    else:
                        self._pass_on(entry)
                    entry = None
                break
            except (EOFError, OSError) as error:
                fruitless = 0 if answered else fruitless + 1
                last = self._ended(seat, error)
                if entry is not None and not self._closed:
                    self._again(seat, entry)
            except Ejected as error:
                last, ejected = str(error), True
                if entry is not None and not entry.began:
                    self._waiting.put(entry)
                break
        self._ended(seat)
        seat.worker.held = {}
        seat.worker.state = last if ejected else f"ended{f' ({last})' if last else ''}"
        with self._lock:
            self._left -= 1
        if not self._left and not self._closed:
            self._strand()

    def _ended(self, seat: Seat, error: EOFError | OSError | None = None) -> str:
        """End a worker that may have ended, and return why it did: an error that says it, else its last words."""
        said = isinstance(error, Garbled | OSError) and not isinstance(error, ConnectionError)
        why = str(error) if said else ""
        if not seat.up:
            return why
        seat.up = False
        if isinstance(error, Garbled):
            seat.kill()  # it may go on for long
        last = seat.end()
        return why or last

    def _answer(self, seat: Seat, entry: Entry) -> None:
        """Let a worker do one shard."""
        if entry.future.done():
            return
        began = time.monotonic()
        with self._lock:
            entry.began[seat] = began
            self._running.add(entry)
            if len(self._running) == 1:
                self._begun.put(True)
        seat.worker.state = "busy"
        reply, failure = None, None
        try:
            reply = seat.run(entry)
        except (EOFError, OSError, Ejected):  # the worker's end, not the shard's
            raise
        except Exception as error:
            failure = error
        finally:
            with self._lock:
                del entry.began[seat]
                others = list(entry.began)
                if not others:
                    self._running.discard(entry)
        seat.worker.state = "ready"
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile, or another one was first
            if reply is not None:
                overtaken = tuple(other.worker.name for other in others)
                entry.future.set_result(replace(reply, lost=tuple(entry.lost), overtaken=overtaken))
                seat.worker.shards += 1
                with self._lock:
                    self._took.append(time.monotonic() - began)
                for other in others:
                    other.worker.overtaken += 1
                    other.drop(entry.number)
            elif failure is not None and not others:  # one that is at it still may be luckier
                entry.future.set_exception(failure)

    def _pass_on(self, entry: Entry) -> None:
        """Leave a shard to a worker with the processor that it is for."""
        if entry.future.done():
            return
        if any(seat.worker.there and seat.worker.processor == entry.processor for seat in self._seats):
            self._waiting.put(entry)
            time.sleep(_LOOK)  # else this worker would take it again before another one wakes
            return
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            entry.future.set_exception(WorkerLost(f"no worker is left with {entry.processor}"))

    def _again(self, seat: Seat, entry: Entry) -> None:
        """Let another worker do a shard whose worker ended, unless one is at it."""
        entry.lost.append(seat.worker.name)
        if entry.began:
            return
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
        why = self._why()
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

    def _why(self) -> str:
        """Return what became of the workers, and each reason once."""
        ended: dict[str, list[str]] = {}
        for seat in self._seats:
            ended.setdefault(seat.worker.state, []).append(seat.worker.name)
        whose = {state: names[0] if len(names) == 1 else f"each of {len(names)}" for state, names in ended.items()}
        return "; ".join(f"{names} {state}" for state, names in whose.items())

    # -- slow ones ---------------------------------------------------------------------------------------------------

    def _oversee(self) -> None:
        """Look for slow shards for as long as any run."""
        while self._begun.get():
            while self._running and not self._closed:
                time.sleep(_OVERSEE)
                self._overtake()

    def _overtake(self) -> None:
        """Let workers that have nothing else to do run what is slow elsewhere: whoever is first gives the answer."""
        idle = sum(seat.worker.state == "ready" for seat in self._seats)
        if not (idle and self._took and self._waiting.empty()):
            return
        now = time.monotonic()
        with self._lock:
            slow = now - max(_SLOWEST, _SLOW * statistics.median(self._took or [0.0]))
            overdue = [
                (began, entry.number, entry)
                for entry in self._running
                # Since the last one began: a copy can be slow, too.
                if not entry.future.done() and (began := max(entry.began.values())) < slow
            ]
            for _, _, entry in sorted(overdue)[:idle]:
                self._waiting.put(entry)
