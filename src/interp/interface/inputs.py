"""From what a call gives (a text, ids, two prompts, pairs, a task's name) to what a technique takes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interp import files
from interp.chats import turns
from interp.claim_language import Claim, Claimed, divided
from interp.errors import InputError
from interp.interface import body as cells
from interp.interface.registry import Command
from interp.lazy import Lazy, each
from interp.methods._shared.python_pairs import FIELDS, pairs_of
from interp.prompts import as_typed
from interp.reading import is_dataset, is_path, is_table
from interp.spec import Pair, Pairs, Prompt, Prompts, Texts, as_prompt

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

# Arguments of a Python call that have no flag, by the kind of body.
INPUTS: dict[type, tuple[str, ...]] = {
    Prompt: ("prompt",),
    Prompts: ("prompt", "pairs"),
    Pairs: (*FIELDS, "pairs"),
    Texts: ("texts",),
    Claimed: ("claim", "prompts", "pairs"),
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
    if Prompts in command.bodies:
        return _prompts(command, model, body, arguments, given)
    if command.body is Prompt:
        return _prompt(command, model, body, arguments, given)
    if Claimed in command.bodies:
        return _claim(command, model, body, arguments, given)
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
    bos, truncate = arguments.pop("bos", None), bool(arguments.pop("truncate", False))
    prompt, noted = _one(model, body[0], bos, truncate, bool(arguments.pop("template", True)))
    return (prompt,), {"prompt": noted, **given}


def _one(model: LoadedModel, given: Any, bos: bool | None, truncate: bool, templated: bool) -> tuple[Prompt, Any]:
    """Return a prompt as it is run, and as provenance notes it."""
    prompt = as_prompt(given, bos, truncate)
    prompt = prompt if templated else as_typed(prompt)
    noted = _plain(prompt, bos, truncate)
    if templated and isinstance(noted, str) and not prompt.turns and as_prompt(noted).turns:
        noted = prompt  # a text that would be read as a chat, and was not given as one
    return _written(model, prompt, bos), noted


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


def _prompts(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return one prompt, or many, of a command that reads either."""
    from interp.methods._shared import prompts

    bos, truncate = arguments.pop("bos", None), bool(arguments.pop("truncate", False))
    templated = bool(arguments.pop("template", True))
    n, seed, column = (arguments.pop(name, value) for name, value in (("n", 32), ("seed", 0), ("column", "text")))
    task, text = arguments.pop("task", None), arguments.pop("text", None)
    listed = [*body, *(arguments.pop(name) for name in INPUTS[Prompts] if name in arguments)]
    if len(listed) + (task is not None) + (text is not None) != 1:
        count = len(listed)
        said = f"; {count} prompts were given: put them into a list" if count > 1 else ""
        raise InputError(f"{command.name} takes one of them: a prompt, a list of prompts, --text FILE or a task{said}")
    drawn = task is not None or (isinstance(text, str) and files.is_texts(text))
    idle = next((name for name in ("n", "seed", "column") if name in given and not drawn), None)
    table = bool(listed) and (hasattr(listed[0], "columns") or isinstance(listed[0], os.PathLike))
    if idle is not None and not (idle == "column" and table):
        raise InputError(f"--{idle} is about a task's prompts or a file's, and these are given; leave it out")
    if n < 1:
        raise InputError(f"--n {n} takes no prompt; use 1 or more")
    if task is not None:
        from interp.methods._shared.pairs import from_task

        many: Prompts | None = prompts.of_pairs(from_task(model, task, n=n, seed=seed, bos=bos))
    elif text is not None and files.is_texts(text):
        many = prompts.from_file(text, column, n)
    else:
        listed = listed or [text]
        given.pop("text", None)
        pairs = "pairs" in given
        many = prompts.of_pairs(pairs_of(listed[0])) if pairs else prompts.several(listed[0], column)
        if many is None:
            prompt, noted = _one(model, listed[0], bos, truncate, templated)
            return (prompt,), {"prompt": noted, **given}
    found = tuple(
        replace(prompt, bos=prompt.bos if bos is None else bos, truncate=prompt.truncate or truncate)
        for prompt in (many.prompts if templated else map(as_typed, many.prompts))
    )
    many = replace(many, prompts=found)
    if not drawn and "pairs" not in given:
        answered = many.answer or many.wrong
        given.pop("prompt", None)
        given = {"prompt": many if answered else [_plain(prompt, bos, truncate) for prompt in found], **given}
    written = tuple(_numbered(model, prompt, bos, number) for number, prompt in enumerate(found))
    return (replace(many, prompts=written),), given


def _numbered(model: LoadedModel, prompt: Prompt, bos: bool | None, number: int) -> Prompt:
    """Return one of many prompts as it is run; an error names its number."""
    try:
        return _written(model, prompt, bos)
    except InputError as error:
        raise InputError(f"prompt {number}: {error}") from None


def _pairs(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    bos, templated = arguments.pop("bos", None), bool(arguments.pop("template", True))
    task, n, corruption = arguments.pop("task", None), arguments.pop("n", 32), arguments.pop("corruption", None)
    seed = arguments.get("seed", 0)
    _drop(command, arguments, "seed", "text", "column", "truncate")
    own_pairs = {name: arguments.pop(name) for name in INPUTS[Pairs] if arguments.get(name) is not None}
    if body and "pairs" in own_pairs:
        raise InputError(f"{command.name} takes its pairs from one place: pairs=…, or those that are given without it")
    sources = dict(zip(("clean", "corrupted"), body, strict=False)) | own_pairs
    if len(body) == 1 and (is_path(body[0]) or not isinstance(body[0], str)) and "corrupted" not in sources:
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
    table = "pairs" in sources and (
        is_path(sources["pairs"]) or is_dataset(sources["pairs"]) or is_table(sources["pairs"])
    )
    idle = [name for name in ("n", "corruption", "seed") if task is None and name in given and name not in own]
    idle = [name for name in idle if name != "n" or not table]
    if idle:
        raise InputError(f"--{idle[0]} is about a task's pairs, and these are pairs of your own; leave it out")
    if task is not None:
        from interp.methods._shared.pairs import from_task

        found = from_task(model, task, n=n, seed=seed, corruption=corruption, bos=bos)
    elif "pairs" in sources:
        if n < 1:
            raise InputError(f"--n {n} takes no pair; use 1 or more")
        typed = isinstance(sources["pairs"], str)
        found = pairs_of(sources["pairs"], n if typed or "n" in given else None)
        if not templated:
            found = replace(found, pairs=tuple(map(_as_typed, found.pairs)))
        given["pairs"] = sources["pairs"] if typed else found.pairs
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


def _claim(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a claim with the prompts that it is tested on: a task's, a file's, those given, or those below it."""
    from interp.methods._shared import prompts
    from interp.methods._shared.claims.sources import task_with
    from interp.methods._shared.pairs import from_task, with_bos

    bos, templated = arguments.pop("bos", None), bool(arguments.pop("template", True))
    n, column = arguments.pop("n", 32), arguments.pop("column", "text")
    seed = arguments.get("seed", 0)
    _drop(command, arguments, "seed")
    task, path = arguments.pop("task", None), arguments.pop("text", None)
    listed, pairs = arguments.pop("prompts", None), arguments.pop("pairs", None)
    stated = [*body, *([arguments.pop("claim")] if "claim" in arguments else [])]
    if len(stated) != 1 or not isinstance(stated[0], str | Claim):
        raise InputError(f"{command.name} takes one claim, as a text: interp.{command.name}('variable: …', task='ioi')")
    text, block = (str(stated[0]), "") if isinstance(stated[0], Claim) else divided(stated[0])
    claim = Claim.parse(text)
    if block:
        pairs = cells.pairs(block, model.tokens.bidirectional, alone=True) if pairs is None else pairs
    if n < 1:
        raise InputError(f"--n {n} takes no prompt; use 1 or more")
    if sum((task is not None, path is not None, listed is not None, pairs is not None)) > 1:
        raise InputError(f"{command.name} takes its prompts from one place: a task, --text FILE, or prompts below it")
    notes: tuple[str, ...] = ()
    if task is path is listed is pairs is None:
        task = task_with(model, claim.spans, command.name)
        notes = (f"tested on the task {task}, the one that has {', '.join(claim.spans)}; --task names another",)
    if task is not None:
        many = prompts.of_pairs(from_task(model, task, n=n, seed=seed, bos=bos))
    elif pairs is not None:
        found = pairs_of(pairs).pairs
        found = found if templated else tuple(map(_as_typed, found))
        given["pairs"] = found
        written = _written_pairs(model, found, bos)
        many = prompts.of_pairs(replace(pairs_of(pairs), pairs=written))
        if bos is not None:
            many = prompts.of_pairs(Pairs(tuple(with_bos(pair, bos) for pair in written)))
    else:
        asked = prompts.from_file(path, column, n) if path is not None else prompts.several(listed, column)
        if asked is None:
            raise InputError(f"prompts=… takes a list of prompts, a table, or pairs, not {type(listed).__name__}")
        own = [replace(one, bos=one.bos if bos is None else bos) for one in asked.prompts]
        own = own if templated else list(map(as_typed, own))
        if path is None:
            asked = replace(asked, prompts=tuple(own))
            given["prompts"] = asked
        many = replace(asked, prompts=tuple(_numbered(model, one, bos, number) for number, one in enumerate(own)))
    given = {"claim": str(claim), **{name: value for name, value in given.items() if name != "claim"}}
    return (Claimed(claim, many, (*many.notes, *notes)),), given


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
    if n < 1:
        raise InputError(f"--n {n} takes no text; use 1 or more")
    if path is not None:
        found = texts.from_file(path, column, n)
    else:
        found = texts.several(alone, column, n if "n" in given else None)
    prompts = each(
        found.texts,
        lambda prompt: replace(prompt, bos=prompt.bos if bos is None else bos, truncate=prompt.truncate or truncate),
    )
    if path is None:
        held = not isinstance(prompts, Lazy)  # what is too much to hold is noted as what it was given as
        given["texts"] = [_plain(prompt, bos, truncate, running=True) for prompt in prompts] if held else alone
    written = each(prompts, lambda prompt: _written(model, prompt if templated else as_typed(prompt), bos))
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
