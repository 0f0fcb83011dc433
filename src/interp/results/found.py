"""What a result has found, field by field: numbers with numbers, words with words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from interp.results.base import Result
from interp.results.per_pair import Filed
from interp.results.tables import Float

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a call takes is no number of what it found; nor is what other calls have said of heads and features.
_TAKES = frozenset({"provenance", "notes", "seconds", "forwards", "free_bytes", "peak_bytes", "labels"})


@dataclass(frozen=True)
class Found:
    """Numbers, or words, of a result by the name of their field."""

    name: str
    numbers: Float
    words: tuple[str, ...] = ()
    whole: bool = False


def found_in(result: Result) -> Iterator[Found]:
    """Yield what a result has found, by name: numbers with numbers, words with words."""
    for one in fields(result):
        if not one.name.startswith("_") and one.name not in _TAKES:
            yield from _inside(one.name, getattr(result, one.name))


def _inside(name: str, value: Any) -> Iterator[Found]:
    if isinstance(value, np.ndarray | Filed):
        held: NDArray[Any] = np.asarray(value)
        yield Found(name, np.asarray(held, np.float64), whole=held.dtype.kind in "biu")
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            if not one.name.startswith("_") and one.name not in _TAKES:
                yield from _inside(f"{name}.{one.name}", getattr(value, one.name))
    elif isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value)
        items = {key: one for key, one in items.items() if key not in _TAKES}
        inner = {key: one for key, one in items.items() if isinstance(one, np.ndarray | Mapping) or is_dataclass(one)}
        for key, one in inner.items():
            yield from _inside(f"{name}.{key}", one)
        yield from _inside(name, [one for key, one in items.items() if key not in inner])
    elif isinstance(value, list | tuple) and any(isinstance(one, Result) for one in cast("list[Any]", value)):
        for number, one in enumerate(cast("list[Any]", value)):
            yield from _inside(f"{name}.{number}", one)
    else:
        numbers, words = _leaves(value)
        whole = [one for one in numbers if _is_whole(one)]
        measured = [one for one in numbers if not _is_whole(one)]
        if measured:
            yield Found(name, np.array(measured, np.float64))
        if whole:
            yield Found(f"{name} (whole)" if measured else name, np.array(whole, np.float64), whole=True)
        if words:
            yield Found(f"{name} (words)" if numbers else name, np.zeros(0), tuple(words))


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer | np.bool_)


def _leaves(value: Any) -> tuple[list[float], list[str]]:
    """Return the numbers and the words in a value, in order."""
    if isinstance(value, str):
        return [], [value]
    if isinstance(value, bool | int | float | np.generic):
        return [cast("float", value)], []
    if isinstance(value, np.ndarray):
        return np.asarray(value).ravel().tolist(), []
    parts: list[Any] = []
    if is_dataclass(value) and not isinstance(value, type):
        named = (one.name for one in fields(value) if not one.name.startswith("_") and one.name not in _TAKES)
        parts = [getattr(value, name) for name in named]
    elif isinstance(value, Mapping):
        parts = [item for pair in cast("Mapping[Any, Any]", value).items() for item in pair]
    elif isinstance(value, list | tuple):
        parts = list(cast("list[Any]", value))
    found: tuple[list[float], list[str]] = ([], [])
    for part in parts:
        numbers, words = _leaves(part)
        found[0].extend(numbers)
        found[1].extend(words)
    return found
