"""The one Session: what is loaded, which model is current, and how a call reaches a technique."""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from interp import bundled
from interp.claim_language import Claimed
from interp.errors import Foreseen, InputError, Interrupted, Stopped, closest
from interp.interface import over, registry
from interp.interface.inputs import inputs_of, named, seed_of
from interp.interface.live import Live
from interp.methods._shared import features
from interp.methods._shared.claims import kept
from interp.methods._shared.claims.kept import Kept
from interp.methods._shared.models import way
from interp.results import Own, Result, held_in, per_pair
from interp.spec import Pairs, Prompts, Texts

if TYPE_CHECKING:
    from interp.engine.model.load import OnStep
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation
    from interp.engine.pool.protocol import Pool


@dataclass
class Settings:
    """What `%config Interp` sets.

    Attributes
    ----------
    device, dtype
        Where and how `load` puts a model when not told.
    store_budget
        Bytes that a model's activations may take in memory; 0 means a quarter of what is free when it is loaded.
    disk_budget
        Bytes that activations pushed out of memory may take in temporary files; 0 keeps none.
    """

    device: str = "auto"
    dtype: str = "auto"
    store_budget: int = 0
    disk_budget: int = 0


@dataclass
class Session:
    """Loaded models by name, in the order they were loaded, and the current one.

    Examples
    --------
    >>> session.load(device="cpu")
    LoadedModel(bundled: 4 layers × 4 heads, float32 on cpu, without hooks)
    """

    models: dict[str, LoadedModel] = field(default_factory=dict[str, "LoadedModel"])
    current: str | None = None
    kept: list[Kept] = field(default_factory=list[Kept])
    settings: Settings = field(default_factory=Settings)
    pool: Pool | None = None  # where commands' shards run, once there is one
    on_step: OnStep | None = None
    on_phase: Callable[[str], None] | None = None
    on_partial: Callable[[Callable[[], Result]], object] | None = None

    def load(
        self,
        source: Any = None,
        *,
        tokenizer: Any = None,
        device: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        remote_code: bool = False,
        adapter: str | os.PathLike[str] | None = None,
        max_memory: str | None = None,
        device_map: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        name: str | None = None,
        copy: bool = False,
        spill: float | None = None,
        on_step: OnStep | None = None,
        **unknown: Any,
    ) -> LoadedModel:
        """Load a model and make it the current one; see `interp.load`."""
        for given in unknown:
            known = [name for name in inspect.signature(self.load).parameters if name != "unknown"]
            raise InputError(f"load has no argument {given!r}{closest(given, known)}; it takes {', '.join(known)}")
        if isinstance(source, str | os.PathLike) and not os.path.isdir(source):
            named = os.fspath(source)
            if named.lower().endswith((".json", ".npz")):
                raise InputError(f"{named!r} is no model's but a result's; interp.load_result({named!r}) gives it back")
        # Before torch: while torch's library is read no other thread runs. By then the line that says how far this is
        # stands, for which it would else be too late.
        import transformers  # noqa: F401  # pyright: ignore[reportUnusedImport]

        from interp.engine.model import load as loading

        if source is None or (isinstance(source, str) and source == "bundled" and not os.path.exists(source)):
            source, name = bundled.MODEL, name or "bundled"
        if name is not None and not name.strip():
            raise InputError("--name is blank; type what to call the model here, or leave it out")
        if spill is not None:
            registry.find("load").parameter("spill").check(spill)
        if spill is not None and not 0 <= spill < float("inf"):
            raise InputError(f"--spill {spill} is no size; give gigabytes, such as 4, or 0 for none")
        if device_map is not None and max_memory is not None:
            raise InputError("--device-map and --max-memory both say what stays on disk; give one of them")
        if device_map is not None and device is not None:
            raise InputError("--device and --device-map both say where the weights go; give one of them")
        options = loading.Options(
            device=device or self.settings.device,
            dtype=dtype or self.settings.dtype,
            revision=revision,
            remote_code=remote_code,
            adapter=None if adapter is None else os.fspath(adapter),
            max_memory=None if max_memory is None else loading.size_of(str(max_memory)),
            device_map=os.fspath(device_map) if isinstance(device_map, os.PathLike) else device_map,
        )
        watcher = on_step or self.on_step
        if watcher is not None:
            options = replace(options, on_step=watcher)
        model = loading.load(source, tokenizer=tokenizer, copy_model=copy, name=name, options=options)
        self.furnish(model, spill)
        # Only now, with the new one there: a load that fails leaves the old model as it was.
        replaced = self.models.pop(model.name, None)
        self.models[model.name] = model
        self.current = model.name
        if replaced is not None and replaced is not model:
            free(replaced)
        return model

    def furnish(self, model: LoadedModel, spill: float | None = None) -> None:
        """Give a model that was just loaded its store's room, and its way to say how it is run."""
        if self.settings.store_budget:
            model.store.set_budget(self.settings.store_budget)
        on_disk = self.settings.disk_budget if spill is None else int(spill * 10**9)
        model.store.set_budget(model.store.budget, on_disk)
        model.way = partial(way, model)

    def use(self, name: str) -> LoadedModel:
        """Make the loaded model `name` the current one."""
        model = self.get(name)
        self.current = model.name
        return model

    def unload(self, name: str | None = None) -> str:
        """Forget a model (the current one when not named) or a set of features, and free its memory; return its name.

        Raises
        ------
        InputError
            Nothing of that name is loaded.
        """
        if name is not None and name not in self.models:
            owner = next((model for model in self.models.values() if features.unloaded(model, name)), None)
            if owner is not None:
                return name
            known = [*self.models, *self.feature_names]
            if known:
                raise InputError(f"{name!r} is not loaded{closest(name, known)}; loaded: {', '.join(known)}")
        model = self.get(name)
        del self.models[model.name]
        if self.current == model.name:
            self.current = next(reversed(self.models), None)
        freed = model.name
        free(model)
        return freed

    def drop(self, model: LoadedModel) -> None:
        """Let go of a model that was loaded for one run alone."""
        if self.models.get(model.name) is model:
            del self.models[model.name]
        free(model)

    @property
    def feature_names(self) -> list[str]:
        """The sets of features that are loaded, for whichever model; those of the current one first."""
        ordered = sorted(self.models.values(), key=lambda model: model.name != self.current)
        return list(dict.fromkeys(name for model in ordered for name in features.names(model)))

    def get(self, name: str | None = None) -> LoadedModel:
        """Return the loaded model `name`, or the current one.

        Raises
        ------
        InputError
            None is loaded, or none of that name; the closest one is named.
        """
        if name is None:
            if self.current is None:
                raise InputError("no model is loaded; type %interp load, with a folder or a hub name if you like")
            return self.models[self.current]
        if name in self.models:
            return self.models[name]
        if not self.models:
            raise InputError(f"no model is loaded; type %interp load {name}")
        raise InputError(f"{name!r} is not loaded{closest(name, self.models)}; loaded: {', '.join(self.models)}")

    def call(self, command: registry.Command, /, *body: Any, **arguments: Any) -> Any:
        """Run `command` as the magic and the Python call do, and return its Result with provenance.

        Raises
        ------
        InputError
            A wrong argument, or what the technique refuses.
        Interrupted, Stopped
            Ctrl-C, with what there is or, where there is nothing yet, in one line.
        """
        try:
            made = self.called(command, *body, **arguments)
            self.kept = kept.added(self.kept, made)
            return made
        except Stopped:
            raise
        except KeyboardInterrupt:
            pass
        # Outside the except block, so that the new error does not carry the old one's frames, and their tensors.
        raise Stopped(f"{command.name} was stopped before there was anything to keep")

    def named(self, result: Any, name: str) -> None:
        """Note what a notebook calls a result: claims are listed by it."""
        self.kept = kept.named(self.kept, result, name)

    def called(self, command: registry.Command, /, *body: Any, **arguments: Any) -> Any:
        """Run `command` once, as `call` does, but keep no claim to be compared with later; an interrupt is Python's."""
        steps = arguments.pop("over", None) if any(one.name == "over" for one in command.parameters) else None
        if steps is not None:
            return over.run(self, command, steps, body, arguments)
        places = [p.name for p in command.parameters if p.positional and p.name not in arguments]
        if command.body is None:
            if len(body) > len(places):
                raise InputError(f"{command.name} takes {len(places)} values without a name; {len(body)} were given")
            arguments |= dict(zip(places, body, strict=False))
            body = ()
        elif places:  # they come first, as on the command line; the body is what is left
            arguments |= dict(zip(places, body, strict=False))
            body = body[len(places) :]
        missing = [p.name for p in command.parameters if p.required and p.name not in arguments]
        if missing:
            raise InputError(f"{command.name} needs {missing[0]}; interp.help({command.name!r}) says what it takes")
        if not command.needs_model:
            arguments = {given: command.parameter(given).check(value) for given, value in arguments.items()}
            kept = {given: Own(type(v).__name__) if isinstance(v, Result) else v for given, v in arguments.items()}
            made = {"technique": command.name, "arguments": kept}
            try:
                result = command.function(self, **arguments)
            except Interrupted as stop:
                stop.result = replace(stop.result, provenance=replace(stop.result.provenance, **made))
                raise
            if not isinstance(result, Result):
                return result
            return replace(result, provenance=replace(result.provenance, **made))
        unflagged = named(command)
        arguments = {
            given: value if given in unflagged else command.parameter(given).check(value)
            for given, value in arguments.items()
        }
        asked, dry = arguments.pop(command.model, None), bool(arguments.pop("dry_run", False))
        changes = arguments.pop("interventions", None) if command.changes else None
        written = arguments.pop("out", None) if command.per_pair else None
        target = None if written is None else per_pair.out(written)
        model = self.get(asked)
        watcher, phase = self.on_step or _nobody, self.on_phase or _deaf
        phase(f"{command.name}: reading the input")
        inputs, given = inputs_of(command, model, body, arguments)
        if asked is not None:
            given = {command.model: asked, **given} if command.model != "model" else {**given, "model": asked}
        if dry:
            given["dry_run"] = True
        if changes is not None:
            given["interventions"] = changes
        if written is not None:
            given["out"] = written
        seed = seed_of(command, given)
        for parameter in command.parameters:
            if arguments.get(parameter.name) is not None:
                arguments[parameter.name] = parameter.values.resolve(arguments[parameter.name], self)
        phase(f"{command.name}: looking for changes of the model")

        def once(operation: Operation) -> Result:
            counted = False
            offered: list[Callable[[], Result]] = []
            partly = self.on_partial

            def offer(make: Callable[[], Result]) -> None:
                offered.clear()  # an interrupt may end what follows
                seen = partly is not None and partly(lambda: whole(make()))
                offered[:] = [] if seen else [make]

            def step(done: int, total: int, said: str) -> None:
                nonlocal counted
                counted = True
                watcher(done, total, said or command.name)

            def forward(count: int, said: str) -> None:
                if counted:
                    return
                # What comes before it can be told how much there is to do. What was offered too soon is offered again.
                done = f"preparing, {count} forward pass{'' if count == 1 else 'es'}" if count else "preparing"
                phase(f"{command.name}: {said or done}")
                if partly is not None and offered:
                    partly(lambda: whole(offered[-1]()))

            operation.on_step, operation.on_forward, operation.dry = step, forward, dry
            operation.pool = self.pool
            model.intervene(changes)
            phase(f"{command.name}: preparing")
            noted = (one for one in inputs if isinstance(one, Pairs | Prompts | Texts | Claimed))
            operation.notes.extend(note for one in noted for note in one.notes)

            def whole(result: Result) -> Result:
                ids = operation.tokens[0] if operation.tokens else ()
                live = Live(model, operation.fingerprint, ids, operation.interventions)
                made = model.finished(result, operation)
                for value in arguments.values():
                    if isinstance(value, Result) and vars(value)["_live"] is None:  # one from a file
                        object.__setattr__(value, "_live", live)
                for part in held_in(made):
                    own = next(iter(part.provenance.prompts), ())
                    bound = Live(model, operation.fingerprint, own, operation.interventions)
                    object.__setattr__(part, "_live", bound)
                return replace(made, provenance=replace(made.provenance, seed=seed), _live=live)

            if partly is not None:
                operation.on_partial = offer
            try:
                return whole(cast(Result, command.function(model, *inputs, **arguments)))
            except Foreseen as answer:
                return whole(answer.forecast)
            except Interrupted as stop:
                stop.result = whole(stop.result)
                raise

        made = model.operate(command.name, given, once)
        return made if target is None or dry else per_pair.kept(made, target)


def _nobody(done: int, total: int, what: str) -> None:
    """Watch nothing."""


def _deaf(what: str) -> None:
    """Hear nothing."""


def free(model: LoadedModel) -> None:
    """Let go of a model's memory."""
    with model.lock:
        model.close()
    gc.collect()  # modules and their hooks refer to each other in circles


def bound(command: registry.Command, session: Session) -> Callable[..., Any]:
    """Return `command` as a plain Python function of its body and arguments."""
    import inspect

    def call(*body: Any, **arguments: Any) -> Any:
        return session.call(command, *body, **arguments)

    own = list(inspect.signature(command.function).parameters.values())[1:]
    first = {p.name for p in command.parameters if p.positional}
    if command.model in first:
        own.append(inspect.Parameter(command.model, inspect.Parameter.POSITIONAL_OR_KEYWORD))
    own.sort(key=lambda p: (p.kind is p.KEYWORD_ONLY, p.name not in first, p.name != command.model))
    if Prompts in command.bodies:  # a task or a file may stand for them
        own[0] = own[0].replace(default=None)
        own.append(inspect.Parameter("pairs", inspect.Parameter.KEYWORD_ONLY, default=None))
    if Claimed in command.bodies:
        own += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("prompts", "pairs")]
    optional = False  # behind what can be left out nothing must be given
    for n, one in enumerate(own):
        optional = optional or one.default is not one.empty
        if optional and one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD:
            own[n] = one.replace(default=None)
    shared = [
        inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, default=p.default)
        for p in command.parameters
        if p.name not in {q.name for q in own}
    ]
    call.__name__ = call.__qualname__ = command.name.replace("-", "_")
    call.__doc__ = command.doc
    call.__signature__ = inspect.Signature([*own, *shared])  # pyright: ignore[reportFunctionMemberAccess]
    return call


session = Session()


def memory_in_use() -> Mapping[str, int]:
    """Return this process's memory and the machine's free memory, in bytes."""
    import psutil

    return {"process": psutil.Process(os.getpid()).memory_info().rss, "free": psutil.virtual_memory().available}
