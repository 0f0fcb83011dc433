"""Results from files: the object that `save` wrote as .json or .npz, by the types that its class declares.

Nothing in a file is run: it is read as JSON and plain arrays, and only classes that the caller names are made of it.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import types
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from interp import files
from interp.errors import InputError
from interp.results.base import Provenance, Result, resolve
from interp.results.code import Own, from_exact, words
from interp.results.effects import PairChecks
from interp.results.saving import SCHEMA

WRONG = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, NotImplementedError)
_INSTEAD = "give the .json or .npz file that a result's save(…) wrote"
# Compressed arrays that are so much smaller than what they hold were made to fill the memory.
_RATIO, _SMALL = 64, 2**26
_DTYPES = frozenset({"bool", *(f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64))})
_DTYPES |= {f"float{bits}" for bits in (16, 32, 64)}
# What annotations of results name that some files import for the type checker alone.
_KNOWN: Mapping[str, Any] = {
    "Float": NDArray[np.float64],
    "Mapping": Mapping,
    "Mask": NDArray[np.bool_],
    "NDArray": NDArray,
    "PairChecks": PairChecks,
    "Provenance": Provenance,
    "Sequence": Sequence,
    "np": np,
}


@dataclass(frozen=True)
class _Exact:
    """A value of which a file says the type."""

    value: Any


@dataclass(frozen=True)
class _Typed:
    """The fields of a result in a result, of which the file says the class."""

    kind: type[Result]
    fields: Any


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
    content, name = files.read(path, instead), str(path)
    if content[:4] == b"PK\3\4":
        held = _of_npz(content, name, instead)
    else:
        held = files.parsed(content, repr(name), instead)
    if not isinstance(held, dict):
        raise InputError(f"{name!r} is no result's file: it holds no JSON object; {instead}")
    fields = cast("dict[str, Any]", held)
    header = fields.pop("interp", {})
    if not isinstance(header, dict):
        raise InputError(f"{name!r} is no result's file; {instead}")
    return Saved(name, len(content), fields, cast("dict[str, Any]", header))


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
    fields = said.get("meta")
    if not isinstance(fields, dict):
        raise InputError(f"{name!r} is no result's file; {instead}")
    found = cast("dict[str, Any]", fields)
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
    given = set(saved.fields)
    found: dict[type[Result], int] = {}
    for kind in kinds.values():
        known = {f.name for f in dataclasses.fields(kind) if not f.name.startswith("_")}
        own = known - {"provenance", "notes"}
        if own and len(own & given) == len(own - _optional(kind)) + len(own & given & _optional(kind)):
            beside = getattr(kind, "_beside", frozenset[str]())
            if given <= known | beside:
                found[kind] = len(known - given)
    if "provenance" not in given or not found:
        raise InputError(f"{saved.name!r} is no result's file, or one of another version of interp; {_INSTEAD}")
    return min(found, key=lambda kind: found[kind])


def _optional(kind: type[Any]) -> set[str]:
    return {f.name for f in dataclasses.fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}


def built(kind: type[Any], saved: Saved, kinds: Mapping[str, type[Result]], known: Mapping[str, Any]) -> Any:
    """Return the result of the class `kind` that a file holds, looked over: what cannot be shown is not found out later.

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
        fields = _placed(saved, kinds)
        if kind._reader is not None:
            fields = resolve(kind._reader)(fields, saved.size)
        made = value_of(kind, fields, {**_KNOWN, **known, **kinds})
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
            held["arguments"] = _Exact({str(k): _remade(v) for k, v in held["arguments"].items()})
        return fields
    for one in header["arrays"]:
        if one["dtype"] not in _DTYPES:
            raise ValueError(f"an array of {one['dtype']!r:.20}")
        dtype, shape = np.dtype(one["dtype"]), tuple(value_of(int, size) for size in _listed(one["shape"]))
        owner, last = _owner(fields, one["at"])
        if "entry" in one:
            held = one["held"]
            if held.dtype != dtype or held.shape != shape:
                raise ValueError(f"{'.'.join(one['at'])} is not the array that the file announces")
            _put(owner, last, held)
        elif not isinstance(owner[last], dict):  # a dictionary is a packed one
            _put(owner, last, _of_list(owner[last], dtype).reshape(shape))
    for one in header["exact"]:
        owner, last = _owner(fields, one["at"])
        _put(owner, last, _Exact(from_exact(one["value"])))
    for one in sorted(header["results"], key=lambda one: -len(one["at"])):
        owner, last = _owner(fields, one["at"])
        _put(owner, last, _Typed(kinds[one["class"]], owner[last]))
    return fields


def _owner(fields: Any, at: Any) -> tuple[Any, Any]:
    """Return what holds the value at a path, and under which name or number."""
    owner, path = fields, _listed(at)
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
        names = {f.name for f in dataclasses.fields(one)}
        if held.keys() <= names and names - _optional(one) <= held.keys() and len(held) > 1:
            return one(**{name: _hashable(item) for name, item in held.items()})
    return held


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in cast("list[Any]", value)) if isinstance(value, list) else value


def value_of(kind: Any, data: Any, known: Mapping[str, Any] = _KNOWN) -> Any:
    """Return `data`, as a file holds it, as a value of the type `kind`; `known` is what annotations name.

    Raises
    ------
    TypeError, ValueError
        It is not one.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(data, _Exact):
        return _fitting(kind, data.value, known)
    if kind is Any:
        return data
    if origin in {Union, types.UnionType}:
        if data is None and type(None) in inner:
            return None
        options = [one for one in inner if one is not type(None)]
        for one in options[:-1]:
            try:
                return value_of(one, data, known)
            except (TypeError, ValueError):
                continue
        return value_of(options[-1], data, known)
    if origin is Literal:
        if data not in inner:
            raise ValueError(f"{data!r:.40} is not one of {', '.join(map(str, inner))}")
        return data
    if origin is np.ndarray:
        return _array(data, get_args(inner[1])[0])
    if dataclasses.is_dataclass(kind):
        return _of_fields(cast(type, kind), data, known)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind, localns=dict(known))
        return kind(*(value_of(hint, value, known) for hint, value in zip(hints.values(), _listed(data), strict=True)))
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(value_of(inner[0], value, known) for value in _listed(data))
        return tuple(value_of(one, value, known) for one, value in zip(inner, _listed(data), strict=True))
    if origin is list:
        return [value_of(inner[0], value, known) for value in _listed(data)]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise TypeError(f"{data!r:.40} is not a mapping")
        key_of = int if inner[0] is int else str
        items = cast("dict[str, Any]", data).items()
        return {key_of(key): value_of(inner[1], value, known) for key, value in items}
    if kind is float and isinstance(data, str) and data not in {"nan", "inf", "-inf"}:
        raise ValueError(f"{data!r:.40} is no number")
    if kind is float and isinstance(data, int | float | str) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise TypeError(f"{data!r:.40} is not {kind.__name__}")
    return data


def _fitting(kind: Any, value: Any, known: Mapping[str, Any]) -> Any:
    """Return a value of which the file said the type, where its outer form is of the type `kind`."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or (value is None and type(None) in inner):
        return value
    if origin in {Union, types.UnionType}:
        return _fitting(next(one for one in inner if one is not type(None)), value, known)
    form = cast(type, origin or kind)
    if not isinstance(value, form):
        raise TypeError(f"{value!r:.40} is not a {form.__name__}")
    if origin is tuple and inner[-1] is Ellipsis:
        for item in cast("tuple[Any, ...]", value):
            _fitting(inner[0], item, known)
    return value


def _of_fields(kind: type, data: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(data, _Typed):
        if not issubclass(data.kind, kind):
            raise TypeError(f"a {data.kind.__name__} is no {kind.__name__}")
        kind, data = data.kind, data.fields
    if not isinstance(data, dict):
        raise TypeError(f"{data!r:.40} is not a {kind.__name__}")
    hints = get_type_hints(kind, localns=cast("dict[str, Any]", known))
    names = {field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")}
    held = cast("dict[str, Any]", data)
    if lost := sorted(held.keys() - names):
        raise ValueError(f"it has an unknown {', '.join(map(str, lost))}")
    if lost := sorted(names - _optional(kind) - held.keys()):
        raise ValueError(f"it lacks {', '.join(lost)}")
    made = kind(**{name: value_of(hints[name], value, known) for name, value in held.items()})
    if issubclass(kind, Result) and kind._check is not None:
        resolve(kind._check)(made)
    return made


def _array(data: Any, scalar: Any) -> Any:
    wanted = scalar if isinstance(scalar, type) else np.generic
    if isinstance(data, np.ndarray):
        held = cast("NDArray[Any]", data)
        numbers = next((one for one in (np.floating, np.integer) if issubclass(wanted, one)), wanted)
        if not issubclass(held.dtype.type, numbers):
            raise TypeError(f"an array of {held.dtype} where {wanted.__name__} is due")
        return held
    if isinstance(data, dict):
        return _unpacked(cast("dict[str, Any]", data), wanted)
    return _of_list(data, np.dtype(wanted))


def _of_list(data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return nested lists, or one number, as an array; ``"nan"`` and ``"inf"`` are numbers."""
    made: Any = np.asarray(data, dtype=object)
    if made.ndim > 32:
        raise TypeError("an array of more than 32 axes")
    number = {"b": bool, "i": int, "u": int}.get(dtype.kind, (int, float, str))
    for value in made.flat:
        if not isinstance(value, number) or (dtype.kind != "b" and isinstance(value, bool)):
            raise TypeError(f"{value!r:.40} in an array of {dtype.name}")
        if isinstance(value, str) and value not in {"nan", "inf", "-inf"}:
            raise ValueError(f"{value!r:.40} is no number")
    return made.astype(dtype)


def _unpacked(data: Mapping[str, Any], scalar: type[np.generic]) -> NDArray[Any]:
    """Return an array that was packed: its bytes, compressed, as text; its size is known before that.

    Raises
    ------
    TypeError, ValueError, KeyError
        It is none, or not of this kind.
    """
    kind = np.dtype(scalar).newbyteorder("<")
    if data["dtype"] != kind.str:
        raise ValueError(f"an array of {data['dtype']!r:.20} where {kind.str!r} is due")
    shape = tuple(value_of(int, size) for size in _listed(data["shape"]))
    if min(shape, default=0) < 0:
        raise ValueError("an array of a negative size")
    size = math.prod(shape) * kind.itemsize
    try:
        stream = zlib.decompressobj()
        held = stream.decompress(base64.b64decode(data["zlib"], validate=True), size + 1)
    except zlib.error:
        raise ValueError("an array cannot be unpacked") from None
    if len(held) != size or (size and not stream.eof):
        raise ValueError(f"an array holds {len(held)} bytes where {size} are due")
    if scalar is np.bool_ and held.strip(b"\0\1"):
        raise ValueError("a truth value is neither true nor false")
    return np.frombuffer(held, kind).reshape(shape).astype(scalar)


def _listed(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise TypeError(f"{data!r:.40} is not a list")
    return cast("list[Any]", data)
