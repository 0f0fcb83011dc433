"""A pool of worker processes on this machine, of one thread each, which talk by pipes: nothing listens anywhere."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from torch import Tensor

import interp
from interp.engine.pool import messages
from interp.engine.pool.messages import Message
from interp.engine.pool.scheduling import Scheduler
from interp.engine.pool.seat import Seat

_WAIT = 1.0  # seconds until a shard that is not wanted is left to its worker
_PATIENCE = 5.0  # seconds until a worker that was told to end is ended


class _Process(Seat):
    """A worker process and its two pipes."""

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, name: str, *, trust: bool) -> None:
        super().__init__(name)
        self._trust = trust
        self._writing = threading.Lock()
        self._errors: Any = None

    def start(self) -> None:
        """Start its process."""
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
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "interp.engine.pool.worker", *(["trust"] if self._trust else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C in a terminal is for the kernel
        )
        self.worker.process = self.process.pid

    def send(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write to its pipe."""
        assert self.process is not None
        assert self.process.stdin is not None
        with self._writing:
            messages.sent(cast("BinaryIO", self.process.stdin), head, tensors)

    def receive(self) -> Message:
        """Read from its pipe."""
        assert self.process is not None
        assert self.process.stdout is not None
        return messages.received(cast("BinaryIO", self.process.stdout))

    def drop(self, shard: int) -> None:
        """Write that to its pipe, which it reads while it works."""
        # Where something large is on its way for long, or to a worker that does not read, it does the shard in vain.
        if self.process is None or not self._writing.acquire(timeout=_WAIT):
            return
        try:
            with contextlib.suppress(OSError, ValueError):  # it is gone, and the shard with it
                messages.sent(cast("BinaryIO", self.process.stdin), {"do": "drop", "shard": shard})
        finally:
            self._writing.release()

    def end(self) -> str:
        """End its process, and return its last words."""
        process = self.process
        assert process is not None
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

    def kill(self) -> None:
        """Kill its process."""
        process = self.process
        if process is not None and process.poll() is None:
            process.kill()


class Processes(Scheduler):
    """See `interp.engine.pool.protocol.Pool`.

    Parameters
    ----------
    count
        How many worker processes.
    trust
        Whether they run functions of the user's.
    """

    def __init__(self, count: int, *, trust: bool = False) -> None:
        self.trust = trust
        names = [f"worker {number}" for number in range(1, count + 1)]
        super().__init__(
            f"{count} process{'' if count == 1 else 'es'}", [_Process(name, trust=trust) for name in names]
        )
