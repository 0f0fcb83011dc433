"""The texts of a probe and their labels, as they are given and as what is read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from interp import reading, rows
from interp.errors import InputError
from interp.rows import Rows
from interp.spec import as_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray


def given(texts: Any, labels: Any, text: str | None, column: str, label: str) -> tuple[list[Any], list[Any]]:
    """Return the texts and as many labels.

    Raises
    ------
    InputError
        None, two of them, or ones that do not go together.
    """
    if (texts is None) == (text is None):
        raise InputError("a probe needs texts and labels: --text FILE --label COLUMN, or interp.probe(texts, labels)")
    if text is not None:
        if labels is not None:
            raise InputError("the file holds the labels: name their column with --label")
        prompts, held = _columns(reading.of_file(text), column, label)
    elif (table := reading.of_any(texts)) is not None:
        prompts, held = _columns(table, column, label if labels is None else None)
        held = held if labels is None else _list(labels, "labels")
    else:
        if labels is None:
            raise InputError("a probe needs a label for each text: interp.probe(texts, labels)")
        prompts, held = _list(texts, "texts"), _list(labels, "labels")
    if len(prompts) != len(held):
        raise InputError(f"there are {len(prompts)} texts and {len(held)} labels; give one label for each text")
    for number, one in enumerate(prompts):
        try:
            as_prompt(one, literal=True)  # which is made again as it is read: a million are not held
        except InputError as error:
            raise InputError(f"text {number}: {error}") from None
    return prompts, held


def _columns(read: Rows, column: str, label: str | None) -> tuple[list[Any], list[Any]]:
    """Return what a table holds under two columns."""
    read.require(column)
    if label is not None:
        read.require(label, "label")
    prompts: list[Any] = []
    held: list[Any] = []
    for where, (text, *own) in read.cells(column, *(() if label is None else (label,))):
        if not isinstance(text, str):
            raise rows.no_text(where, text)
        prompts.append(text)
        held += own
    return prompts, held


def _list(given: Any, which: str) -> list[Any]:
    if callable(given):
        raise InputError(f"{which} are a list or a table's column, not a function; give [f(text) for text in texts]")
    listed: Any = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(listed, str | bytes | Mapping) or not isinstance(listed, Iterable):
        raise InputError(f"{which} are a list or a table's column, not {type(given).__name__}")
    return list(cast("Iterable[Any]", listed))


@dataclass(frozen=True)
class Target:
    """What is read: classes by number, or real numbers when there are no `classes`."""

    values: NDArray[Any]
    classes: tuple[str, ...]
    counts: tuple[int, ...]


def target_of(labels: Sequence[Any]) -> Target:
    """Return labels as what is read.

    Raises
    ------
    InputError
        One is missing or infinite, or they do not differ.
    """
    lost = next((n for n, one in enumerate(labels) if _is_lost(one)), None)
    if lost is not None:
        raise InputError(f"text {lost} has no label; give it one, or leave it out")
    numbers = [_number(one) for one in labels]
    if len(labels) and all(number is not None for number in numbers):
        values = np.array(numbers, np.float64)
        if not np.isfinite(values).all():
            raise InputError("a label is infinite; give finite numbers")
        if (values % 1 != 0).any():
            if (values == values[0]).all():
                raise InputError(f"every label is {labels[0]}; a probe needs values that differ")
            return Target(values, (), (len(labels),))
    # A whole number that pandas made a float of is the number; a text stays as it is spelled.
    spelled = [str(int(one)) if isinstance(one, float | np.floating) and one % 1 == 0 else str(one) for one in labels]
    names = sorted(set(spelled), key=lambda name: (_number(name) is None, _number(name) or 0.0, name))
    if len(names) < 2:
        raise InputError(
            f"there is one label alone, {names[0]!r}; a probe needs two" if names else "there are no texts"
        )
    place = {name: n for n, name in enumerate(names)}
    values = np.array([place[name] for name in spelled])
    counts: list[int] = np.bincount(values).tolist()
    return Target(values, tuple(names), tuple(counts))


def _is_lost(label: Any) -> bool:
    try:
        return label is None or label == "" or bool(label != label) or math.isnan(_number(label) or 0.0)
    except (TypeError, ValueError):  # pandas' NA is neither equal to itself nor not
        return True


def _number(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def enough(target: Target, groups: NDArray[np.int_], folds: int) -> None:
    """Refuse fewer texts, equal ones counted once, than there are folds.

    Raises
    ------
    InputError
        A class has fewer different texts than folds, or real numbers have fewer than two for each fold.
    """
    if not target.classes:
        different = len(np.unique(groups))
        if different < 2 * folds:
            raise InputError(f"{different} different texts are too few for {folds} folds; give {2 * folds} or more")
        return
    counts = [len(np.unique(groups[target.values == n])) for n in range(len(target.classes))]
    fewest = counts.index(min(counts))
    if counts[fewest] < folds:
        more = f"use --folds {counts[fewest]}, or " if counts[fewest] > 1 else ""
        what = "different text" if target.counts[fewest] > counts[fewest] else "text"
        raise InputError(
            f"label {target.classes[fewest]!r} has {counts[fewest]} {what}{'s' * (counts[fewest] != 1)} and there are "
            f"{folds} folds; {more}give more texts"
        )


def groups_of(ids: Iterable[Sequence[int]]) -> NDArray[np.int_]:
    """Return a number for each text, the same for equal ones.

    Examples
    --------
    >>> groups_of([(1,), (2,), (1,), (3,)]).tolist()
    [0, 1, 0, 2]
    """
    numbers: dict[bytes, int] = {}
    found = (hashlib.blake2b(repr(one).encode(), digest_size=16).digest() for one in ids)
    return np.fromiter((numbers.setdefault(one, len(numbers)) for one in found), np.int64)


def joined(groups: NDArray[np.int_], together: Sequence[int]) -> NDArray[np.int_]:
    """Return groups in which texts that are told to stay `together` are of one, with all that are equal to them.

    Examples
    --------
    >>> joined(np.array([0, 1, 0, 2]), [0, 0, 1, 1]).tolist()
    [0, 0, 0, 0]
    """
    groups = groups.copy()
    for number in dict.fromkeys(together):
        own = groups[np.asarray(together) == number]
        groups[np.isin(groups, own)] = own.min()
    return np.unique(groups, return_inverse=True)[1]


def twice(groups: NDArray[np.int_]) -> list[str]:
    """Return a note where texts are there more than once."""
    again = len(groups) - len(np.unique(groups))
    return [f"{again} texts are there more than once: equal texts are in one fold"] if again else []
