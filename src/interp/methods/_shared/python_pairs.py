"""Pairs as Python code, a file or a dataset gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from interp import reading, rows
from interp.errors import InputError
from interp.rows import Rows
from interp.spec import Pair, Pairs, Prompt

_EXAMPLE = '("clean prompt", "corrupted prompt", "answer", "wrong")'
FIELDS = ("clean", "corrupted", "answer", "wrong")


def pairs_of(given: Any, n: int | None = None) -> Pairs:
    """Return pairs from what Python code has: `Pairs`, a task's result, or a list of `Pair`, tuples or mappings.

    Of a table, a dataset or a file it is the first `n` rows, or all, with the columns clean, corrupted, and as far as
    they are there answer and wrong.

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
    read = reading.of_any(given)
    if read is not None:
        return _of_rows(read, n)
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


def _of_rows(read: Rows, n: int | None) -> Pairs:
    """Return the first `n` rows as pairs; one more is read, to say that there are more."""
    found: list[Pair] = []
    notes = list(read.notes)
    limit = None if n is None else n + 1
    for where, cells in islice(read.cells(*FIELDS[:2], maybe=FIELDS[2:]), limit):
        if len(found) == n:
            notes.append(f"the first {n} pairs of {read.name} are read; --n takes more")
            break
        row = {name: cell for name, cell in zip(FIELDS, cells, strict=True) if not rows.is_empty(cell)}
        lost = next((name for name in FIELDS[:2] if name not in row), None)
        if lost is not None:
            raise InputError(f"{where} has nothing in its column {lost}; fill it in, or leave the row out")
        try:
            found.append(Pair(**row))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if not found:
        raise InputError(f"{read.name} holds no pair")
    return Pairs(tuple(found), source=read.source, notes=tuple(notes))


def _pair(one: Any, number: int) -> Pair:
    if isinstance(one, Pair):
        return one
    row: Any = dict(zip(FIELDS, one, strict=False)) if isinstance(one, list | tuple) else one
    if not isinstance(row, Mapping) or not {"clean", "corrupted"} <= set(cast("Mapping[str, Any]", row)):
        raise InputError(f"pair {number} is no pair: write {_EXAMPLE}, or interp.Pair(clean=…, corrupted=…, …)")
    fields = cast("Mapping[str, Any]", row)
    try:
        return Pair(**{name: fields[name] for name in FIELDS if name in fields})
    except InputError as error:
        raise InputError(f"pair {number}: {error}") from None
