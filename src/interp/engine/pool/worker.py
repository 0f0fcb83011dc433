"""A worker process: ``python -m interp.engine.pool.worker``, which the kernel starts and talks to by two pipes.

It ends when the kernel does, however that happens: the pipe that it reads from ends, or it has another parent.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from interp.engine.pool import messages

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.messages import Message

_WATCH = 1.0  # seconds between looks at the parent


class _Worker:
    """What it holds, and its two pipes."""

    def __init__(self, inward: BinaryIO, outward: BinaryIO, parent: int) -> None:
        self._inward, self._outward, self._parent = inward, outward, parent
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._dropped: set[int] = set()
        self._models: dict[str, LoadedModel] = {}
        for watch in (self._listen, self._watch):
            threading.Thread(target=watch, daemon=True).start()

    def _listen(self) -> None:
        """Take messages in while a shard runs: that it is not wanted any more, or that there is nobody."""
        try:
            while True:
                head, tensors = messages.received(self._inward)
                if head["do"] == "cancel":
                    self._dropped.add(head["shard"])
                else:
                    self._inbox.put((head, tensors))
        finally:  # whatever it was: without the kernel there is nothing to do
            os._exit(0)

    def _watch(self) -> None:
        """End with the kernel where a process that it forked keeps the pipe open."""
        while os.getppid() == self._parent:
            time.sleep(_WATCH)
        os._exit(0)

    def say(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Answer."""
        messages.sent(self._outward, head, tensors)

    def serve(self) -> None:
        """Do what is asked, for as long as there is somebody who asks."""
        message = self._inbox.get()
        while True:
            if message[0]["do"] == "shard":
                message = self._shards(message)
                continue
            self._told(lambda message=message: self._model(*message))
            message = self._inbox.get()

    def _model(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Load a model, tell of its weights, or change them."""
        from interp.engine.pool import travel

        name = head["name"]
        if head["do"] == "digests":
            self.say({"is": "digests", "digests": travel.digests(self._models[name])})
            return
        if head["do"] == "load":
            held = self._models.pop(name, None)
            if held is not None:
                held.close()
            self._models[name] = travel.built(head["recipe"])
        else:
            travel.change(self._models[name], tensors)
        model = self._models[name]
        self.say({"is": "held", "fingerprint": model.fingerprint(), "device": str(model.device)})

    def _shards(self, first: Message) -> Message:
        """Do shards on the same models, for which these are looked at once; return the message that is none of them."""
        names = first[0]["models"]
        models = [self._models[name] for name in names]

        def run(message: Message) -> Message:
            while message[0]["do"] == "shard" and message[0]["models"] == names:
                self._told(lambda message=message: self._shard(*message, models))
                message = self._inbox.get()
            return message

        around: Callable[[], Message] = lambda: run(first)  # noqa: E731
        for model in dict.fromkeys(models):
            around = lambda model=model, inside=around: model.operate("pool", {}, lambda _: inside())  # noqa: E731
        return around()

    def _shard(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor], models: list[LoadedModel]) -> None:
        from interp.engine.pool.protocol import Cancelled, perform

        def step() -> None:
            if head["shard"] in self._dropped:
                raise Cancelled

        try:
            step()
            reply = perform(head["job"], head["head"], tensors, {}, models, step)
        except Cancelled:
            self.say({"is": "cancelled"})
            return
        self.say({"is": "done", "head": dict(reply.head)}, reply.tensors)

    def _told(self, body: Callable[[], None]) -> None:
        """Call `body`; an error goes to the kernel, in one line."""
        from interp.engine import memory
        from interp.engine.exactness import Unreadable
        from interp.errors import InputError, OutOfMemory

        try:
            body()
        except Unreadable as error:
            self.say({"is": "unreadable", "why": str(error)})
        except InputError as error:
            self.say({"is": "refused", "why": str(error)})
        except Exception as error:
            out = isinstance(error, OutOfMemory) or memory.is_out_of_memory(error)
            said = str(error) if isinstance(error, OutOfMemory) else f"{type(error).__name__}: {error}"
            self.say({"is": "memory" if out else "failed", "why": said})


def main() -> None:
    """Work until the kernel is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel's to hear
    # What a library prints must not get between the answers.
    outward = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = _Worker(sys.stdin.buffer, outward, os.getppid())
    import torch

    from interp.engine.model.operation import versions
    from interp.engine.pool import travel  # noqa: F401  # pyright: ignore[reportUnusedImport]

    torch.set_num_threads(1)
    worker.say({"is": "ready", "process": os.getpid(), "versions": dict(versions())})
    worker.serve()


if __name__ == "__main__":
    main()
