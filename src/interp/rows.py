"""The rows of a dataset: texts, or mappings of columns, which are read a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from interp.errors import InputError, closest, printable

# Rows with their numbers; of these columns, or all of them.
Read = Callable[[Sequence[str] | None], Iterator[tuple[int, Any]]]


@dataclass(frozen=True)
class Rows:
    """Rows that are read from the first on each time that they are gone through: texts, or mappings of columns.

    Attributes
    ----------
    name
        What an error calls it.
    read
        Begins to read some columns, or all: (number, row) …
    columns
        Their names; ``None`` where every row says its own, or is a text.
    unit
        What is numbered: ``"row"``, ``"line"`` …
    source, notes
        As results say where their texts came from, and how a file was cut.
    """

    name: str
    read: Read
    columns: tuple[str, ...] | None = None
    unit: str = "row"
    source: str = ""
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return (row for _, row in self.read(None))

    def require(self, column: str, flag: str = "column") -> None:
        """Refuse a column that there is not, where that is known before a row is read.

        Raises
        ------
        InputError
            It is not there; those that are there are named.
        """
        if self.columns is not None and column not in self.columns:
            raise _lacking(self.name, column, self.columns, flag)

    def named(self, *columns: str) -> tuple[str, ...]:
        """Return which of some columns are there: as all rows have them, else as the first one does."""
        known: Iterable[Any] = self.columns or ()
        if self.columns is None:
            first = next(iter(self), None)
            known = cast("Mapping[str, Any]", first) if isinstance(first, Mapping) else ()
        return tuple(column for column in columns if column in known)

    def cells(self, *columns: str, maybe: Sequence[str] = ()) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield where each row stands, and what it holds in some columns; of a row that is a text, itself.

        Behind them stands what it holds in columns that `maybe` are there, or ``None``.

        Raises
        ------
        InputError
            A row lacks one of the columns that must be there.
        """
        for column in columns:
            self.require(column)
        more = [column for column in maybe if self.columns is None or column in self.columns]
        for number, row in self.read([*columns, *more]):
            where = f"{self.unit} {number} of {self.name}"
            if isinstance(row, Mapping):
                held = cast("Mapping[str, Any]", row)
                lost = next((column for column in columns if column not in held), None)
                if lost is not None:
                    raise _lacking(where, lost, held, "column")
                yield where, tuple(held.get(column) for column in (*columns, *maybe))
            elif len(columns) == 1:
                yield where, (row, *[None] * len(maybe))
            else:
                raise InputError(f"{where} has no columns; give a .csv, .jsonl or .parquet file with {columns[1]!r}")

    def texts(self, column: str) -> Iterator[str]:
        """Yield the texts in `column`; an empty cell is none.

        Raises
        ------
        InputError
            A row without that column, or with something else in it.
        """
        for where, (value,) in self.cells(column):
            if isinstance(value, str):
                if value.strip():
                    yield value
            elif not is_empty(value):
                raise no_text(where, value)


def is_empty(value: Any) -> bool:
    """Return whether a cell holds nothing: an empty text, ``None``, or a missing number.

    Examples
    --------
    >>> is_empty(""), is_empty(float("nan")), is_empty(0)
    (True, True, False)
    """
    if value is None or (isinstance(value, str) and not value):
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas' NA is neither equal to itself nor not; an array is both
        return type(value).__name__ == "NAType"


def no_text(where: str, value: Any) -> InputError:
    """Return what is said of a cell that should hold a text."""
    return InputError(
        f"{where} holds {type(value).__name__} where a text should be; name the texts' column with --column"
    )


def _lacking(where: str, column: str, known: Iterable[str], flag: str) -> InputError:
    names = [str(name) for name in known]
    shown = printable(", ".join(names[:8])) or "none"
    return InputError(
        f"{where} has no column {column!r}{closest(column, names)}; it has {shown}: name one with --{flag}"
    )


def parquet(what: str) -> Any:
    """Return pyarrow's module for Parquet.

    Raises
    ------
    InputError
        It is not installed; `what` needs it.
    """
    try:
        import pyarrow.parquet as module
    except ImportError:
        raise InputError(f"{what} by pyarrow, which is not here: pip install 'interp[data]'") from None
    return module
