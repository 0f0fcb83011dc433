"""From what a call gives (a text, ids, two prompts, pairs, a task's name) to what a technique takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interp.registry import Command
from interp.spec import InputError, Pair, Pairs, Prompt

if TYPE_CHECKING:
    from interp.engine.model import LoadedModel

# Arguments of a Python call that have no flag, by the kind of body.
INPUTS: dict[type | None, tuple[str, ...]] = {Pairs: ("clean", "corrupted", "answer", "wrong", "pairs")}


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
        return _prompt(command, body, arguments, given)
    if command.body is Pairs:
        return _pairs(command, model, body, arguments, given)
    return (), given


def _prompt(
    command: Command, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    from interp.engine.model import as_prompt

    if len(body) != 1:
        raise InputError(f"{command.name} takes one prompt; {len(body)} were given")
    prompt = as_prompt(body[0], arguments.pop("bos", None), bool(arguments.pop("truncate", False)))
    return (prompt,), {"prompt": prompt.text if prompt.text is not None else list(prompt.ids or ()), **given}


def _pairs(
    command: Command, model: LoadedModel, body: Sequence[Any], arguments: dict[str, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    from interp.engine.model import as_prompt

    bos = arguments.pop("bos", None)
    task, n, seed = arguments.pop("task", None), arguments.pop("n", 32), arguments.pop("seed", 0)
    corruption = arguments.pop("corruption", None)
    sources = dict(zip(("clean", "corrupted"), body, strict=False)) | {
        name: arguments.pop(name) for name in INPUTS[Pairs] if name in arguments
    }
    if len(body) == 1 and isinstance(body[0], Pairs):
        sources = {"pairs": body[0]}
    elif len(body) == 1 and isinstance(body[0], str) and task is None and "corrupted" not in sources:
        task, sources = body[0], {}  # interp.task("ioi"): one text alone is a task's name
        given["task"] = task
    elif len(body) > 2:
        raise InputError(f"{command.name} takes a clean and a corrupted prompt; {len(body)} were given")
    if task is not None and sources:
        raise InputError(f"{command.name} takes a task or pairs, not both")
    if task is not None:
        found = from_task(model, task, n=n, seed=seed, corruption=corruption, bos=bos)
    elif "pairs" in sources:
        listed = sources["pairs"]
        found = listed if isinstance(listed, Pairs) else Pairs(tuple(listed))
        given["pairs"] = found.pairs
    elif "clean" in sources and "corrupted" in sources:
        pair = Pair(
            as_prompt(sources["clean"]),
            as_prompt(sources["corrupted"]),
            _several(sources.get("answer")),
            _several(sources.get("wrong")),
        )
        found = Pairs((pair,))
        given |= {name: sources[name] for name in ("clean", "corrupted")}
    else:
        raise InputError(f"{command.name} needs a clean and a corrupted prompt, pairs=…, or a task, such as ioi")
    if bos is not None and task is None:
        found = replace(found, pairs=tuple(_with_bos(pair, bos) for pair in found.pairs))
    return (found,), given


def _with_bos(pair: Pair, bos: bool) -> Pair:
    return replace(pair, clean=replace(pair.clean, bos=bos), corrupted=replace(pair.corrupted, bos=bos))


def _several(answer: Any) -> tuple[str | int, ...]:
    if answer is None:
        return ()
    return (answer,) if isinstance(answer, str | int) else tuple(answer)


def from_task(
    model: LoadedModel, task: str, *, n: int, seed: int, corruption: str | None = None, bos: bool | None = None
) -> Pairs:
    """Return a task's pairs for the tokenizer of `model`.

    Raises
    ------
    InputError
        No such task, or more pairs than it can make.
    """
    from interp import tasks

    def encode(text: str) -> tuple[int, ...]:
        if model.tokens.tokenizer is None:
            raise InputError("this model has no tokenizer, and tasks are texts; give pairs of token ids")
        return tuple(model.tokens.tokenizer(text, add_special_tokens=False)["input_ids"])

    options = {} if corruption is None else {"corruption": corruption}
    unknown = getattr(model.tokens.tokenizer, "unk_token_id", None)
    made = tasks.build(task, tasks.Vocabulary(encode, unknown), n=n, seed=seed, **options)
    pairs = tuple(pair if bos is None else _with_bos(pair, bos) for pair in made.pairs)
    return Pairs(tuple(_shifted(model, pair, encode) for pair in pairs), task=made.name, metric=made.metric)


def _shifted(model: LoadedModel, pair: Pair, encode: Callable[[str], Sequence[int]]) -> Pair:
    """Return `pair` with its slots counted as the model counts: after what the tokenizer puts in front."""
    if pair.clean.text is None or not pair.slots:
        return pair
    ids, plain = model.tokens.encode(pair.clean).ids, tuple(encode(pair.clean.text))
    front = next((n for n in range(len(ids)) if ids[n : n + len(plain)] == plain), 0)
    return replace(pair, slots={name: tuple(p + front for p in places) for name, places in pair.slots.items()})
