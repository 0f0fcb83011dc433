"""A pool without workers: shards run in this process, one after the other, on the user's own model.

What they give has the bits that worker processes give, which is what this is good for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future

from interp.engine.pool.protocol import Reply, Task, Worker, perform


def _nothing() -> None:
    """Go on: an interrupt is heard in this process by itself."""


class Here:
    """See `interp.engine.pool.protocol.Pool`."""

    name = "this process"
    local = True
    trust = False  # it needs none: what is the user's runs here as it is
    lasting = False

    def __init__(self) -> None:
        self._worker = Worker("here", "ready", os.getpid(), seen=time.monotonic())
        self._waiting: dict[Future[Reply], Task] = {}

    def submit(self, task: Task, processor: str = "") -> Future[Reply]:  # noqa: ARG002  # there is one
        """Take a shard, which runs when its future is asked for."""
        future: Future[Reply] = Future()
        self._waiting[future] = task
        return future

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        """Run shards, and yield their futures."""
        for future in futures:
            task = self._waiting.pop(future)
            models = [one.model for one in task.models]
            try:
                future.set_result(perform(task.job, task.head, task.tensors, task.assets, models, _nothing))
            except Exception as error:
                future.set_exception(error)
            self._worker.shards += 1
            self._worker.seen = time.monotonic()
            if models:
                self._worker.device = str(models[0].device)
                self._worker.held = {one.name: one.fingerprint for one in task.models}
            yield future

    def cancel(self, futures: Iterable[Future[Reply]]) -> None:
        """Let go of shards that have not run."""
        for future in futures:
            if self._waiting.pop(future, None) is not None:
                future.cancel()

    def workers(self) -> Sequence[Worker]:
        """Return this process."""
        return (self._worker,)

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
