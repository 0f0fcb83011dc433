"""One command over several models, checkpoints or revisions: each is loaded when its turn comes, and then let go of.

With workers each is loaded by one of them, which gives back what the command says of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import files
from interp.errors import InputError, OutOfMemory, closest, unless_interrupted
from interp.interface import shards
from interp.results import Result
from interp.results.over import OverResult, collected

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.interface.registry import Command
    from interp.interface.session import Session

_WILD = "*?["
_ALL = "checkpoints"


@dataclass(frozen=True)
class Step:
    """One of what a command runs over.

    Attributes
    ----------
    name
        As it is shown.
    kind
        ``model``, ``folder`` or ``revision``.
    path
        Of a folder, where it is.
    """

    name: str
    kind: str
    path: Path | None = None


def run(session: Session, command: Command, asked: Any, body: Sequence[Any], arguments: Mapping[str, Any]) -> Any:
    """Run `command` over what is `asked` for; here or on a worker, at most one model more than there were is loaded.

    Raises
    ------
    InputError
        What names nothing, arguments that do not go with it, or nothing but failures.
    Interrupted
        Ctrl-C: the ones that are done are in its ``result``.
    """
    parameter, given = command.parameter("over"), dict(arguments)
    words = parameter.check(asked)
    varied = _varied(command)
    if given.get("dry_run"):
        raise InputError("--dry-run is about one run, and --over makes several; leave one of them out")
    if given.get("out") is not None:
        raise InputError("--out writes one file, and --over makes several results; leave one of them out")
    if varied != "model" and given.get(varied) is not None:
        raise InputError(f"--over takes the place of {varied.upper()}: name it in --over, or leave --over out")
    first = given.get(command.model)
    if first is None and varied != "model" and body:
        first = body[0]  # the models of such a command come before all else
    model = session.get(first)
    steps = list(_steps(words, session.models, model))
    twice = next((one.name for n, one in enumerate(steps) if one.name in [other.name for other in steps[:n]]), None)
    if twice is not None:
        raise InputError(f"--over names {twice} twice; name it once")
    began = time.perf_counter()
    shared = shards.shared(session.pool, command, lambda: _calls(session, command, varied, steps, model, body, given))
    found: dict[int, tuple[Result | None, str]] = {}
    notes: list[str] = []
    interrupt: BaseException | None = None
    told = _Told(session, command.name, len(steps))

    def take(number: int, result: Result | None, said: str) -> None:
        found[number] = result, said
        told.counted(len(found))

    try:
        if shared is None:
            for number, step in enumerate(steps):
                told.now(number, step.name)
                found[number] = _one(session, command, varied, step, model, body, given)
        else:
            told.counted(0)
            notes = shared.run(take)
    except KeyboardInterrupt as stop:
        if not any(result is not None for result, _ in found.values()):
            raise
        interrupt = stop.with_traceback(None)
    finally:
        told.over()
    done = [(steps[number], *found[number]) for number in sorted(found)]
    results = [result for _, result, _ in done if result is not None]
    if not results:
        raise InputError(_none_worked(done))
    made = collected(
        [step.name for step, _, _ in done],
        [result for _, result, _ in done],
        [said for _, _, said in done],
        varies="/".join(dict.fromkeys(step.kind for step, _, _ in done)),
        notes=[*([f"partial: stopped after {len(done)} of {len(steps)}"] if interrupt is not None else []), *notes],
    )
    made = replace(made, provenance=_provenance(made, results, command, model, first, words, began))
    if shared is not None:
        made = replace(made, provenance=replace(made.provenance, path=made.provenance.path + shared.said))
    return unless_interrupted(made, interrupt)


def _varied(command: Command) -> str:
    """Return the argument that takes the models: of a command that compares two by place, the second."""
    placed = [one.name for one in command.parameters if one.positional and one.names == "model"]
    return placed[-1] if placed else command.model


def _none_worked(done: Sequence[tuple[Step, Result | None, str]]) -> str:
    reasons = list(dict.fromkeys(said for _, _, said in done))
    if len(reasons) == 1:
        return reasons[0]
    return f"none of {len(done)} could be run; {done[0][0].name}: {done[0][2]}"


def _provenance(
    made: OverResult,
    results: Sequence[Result],
    command: Command,
    model: LoadedModel,
    first: Any,
    words: tuple[str, ...],
    began: float,
) -> Any:
    """Return how the whole was made: the call, and what all its runs took together; each run has its own."""
    one = results[0].provenance
    varied = _varied(command)
    said = {name: value for name, value in one.arguments.items() if name not in {varied, command.model}}
    held = {} if first is None else {command.model: first}
    called = {**said, **held} if command.model == "model" else {**held, **said}
    return replace(
        one,
        model=model.name if len(set(made.models)) != 1 else made.models[0],
        fingerprint="",
        arguments={**called, "over": list(words)},
        path=", ".join(dict.fromkeys(result.provenance.path for result in results)),
        forwards=sum(result.provenance.forwards for result in results),
        seconds=time.perf_counter() - began,
        peak_bytes=max(result.provenance.peak_bytes for result in results),
        forecast=None,
    )


class _Told:
    """Says of each run which of how many it is, to whoever watches the session."""

    def __init__(self, session: Session, name: str, count: int) -> None:
        self._session, self._name, self._count = session, name, count
        self._held = session.on_step, session.on_phase, session.on_partial
        session.on_partial = None  # a view of one run would be taken for that of all

    def now(self, number: int, step: str) -> None:
        """Say from now on that the run of `step` is on."""
        said = f"{step}, {number + 1} of {self._count}"
        on_step, on_phase, _ = self._held
        if on_step is not None:
            self._session.on_step = _prefixed(on_step, said)
        if on_phase is not None:
            self._session.on_phase = lambda what: on_phase(f"{said}: {what}")
            on_phase(f"{self._name}: {said}")

    def counted(self, done: int) -> None:
        """Say how many runs are over, where workers make them."""
        if self._session.on_step is not None and self._session.pool is not None:
            self._session.on_step(done, self._count, f"{self._name}: on {self._session.pool.name}")

    def over(self) -> None:
        """Let the session say again what it said."""
        self._session.on_step, self._session.on_phase, self._session.on_partial = self._held


def _prefixed(on_step: Callable[[int, int, str], None], said: str) -> Callable[[int, int, str], None]:
    return lambda done, total, what: on_step(done, total, f"{said}: {what}")


def _one(
    session: Session,
    command: Command,
    varied: str,
    step: Step,
    like: LoadedModel,
    body: Sequence[Any],
    arguments: Mapping[str, Any],
) -> tuple[Result | None, str]:
    """Return what a run gives, or ``None`` and why there is nothing."""
    made: LoadedModel | None = None
    said = ""
    try:
        if step.kind != "model":
            made = _loaded(session, step, like)
            session.models[step.name] = made
        return session.called(command, *body, **{**arguments, varied: step.name}), ""
    except (InputError, OutOfMemory) as error:
        said = str(error)
    finally:
        if made is not None:
            session.drop(made)
    return None, said


@dataclass(frozen=True)
class _Source:
    """What a step is loaded from, and how.

    Attributes
    ----------
    given
        A folder or a name, or an object in memory, of which a copy is taken.
    lent
        The tokenizer, where there is none beside the weights.
    """

    given: Any
    options: Any
    lent: Any


def _source(step: Step, like: LoadedModel) -> _Source:
    """Return what a step is loaded from, with the options of the model that it is like."""
    from interp.engine.model import load as loading

    origin = like.origin
    options = loading.Options() if origin is None else origin.options
    if step.path is None:
        assert origin is not None
        return _Source(origin.source, replace(options, revision=step.name), None)
    # A training saves weights alone, as a rule: the tokenizer is for those.
    lent: Any = like.bridge.tokenizer
    if options.adapter is not None and origin is not None and loading.alone(step.path):
        # Another state of the adapter.
        return _Source(origin.object(), replace(options, adapter=str(step.path)), lent)
    return _Source(str(step.path), replace(options, adapter=None, revision=None), lent)


def _loaded(session: Session, step: Step, like: LoadedModel) -> LoadedModel:
    """Load a step."""
    from interp.engine.model import load as loading

    held = _source(step, like)
    options = held.options if session.on_step is None else replace(held.options, on_step=session.on_step)
    copied = not isinstance(held.given, str)
    model = loading.load(held.given, tokenizer=held.lent, copy_model=copied, name=step.name, options=options)
    session.furnish(model)
    return model


# -- in a pool ---------------------------------------------------------------------------------------------------------


def _calls(
    session: Session,
    command: Command,
    varied: str,
    steps: Sequence[Step],
    like: LoadedModel,
    body: Sequence[Any],
    arguments: Mapping[str, Any],
) -> list[shards.Call]:
    """Return the calls of all steps, as workers are asked for them.

    Raises
    ------
    InputError
        A step is loaded from an object that is in this notebook alone.
    """
    from interp.engine.pool import travel
    from interp.engine.pool.tokenizer_files import tokenizer_files

    named = [arguments.get(one.name) for one in command.parameters if one.names == "model" and one.name != varied]
    named += [like.name] if varied != command.model else []
    others = [session.models[name] for name in dict.fromkeys(named) if name in session.models]
    lent: dict[str, bytes] = {}
    found: list[shards.Call] = []
    for step in steps:
        given = {**arguments, varied: step.name}
        if step.kind == "model":
            models = (session.models[step.name], *(one for one in others if one.name != step.name))
            found.append(shards.Call(command, tuple(body), given, models))
            continue
        held = _source(step, like)
        if not isinstance(held.given, str):
            raise InputError(
                f"{like.name} is held in this notebook alone, and workers load models from files: %interp disconnect "
                "runs this here"
            )
        source = str(files.path_of(held.given).resolve()) if files.there(files.path_of(held.given)) else held.given
        recipe = {"name": step.name, "source": source, "options": travel.plain_options(held.options)}
        lent = lent or tokenizer_files(held.lent)
        found.append(shards.Call(command, tuple(body), given, tuple(others), recipe, {} if held.lent is None else lent))
    return found


# -- what there is to run over -----------------------------------------------------------------------------------------


def _steps(words: Sequence[str], models: Mapping[str, Any], model: LoadedModel) -> Iterator[Step]:
    """Yield what words name.

    Raises
    ------
    InputError
        A word names nothing.
    """
    origin = model.origin
    place = None if origin is None else origin.path
    if origin is not None and origin.options.adapter is not None:
        place = files.path_of(origin.options.adapter).absolute()
    around = [] if place is None else [place, place.parent]
    for word in words:
        if word in models:
            yield Step(word, "model")
        elif word == _ALL:
            found = next(filter(None, map(files.checkpoints, around)), [])
            if not found:
                where = "was not loaded from a folder" if place is None else f"has none in {place}"
                raise InputError(f"there are no checkpoints to run over: {model.name} {where}; name folders")
            yield from (_folder(path, path.name, model, place) for path in found)
        elif set(word) & set(_WILD):
            yield from (_folder(path, path.name, model, place) for path in _matching(word, around))
        elif (path := _place(word, around)) is not None:
            yield _folder(path, word, model, place)
        elif origin is not None and origin.repository is not None:
            yield Step(word, "revision")
        else:
            known = [*models, *(one.name for at in around for one in files.checkpoints(at))]
            raise InputError(
                f"--over {word}: no model of that name is loaded, and no folder is there{closest(word, known)}; "
                "revisions are of a model that came from the hub"
            )


def _folder(path: Path, name: str, model: LoadedModel, place: Path | None) -> Step:
    """Return the step of a folder; one that the model itself came from is not loaded once more."""
    if place is not None and path.resolve() == place.resolve():
        return Step(model.name, "model")
    return Step(name, "folder", path.absolute())


def _place(word: str, around: Sequence[Path]) -> Path | None:
    """Return the folder or the GGUF file that a word names, here or beside the model's."""
    given = files.path_of(word)
    for path in (given, *(at / given for at in around)):
        kind = files.there(path)
        if kind == "folder" or (kind == "file" and path.suffix.lower() == ".gguf"):
            return path
    return None


def _matching(pattern: str, around: Sequence[Path]) -> list[Path]:
    """Return the folders that a pattern matches, by number: here, or else beside the model's.

    Raises
    ------
    InputError
        There are none.
    """
    given = files.path_of(pattern)
    for at in [Path.cwd(), *around]:
        root, inside = (Path(given.anchor), given.relative_to(given.anchor)) if given.is_absolute() else (at, given)
        try:
            found = [path for path in root.glob(str(inside)) if files.there(path) == "folder"]
        except (ValueError, NotImplementedError, OSError):
            found = []
        if found:
            return sorted(found, key=files.numbered)
    raise InputError(f"--over {pattern} matches no folder; type one such as 'run/checkpoint-*'")
