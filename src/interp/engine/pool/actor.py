"""A worker in a Ray actor. Ray makes it of this class, by its name; all that it is asked, and answers, is bytes."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from interp.engine.pool import messages
from interp.engine.pool.worker import Loop, greeting


class Actor:
    """A worker's loop in a thread of its own; one message at a time, and beside it `drop` and `release`."""

    def __init__(self, *, trust: bool = False) -> None:
        self._said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._kernel = ""
        self._greeting = greeting(trusted=trust)
        self._loop = Loop(self._say)
        threading.Thread(target=self._serve, daemon=True).start()

    def _say(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._said.put(messages.packed(head, tensors))

    def _serve(self) -> None:
        try:
            self._loop.serve()
        finally:  # whatever it was: nobody would be answered any more
            os._exit(1)

    def hello(self, kernel: str) -> bytes:
        """Work for a kernel from now on, and for no other one; return the first word."""
        self._kernel = kernel
        return messages.packed({**self._greeting, "holds": self._loop.holds()}, {})

    def ask(self, kernel: str, head: bytes, body: bytes) -> bytes:
        """Answer a message, whose tensors are in `body`."""
        if kernel != self._kernel:
            return messages.packed({"is": "taken"}, {})
        plain, _ = messages.unpacked(head)
        self._loop.ask(plain, messages.unpacked(body)[1] if body else {})
        return self._said.get()

    def drop(self, kernel: str, shard: int) -> None:
        """Let go of a shard."""
        if kernel == self._kernel:
            self._loop.drop(shard)

    def release(self) -> None:
        """Let go of what runs: a kernel comes that knows nothing of it."""
        self._loop.release()
