"""What every driver of a pool does: takes shards, gives futures, says who its workers are, and ends."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from interp.engine.pool import plain
from interp.engine.pool.alone import alone
from interp.errors import InputError, closest

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.travel import Travelling

# What a worker can be asked for; nothing else is ever called there.
JOBS = {
    "ablation": "interp.engine.patching.ablation_shards:ablated",
    "activations": "interp.engine.readouts.text_activations:shard",
    "between": "interp.methods._shared.heads.between:looked",
    "codes": "interp.engine.features.reading:shard",
    "command": "interp.interface.remote:ran",
    "control": "interp.methods._shared.claims.controls:made",
    "difference": "interp.engine.patching.difference:swapped",
    "edges": "interp.engine.circuits.shards:edges",
    "estimate": "interp.engine.patching.attribution_shards:attributed",
    "filling": "interp.engine.patching.ablation_shards:filled",
    "gradients": "interp.engine.circuits.shards:gradients",
    "harvest": "interp.engine.features.activations:shard",
    "heads": "interp.methods._shared.heads.scores:scored",
    "interchange": "interp.engine.interchange.shards:answered",
    "lens": "interp.engine.readouts.lens_training:shard",
    "neurons": "interp.engine.readouts.neuron_texts:shard",
    "plain": "interp.engine.interchange.shards:unpatched",
    "relations": "interp.methods._shared.heads.relations:looked",
    "roles": "interp.methods._shared.heads.flow:staged",
    "selfcheck": "interp.methods.checks.selfcheck:scored",
    "subsets": "interp.engine.circuits.shards:subsets",
    "sweep": "interp.engine.patching.shards:swept",
}

Step = Callable[[], None]


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
        What of it is no plain data.
    assets
        By digest: what several shards need, and a worker keeps.
    """

    job: str
    head: Mapping[str, Any]
    models: tuple[Travelling, ...]
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    assets: Mapping[str, Any] = field(default_factory=dict[str, Any])


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
    processor
        What it computes on.
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
    processor: str = ""
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
    trust
        Whether workers run functions of the user's.
    """

    name: str
    local: bool
    lasting: bool
    trust: bool

    def submit(self, task: Task, processor: str = "") -> Future[Reply]:
        """Take a shard; where a `processor` is named, for a worker that has it."""
        ...

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        """Yield futures as they end, in whatever order.

        Futures are drawn as others end: an iterable that submits shards as it is drawn from has few of them waiting.
        """
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
    assets: Mapping[str, Any],
    models: Sequence[LoadedModel],
    step: Step,
) -> Reply:
    """Do a shard's work on models that are here.

    Parameters
    ----------
    head, tensors, assets
        Of the task.
    step
        Called between steps; what it raises ends the work.

    Raises
    ------
    InputError
        There is no such job.
    """
    if job not in JOBS:
        raise InputError(f"{job!r:.40} is no job of workers{closest(job, JOBS)}")
    module, _, name = JOBS[job].partition(":")
    function = getattr(importlib.import_module(module), name)
    asked = plain.whole(head["asked"], tensors, assets)
    changes = plain.whole(head["changes"], tensors, assets)
    given = [models[number] for number in head["models"]]
    done = alone(given, head["way"], changes, step, lambda: function(given, step, **asked))
    found: dict[str, Tensor] = {}
    value = plain.flat(done.answer, found)
    return Reply({"value": value, "forwards": done.forwards, "notes": done.notes}, found)
