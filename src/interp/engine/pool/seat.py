"""One worker of a pool: what it is asked before a shard and after, and what a driver adds to that."""

from __future__ import annotations

import itertools
import json
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, cast

from torch import Tensor

from interp.engine import exactness
from interp.engine.model.operation import versions
from interp.engine.pool import checked, plain, travel
from interp.engine.pool.messages import Garbled, Message
from interp.engine.pool.protocol import Reply, Task, Worker
from interp.engine.pool.travel import Travelling
from interp.errors import InputError, OutOfMemory

_ASSETS = 1 << 30  # bytes of assets that a worker keeps


class Ejected(Exception):
    """A worker that is not asked for anything any more; the message is its state from then on."""


class Entry:
    """A shard on its way."""

    def __init__(self, number: int, task: Task, processor: str = "") -> None:
        self.number, self.task, self.processor = number, task, processor
        self.future: Future[Reply] = Future()
        self.lost: list[str] = []
        self.began: dict[Seat, float] = {}  # who is at it, and since when


class Seat(ABC):
    """One worker, and what is known of it. The thread that feeds it calls all but `drop` and `kill`."""

    def __init__(self, name: str) -> None:
        self.worker = Worker(name)
        self.up = False
        self._numbers = itertools.count()
        self._recipes: dict[str, tuple[dict[str, Any], str]] = {}  # what its models were loaded by
        self._assets: OrderedDict[str, int] = OrderedDict()  # digest → bytes, the longest unused first

    # -- a driver's --------------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Start it; `receive` gives its first word."""

    @abstractmethod
    def send(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Send it a message."""

    @abstractmethod
    def receive(self) -> Message:
        """Wait for its next word.

        Raises
        ------
        EOFError, OSError
            It has ended.
        """

    @abstractmethod
    def drop(self, shard: int) -> None:
        """Tell it, while it works, that a shard is not wanted any more; it may be gone."""

    @abstractmethod
    def end(self) -> str:
        """Let it end, and return its last words; it may have ended."""

    @abstractmethod
    def kill(self) -> None:
        """End it whatever it does, so that `receive` raises; it may have ended."""

    # -- what all have -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start it, with nothing."""
        self.worker.state, self.worker.held = "starting", {}
        self._recipes.clear()
        self._assets.clear()
        self.start()
        self.up = True

    def greeted(self) -> None:
        """Wait for its first word, and eject it where its libraries are others."""
        head, _ = self._heard("ready")
        here, there = versions(), cast("dict[str, str]", head["versions"])
        if other := next((name for name in here if there.get(name) != here[name]), None):
            raise Ejected(f"is refused: it has {other} {there.get(other)}, the kernel {here[other]}")
        holds: Mapping[str, Any] = head.get("holds", {"models": {}, "assets": {}})
        for name, known in holds["models"].items():
            self._recipes[name] = known["recipe"], known["loaded"]
            self.worker.held[name] = known["fingerprint"]
        self._assets.update(holds["assets"])
        self.worker.process = head["process"]
        self.worker.processor = head["processor"]
        self.worker.state = "ready"

    def say(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send a message."""
        self.send(head, tensors or {})
        self.worker.nbytes += sum(tensor.nbytes for tensor in (tensors or {}).values())

    def _heard(self, *wanted: str, to: int | None = None) -> Message:
        """Wait for a word of the kinds that are `wanted`, or why there is none; what answers others is dropped."""
        head, tensors = self.receive()
        while head.get("to") != to:
            head, tensors = self.receive()
        try:
            found = checked.kind(head, "is", checked.ANSWERS)
        except ValueError as error:
            raise Garbled(f"sent an answer that is none: {error}") from error
        if found not in wanted and "why" not in head:
            raise Garbled(f"answered {found!r} where {' or '.join(wanted)} was to come")
        self.worker.seen = time.monotonic()
        self.worker.nbytes += sum(tensor.nbytes for tensor in tensors.values())
        return head, tensors

    def asked(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Message:
        """Send a message and return its answer; one to an earlier message, which comes late or again, is dropped.

        Raises
        ------
        InputError, OutOfMemory, exactness.Unreadable
            What the worker says that it was.
        """
        number = next(self._numbers)
        self.say({**head, "number": number}, tensors)
        found, more = self._heard(*checked.FOLLOWING[head["do"]], to=number)
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
        Ejected
            What it was loaded from is another one there.
        """
        held = self.worker.held
        self.worker.device = str(model.model.device)
        if held.get(model.name) == model.fingerprint:
            return
        recipe = (json.loads(json.dumps(model.recipe)), model.loaded)
        held.pop(model.name, None)
        if self._recipes.get(model.name) != recipe:
            self._recipes.pop(model.name, None)
            try:
                answer, _ = self.asked({"do": "load", "name": model.name, "recipe": recipe[0]})
            except InputError as error:
                raise Ejected(f"is refused: it cannot load {model.name}: {error}") from None
            found = answer["fingerprint"]
            if model.loaded and found != model.loaded:
                raise Ejected(
                    f"is refused: its {model.name} is another one (fingerprint {found[:8]} instead of "
                    f"{model.loaded[:8]}): the files were changed, or are read otherwise there"
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
        held[model.name] = model.fingerprint

    def keep(self, assets: Mapping[str, Any]) -> None:
        """See to it that the worker has what a shard needs, and room for it: what was unused longest goes."""
        known = self._assets
        for digest in assets:
            if digest in known:
                known.move_to_end(digest)
        for digest in [digest for digest in assets if digest not in known]:
            tensors: dict[str, Tensor] = {}
            value = plain.flat(assets[digest], tensors)
            size = sum(tensor.nbytes for tensor in tensors.values())
            gone: list[str] = []
            while sum(known.values()) + size > _ASSETS and (first := next(iter(known), "")) not in assets:
                if not first:
                    break
                gone.append(first)
                del known[first]
            if gone:
                self.asked({"do": "forget", "digests": gone})
            self.asked({"do": "asset", "digest": digest, "value": value}, tensors)
            known[digest] = size

    def run(self, entry: Entry) -> Reply | None:
        """Return what a shard gave; nothing where it is not wanted any more."""
        task = entry.task
        for model in task.models:
            self.hold(model)
        self.keep(task.assets)
        if entry.future.done():
            return None
        asked = {
            "do": "shard",
            "shard": entry.number,
            "job": task.job,
            "head": dict(task.head),
            "models": [model.name for model in task.models],
            "assets": list(task.assets),
        }
        head, tensors = self.asked(asked, task.tensors)
        return None if head["is"] == "cancelled" else Reply(head["head"], tensors)
