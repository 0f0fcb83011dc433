"""Results from files: the object that `save` wrote as .json or .npz, by the types that its class declares.

Nothing in a file is run: it is read as JSON and plain arrays, and only classes that the caller names are made of it.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np

from interp import files
from interp.errors import InputError
from interp.results.base import Result, filed, resolve
from interp.results.code import Own, from_exact, words
from interp.results.per_pair import placed
from interp.results.saving import SCHEMA
from interp.results.values import KNOWN, Exact, Typed, by_fields, listed, of_list, optional, value_of

WRONG = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, NotImplementedError)
_INSTEAD = "give the .json or .npz file that a result's save(…) wrote"
# Compressed arrays that are so much smaller than what they hold were made to fill the memory.
_RATIO, _SMALL = 64, 2**26
_DTYPES = frozenset(
    {"bool", *(f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)), "float16", "float32", "float64"}
)


@dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes
    ----------
    name
        The file, as it was given.
    size
        Of the file, in bytes.
    fields
        Name → value, as JSON and arrays.
    header
        What `saving.header` wrote; empty of a file of before there was one.
    """

    name: str
    size: int
    fields: dict[str, Any]
    header: Mapping[str, Any]


def opened(path: Any, instead: str = _INSTEAD) -> Saved:
    """Return what a file of a result holds.

    Raises
    ------
    InputError
        There is no such file, or it holds no fields.
    """
    return unpacked(files.read(path, instead), str(path), instead)


def unpacked(content: bytes, name: str, instead: str = _INSTEAD) -> Saved:
    """Return what the bytes of a file hold.

    Raises
    ------
    InputError
        They hold no fields.
    """
    if content[:4] == b"PK\3\4":
        held = _of_npz(content, name, instead)
    else:
        held = files.parsed(content, repr(name), instead)
    if not isinstance(held, dict):
        raise InputError(f"{name!r} is no result's file: it holds no JSON object; {instead}")
    found = cast("dict[str, Any]", held)
    header = found.pop("interp", {})
    if not isinstance(header, dict):
        raise InputError(f"{name!r} is no result's file; {instead}")
    return Saved(name, len(content), found, cast("dict[str, Any]", header))


def _of_npz(content: bytes, name: str, instead: str) -> dict[str, Any]:
    """Return the fields of an npz file, with each array where it belongs."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > max(_SMALL, _RATIO * len(content)):
            raise InputError(f"{name!r} would take {size:,} bytes, from {len(content):,}; {instead}")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {entry: np.asarray(archive[entry]) for entry in archive.files}
        texts = {entry: arrays.pop(entry) for entry in ("meta", "interp") if entry in arrays}
        said = {entry: json.loads(str(text)) if text.dtype.kind == "U" else None for entry, text in texts.items()}
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RecursionError, NotImplementedError, *WRONG) as error:
        reason = "it holds pickled objects" if "pickle" in str(error) else str(error).partition("\n")[0]
        raise InputError(f"{name!r} cannot be read: {reason}; {instead}") from None
    meta = said.get("meta")
    if not isinstance(meta, dict):
        raise InputError(f"{name!r} is no result's file; {instead}")
    found = cast("dict[str, Any]", meta)
    header: Any = said.get("interp")
    if isinstance(header, dict):
        listed = cast("dict[str, Any]", header).get("arrays")
        for one in cast("list[Any]", listed) if isinstance(listed, list) else []:
            if isinstance(one, dict) and cast("dict[str, Any]", one).get("entry") in arrays:
                cast("dict[str, Any]", one)["held"] = arrays[cast("dict[str, Any]", one)["entry"]]
    else:
        _placed_by_name(found, arrays)
    return {**found, "interp": header or {}}


def _placed_by_name(fields: dict[str, Any], arrays: Mapping[str, Any]) -> None:
    """Put the arrays of a file of before there were headers where their names say."""
    for entry, array in arrays.items():
        owner = next(
            (
                (name, key)
                for name, held in fields.items()
                if isinstance(held, dict)
                for key, value in cast("dict[str, Any]", held).items()
                if value is None and entry == f"{name}_{key}"
            ),
            None,
        )
        if owner is None:
            fields[entry] = array
        else:
            fields[owner[0]][owner[1]] = array


def kind_in(saved: Saved, kinds: Mapping[str, type[Result]]) -> type[Result]:
    """Return the class of what a file holds, one of `kinds`.

    Raises
    ------
    InputError
        It is none of them.
    """
    if saved.header:
        name, schema = saved.header.get("class"), saved.header.get("schema")
        if not isinstance(schema, int) or schema > SCHEMA:
            said = f"{saved.header.get('version')}"[:40]
            raise InputError(f"{saved.name!r} was written by a later version of interp ({said}); read it with that")
        if not isinstance(name, str) or name not in kinds:
            raise InputError(f"{saved.name!r} says that it is a {str(name)!r:.60}, which is no result of interp's")
        return kinds[name]
    if "provenance" not in saved.fields:
        raise InputError(f"{saved.name!r} is no result's file; {_INSTEAD}")
    try:
        return by_fields(set(saved.fields), kinds.values())
    except ValueError as error:
        raise InputError(f"{saved.name!r} is of another version of interp: {error}; run its call again") from None


def built(kind: type[Any], saved: Saved, kinds: Mapping[str, type[Result]], known: Mapping[str, Any]) -> Any:
    """Return the result of the class `kind` that a file holds, and that it can be shown.

    Parameters
    ----------
    kinds
        The classes that a result in it may have.
    known
        What annotations name beside `kinds`.

    Raises
    ------
    InputError
        The file is damaged, or of another version.
    """
    try:
        held = _placed(saved, kinds)
        if (reader := filed(kind).reader) is not None:
            held = resolve(reader)(held, saved.size)
        made = placed(value_of(kind, held, {**KNOWN, **known, **kinds}), files.path_of(saved.name).parent)
        _shown(made)
    except (RecursionError, MemoryError, *WRONG) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{saved.name!r} is damaged, or of another version of interp: {reason}; save it again"
        ) from None
    return made


def _shown(result: Any) -> None:
    _ = (result.html(), result.text(), result.code())
    if type(result).to_frame is not Result.to_frame:
        result.to_frame()


def _placed(saved: Saved, kinds: Mapping[str, type[Result]]) -> dict[str, Any]:
    """Return a file's fields with arrays, exact values and results in them as the header says.

    Raises
    ------
    TypeError, ValueError, KeyError
        The header is no header of these fields.
    """
    fields, header = saved.fields, saved.header
    if not header:
        provenance = fields.get("provenance")
        if isinstance(provenance, dict) and "arguments" in provenance:
            held = cast("dict[str, Any]", provenance)
            held["arguments"] = Exact({str(k): _remade(v) for k, v in held["arguments"].items()})
        return fields
    for one in header["arrays"]:
        if one["dtype"] not in _DTYPES:
            raise ValueError(f"an array of {one['dtype']!r:.20}")
        dtype, shape = np.dtype(one["dtype"]), tuple(value_of(int, size) for size in listed(one["shape"]))
        owner, last = _owner(fields, one["at"])
        if "entry" in one:
            held = one["held"]
            if held.dtype != dtype or held.shape != shape:
                raise ValueError(f"{'.'.join(one['at'])} is not the array that the file announces")
            _put(owner, last, held)
        elif not isinstance(owner[last], dict):  # a dictionary is a packed one
            made = of_list(owner[last], dtype)
            if made.size and made.shape != shape:
                raise ValueError(f"{'.'.join(one['at'])} and what the file says of its shape do not fit")
            _put(owner, last, made.reshape(shape))
    for one in header["exact"]:
        owner, last = _owner(fields, one["at"])
        _put(owner, last, Exact(from_exact(one["value"])))
    for one in sorted(header["results"], key=lambda one: -len(one["at"])):
        owner, last = _owner(fields, one["at"])
        _put(owner, last, Typed(kinds[one["class"]], owner[last]))
    return fields


def _owner(fields: Any, at: Any) -> tuple[Any, Any]:
    """Return what holds the value at a path, and under which name or number."""
    owner, path = fields, listed(at)
    for name in path[:-1]:
        owner = owner[int(name)] if isinstance(owner, list) else owner[name]
    return owner, int(path[-1]) if isinstance(owner, list) else value_of(str, path[-1])


def _put(owner: Any, last: Any, value: Any) -> None:
    if not isinstance(owner, dict | list):
        raise TypeError("its header does not fit its fields")
    owner[last] = value


def _remade(value: Any) -> Any:
    """Return an argument of a file that says no types: interp's own words are known by their fields."""
    if isinstance(value, list):
        return [_remade(item) for item in cast("list[Any]", value)]
    if isinstance(value, str) and value.startswith("<") and value.endswith(">"):
        kind, _, rest = value[1:-1].partition(" ")  # what Python prints of a function or an object
        return Own(kind, rest.partition(" ")[0].rpartition(".")[2])
    if not isinstance(value, dict):
        return value
    held = {name: _remade(item) for name, item in cast("dict[str, Any]", value).items()}
    if held.keys() == {"kind"} and isinstance(held["kind"], str):
        return Own(held["kind"])
    for one in words().values():
        names = {f.name for f in fields(one)}
        if held.keys() <= names and names - optional(one) <= held.keys() and len(held) > 1:
            return one(**{name: _hashable(item) for name, item in held.items()})
    return held


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in cast("list[Any]", value)) if isinstance(value, list) else value
