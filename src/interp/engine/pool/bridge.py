"""What talks to Ray for the kernel: a process of its own, since Ray ends the one that talks to it when its head dies.

It passes bytes on between the kernel's pipes and actors, and reads none of them. The kernel says ``start``, ``send``,
``drop``, ``kill``, ``put`` and ``free``; it answers ``up`` or ``refused``, then ``said`` and ``ended`` for each actor,
and ``gone`` when there is no Ray any more. It ends with the kernel, and Ray ends the actors that have no name with it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import queue
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, BinaryIO, cast

import psutil

from interp.engine.pool import messages
from interp.engine.pool.worker import watch

NAMESPACE = "interp"
_REACH = 5.0  # seconds in which a head must answer
_LOOK = 1.0  # seconds between looks whether it is there
_MISSED = 5  # looks at which it was not, until it is gone
_PATIENCE = 10.0  # seconds in which Ray must have ended


def _line(error: BaseException) -> str:
    """Return what an error of Ray's, which are long, says in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[-1] if "creation task" in lines[0] else lines[0])[:300]


def _reached(address: str) -> bool:
    """Whether something listens at ``host:port``."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), _REACH):
        return True
    return False


class _Bridge:
    """Ray's side, for the kernel at two pipes."""

    def __init__(self, asked: Mapping[str, Any], outward: BinaryIO) -> None:
        self._asked, self._outward = asked, outward
        self._ray: Any = importlib.import_module("ray")
        self._kernel = uuid.uuid4().hex
        self._words: queue.SimpleQueue[tuple[dict[str, Any], tuple[bytes, ...]]] = queue.SimpleQueue()
        self._actors: dict[int, Any] = {}
        self._held: dict[str, Any] = {}  # digest → what is in Ray's object store
        self._address: str = asked["address"]

    def connect(self) -> None:
        """Find or start Ray, and say what there is.

        Raises
        ------
        Exception
            Whatever Ray has against it.
        """
        ray = self._ray
        quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "namespace": NAMESPACE}
        if self._address:
            if not _reached(self._address):
                raise ConnectionError(f"nobody answers at {self._address}")
            ray.init(self._address, **quiet)
        else:
            ray.init(
                "local",
                num_cpus=self._asked["cpus"],
                include_dashboard=False,
                _temp_dir=self._asked["folder"],
                **quiet,
            )
            self._address = ray.get_runtime_context().gcs_address
        from interp.engine.pool.actor import Actor

        self._class = ray.remote(concurrency_groups={"beside": 1})(Actor)
        self._words.put(({"is": "up", "free": ray.available_resources(), "named": self._named()}, ()))
        for target in (self._write, self._look):
            threading.Thread(target=target, daemon=True).start()

    def _named(self) -> list[int]:
        """Return the numbers of the actors of the pool's name that are there."""
        name = self._asked["name"]
        names: list[str] = self._ray.util.list_named_actors() if name else []
        return sorted(int(one.rpartition(" ")[2]) for one in names if one.rpartition(" ")[0] == name)

    def _write(self) -> None:
        while True:
            head, parts = self._words.get()
            messages.write(self._outward, head, *parts)

    def _look(self) -> None:
        """Say, and end, when the head is gone, or there is no machine any more that actors could be on."""
        missed = 0
        while missed < _MISSED:
            time.sleep(_LOOK)
            try:
                there = _reached(self._address) and any(node["Alive"] for node in self._ray.nodes())
            except Exception:  # Ray's own, of many kinds
                there = False
            missed = 0 if there else missed + 1
        where = f"the one at {self._asked['address']}" if self._asked["address"] else "the one of this notebook"
        messages.write(self._outward, {"is": "gone", "why": f"Ray is gone, {where}"})
        for process in psutil.Process().children(recursive=True):  # what of it was started here
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os._exit(1)

    # -- what the kernel says ----------------------------------------------------------------------------------------

    def heard(self, head: Mapping[str, Any], parts: list[bytes]) -> None:
        """Do what the kernel says."""
        getattr(self, f"_do_{head['do']}")(head, parts)

    def _do_start(self, head: Mapping[str, Any], _: list[bytes]) -> None:
        seat, name = head["seat"], self._asked["name"]
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": self._asked["gpus"], "scheduling_strategy": "SPREAD"}
        if name:
            options |= {"name": f"{name} {seat}", "lifetime": "detached", "get_if_exists": True}
        actor = self._actors[seat] = self._class.options(**options).remote(trust=self._asked["trust"])
        actor.release.options(concurrency_group="beside").remote()
        self._told(seat, actor, actor.hello.remote(self._kernel))

    def _do_send(self, head: Mapping[str, Any], parts: list[bytes]) -> None:
        actor = self._actors[head["seat"]]
        body = self._held[head["body"]] if head.get("body") else parts[1]
        self._told(head["seat"], actor, actor.ask.remote(self._kernel, parts[0], body))

    def _do_put(self, head: Mapping[str, Any], parts: list[bytes]) -> None:
        self._held[head["digest"]] = self._ray.put(parts[0])

    def _do_free(self, head: Mapping[str, Any], _: list[bytes]) -> None:
        del self._held[head["digest"]]

    def _do_drop(self, head: Mapping[str, Any], _: list[bytes]) -> None:
        actor = self._actors[head["seat"]]
        actor.drop.options(concurrency_group="beside").remote(self._kernel, head["shard"])

    def _do_kill(self, head: Mapping[str, Any], _: list[bytes]) -> None:
        actor = self._actors.pop(head["seat"], None)
        if actor is not None:
            self._ray.kill(actor)

    def _told(self, seat: int, actor: Any, answer: Any) -> None:
        """Pass an answer on when it comes."""

        def said(future: Future[bytes]) -> None:
            if self._actors.get(seat) is not actor:
                return  # of one that was ended since
            error = future.exception()
            if error is None:
                self._words.put(({"is": "said", "seat": seat}, (future.result(),)))
            else:
                self._words.put(({"is": "ended", "seat": seat, "why": _line(error)}, ()))

        answer.future().add_done_callback(said)

    def end(self) -> None:
        """End Ray, where it is of this process; what has a name stays."""
        timer = threading.Timer(_PATIENCE, os._exit, (1,))
        timer.daemon = True
        timer.start()
        self._ray.shutdown()


def main() -> None:
    """Work until the kernel is gone."""
    # What a library prints must not get between the words.
    outward = cast("BinaryIO", os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    inward = sys.stdin.buffer
    asked, _ = messages.read(inward)
    try:
        bridge = _Bridge(asked, outward)
        bridge.connect()
    except Exception as error:  # Ray's own, of many kinds
        messages.write(outward, {"is": "refused", "why": _line(error)})
        os._exit(1)
    try:
        while True:
            bridge.heard(*messages.read(inward))
    except EOFError:
        bridge.end()
    finally:
        shutil.rmtree(asked["folder"], ignore_errors=True)
        os._exit(0)
