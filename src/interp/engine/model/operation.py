"""One command's work on a model: the lock, the record from which provenance is written, and memory that runs out."""

from __future__ import annotations

import importlib.metadata
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.engine import memory
from interp.engine.model import hooks
from interp.engine.model.handle import Handle
from interp.engine.model.meter import Meter
from interp.engine.model.store import ActivationStore
from interp.engine.model.tokens import Tokens
from interp.errors import InputError, Interrupted, OutOfMemory
from interp.results import Costs, Own, Provenance, Result
from interp.results.provenance import as_run
from interp.spec import Intervention

if TYPE_CHECKING:
    from interp.engine.pool.protocol import Pool

AnyResult = TypeVar("AnyResult", bound=Result)
Value = TypeVar("Value")


@dataclass
class Operation:
    """One command's work on a model, from which its provenance is written."""

    technique: str
    arguments: Mapping[str, Any]
    fingerprint: str
    user_hooks: tuple[str, ...]
    random: bool = False
    started: float = field(default_factory=time.perf_counter)
    read: int = 0
    forwards: int = 0
    tokens: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    notes: list[str] = field(default_factory=list[str])
    taken: dict[tuple[str, str, int], None] = field(default_factory=dict[tuple[str, str, int], None])
    features: dict[str, str] = field(default_factory=dict[str, str])  # sets that were read: name → digest
    path: str = "store"
    tokenizer: Tokens | None = None
    on_step: Callable[[int, int, str], None] = lambda done, total, said: None  # noqa: ARG005
    on_forward: Callable[[int, str], None] = lambda count, said: None  # noqa: ARG005
    on_partial: Callable[[Callable[[], Result]], None] | None = None
    worked: float = field(default_factory=time.process_time)  # seconds of this process, when it began
    dry: bool = False  # ends where its work would begin
    forecast: Costs | None = None
    meter: Meter | None = None
    network: Any = None  # the model as plain functions, once it has been read
    interventions: tuple[Intervention, ...] = ()  # on every run of the command's
    pool: Pool | None = None  # where its shards run; in this process, not cut into any, where there is none
    functions: dict[int, Mapping[str, hooks.Hook]] = field(default_factory=dict[int, "Mapping[str, hooks.Hook]"])

    @property
    def altered(self) -> str:
        """Why a run is not the model's plain one, so that nothing of it is stored; an empty string where it is."""
        if self.user_hooks:
            return "hooks of the user's own"
        return "interventions" if self.interventions else ""


class Operated(Handle):
    """A bridge on which one command works at a time; the base of `LoadedModel`, which documents the attributes."""

    store: ActivationStore

    def __init__(self, name: str, bridge: TransformerBridge) -> None:
        super().__init__(name, bridge)
        self.doubt = ""
        self.lock = threading.RLock()
        self.forwards = 0
        self._operation: Operation | None = None

    def operate(self, technique: str, arguments: Mapping[str, Any], body: Callable[[Operation], Value]) -> Value:
        """Call `body` under the lock with the record of one command; within another command, with that one's.

        A function rather than a context manager: an interrupt between a generator's ``yield`` and the ``with`` block
        would leave the lock taken and the record open.

        Raises
        ------
        OutOfMemory
            Memory ran out; no frame of ours keeps a tensor alive, and the model is as it was.
        """
        failure = ""
        with self.lock:
            if self._operation is not None:
                return body(self._operation)
            try:
                recording = torch.is_grad_enabled()
                return hooks.interruptible(
                    lambda: self._begun(technique, arguments, body), after=lambda: self._ended(recording)
                )
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, OutOfMemory) or not memory.is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)
                memory.empty_cache(self.device)
                failure = (
                    f"out of memory in {technique}: {memory.readable(memory.free_bytes(self.device))} is free on "
                    f"{self.device}; use a shorter prompt or fewer layers, or free some with %interp clear"
                )
        # Raised outside the except block, so that the new error does not carry the old one's frames.
        raise OutOfMemory(failure)

    def _begun(self, technique: str, arguments: Mapping[str, Any], body: Callable[[Operation], Value]) -> Value:
        self._operation = self._record(technique, arguments)
        return body(self._operation)

    def _ended(self, recording: bool) -> None:
        """Close the record, and let go of what only the command needed."""
        torch.set_grad_enabled(recording)  # an interrupt can keep torch.no_grad from putting it back
        ended, self._operation = self._operation, None
        if ended is not None and ended.meter is not None:
            ended.meter.stop()
        if self.streamed is not None:
            self.streamed.rest()

    def _record(self, technique: str, arguments: Mapping[str, Any]) -> Operation:
        # Not in `operate`: the traceback of an error keeps its frame, and a list of modules in it all the weights.
        started, worked = time.perf_counter(), time.process_time()
        state, user_hooks = self._inspected()
        read = 0
        if self.streamed is not None:
            self.streamed.begin(state.digest)
            read = self.streamed.read
        operation = Operation(
            technique, arguments, state.digest, user_hooks, state.random, started, worked=worked, read=read
        )
        if self.doubt:
            operation.notes.append(self.doubt)
        if state.random:
            operation.notes.append(
                "the model is in training mode with dropout: every run differs; model.bridge.eval() stops that"
            )
        return operation

    def within(self, technique: str, arguments: Mapping[str, Any], body: Callable[[], AnyResult]) -> AnyResult:
        """Return what `body` gives as a command of its own, run as a step of the one that is under way.

        Its result has the provenance of that step alone; what the step ran counts for the whole command too.

        Raises
        ------
        Interrupted
            Stopped by Ctrl-C in the step: what there is of it is in its ``result``.
        """
        whole = self._operation
        if whole is None:
            raise RuntimeError("a step is part of a command: call it within `operate`")
        step = replace(
            whole,
            technique=technique,
            arguments=arguments,
            started=time.perf_counter(),
            worked=time.process_time(),
            read=0 if self.streamed is None else self.streamed.read,
            forwards=0,
            tokens=[],
            notes=[self.doubt] if self.doubt else [],
            taken={},
            features={},
            path="store",
            on_partial=None,
            forecast=None,
            meter=None,
        )
        self._operation = step
        try:
            return self.finished(body(), step)
        except Interrupted as stop:
            stop.result = self.finished(stop.result, step)
            raise
        finally:
            self._operation = whole
            if step.meter is not None:
                step.meter.stop()
            whole.forwards += step.forwards
            whole.network = step.network
            whole.taken |= step.taken
            whole.features |= step.features
            whole.tokens.extend(ids for ids in step.tokens if ids not in whole.tokens)
            whole.path = step.path if whole.path == "store" else whole.path

    def apart(self, body: Callable[[], Value], **changed: Any) -> tuple[Value, Operation]:
        """Return what `body` gives with a record and a store of its own, of which nothing is the command's, and that.

        Parameters
        ----------
        changed
            What the record has otherwise than that of the command under way.
        """
        whole, store, count = self._operation, self.store, self.forwards
        if whole is None:
            raise RuntimeError("a part is one of a command: call it within `operate`")
        own = {"forwards": 0, "tokens": [], "notes": [], "taken": {}, "functions": {}, "forecast": None, "meter": None}
        part = replace(whole, on_partial=None, pool=None, **own, **changed)

        def begin() -> None:
            self._operation, self.store = part, ActivationStore(store.budget)

        def end() -> None:
            self._operation, self.store, self.forwards = whole, store, count
            whole.network = part.network

        return hooks.interruptible(body, before=begin, after=end), part

    def anew(self, body: Callable[[], Value]) -> Value:
        """Call `body` as if no command were under way, and with a store of its own: its commands have own records."""
        whole, store, count = self._operation, self.store, self.forwards

        def begin() -> None:
            self._operation, self.store = None, ActivationStore(store.budget)

        def end() -> None:
            self._operation, self.store, self.forwards = whole, store, count

        return hooks.interruptible(body, before=begin, after=end)

    def operate_if_free(self, technique: str, body: Callable[[Operation], Value]) -> Value:
        """Call `body` as `operate` does, or refuse at once where another thread has the lock.

        Raises
        ------
        InputError
            The model is busy.
        """
        taken = False

        def take() -> None:
            nonlocal taken
            taken = self.lock.acquire(blocking=False)
            if not taken:
                raise InputError(f"{self.name} is busy; try again when the cell has finished")

        def release() -> None:
            if taken:
                self.lock.release()

        return hooks.interruptible(lambda: self.operate(technique, {}, body), before=take, after=release)

    @property
    def tokens(self) -> Tokens:
        """The tokenizer as the bridge has it now; whether it has changed is asked once in a command."""
        if self._operation is None:
            return super().tokens
        if self._operation.tokenizer is None:
            self._operation.tokenizer = super().tokens
        return self._operation.tokenizer

    def user_hooks(self) -> tuple[str, ...]:
        """Return the hooks on the model that neither transformer-lens nor interp put there, as ``module: function``."""
        # Those of a command were looked for when it began.
        return self._inspected()[1] if self._operation is None else self._operation.user_hooks

    def altered(self) -> str:
        """Return why a run is not the model's plain one: hooks of the user's, or interventions of the command's."""
        if self._operation is not None:
            return self._operation.altered
        return "hooks of the user's own" if self.user_hooks() else ""

    def finished(self, result: AnyResult, operation: Operation) -> AnyResult:
        """Return `result` with the provenance and the notes of `operation`."""
        g = operation
        tokens, types = as_run(g.tokens)
        provenance = Provenance(
            model=self.name,
            fingerprint=g.fingerprint,
            dtype=self.dtype,
            device=str(self.device),
            tokens=tokens,
            types=types,
            tokens_taken=tuple(g.taken),
            technique=g.technique,
            # Another result is named and not kept: it has a provenance of its own, and may come to hold this one.
            arguments={k: Own(type(v).__name__) if isinstance(v, Result) else v for k, v in g.arguments.items()},
            path=g.path,
            features=g.features,
            user_hooks=g.user_hooks,
            forwards=g.forwards,
            seconds=time.perf_counter() - g.started,
            weights_read=0 if self.streamed is None else self.streamed.read - g.read,
            peak_bytes=0 if g.meter is None else g.meter.most(),
            forecast=g.forecast,
            versions=versions(),
        )
        hooked = (
            f"{len(g.user_hooks)} hooks of yours or functions that you replaced were on the model, so nothing is "
            "stored; %interp status lists them",
        )
        return replace(
            result,
            provenance=provenance,
            notes=tuple(
                dict.fromkeys(
                    [
                        *g.notes,
                        *result.notes,
                        *(hooked if g.user_hooks else ()),
                        *_changed(g.interventions, g.functions),
                    ]
                )
            ),
        )

    # -- what the current command's record is told -----------------------------------------------------------------

    def on_step(self, done: int, total: int, said: str = "") -> None:
        """Tell whoever watches the current command how far it is, and what there is to be said of it so far."""
        if self._operation is not None:
            self._operation.on_step(done, total, said)

    def on_partial(self, make: Callable[[], Result]) -> None:
        """Offer what a command has so far to whoever watches it; `make` is called at once, or not at all."""
        if self._operation is not None and self._operation.on_partial is not None:
            self._operation.on_partial(make)

    @property
    def watched(self) -> bool:
        """Whether somebody wants to see what the current command has so far."""
        return self._operation is not None and self._operation.on_partial is not None

    def note(self, path: str, notes: Sequence[str] = ()) -> None:
        """Write how the current command ran, and what is worth knowing, into its record."""
        if self._operation is not None:
            self._operation.path = path
            self._operation.notes.extend(notes)

    def took(self, typed: str, string: str, index: int) -> None:
        """Write into the current command's record which token was taken for what was `typed`."""
        if self._operation is not None:
            self._operation.taken[typed, string, index] = None

    def count(self, forwards: int) -> None:
        """Add forwards to the record; those that were run without the bridge are told from outside."""
        self.forwards += forwards
        if self._operation is not None:
            self._operation.forwards += forwards
            self.alive()

    @property
    def operation(self) -> Operation | None:
        """The record of the command that runs."""
        return self._operation

    def alive(self, said: str = "") -> None:
        """Tell whoever watches the current command that it goes on, and with what, before there is anything to count.

        Without words it is told how many forwards there were.
        """
        if self._operation is not None:
            self._operation.on_forward(self._operation.forwards, said)


def _changed(interventions: Sequence[Intervention], lengths: Iterable[int]) -> tuple[str, ...]:
    """Return notes on what was changed in every run, and on what no run of those lengths has; none without changes."""
    if not interventions:
        return ()
    sites = dict.fromkeys(f"{one.mode} {one.site.name} of layer {one.site.layer}" for one in interventions)
    shown = ", ".join(list(sites)[:3]) + (" …" if len(sites) > 3 else "")
    count = f"{len(interventions)} intervention{'s' * (len(interventions) != 1)}"
    longest = max(lengths, default=0)
    absent = [at for one in interventions if (at := one.position) is not None and not -longest <= at < longest]
    lost = [f"no run has position {at}: the intervention there changed nothing" for at in dict.fromkeys(absent)]
    return (
        f"every run of the model had {count} on it ({shown}); nothing of them is stored",
        *(lost if longest else ()),
    )


@cache
def versions() -> Mapping[str, str]:
    """Return the versions on which a result's bits depend."""
    return {name: importlib.metadata.version(name) for name in ("interp", "torch", "transformers", "transformer-lens")}
