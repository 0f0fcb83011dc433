"""What every driver of a pool does: takes shards, gives futures, says who its workers are, and ends."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from interp.errors import InputError, closest

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.travel import Travelling

# What a worker can be asked for; nothing else is ever called there.
JOBS = {"sweep": "interp.engine.patching.shards:run"}

Step = Callable[[], None]


@dataclass(frozen=True)
class Asset:
    """What several shards need, such as a dictionary of features: a worker is sent it once.

    Attributes
    ----------
    head
        Plain data.
    tensors
        Arrays.
    """

    head: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """What its arrays take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class Task:
    """One shard: pure and idempotent, so that it may run anywhere, and again.

    Attributes
    ----------
    job
        A name in `JOBS`.
    head
        What is asked, as plain data.
    models
        The models that it runs on.
    tensors
        Arrays that go with this shard.
    assets
        Digest → what other shards need, too.
    """

    job: str
    head: Mapping[str, Any]
    models: tuple[Travelling, ...]
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    assets: Mapping[str, Asset] = field(default_factory=dict[str, Asset])


@dataclass(frozen=True)
class Reply:
    """What a shard gave.

    Attributes
    ----------
    head, tensors
        Plain data, and arrays.
    lost
        The workers that ended while they had it.
    overtaken
        The workers that were still at it when another one, which had nothing else to do, was through.
    """

    head: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    lost: tuple[str, ...] = ()
    overtaken: tuple[str, ...] = ()


@dataclass
class Worker:
    """What is known of one worker.

    Attributes
    ----------
    name
        What it is called in tables and messages.
    state
        ``"starting"``, ``"ready"``, ``"busy"``, or why it takes nothing any more.
    process
        Its process' number.
    device
        Where its models are.
    shards
        How many it has done.
    overtaken
        At how many another worker was through first.
    held
        Name → fingerprint of the models that it holds.
    nbytes
        Bytes of what went to it and came back.
    seen
        When it last said something, by `time.monotonic`.
    """

    name: str
    state: str = "starting"
    process: int = 0
    device: str = ""
    shards: int = 0
    overtaken: int = 0
    held: dict[str, str] = field(default_factory=dict[str, str])
    nbytes: int = 0
    seen: float = 0.0

    @property
    def there(self) -> bool:
        """Whether it takes shards, now or when it has started."""
        return self.state in ("starting", "ready", "busy")


class WorkerLost(InputError):
    """Shards have no worker any more that could take them."""


class Cancelled(KeyboardInterrupt):
    """A shard that nobody wants any more, in the worker that runs it."""


class Pool(Protocol):
    """Where shards run.

    Attributes
    ----------
    name
        What results and tables call it, such as ``"2 processes"``.
    local
        Whether shards run in this process, on the user's own model.
    lasting
        Whether workers go on after `close`, with what they hold, for a kernel that comes back.
    """

    name: str
    local: bool
    lasting: bool

    def submit(self, task: Task) -> Future[Reply]:
        """Take a shard."""
        ...

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        """Yield futures as they end, in whatever order."""
        ...

    def cancel(self, futures: Iterable[Future[Reply]]) -> None:
        """Let go of shards: those that wait never run, those that run stop at their next step."""
        ...

    def workers(self) -> Sequence[Worker]:
        """Return what is known of each worker."""
        ...

    def close(self) -> None:
        """End; no process is left when this returns, but for workers that last."""
        ...


def perform(
    job: str,
    head: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    assets: Mapping[str, Asset],
    models: Sequence[LoadedModel],
    step: Step,
) -> Reply:
    """Do a shard's work on models that are here.

    Parameters
    ----------
    job, head, tensors, assets
        As in `Task`; the job's function is called with these, `models` and `step`.
    step
        Called between steps; what it raises ends the work.

    Raises
    ------
    InputError
        There is no such job.
    """
    if job not in JOBS:
        raise InputError(f"{job!r:.40} is no job of workers{closest(job, JOBS)}")
    module, _, function = JOBS[job].partition(":")
    return Reply(*getattr(importlib.import_module(module), function)(head, tensors, assets, models, step))
