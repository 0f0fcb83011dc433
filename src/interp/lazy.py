"""Sequences that are read anew each time, for what is too much to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TypeVar, overload

T = TypeVar("T")
U = TypeVar("U")


class Lazy(Sequence[T]):
    """A sequence of which nothing is held: whoever goes through it reads it, from its beginning on.

    Its length is counted once, by reading all of it. One item by its number is as dear as all before it: go through it
    in order, or in `chunks`.

    Parameters
    ----------
    read
        Begins to read: what it returns gives the items in order, the same ones each time.

    Examples
    --------
    >>> squares = Lazy(lambda: (n * n for n in range(5)))
    >>> len(squares), squares[-1], list(squares[1:3]), list(squares.map(str))
    (5, 16, [1, 4], ['0', '1', '4', '9', '16'])
    """

    def __init__(self, read: Callable[[], Iterator[T]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[T]:
        return self._read()

    @cached_property
    def _length(self) -> int:
        return sum(1 for _ in self)

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return next((True for _ in self), False)  # a length is read to the end

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...
    def __getitem__(self, index: int | slice) -> T | Lazy[T]:
        if isinstance(index, slice):
            start, stop, step = index.start or 0, index.stop, index.step or 1
            if start < 0 or step < 0 or (stop is not None and stop < 0):
                start, stop, step = index.indices(len(self))
            if step < 0:
                raise ValueError("what is read from its beginning on has no backward slice")
            return Lazy(lambda: islice(self, start, stop, step))
        at = index + len(self) if index < 0 else index
        found = list(islice(self, at, at + 1)) if at >= 0 else []
        if not found:
            raise IndexError(index)
        return found[0]

    def map(self, function: Callable[[T], U]) -> Lazy[U]:
        """Return what `function` makes of each item, as it is read."""
        return Lazy(lambda: map(function, self))


def each(items: Sequence[T], function: Callable[[T], U]) -> Sequence[U]:
    """Return what `function` makes of each item: at once of what is held, as it is read of what is not."""
    return items.map(function) if isinstance(items, Lazy) else tuple(map(function, items))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items, so many together.

    Examples
    --------
    >>> list(chunks("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def held(read: Callable[[], Iterator[T]], most: int) -> Sequence[T]:
    """Return what is read: as a tuple where it is no more than `most`, else `Lazy`.

    Examples
    --------
    >>> held(lambda: iter("ab"), 2), type(held(lambda: iter("abc"), 2)).__name__
    (('a', 'b'), 'Lazy')
    """
    first = tuple(islice(read(), most + 1))
    return first if len(first) <= most else Lazy(read)
