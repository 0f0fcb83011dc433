"""Token ids, with the types that a tokenizer gives them, and where two prompts are the same."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, SupportsIndex, cast, overload

from interp.errors import InputError


class TypedIds(tuple[int, ...]):
    """Token ids with the type of each: which sentence of a pair it belongs to.

    They are equal only to ids of the same types, so that nothing which is kept by ids answers for other types.

    Examples
    --------
    >>> TypedIds((5, 6, 7), (0, 0, 1))[1:].types, TypedIds((5, 6), (0, 1)) == (5, 6)
    ((0, 1), False)
    >>> (TypedIds((5, 6), (0, 1)) + (7,)).types
    (0, 1, 1)
    """

    types: tuple[int, ...]

    def __new__(cls, ids: Sequence[int], types: Sequence[int]) -> TypedIds:
        if len(ids) != len(types):
            raise InputError(f"the prompt has {len(ids)} ids and {len(types)} token types; give one to each id")
        made = super().__new__(cls, ids)
        made.types = tuple(types)
        return made

    def __getnewargs__(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(self), self.types

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return typed(found, self.types[index]) if isinstance(index, slice) else found

    def __add__(self, other: Any) -> tuple[int, ...]:
        """Return ids with more behind them, which are of the last one's sentence where they have no types."""
        more = types_of(other) or self.types[-1:] * len(other)
        return typed((*self, *other), (*self.types, *more))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple) and super().__eq__(cast("Any", other)) and self.types == types_of(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((tuple(self), self.types))

    def __repr__(self) -> str:
        return f"TypedIds({tuple(self)}, {self.types})"


def types_of(ids: object) -> tuple[int, ...]:
    """Return the type of each id; none where all are 0, as a model takes them that is told nothing."""
    return ids.types if isinstance(ids, TypedIds) else ()


def typed(ids: Sequence[int], types: Sequence[int]) -> tuple[int, ...]:
    """Return ids with their types, which are left out where all are 0."""
    return TypedIds(ids, types) if any(types) else tuple(ids)


def as_ids(ids: Sequence[int]) -> tuple[int, ...]:
    """Return ids as a tuple that keeps their types."""
    return ids if isinstance(ids, TypedIds) else tuple(ids)


def differing(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """Return the positions at which two prompts of one length have another token, or one of another type.

    Examples
    --------
    >>> differing((5, 6, 7), (5, 9, 7)), differing(TypedIds((5, 6), (0, 1)), (5, 6))
    ((1,), (1,))
    """
    both = [[*zip(ids, types_of(ids) or [0] * len(ids), strict=True)] for ids in (first, second)]
    return tuple(n for n, (a, b) in enumerate(zip(*both, strict=False)) if a != b)


def between(first: Sequence[Any], second: Sequence[Any]) -> tuple[range, range]:
    """Return the positions of two prompts of any lengths between what both begin and what both end with.

    Examples
    --------
    >>> between((5, 6, 7), (5, 8, 9, 7))
    (range(1, 2), range(1, 3))
    """
    least = min(len(first), len(second))
    begin = next((n for n in range(least) if first[n] != second[n]), least)
    end = next((n for n in range(least - begin) if first[-1 - n] != second[-1 - n]), least - begin)
    return range(begin, len(first) - end), range(begin, len(second) - end)


class IdTable(Sequence[tuple[int, ...]]):
    """The token ids of many prompts, in four bytes each: tuples of a million take several times as much.

    Examples
    --------
    >>> table = IdTable()
    >>> table.append((5, 6))
    >>> table.append(TypedIds((7,), (1,)))
    >>> table[0], table[-1].types, len(table)
    ((5, 6), (1,), 2)
    """

    def __init__(self) -> None:
        self._ids, self._ends = array("i"), array("q", [0])
        self._types: dict[int, tuple[int, ...]] = {}

    def append(self, ids: Sequence[int]) -> None:
        """Add a prompt."""
        if types := types_of(ids):
            self._types[len(self)] = types
        self._ids.extend(ids)
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return typed(tuple(self._ids[self._ends[number] : self._ends[number + 1]]), self._types.get(number, ()))
