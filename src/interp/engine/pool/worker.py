"""What a worker does, however it is asked; and a worker process, which the kernel starts and talks to by two pipes.

``python -m interp.engine.pool.worker`` ends when the kernel does, however that happens: the pipe that it reads from
ends, or it has another parent.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from interp.engine.pool import checked, messages

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.messages import Message

_WATCH = 1.0  # seconds between looks at the parent


class Loop:
    """What a worker holds, and the messages that it answers one after the other, each once.

    Parameters
    ----------
    say
        Sends an answer: plain data and tensors.
    """

    def __init__(self, say: Callable[[Mapping[str, Any], Mapping[str, Tensor]], None]) -> None:
        self._say = say
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._dropped: set[int] = set()
        self._at: int | None = None  # the shard that runs
        self._models: dict[str, LoadedModel] = {}
        self._known: dict[str, dict[str, Any]] = {}  # of each model, what it was loaded by, and its fingerprints
        self._assets: dict[str, tuple[Any, int]] = {}  # digest → what it is, and its bytes
        self._doing: dict[str, Callable[[Mapping[str, Any], Mapping[str, Tensor]], Message]] = {
            "load": self._load,
            "digests": self._digests,
            "change": self._change,
            "asset": self._asset,
            "forget": self._forget,
            "refuse": self._refuse,
        }

    def ask(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take a message, which is answered in its turn; one that a worker does not know is refused."""
        try:
            checked.kind(head, "do", checked.REQUESTS)
        except ValueError as error:
            head = {"do": "refuse", "number": head.get("number"), "why": f"a worker does not know that: {error}"}
        self._inbox.put((dict(head), dict(tensors)))

    def drop(self, shard: int) -> None:
        """Let go of a shard, which ends at its next step."""
        self._dropped.add(shard)

    def release(self) -> None:
        """Let go of the shard that runs: who asked for it is gone."""
        if (shard := self._at) is not None:
            self.drop(shard)

    def holds(self) -> dict[str, Any]:
        """Return what it has, for one who asks for the first time."""
        self._dropped.clear()
        return {"models": self._known, "assets": {digest: size for digest, (_, size) in self._assets.items()}}

    def serve(self) -> None:
        """Do what is asked, for as long as there is somebody who asks."""
        message = self._inbox.get()
        while True:
            if message[0]["do"] == "shard":
                message = self._shards(message)
                continue
            self._told(message, lambda message=message: self._done(*message))
            message = self._inbox.get()

    # -- what is asked beside shards ---------------------------------------------------------------------------------

    def _done(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Message:
        return self._doing[head["do"]](head, tensors)

    def _refuse(self, head: Mapping[str, Any], _: Mapping[str, Tensor]) -> Message:
        return {"is": "refused", "why": head["why"]}, {}

    def _model(self, name: str) -> LoadedModel:
        from interp.errors import InputError

        if name not in self._models:
            raise InputError(f"this worker holds no model {name!r}")
        return self._models[name]

    def _load(self, head: Mapping[str, Any], _: Mapping[str, Tensor]) -> Message:
        from interp.engine.pool import travel

        name = head["name"]
        held = self._models.pop(name, None)
        self._known.pop(name, None)
        if held is not None:
            held.close()
        model = self._models[name] = travel.built(head["recipe"])
        found = model.fingerprint()
        self._known[name] = {"recipe": head["recipe"], "loaded": found, "fingerprint": found}
        return self._held(name)

    def _digests(self, head: Mapping[str, Any], _: Mapping[str, Tensor]) -> Message:
        from interp.engine.pool import travel

        return {"is": "digests", "digests": travel.digests(self._model(head["name"]))}, {}

    def _change(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Message:
        from interp.engine.pool import travel

        name = head["name"]
        travel.change(self._model(name), tensors)
        self._known[name]["fingerprint"] = self._models[name].fingerprint()
        return self._held(name)

    def _held(self, name: str) -> Message:
        return {"is": "held", "fingerprint": self._known[name]["fingerprint"]}, {}

    def _asset(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Message:
        from interp.engine.pool import plain

        size = sum(tensor.nbytes for tensor in tensors.values())
        self._assets[head["digest"]] = plain.whole(head["value"], tensors), size
        return {"is": "kept"}, {}

    def _forget(self, head: Mapping[str, Any], _: Mapping[str, Tensor]) -> Message:
        for digest in head["digests"]:
            self._assets.pop(digest, None)
        return {"is": "forgotten"}, {}

    # -- shards ------------------------------------------------------------------------------------------------------

    def _shards(self, first: Message) -> Message:
        """Do shards on the same models, for which these are looked at once; return the message that is none of them."""
        names = first[0]["models"]
        if unknown := next((name for name in names if name not in self._models), None):
            self._told(first, lambda: self._model(unknown) and ({}, {}))
            return self._inbox.get()
        models = [self._models[name] for name in names]

        def run(message: Message) -> Message:
            while message[0]["do"] == "shard" and message[0]["models"] == names:
                self._told(message, lambda message=message: self._shard(*message, models))
                message = self._inbox.get()
            return message

        around: Callable[[], Message] = lambda: run(first)  # noqa: E731
        for model in dict.fromkeys(models):
            around = lambda model=model, inside=around: model.operate("pool", {}, lambda _: inside())  # noqa: E731
        return around()

    def _shard(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor], models: list[LoadedModel]) -> Message:
        from interp.engine.pool.protocol import Cancelled, perform

        number = head["shard"]

        def step() -> None:
            if number in self._dropped:
                raise Cancelled

        self._at = number
        try:
            step()
            assets = {digest: self._assets[digest][0] for digest in head["assets"]}
            reply = perform(head["job"], head["head"], tensors, assets, models, step)
        except Cancelled:
            return {"is": "cancelled"}, {}
        finally:
            self._at = None
            self._dropped.discard(number)
        return {"is": "done", "head": dict(reply.head)}, dict(reply.tensors)

    def _told(self, message: Message, body: Callable[[], Message]) -> None:
        """Send what `body` returns, or in one line what it raises, with the number of the message that it answers."""
        from interp.engine import memory
        from interp.engine.exactness import Unreadable
        from interp.errors import InputError, OutOfMemory

        tensors: Mapping[str, Tensor] = {}
        try:
            found, tensors = body()
        except Unreadable as error:
            found = {"is": "unreadable", "why": str(error)}
        except InputError as error:
            found = {"is": "refused", "why": str(error)}
        except Exception as error:
            out = isinstance(error, OutOfMemory) or memory.is_out_of_memory(error)
            said = str(error) if isinstance(error, OutOfMemory) else f"{type(error).__name__}: {error}"
            found = {"is": "memory" if out else "failed", "why": said}
        self._say({"to": message[0].get("number"), **found}, tensors)


def greeting(*, trusted: bool = False) -> dict[str, Any]:
    """Make this process ready for shards, of one thread each, and return a worker's first word.

    Parameters
    ----------
    trusted
        Whether it runs functions that it is sent.
    """
    import torch

    from interp.engine.model.operation import versions
    from interp.engine.pool import (
        code,
        processors,
        travel,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    )

    torch.set_num_threads(1)
    if trusted:
        code.trust()
    return {
        "is": "ready",
        "process": os.getpid(),
        "versions": dict(versions()),
        "processor": processors.here(),
    }


def _listen(loop: Loop, inward: BinaryIO) -> None:
    """Take messages in while a shard runs: that it is not wanted any more, or that there is nobody."""
    try:
        while True:
            head, tensors = messages.received(inward)
            if head.get("do") == "drop":
                loop.drop(head.get("shard", -1))
            else:
                loop.ask(head, tensors)
    finally:  # whatever it was: without the kernel there is nothing to do
        os._exit(0)


def watch(parent: int) -> None:
    """End with the kernel where a process that it forked keeps the pipe open."""
    while os.getppid() == parent:
        time.sleep(_WATCH)
    os._exit(0)


def main() -> None:
    """Work until the kernel is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel's to hear
    # What a library prints must not get between the answers.
    outward = cast("BinaryIO", os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    loop = Loop(lambda head, tensors: messages.sent(outward, head, tensors))
    for target, given in ((_listen, (loop, sys.stdin.buffer)), (watch, (os.getppid(),))):
        threading.Thread(target=target, args=given, daemon=True).start()
    messages.sent(outward, greeting(trusted="trust" in sys.argv[1:]))
    loop.serve()


if __name__ == "__main__":
    main()
