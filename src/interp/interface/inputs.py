"""From what a call gives (a text, ids, two prompts, pairs, a task's name) to what a technique takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from interp.chats import turns
from interp.errors import InputError
from interp.interface.registry import Command
from interp.prompts import as_typed
from interp.spec import Pair, Pairs, Prompt, Texts, as_prompt

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_EXAMPLE = '("clean prompt", "corrupted prompt", "answer", "wrong")'

# Arguments of a Python call that have no flag, by the kind of body.
INPUTS: dict[type, tuple[str, ...]] = {
    Prompt: ("prompt",),
    Pairs: ("clean", "corrupted", "answer", "wrong", "pairs"),
    Texts: ("texts",),
}


def named(command: Command) -> set[str]:
    """Return the arguments of a Python call of `command` that have no flag."""
    return {name for kind in command.bodies for name in INPUTS.get(kind, ())}


def seed_of(command: Command, given: dict[str, Any]) -> int | None:
    """Return the seed of what a call draws: a task's pairs, or what the technique itself takes one for."""
    draws = given.get("task") is not None or "seed" in inspect.signature(command.function).parameters
    default = next((p.default for p in command.parameters if p.name == "seed"), None)
    return given.get("seed", default) if draws else None


def inputs_of(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a technique's inputs and what provenance notes of them; what they use is taken out of `arguments`.

    Raises
    ------
    InputError
        Too few or too many inputs, or ones of the wrong kind.
    """
    given = dict(arguments)
    if command.body is Prompt:
        return _prompt(command, model, body, arguments, given)
    if Texts in command.bodies and (Pairs not in command.bodies or _running(body, arguments)):
        return _texts(command, model, body, arguments, given)
    if Pairs in command.bodies:
        return _pairs(command, model, body, arguments, given)
    return (), given


def _prompt(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if "prompt" in arguments:
        body = (*body, arguments.pop("prompt"))
    if len(body) != 1:
        raise InputError(f"{command.name} takes one prompt; {len(body)} were given")
    bos, templated = arguments.pop("bos", None), bool(arguments.pop("template", True))
    prompt = as_prompt(body[0], bos, bool(arguments.pop("truncate", False)))
    prompt = prompt if templated else as_typed(prompt)
    noted = _plain(prompt, bos, bool(given.get("truncate")))
    if templated and not prompt.turns and as_prompt(noted).turns:
        noted = prompt  # a text that would be read as a chat, and was not given as one
    return (_written(model, prompt, bos),), {"prompt": noted, **given}


def _written(model: LoadedModel, prompt: Prompt, bos: bool | None) -> Prompt:
    """Return a chat as the model's template writes it; any other prompt as it is.

    Raises
    ------
    InputError
        Something is said of its BOS, there is no template, or the template does not take it.
    """
    if prompt.turns and bos is not None:
        raise InputError(f"a chat begins as its template says: leave --{'' if bos else 'no-'}bos out")
    return model.tokens.rendered(prompt)


def _pairs(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    bos, templated = arguments.pop("bos", None), bool(arguments.pop("template", True))
    task, n, corruption = arguments.pop("task", None), arguments.pop("n", 32), arguments.pop("corruption", None)
    seed = arguments.get("seed", 0)
    _drop(command, arguments, "seed", "text", "column", "truncate")
    sources = dict(zip(("clean", "corrupted"), body, strict=False)) | {
        name: arguments.pop(name) for name in INPUTS[Pairs] if name in arguments
    }
    if len(body) == 1 and not isinstance(body[0], str) and "corrupted" not in sources:
        sources = {"pairs": sources.pop("clean"), **sources}
    elif len(body) == 1 and isinstance(body[0], str) and task is None and "corrupted" not in sources:
        if " " in body[0].strip():
            raise InputError(
                f"{command.name} needs a second prompt: give clean and corrupted, with answer=… and wrong=…, or a task"
            )
        task, sources = body[0], {}  # interp.task("ioi"): one text alone is a task's name
        given["task"] = task
    elif len(body) > 2:
        raise InputError(f"{command.name} takes a clean and a corrupted prompt; {len(body)} were given")
    if task is not None and sources:
        raise InputError(f"{command.name} takes a task or pairs, not both")
    own = inspect.signature(command.function).parameters
    idle = [name for name in ("n", "corruption", "seed") if task is None and name in given and name not in own]
    if idle:
        raise InputError(f"--{idle[0]} is about a task's pairs, and these are pairs of your own; leave it out")
    if task is not None:
        from interp.methods._shared.pairs import from_task

        found = from_task(model, task, n=n, seed=seed, corruption=corruption, bos=bos)
    elif "pairs" in sources:
        found = pairs_of(sources["pairs"])
        if not templated:
            found = replace(found, pairs=tuple(map(_as_typed, found.pairs)))
        given["pairs"] = found.pairs
        if found.metric:
            given.setdefault("metric", found.metric)
    elif "clean" in sources and "corrupted" in sources:
        pair = Pair(**sources)
        found = Pairs((pair if templated else _as_typed(pair),))
        given |= {name: sources[name] for name in ("clean", "corrupted")}
    else:
        raise InputError(f"{command.name} needs a clean and a corrupted prompt, pairs=…, or a task, such as ioi")
    if bos is not None and task is None:
        from interp.methods._shared.pairs import with_bos

        found = replace(found, pairs=tuple(with_bos(pair, bos) for pair in found.pairs))
    return (replace(found, pairs=_written_pairs(model, found.pairs, bos)),), given


def _as_typed(pair: Pair) -> Pair:
    return replace(pair, clean=as_typed(pair.clean), corrupted=as_typed(pair.corrupted))


def _written_pairs(model: LoadedModel, pairs: tuple[Pair, ...], bos: bool | None) -> tuple[Pair, ...]:
    """Return pairs whose chats are written; those that have none as they are."""
    made: list[Pair] = []
    for number, pair in enumerate(pairs):
        both = pair.clean, pair.corrupted
        if any(one.turns for one in both):
            try:
                clean, corrupted = (_written(model, one, bos) for one in both)
            except InputError as error:
                raise InputError(f"pair {number}: {error}" if len(pairs) > 1 else str(error)) from None
            pair = replace(pair, clean=clean, corrupted=corrupted)
        made.append(pair)
    return tuple(made)


def pairs_of(given: Any) -> Pairs:
    """Return pairs from what Python code has: `Pairs`, a task's result, a table, or a list of `Pair`, tuples or rows.

    Raises
    ------
    InputError
        One of them is no pair; what one looks like is said.

    Examples
    --------
    >>> pairs_of([("A is", "B is", "C", "D")]).pairs[0].wrong
    ('D',)
    """
    if isinstance(given, Pairs):
        return given
    held = getattr(given, "pairs", None)
    if isinstance(held, tuple):  # a TaskResult
        return replace(pairs_of(held), task=str(getattr(given, "task", "")), metric=str(getattr(given, "metric", "")))
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a table with a column for each
        given = given.to_dict("records")
    # Of two tuples each may be a pair of prompts; an answer behind them says that they are prompts, of two sentences.
    is_one = isinstance(given, Pair | Mapping) or (
        isinstance(given, tuple)
        and 2 <= len(given) <= 4
        and (isinstance(given[0], str | Prompt) or isinstance(given[-1], str | int))
    )
    listed: Any = [given] if is_one else given
    if not isinstance(listed, Iterable) or isinstance(listed, str):
        raise InputError(f"pairs=… takes a list of pairs, such as {_EXAMPLE}; this is a {type(given).__name__}")
    return Pairs(tuple(_pair(one, number) for number, one in enumerate(cast("Iterable[Any]", listed))))


def _pair(one: Any, number: int) -> Pair:
    if isinstance(one, Pair):
        return one
    row: Any = dict(zip(INPUTS[Pairs], one, strict=False)) if isinstance(one, list | tuple) else one
    if not isinstance(row, Mapping) or not {"clean", "corrupted"} <= set(cast("Mapping[str, Any]", row)):
        raise InputError(f"pair {number} is no pair: write {_EXAMPLE}, or interp.Pair(clean=…, corrupted=…, …)")
    fields = cast("Mapping[str, Any]", row)
    try:
        return Pair(**{name: fields[name] for name in INPUTS[Pairs][:4] if name in fields})
    except InputError as error:
        raise InputError(f"pair {number}: {error}") from None


def _running(body: Sequence[Any], arguments: dict[str, Any]) -> bool:
    """Whether a call of a technique that takes pairs or texts gives texts."""
    if arguments.get("text") is not None or "texts" in arguments:
        return True
    alone = len(body) == 1 and not {"task", "clean", "corrupted", "pairs"} & {
        name for name, value in arguments.items() if value is not None
    }
    return alone and not (isinstance(body[0], Pairs | Pair) or hasattr(body[0], "pairs"))


def _texts(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    from interp.methods._shared import texts

    bos, truncate = arguments.pop("bos", None), bool(arguments.pop("truncate", False))
    templated = bool(arguments.pop("template", True))
    n, column = arguments.pop("n", 32), arguments.pop("column", "text")
    path, listed = arguments.pop("text", None), arguments.pop("texts", None)
    other = [name for name in ("task", *INPUTS[Pairs]) if arguments.get(name) is not None]
    if len(body) + (path is not None) + (listed is not None) + len(other) != 1:
        raise InputError(f"{command.name} takes one of them: a text, texts=…, --text FILE, a task or pairs")
    _drop(command, arguments, "task", "corruption", *INPUTS[Pairs])
    alone = body[0] if body else listed
    if isinstance(alone, str) and templated:  # it may be a typed chat; texts of lists and files are read as they are
        alone = Prompt(alone, turns=turns(alone, literal=True))
    found = texts.from_file(path, column) if path is not None else texts.several(alone)
    if n < 1:
        raise InputError(f"--n {n} takes no text; use 1 or more")
    prompts = tuple(
        replace(prompt, bos=prompt.bos if bos is None else bos, truncate=prompt.truncate or truncate)
        for prompt in found.texts[: n if path is not None else None]
    )
    if path is None:
        given["texts"] = [_plain(prompt, bos, truncate, running=True) for prompt in prompts]
    written = tuple(_written(model, prompt if templated else as_typed(prompt), bos) for prompt in prompts)
    return (replace(found, texts=written),), given


def _plain(prompt: Prompt, bos: bool | None, truncate: bool, *, running: bool = False) -> Any:
    """Return a prompt as its text or ids, unless it says more than the call's own flags do."""
    if (prompt.bos, prompt.truncate) != (bos if prompt.ids is None else None, truncate):
        return prompt
    return prompt.running if running else prompt.plain


def _drop(command: Command, arguments: dict[str, Any], *names: str) -> None:
    """Take arguments out that the technique itself does not take."""
    taken = inspect.signature(command.function).parameters
    for name in names:
        if name not in taken:
            arguments.pop(name, None)
