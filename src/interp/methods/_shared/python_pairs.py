"""Pairs as Python code gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from interp.errors import InputError
from interp.spec import Pair, Pairs, Prompt

_EXAMPLE = '("clean prompt", "corrupted prompt", "answer", "wrong")'
FIELDS = ("clean", "corrupted", "answer", "wrong")


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
    row: Any = dict(zip(FIELDS, one, strict=False)) if isinstance(one, list | tuple) else one
    if not isinstance(row, Mapping) or not {"clean", "corrupted"} <= set(cast("Mapping[str, Any]", row)):
        raise InputError(f"pair {number} is no pair: write {_EXAMPLE}, or interp.Pair(clean=…, corrupted=…, …)")
    fields = cast("Mapping[str, Any]", row)
    try:
        return Pair(**{name: fields[name] for name in FIELDS if name in fields})
    except InputError as error:
        raise InputError(f"pair {number}: {error}") from None
