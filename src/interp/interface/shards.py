"""Whole commands as shards of a pool: what of a call goes to a worker, and its results as they come back.

What a worker does with it is in `remote`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from interp import tasks
from interp.errors import InputError, OutOfMemory
from interp.interface.live import bind
from interp.interface.registry import MAKING, Command
from interp.interface.saved import from_bytes
from interp.methods._shared import features
from interp.results import Result, saving

if TYPE_CHECKING:
    from concurrent.futures import Future

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool, Reply, Task

Take = Callable[[int, Result | None, str], None]

# Pool → the recipe and the files of a model that workers loaded → the fingerprint that the first one found.
_found: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Packed:
    """A result as the bytes of its file."""

    content: NDArray[np.uint8]

    @classmethod
    def of(cls, result: Result) -> Packed:
        """Return a result as bytes."""
        return cls(_array(saving.as_npz(result, compressed=False)))

    def result(self) -> Any:
        """Return the result, of a class of interp's.

        Raises
        ------
        InputError
            It is none.
        """
        return from_bytes(self.content.tobytes(), "a worker's answer")


@dataclass(frozen=True)
class Call:
    """A command's call that a worker is asked for.

    Attributes
    ----------
    command, body, arguments
        As `Session.called` takes them.
    models
        Those of the session's that it runs on: the first one is what its result is of, where nothing is loaded.
    recipe
        How the worker loads the one that it loads for this alone; ``None`` where there is none.
    tokenizer
        The files of one for weights that have none beside them.
    """

    command: Command
    body: tuple[Any, ...]
    arguments: Mapping[str, Any]
    models: tuple[LoadedModel, ...]
    recipe: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    def asked(self) -> dict[str, Any]:
        """Return the arguments of the job."""
        return {
            "name": self.command.name,
            "body": tuple(map(_packed, self.body)),
            "arguments": {name: _packed(_plain(value)) for name, value in self.arguments.items()},
            "recipe": self.recipe,
            "tokenizer": {name: _array(held) for name, held in self.tokenizer.items()},
            "reads": {one.name: one.tokens.digest for one in self.models},
            "folder": os.getcwd(),
        }


def may_run(command: Command) -> bool:
    """Return whether a worker may run a command: one on a model that writes no file and leaves nothing behind."""
    return any(one.name == "over" for one in command.parameters) and command.name not in MAKING


@dataclass(frozen=True)
class Shared:
    """Calls that a pool runs.

    Attributes
    ----------
    pool
        The pool.
    calls, tasks
        Each call, and what of it goes to a worker.
    """

    pool: Pool
    calls: Sequence[Call]
    tasks: Mapping[int, Task]

    def run(self, take: Take) -> list[str]:
        """Run them, and return what is worth knowing of the workers.

        Parameters
        ----------
        take
            Called with a call's number and its result, or ``None`` and why there is none, as it ends, in any order.

        Raises
        ------
        KeyboardInterrupt
            Ctrl-C: the others are let go of.
        """
        from interp.engine.pool import plain, sharing

        notes: dict[str, None] = {}

        def taken(number: int, future: Future[Reply]) -> None:
            call = self.calls[number]
            try:
                reply = future.result()
                notes.update(dict.fromkeys(sharing.lives(reply)))
                value = plain.whole(reply.head["value"], reply.tensors)
                if value["failed"]:
                    raise InputError(value["failed"])
                result = value["result"].result()
                _agreed(self.pool, call, result)
            except (InputError, OutOfMemory) as error:
                take(number, None, f"{error}{_left_here(self.pool, call)}")
                return
            take(number, result if call.recipe is not None else bind(result, call.models[0], call.arguments), "")

        sharing.each(self.pool, self.tasks.items(), taken)
        return list(notes)

    @property
    def said(self) -> str:
        """What a provenance adds."""
        from interp.engine.pool import sharing

        return sharing.said(len(self.calls), self.pool)


def shared(pool: Pool | None, command: Command, calls: Callable[[], Sequence[Call]]) -> Shared | None:
    """Return calls of a command as shards; ``None`` where they run one after the other, as without workers.

    Raises
    ------
    InputError
        They run code of the user's, or are of something else that does not travel.
    """
    if pool is None or not may_run(command):
        return None
    from interp.engine.pool import sharing

    try:
        made = list(calls())
        own = next(filter(None, map(_own, made)), "")
        if own:
            raise InputError(f"{own}, and no code goes to workers: %interp disconnect runs this here")
        tasks = [sharing.task("command", one.asked(), one.models, local=pool.local) for one in made]
    except InputError:
        if pool.local:
            return None
        raise
    return Shared(pool, made, dict(enumerate(tasks)))


def _own(call: Call) -> str:
    """Return what of a call is code of the user's; an empty string where nothing is."""
    command, task = call.command, call.arguments.get("task")
    if not command.function.__module__.startswith("interp."):
        return f"the command {command.name} is a function of yours"
    if isinstance(task, str):
        known = tasks.names()
        name = task.partition(":")[0]
        if name in known and not tasks.find(name).function.__module__.startswith("interp."):
            return f"the task {name} is a function of yours"
    hooked = next((one.name for one in call.models if one.user_hooks()), None)
    return "" if hooked is None else f"hooks or functions of yours are on {hooked}"


def _agreed(pool: Pool, call: Call, result: Result) -> None:
    """See to it that whichever worker loads a model finds the same one.

    Raises
    ------
    InputError
        One found another.
    """
    if call.recipe is None:
        return
    known = _found.setdefault(pool, {})
    found = result.provenance.fingerprint
    first = known.setdefault(json.dumps([call.recipe, _files(call.recipe["source"])]), found)
    if found != first:
        raise InputError(
            f"a worker found another {call.recipe['name']} (fingerprint {found[:8]}) than one before it ({first[:8]}), "
            "though its files are the same here: %interp disconnect runs this here"
        )


def _files(source: str) -> list[tuple[str, int, int]]:
    """Return the files that a source is, as far as they are here: a training may have written them anew."""
    place = Path(source)
    found = sorted(place.iterdir()) if place.is_dir() else [place] if place.is_file() else []
    stats = [(one.name, one.stat()) for one in found]
    return [(name, one.st_size, one.st_mtime_ns) for name, one in stats]


def _left_here(pool: Pool, call: Call) -> str:
    held = [name for one in call.models for name in features.names(one)]
    return (
        "" if pool.local or not held else f" (workers do not have {', '.join(held)}: %interp disconnect runs it here)"
    )


def _array(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(bytearray(content), np.uint8)


def _packed(value: Any) -> Any:
    return Packed.of(value) if isinstance(value, Result) else value


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value  # pyright: ignore[reportUnknownVariableType]


__all__ = ["Call", "Packed", "Shared", "may_run", "shared"]
