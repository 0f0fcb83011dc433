"""What is read: one prompt, or many with the answers that belong to them, from whatever a call gives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from interp import reading, rows
from interp.errors import InputError
from interp.ids import TypedIds
from interp.methods._shared import answers, texts
from interp.methods._shared.python_pairs import pairs_of
from interp.prompts import is_pair
from interp.rows import Rows
from interp.spec import Pair, Pairs, Prompt, Prompts, as_answers, as_prompt, plain

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

_ANSWERS = ("answer", "wrong")


def of_pairs(pairs: Pairs, source: str = "") -> Prompts:
    """Return the clean prompts of pairs, with their answers.

    Examples
    --------
    >>> of_pairs(Pairs((Pair("A is", "B is", "C", "D"),))).answer
    (('C',),)
    """
    held = pairs.pairs
    slotted = bool(held) and all(pair.slots for pair in held)
    return Prompts(
        tuple(pair.clean for pair in held),
        answer=tuple(pair.answer for pair in held) if any(pair.answer for pair in held) else (),
        wrong=tuple(pair.wrong for pair in held) if any(pair.wrong for pair in held) else (),
        slots=tuple(pair.slots for pair in held) if slotted else (),
        literal=bool(held) and all(pair.literal for pair in held),
        source=source or pairs.task,
    )


def from_file(path: str | os.PathLike[str], column: str, n: int) -> Prompts:
    """Return the first `n` prompts that a file holds; its columns ``answer`` and ``wrong`` are theirs.

    Of a file with the columns ``clean`` and ``corrupted``, and none called `column`, the clean prompts are read.

    Raises
    ------
    InputError
        There is no such file or column, or no prompt in it.
    """
    return _of_rows(reading.of_file(path), column, n)


def several(given: Any, column: str = "text") -> Prompts | None:
    """Return the prompts that Python code gives; ``None`` for what is one prompt, or none.

    Many are a list, an array or a table's column of prompts, a table, the path of a file, or pairs.

    Raises
    ------
    InputError
        There are none, or one of them is no prompt.

    Examples
    --------
    >>> [prompt.text for prompt in several(["a b", "c"]).prompts], several("a b"), several([5, 6])
    (['a b', 'c'], None, None)
    >>> several(["When [Mary]{IO} left"]).prompts[0].marks[0].name
    'IO'
    """
    if isinstance(given, Prompts):
        return given
    if isinstance(given, Pairs | Pair) or isinstance(getattr(given, "pairs", None), tuple):  # or a task's result
        return _of_python_pairs(given)
    read = None if isinstance(given, str) else reading.of_any(given)
    if read is not None:
        return _of_rows(read, column)
    held: Any = plain(given)
    if not isinstance(held, list | tuple) or isinstance(held, TypedIds) or is_pair(held):
        return None
    items = [plain(item) for item in cast("Iterable[Any]", held)]
    if items and all(isinstance(item, Pair) for item in items):
        return _of_python_pairs(items)
    if not items or (isinstance(held, tuple) and all(isinstance(item, str) for item in items)):
        return None  # as a prompt it is refused, and what to type instead is said
    if not all(_is_prompt(item) for item in items) or (len(items) == 1 and isinstance(items[0], list)):
        return None  # the ids of one, or a batch of one
    return Prompts(tuple(_numbered(item, number) for number, item in enumerate(items)))


def _is_prompt(item: Any) -> bool:
    """Return whether an item of a list is a prompt of its own, and the list so not one prompt's ids or messages."""
    if isinstance(item, Mapping):
        return "input_ids" in item
    return isinstance(item, str | Prompt | list | tuple)


def _numbered(item: Any, number: int) -> Prompt:
    try:
        return as_prompt(item)
    except InputError as error:
        raise InputError(f"prompt {number}: {error}") from None


def _of_python_pairs(given: Any) -> Prompts:
    return of_pairs(pairs_of(given))


def _of_rows(read: Rows, column: str, n: int | None = None) -> Prompts:
    """Return the first `n` prompts of rows, or all, each a text or a mapping of columns."""
    if column == "text" and not read.named("text") and len(read.named("clean", "corrupted")) == 2:
        column = "clean"
    found: list[Prompt] = []
    own: tuple[list[tuple[str | int, ...]], ...] = ([], [])
    for number, (where, (text, *given)) in enumerate(islice(read.cells(column, maybe=_ANSWERS), n)):
        if not isinstance(text, str):
            raise rows.no_text(where, text)
        found.append(_numbered(text, number))
        for name, listed, value in zip(_ANSWERS, own, given, strict=True):
            listed.append(() if rows.is_empty(value) else as_answers(value, name))
    if not found:
        raise InputError(f"{read.name} holds no prompt")
    answer, wrong = (tuple(each) if any(each) else () for each in own)
    return Prompts(tuple(found), answer=answer, wrong=wrong, source=read.source, notes=read.notes)


def encode(model: LoadedModel, prompts: Prompts) -> list[Encoded]:
    """Return the prompts as tokens.

    Raises
    ------
    InputError
        There are none, or one is empty or too long; of several it is named by its number.
    """
    if not prompts.prompts:
        raise InputError("there are no prompts; give at least one")
    return texts.encoded(model, prompts.prompts, "prompt")


def answered(
    model: LoadedModel, prompts: Prompts, given: object, own: Sequence[Sequence[str | int]], which: str
) -> list[tuple[int, ...]]:
    """Return the tokens of each prompt's answers; none of one that has none.

    Parameters
    ----------
    given
        What the call says: one answer of all prompts, or a list with one of each; their `own` where it says nothing.

    Raises
    ------
    InputError
        A list of another length than there are prompts, or an answer that is not one token.
    """
    count = len(prompts.prompts)
    said = spelled(prompts, given, own, which)
    literal = prompts.literal and given is None
    return [
        answers.tokens(model, prompt, one, which, f"prompt {number}: " if count > 1 else "", literal=literal)
        for number, (prompt, one) in enumerate(zip(prompts.prompts, said, strict=True))
    ]


def spelled(
    prompts: Prompts, given: object, own: Sequence[Sequence[str | int]], which: str
) -> list[tuple[str | int, ...]]:
    """Return each prompt's answers as they were given; see `answered`."""
    count = len(prompts.prompts)
    if given is None:
        return [tuple(one) for one in own] if own else [()] * count
    listed = as_answers(given, which)
    if len(listed) == 1:
        return [listed] * count
    if len(listed) != count:
        raise InputError(f"{len(listed)} {which}s do not fit {count} prompts; give one, or one for each prompt")
    return [(one,) for one in listed]


def single(found: Sequence[Sequence[int]], which: str, what: str) -> list[int | None]:
    """Return the only token of each prompt's answers, or ``None``.

    Raises
    ------
    InputError
        One has several: `what` is of one token.
    """
    for number, one in enumerate(found):
        if len(one) > 1:
            raise InputError(
                f"prompt {number} has {len(one)} {which}s, and {what} is of one token: name it, or one for each prompt"
            )
    return [one[0] if one else None for one in found]
