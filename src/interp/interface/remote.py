"""A whole command, as a worker runs it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.engine import exactness
from interp.engine.pool import travel
from interp.engine.pool.tokenizer_files import tokenizer_of
from interp.errors import InputError, OutOfMemory
from interp.interface import registry
from interp.interface.session import Session
from interp.interface.shards import Packed, may_run

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def ran(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    name: str,
    body: Sequence[Any],
    arguments: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    tokenizer: Mapping[str, NDArray[np.uint8]],
    reads: Mapping[str, str],
    folder: str,
) -> dict[str, Any]:
    """Return what a command gives, its ``result`` as a file's bytes, or why it ``failed``.

    Parameters
    ----------
    models
        Those that were loaded before.
    step
        Called between steps.
    name, body, arguments, recipe, tokenizer
        See `interp.interface.shards.Call`.
    reads
        What the tokenizers of `models` are to be: name → digest.
    folder
        Where relative paths begin.

    Raises
    ------
    InputError
        It is no command that a worker runs, or a tokenizer is another one here.
    """
    command = registry.commands().get(name)
    if command is None or not may_run(command):
        raise InputError(f"{name!r:.60} is no command that a worker runs")
    other = next((one.name for one in models if one.tokens.digest != reads[one.name]), None)
    if other is not None:
        raise InputError(
            f"the tokenizer of {other} is another one than it was loaded with, and does not go to workers: %interp "
            "disconnect runs this here"
        )
    own = Session(models={one.name: one for one in models}, current=models[0].name if models else None)

    def tell(*_: object) -> None:
        step()

    own.on_step = own.on_phase = tell

    def call() -> Any:
        made: LoadedModel | None = None
        try:
            if recipe is not None:
                files = {file: content.tobytes() for file, content in tokenizer.items()}
                made = travel.built(recipe, tokenizer_of(files))
                own.models[made.name] = made
            return own.called(command, *map(_given, body), **{key: _given(value) for key, value in arguments.items()})
        finally:
            if made is not None:
                own.drop(made)

    around: Callable[[], Any] = call
    for model in models:
        exactness.forget(model)  # what was compared before depends on who did what
        around = lambda model=model, inside=around: model.anew(inside)  # noqa: E731
    there = contextlib.chdir(folder) if os.path.isdir(folder) else contextlib.nullcontext()
    try:
        with there:
            return {"result": Packed.of(around()), "failed": ""}
    except (InputError, OutOfMemory) as error:
        return {"result": None, "failed": str(error)}
    except KeyboardInterrupt:  # with a part, which nobody wants
        step()
        raise


def _given(value: Any) -> Any:
    return value.result() if isinstance(value, Packed) else value


__all__ = ["ran"]
