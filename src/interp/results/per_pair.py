"""Numbers of single pairs as one long table: written as Parquet, read back as far as is asked, kept there if many."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xxhash

from interp import files
from interp.errors import InputError, closest
from interp.rows import parquet

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.base import Result

HELD = 200 << 20  # bytes of single pairs' numbers that a result holds; more stay in the file that they are written to
_GROUP = 1 << 20  # rows that are written, and read, together
_KEY = b"interp"  # of what the file says of itself


@dataclass(frozen=True)
class PairTable:
    """Numbers over pairs and other axes: one row for each of them together.

    Attributes
    ----------
    axes
        The columns that say what a row is of: name → labels, in the order of the arrays' axes.
    values
        The columns of numbers: name → an array over all axes, or over the first alone.
    fields
        The columns that are a field of the result, which may stay in the file: column → field.
    exists
        Which rows there are; all where not given.
    """

    axes: Mapping[str, Sequence[Any]]
    values: Mapping[str, NDArray[Any]]
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    exists: NDArray[np.bool_] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """How many labels each axis has."""
        return tuple(len(labels) for labels in self.axes.values())

    @property
    def rows(self) -> NDArray[np.int64] | range:
        """The numbers of the cells that there are, as they lie in the arrays."""
        return range(math.prod(self.shape)) if self.exists is None else np.flatnonzero(self.exists)

    def columns(self, rows: NDArray[np.int64] | range) -> dict[str, NDArray[Any]]:
        """Return the table's columns for some rows."""
        numbers = np.asarray(rows)
        at = np.unravel_index(numbers, self.shape)
        said = {name: _labels(held)[n] for (name, held), n in zip(self.axes.items(), at, strict=True)}
        for name, array in self.values.items():
            flat = array.ndim == len(self.shape)
            said[name] = np.asarray(array).reshape(-1)[numbers] if flat else np.asarray(array)[at[0]]
        return said


def _labels(given: Sequence[Any]) -> NDArray[Any]:
    held = np.asarray(given)
    return held.astype(np.int32) if held.dtype.kind in "iu" else held.astype(object)


def written(result: Result, target: Path) -> Path:
    """Write a result's numbers of single pairs to a Parquet file, a group of rows at a time, and return it.

    Raises
    ------
    InputError
        The result has none, pyarrow is not installed, or the file cannot be written.
    """
    table, module = table_of(result), parquet("Parquet is written")
    import pyarrow as arrow  # pyright: ignore[reportMissingTypeStubs]

    about = json.dumps(
        {
            "technique": result.provenance.technique,
            "model": result.provenance.model,
            "fingerprint": result.provenance.fingerprint,
            "shape": list(table.shape),
            "digests": {name: digest(np.asarray(table.values[name])) for name in table.fields},
        }
    )

    def write(path: Path) -> None:
        rows = table.rows
        schema = arrow.table(table.columns(rows[:1])).schema.with_metadata({_KEY: about.encode()})
        with module.ParquetWriter(path, schema) as file:
            for start in range(0, max(1, len(rows)), _GROUP):
                part = table.columns(rows[start : start + _GROUP])
                file.write_table(arrow.table(part, schema=schema), row_group_size=_GROUP)

    return files.write(target, write)


def table_of(result: Result) -> PairTable:
    """Return a result's numbers of single pairs.

    Raises
    ------
    InputError
        It has none.
    """
    table = cast("PairTable | None", result._pairs())  # pyright: ignore[reportPrivateUsage]
    if table is None:
        raise InputError(f"{type(result).__name__} has no numbers of single pairs; save it as .json, .npz or .html")
    return table


def digest(values: NDArray[Any]) -> str:
    """Return what tells an array's bytes from all others'."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data)


class Filed:
    """An array of single pairs' numbers that lies in a Parquet file: it is read from there when it is asked for.

    It has the shape of the array, its length, and what indexing gives; numpy's functions read all of it.

    Parameters
    ----------
    name, folder
        The file, and where it lay when it was written.
    column
        The column of its numbers.
    """

    def __init__(self, name: str, folder: str, column: str, shape: Sequence[int], dtype: str, digest: str) -> None:
        self.name, self.folder, self.column, self.digest = name, folder, column, digest
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.beside: Path | None = None  # the folder of the file that it was loaded with

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Filed({self.name!r}, {self.column!r}, {list(self.shape)})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("what lies in a file is copied where it is read")
        held = self._read(0, self.size).reshape(self.shape)
        return held if dtype is None else held.astype(dtype)

    def __getitem__(self, index: Any) -> Any:
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
        if isinstance(first, int | np.integer) and -len(self) <= first < len(self):
            cells = self.size // len(self)
            start = int(first) % len(self) * cells
            return self._read(start, start + cells).reshape(self.shape[1:])[rest]
        return np.asarray(self)[index]

    @property
    def path(self) -> Path:
        """Where the file is: beside the one that the result was loaded from, else where it was written.

        Raises
        ------
        InputError
            It is in neither place, or holds another result's numbers.
        """
        places = [folder / self.name for folder in (self.beside, Path(self.folder)) if folder is not None]
        found = next((place for place in places if files.there(place) == "file"), None)
        if found is None:
            raise InputError(
                f"the numbers of single pairs are in {self.name!r}, which is not in {str(places[0].parent)!r}: put "
                "it there, or run the call again"
            )
        if _about(found).get("digests", {}).get(self.column) != self.digest:
            raise InputError(f"{str(found)!r} holds the numbers of another result; run the call again")
        return found

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows' numbers; only the groups of rows that they lie in are read."""
        parts: list[NDArray[Any]] = []
        with parquet("Parquet is read").ParquetFile(self.path) as file:
            first = 0
            for group in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                low, high = max(start - first, 0), min(stop - first, count)
                if low < high:
                    column = file.read_row_group(group, columns=[self.column]).column(self.column)
                    parts.append(column.to_numpy()[low:high])
                first += count
        return np.concatenate(parts).astype(self.dtype) if parts else np.zeros(0, self.dtype)

    def data(self) -> dict[str, Any]:
        """Return what a result's file holds of this."""
        said = {"parquet": self.name, "folder": self.folder, "column": self.column, "digest": self.digest}
        return {**said, "shape": list(self.shape), "dtype": self.dtype.name}


def of_data(data: Mapping[str, Any]) -> Filed:
    """Return what `Filed.data` wrote of it.

    Raises
    ------
    TypeError, ValueError, KeyError
        It is something else.
    """
    words = [data[name] for name in ("parquet", "folder", "column", "digest")]
    shape = data["shape"]
    if not all(isinstance(word, str) for word in words) or Path(words[0]).name != words[0]:
        raise TypeError("no file is named where numbers of pairs are due")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in cast("list[Any]", shape)):
        raise TypeError("an array of no shape")
    if data["dtype"] not in {"float32", "float64"}:
        raise ValueError(f"an array of {data['dtype']!r:.20}")
    name, folder, column, held = words
    return Filed(name, folder, column, cast("list[int]", shape), data["dtype"], held)


def _about(path: Path) -> dict[str, Any]:
    """Return what a file says of itself."""
    try:
        held = parquet("Parquet is read").read_schema(path).metadata or {}
        said = json.loads(held.get(_KEY, b"{}"))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:80]
        raise InputError(f"{str(path)!r} cannot be read as Parquet ({reason}); run the call again") from None
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def out(given: Any) -> Path:
    """Return where ``--out`` writes to, before what is written is computed.

    Raises
    ------
    InputError
        It is no Parquet file that can be written, or pyarrow is not installed.
    """
    target = files.writable(given)
    if target.suffix.lower() != ".parquet":
        raise InputError(f"--out writes the numbers of single pairs as Parquet: type a name such as {_named(target)!r}")
    parquet("Parquet is written")
    return target


def _named(target: Path) -> str:
    return f"{target.stem[:40] or 'pairs'}.parquet"


def kept(result: Result, target: Path) -> Result:
    """Write a result's numbers of single pairs and return it; many stay in the file alone.

    What cannot be written is said in a note: what was computed is not lost for it.
    """
    try:
        written(result, target)
    except InputError as error:
        return replace(result, notes=(*result.notes, f"{error}; save({str(target)!r}) tries again"))
    table = table_of(result)
    arrays = {column: np.asarray(table.values[column]) for column in table.fields}
    if sum(array.nbytes for array in arrays.values()) <= HELD:
        return replace(result, notes=(*result.notes, f"the numbers of single pairs are also in {target.name}"))
    folder = str(target.resolve().parent)
    left: dict[str, Any] = {}
    for column, name in table.fields.items():
        array = arrays[column]
        left[name] = Filed(target.name, folder, column, array.shape, array.dtype.name, digest(array))
    said = f"the numbers of single pairs are in {target.name} alone, and read from there: {', '.join(left)}"
    return replace(result, notes=(*result.notes, said), **left)


def placed(result: Result, folder: Path) -> Result:
    """Return a result that was loaded from `folder`, whose files are looked for there; what is missing is noted."""
    for value in vars(result).values():
        if isinstance(value, Filed):
            value.beside = folder
            try:
                _ = value.path
            except InputError as error:
                return replace(result, notes=(*result.notes, str(error)))
    return result


def frame(result: Result, where: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of single pairs that have these labels; see `Result.pairs_frame`."""
    table = table_of(result)
    at: list[NDArray[np.int64]] = []
    for name in where:
        if name not in table.axes:
            raise InputError(
                f"there is no column {name!r}{closest(name, table.axes)}; rows go by {', '.join(table.axes)}"
            )
    for name, held in table.axes.items():
        asked = where.get(name)
        wanted = held if name not in where else asked if isinstance(asked, list | tuple | range) else [asked]
        number = {label: n for n, label in enumerate(held)}
        lost = next((label for label in wanted if label not in number), None)
        if lost is not None:
            raise InputError(f"no {name} is {lost!r}{closest(str(lost), map(str, number))}; see to_frame()")
        at.append(np.array([number[label] for label in wanted], np.int64))
    import pandas as pd

    filed = next((value for value in table.values.values() if isinstance(value, Filed)), None)
    if filed is not None:
        chosen = [
            (name, "in", [held[n] for n in own]) for (name, held), own in zip(table.axes.items(), at, strict=True)
        ]
        filters = [one for one in chosen if one[0] in where] or None
        return parquet("Parquet is read").read_table(filed.path, filters=filters).to_pandas()
    rows = np.ravel_multi_index(np.ix_(*at), table.shape).reshape(-1)
    if table.exists is not None:
        rows = rows[np.asarray(table.exists).reshape(-1)[rows]]
    return pd.DataFrame(table.columns(rows))
