"""From a file (text, CSV, JSON, Parquet), a table or a dataset of Hugging Face's to its rows, a few at a time."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeGuard, cast

from interp import files
from interp.errors import InputError, printable
from interp.rows import Read, Rows, parquet

_MANY_LINES = 8  # fewer without a blank one are one text, as a poem is
_BLANK_LINE = re.compile(r"[ \t]*[\r\n]+")  # str.isspace also takes a line of a form feed, of U+3000 …
_CELL = 1 << 24  # characters of the longest cell: a quote that is never closed makes one of all that follows
_BATCH = 512  # rows that are read together
_INSTEAD = "type the path of a file of texts"
_LISTED = "give a list of texts, or of objects with the texts under one key"


def of_file(path: str | os.PathLike[str]) -> Rows:
    """Return the rows of a file, which is read anew, a few rows at a time, whenever they are gone through.

    A ``.csv`` or ``.tsv`` file has a header and one row to a line; a ``.jsonl`` file has one to a line, each a text or
    an object; a ``.json`` file is a list of these, and is read whole; a ``.parquet`` file is a table; any other file is
    plain text, a blank line between two. Where plain text has many lines and no blank one, each line is a text, and a
    note says so. All but Parquet may be packed by gzip.

    Raises
    ------
    InputError
        There is no such file, it is not UTF-8 or not of its kind, or it changes while it is gone through.
    """
    place = files.file_at(path, _INSTEAD)
    name, kind = repr(str(path)), files.kind_of(place)
    options: dict[str, Any] = {"unit": "line"}
    if kind in {".csv", ".tsv"}:
        table = _Table(path, "\t" if kind == ".tsv" else ",")
        read, options["columns"] = table.rows, table.header()
    elif kind == ".jsonl":
        read = _all_columns(lambda: _json_lines(path))
    elif kind == ".json":
        listed = _json_list(path)
        read, options["unit"] = _all_columns(lambda: iter(enumerate(listed))), "item"
    elif kind == ".parquet":
        parquet = _Parquet(place, name)
        read, options["columns"], options["unit"] = parquet.rows, parquet.columns, "row"
    else:
        read, notes = _plain(path)
        options |= {"unit": "text", "notes": notes}
    return Rows(name, _unchanged(place, name, read), source=place.name, **options)


def _unchanged(place: Path, name: str, read: Read) -> Read:
    """Return what reads a file, and refuses when it is not the one that it was."""

    def state() -> tuple[int, ...]:
        try:
            found = place.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    first = state()

    def reading(columns: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
        if state() != first:
            raise InputError(f"{name} has changed since it was first read; ask again")
        yield from read(columns)

    return reading


def _all_columns(read: Callable[[], Iterator[tuple[int, Any]]]) -> Read:
    """Return what reads rows of which no column can be left out."""
    return lambda columns: read()  # noqa: ARG005


@dataclass(frozen=True)
class _Table:
    """Comma- or tab-separated text."""

    path: str | os.PathLike[str]
    separator: str

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        with files.opened(self.path, _INSTEAD) as text:
            # Lines end as universal newlines do; str.splitlines also cuts at a form feed, at U+2028 …
            reader = csv.reader(text, delimiter=self.separator)
            while True:
                before = csv.field_size_limit(_CELL)  # of all readers there are, so that it is put back
                try:
                    part = [(reader.line_num, row) for row in islice(reader, _BATCH)]
                except csv.Error as error:
                    raise InputError(
                        f"{str(self.path)!r} is no table: {error} in line {reader.line_num}; save it again as CSV"
                    ) from None
                finally:
                    csv.field_size_limit(before)
                if not part:
                    return
                yield from ((number, row) for number, row in part if row)

    def header(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        found = tuple(next(self._lines(), (0, []))[1])
        if not found:
            raise InputError(f"{str(self.path)!r} is empty; its first line names the columns")
        return found

    def rows(self, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows below the header, and the lines they end in."""
        lines = self._lines()
        header = next(lines, (0, []))[1]
        twice = next((column for column in columns or () if header.count(column) > 1), None)
        if twice is not None:
            raise InputError(f"{str(self.path)!r} has {header.count(twice)} columns {twice!r}; rename all but one")
        at = {column: number for number, column in enumerate(header) if columns is None or column in columns}
        last = max(at.values(), default=-1)
        for number, row in lines:
            if len(row) > len(header) or (columns is not None and len(row) <= last):
                cells = f"{len(row)} cell{'s' * (len(row) != 1)}"
                raise InputError(
                    f"line {number} of {str(self.path)!r} has {cells} and its header names {len(header)}: put what "
                    f"holds the separator into double quotes"
                )
            yield number, {column: row[n] if n < len(row) else None for column, n in at.items()}


def _json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, Any]]:
    with files.opened(path, _INSTEAD, "\n") as text:
        for number, line in enumerate(text, 1):
            if line.strip():
                yield number, files.parsed(line, f"line {number} of {str(path)!r}", _LISTED)


def _json_list(path: str | os.PathLike[str]) -> list[Any]:
    with files.opened(path, _INSTEAD) as text:
        held: Any = files.parsed(text.read(), repr(str(path)), _LISTED)
    if not isinstance(held, list):
        raise InputError(f"{str(path)!r} must hold a list of texts, or of objects with the texts under one key")
    return cast("list[Any]", held)


def _plain(path: str | os.PathLike[str]) -> tuple[Read, tuple[str, ...]]:
    """Return what reads plain text, and a note where each of its lines is a text."""
    count, divided, blank = 0, False, False
    with files.opened(path, _INSTEAD) as text:
        for line in text:
            if line.strip():
                divided = blank and count > 0
                count += 1
                blank = False
                if divided:
                    break
            blank = blank or _BLANK_LINE.fullmatch(line) is not None
    if divided or count < _MANY_LINES:
        return _all_columns(lambda: _paragraphs(path)), ()
    name = files.path_of(path).name
    said = f"{name} has no blank line: each of its {count} lines is a text; blank lines divide others"
    return _all_columns(lambda: _lines(path)), (said,)


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    with files.opened(path, _INSTEAD) as text:
        yield from ((number, line.rstrip("\r\n")) for number, line in enumerate(text) if line.strip())


def _paragraphs(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    before, number, part = "", 0, list[str]()
    with files.opened(path, _INSTEAD) as text:
        for line in chain(text, "\n"):
            if not _BLANK_LINE.fullmatch(line):
                part.append(line)
                continue
            if whole := "".join(part).lstrip().rstrip("\r\n"):
                if before:  # the last text is stripped at its end, too
                    yield number, before
                    number += 1
                before = whole
            part.clear()
    if before:
        yield number, before.strip()


class _Parquet:
    """A Parquet file, of which a batch of rows is decoded at a time."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with self._opened() as file:
            self.columns = tuple(str(column) for column in file.schema_arrow.names)

    def _opened(self) -> Any:
        module: Any = parquet("Parquet is read")
        try:
            # Without `pre_buffer` and with a buffer, no more of a group of rows is there than what is decoded.
            return module.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20)
        except (OSError, ValueError, NotImplementedError) as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> InputError:
        said = printable(str(error).strip().partition("\n")[0])[:120]
        return InputError(f"{self.name} cannot be read as Parquet ({said}); save it again")

    def rows(self, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows and their numbers."""
        number = 0
        names = list(self.columns if columns is None else columns)
        with self._opened() as file:
            batches = file.iter_batches(batch_size=_BATCH, columns=names, use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                    part = None if batch is None else [column.to_pylist() for column in batch.select(names).columns]
                except (OSError, ValueError, KeyError, NotImplementedError) as error:
                    raise self._refused(error) from None
                if part is None:
                    return
                for row in zip(*part, strict=True):
                    yield number, dict(zip(names, row, strict=True))
                    number += 1


def is_dataset(given: Any) -> bool:
    """Return whether that is a dataset of Hugging Face's ``datasets``, or what holds several by name."""
    return hasattr(given, "column_names") and (hasattr(given, "features") or isinstance(given, Mapping))


def is_table(given: Any) -> bool:
    """Return whether that is a table in memory, as pandas and polars have them."""
    return hasattr(given, "columns") and hasattr(given, "to_dict") and hasattr(given, "__getitem__")


def is_path(given: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether that names a file, or is one of texts by its name."""
    return isinstance(given, os.PathLike) or (isinstance(given, str) and files.is_texts(given))


def of_any(given: Any) -> Rows | None:
    """Return the rows of a path, a table or a dataset; ``None`` for anything else.

    Raises
    ------
    InputError
        As `of_file`; or several datasets in one.

    Examples
    --------
    >>> import pandas as pd
    >>> list(of_any(pd.DataFrame({"text": ["a b", "c"]})).texts("text"))
    ['a b', 'c']
    """
    if is_path(given):
        return of_file(given)
    if is_dataset(given):
        return _of_dataset(given)
    if is_table(given):
        names = tuple(given.columns)

        def read(columns: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
            own = names if columns is None else columns
            for number, row in enumerate(zip(*(given[name] for name in own), strict=True)):
                yield number, dict(zip(own, row, strict=True))

        return Rows("the table", read, columns=names)
    return None


def _of_dataset(given: Any) -> Rows:
    """Return the rows of a dataset, which are read in batches where they are: in memory, mapped, or streamed."""
    if isinstance(given, Mapping):
        splits = ", ".join(map(str, cast("Mapping[str, Any]", given)))
        raise InputError(f"that is several datasets: give one of them, such as dataset['train']; it has {splits}")
    known = given.column_names

    def read(columns: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
        # Plain Python whatever format is set; without the other columns, which may be pictures to decode.
        chosen = given.with_format(None)
        chosen = chosen if columns is None or known is None else chosen.select_columns(list(columns))
        number = 0
        for batch in chosen.iter(batch_size=_BATCH):
            own = [name for name in batch if columns is None or name in columns]
            for row in zip(*(batch[name] for name in own), strict=True):
                yield number, dict(zip(own, row, strict=True))
                number += 1

    return Rows("the dataset", read, columns=None if known is None else tuple(known), source="a dataset")
