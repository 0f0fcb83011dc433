"""A pool of Ray actors: on this machine, or on those of a cluster whose address is the user's.

The kernel itself never talks to Ray, which ends a process that does when its head dies: `bridge` does, in its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import xxhash
from torch import Tensor

import interp
from interp.engine.pool import messages
from interp.engine.pool.messages import Message
from interp.engine.pool.scheduling import Scheduler
from interp.engine.pool.seat import Ejected, Seat
from interp.errors import InputError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATIENCE = 15.0  # seconds until a bridge that was told to end is ended
_STARTS = 3
_LARGE = 1 << 20  # bytes from which on a message's arrays go to Ray's object store, once for all workers
_HELD = 2 << 30  # bytes that are kept there


def require() -> None:
    """See to it that Ray is there.

    Raises
    ------
    InputError
        It is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("workers on Ray need Ray; type pip install 'interp[ray]'")


class _Bridge:
    """The process that talks to Ray, and the thread that hands out what it says."""

    def __init__(self, address: str, cpus: int, gpus: float, name: str, trust: bool) -> None:
        # A socket's path may have 107 letters, of which Ray needs some 65.
        base = tempfile.gettempdir()
        self.folder = tempfile.mkdtemp(prefix="interp-", dir=base if len(base) < 24 else "/tmp")
        ours = str(Path(interp.__file__).parents[1])
        paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
        if (
            address.removeprefix("ray://").partition(":")[0] in _LOOPBACK
        ):  # else Ray asks at another interface's address
            environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if not address:  # what is started here is this notebook's alone
            environment |= {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's only way to stay on the loopback interface
                "RAY_worker_register_timeout_seconds": "300",  # on a busy machine
                "HF_HUB_OFFLINE": "1",  # the kernel has fetched what there is to fetch
            }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # read when it has ended
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from interp.engine.pool.bridge import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            cwd=self.folder,  # Ray lets workers import from where it is started
            start_new_session=True,  # Ctrl-C in a terminal is for the kernel
        )
        self._writing = threading.Lock()
        self._stored: OrderedDict[str, int] = OrderedDict()  # digest → bytes, the longest unused first
        self.words: dict[int, queue.SimpleQueue[bytes | None]] = {}
        self.last: dict[int, str] = {}  # what became of a worker
        self.gone = ""
        asked = {"address": address, "cpus": cpus, "gpus": gpus, "name": name, "folder": self.folder, "trust": trust}
        self.say(asked)

    def first(self) -> dict[str, Any]:
        """Wait for its first word: which resources are free, and the numbers of workers that have the pool's name.

        Raises
        ------
        InputError
            There is no Ray to talk to.
        """
        try:
            head, _ = messages.read(cast("BinaryIO", self.process.stdout))
        except EOFError:
            head = {"is": "refused", "why": self._last_words()}
        if head["is"] == "refused":
            self.close()
            raise InputError(f"Ray cannot be used: {head['why']}")
        return head

    def listen(self) -> None:
        """Hand out what it says from now on."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                head, parts = messages.read(cast("BinaryIO", self.process.stdout))
                if head["is"] == "gone":
                    self.gone = head["why"]
                elif head["is"] == "said":
                    self.words[head["seat"]].put(parts[0])
                else:
                    self.last[head["seat"]] = head["why"]
                    self.words[head["seat"]].put(None)
        except (EOFError, OSError, ValueError):
            self.gone = self.gone or "what talked to Ray has ended"
            for words in list(self.words.values()):
                words.put(None)

    def say(self, head: Mapping[str, Any], *parts: bytes) -> None:
        """Tell it something.

        Raises
        ------
        OSError
            It has ended.
        """
        with self._writing:
            try:
                messages.write(cast("BinaryIO", self.process.stdin), head, *parts)
            except ValueError as error:  # the pipe was closed
                raise OSError(str(error)) from None

    def send(self, seat: int, head: bytes, body: bytes) -> None:
        """Send a worker a message; large arrays that several get go to Ray once."""
        if len(body) < _LARGE:
            self.say({"do": "send", "seat": seat}, head, body)
            return
        digest = xxhash.xxh3_128_hexdigest(body)
        with self._writing:
            stdin, stored = cast("BinaryIO", self.process.stdin), self._stored
            if digest in stored:
                stored.move_to_end(digest)
            else:
                while stored and sum(stored.values()) + len(body) > _HELD:
                    messages.write(stdin, {"do": "free", "digest": stored.popitem(last=False)[0]})
                messages.write(stdin, {"do": "put", "digest": digest}, body)
                stored[digest] = len(body)
            messages.write(stdin, {"do": "send", "seat": seat, "body": digest}, head)

    def close(self) -> None:
        """End it, and with it what it started."""
        with contextlib.suppress(OSError):
            cast("BinaryIO", self.process.stdin).close()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        cast("BinaryIO", self.process.stdout).close()
        self._errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _last_words(self) -> str:
        self.process.wait(_PATIENCE)
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it ended at once"


class _Actor(Seat):
    """A worker in a Ray actor."""

    def __init__(self, name: str, number: int, bridge: _Bridge, *, lasting: bool) -> None:
        super().__init__(name)
        self.lasting = lasting
        self._number, self._bridge = number, bridge
        self._words = queue.SimpleQueue[bytes | None]()

    def start(self) -> None:
        """Have its actor started, or found by its name."""
        self._words = self._bridge.words[self._number] = queue.SimpleQueue[bytes | None]()
        self._telling(lambda: self._bridge.say({"do": "start", "seat": self._number}))

    def _telling(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except OSError as error:
            raise Ejected(f"ended: {self._bridge.gone or error}") from None

    def send(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Have its actor asked."""
        plain, body = messages.packed(head, {}), messages.packed({}, tensors) if tensors else b""
        self._telling(lambda: self._bridge.send(self._number, plain, body))

    def receive(self) -> Message:
        """Wait for what its actor answers."""
        data = self._words.get()
        if data is None and self._bridge.gone:
            raise Ejected(f"ended: {self._bridge.gone}")
        if data is None:
            raise EOFError
        head, tensors = messages.unpacked(data)
        if head.get("is") == "taken":
            raise Ejected("ended: another notebook has connected to it")
        return head, tensors

    def drop(self, shard: int) -> None:
        """Have its actor told, beside what it does."""
        with contextlib.suppress(OSError):  # it is gone, and the shard with it
            self._bridge.say({"do": "drop", "seat": self._number, "shard": shard})

    def end(self) -> str:
        """End its actor, unless it lasts."""
        if not self.lasting:
            with contextlib.suppress(OSError):
                self._bridge.say({"do": "kill", "seat": self._number})
        return self._bridge.last.pop(self._number, "")

    def kill(self) -> None:
        """Let `receive` end, and its actor, unless it lasts."""
        self.end()
        self._words.put(None)


class Ray(Scheduler):
    """See `interp.engine.pool.protocol.Pool`.

    Parameters
    ----------
    address
        Of a cluster, ``"ray://host:port"`` or ``"host:port"``; where it is empty, Ray is started on this machine.
    count
        How many workers; as many as there is room for, or are there by the name, when not given.
    gpus
        What part of a GPU each one has.
    name
        Workers of this name go on when the pool is closed, unless `lasting` is set to ``False`` before, and are found
        again by it.

    Raises
    ------
    InputError
        Ray is not installed, nobody answers at the address, or there is no room for so many workers.
    """

    def __init__(
        self, address: str = "", count: int | None = None, *, gpus: float = 0.0, name: str = "", trust: bool = False
    ) -> None:
        require()
        self._bridge, found = _connected(address, count or os.cpu_count() or 1, gpus, name, trust)
        try:
            numbers = _numbers(found, count, gpus, address)
        except BaseException:
            self._bridge.close()
            raise
        seats = [_Actor(f"worker {number}", number, self._bridge, lasting=bool(name)) for number in numbers]
        self._bridge.listen()
        called = f"{len(seats)} Ray worker{'' if len(seats) == 1 else 's'}"
        super().__init__(f"{called} at {address}" if address else called, seats)
        self.lasting, self.trust = bool(name), trust

    def close(self) -> None:
        """End all workers, or leave them where they last, and what was started here with them."""
        for seat in self._seats:
            cast("_Actor", seat).lasting = self.lasting
        super().close()
        self._bridge.close()


def _connected(address: str, cpus: int, gpus: float, name: str, trust: bool) -> tuple[_Bridge, Mapping[str, Any]]:
    """Return a bridge, and what Ray has; on a busy machine a start can take longer than Ray gives itself."""
    tries = 1 if address else _STARTS
    while True:
        bridge = _Bridge(address, cpus, gpus, name, trust)
        try:
            return bridge, bridge.first()
        except InputError as error:
            tries -= 1
            if not tries or "timed out during startup" not in str(error):
                raise
        except BaseException:
            bridge.close()
            raise


def _numbers(found: Mapping[str, Any], count: int | None, gpus: float, address: str) -> list[int]:
    """Return the numbers of the workers: those that are there by the name, and new ones where there is room."""
    there: list[int] = found["named"]
    free: Mapping[str, float] = found["free"]
    room = int(free.get("CPU", 0))
    if gpus:
        room = min(room, int(free.get("GPU", 0) / gpus))
    wanted = count or len(there) or room
    if not 0 < wanted <= len(there) + room:
        each = f"a CPU and {gpus:g} of a GPU" if gpus else "a CPU"
        where = f" at {address}" if address else ""
        raise InputError(
            f"there is room for {len(there) + room} workers{where}, which take {each} each, not for {count or 'any'}"
        )
    new = (number for number in range(1, wanted + len(there) + 1) if number not in there)
    return [*there, *new][:wanted]
