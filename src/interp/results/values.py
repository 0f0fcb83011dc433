"""Values of declared types from what a file holds: JSON and plain arrays, and only classes that a type names."""

from __future__ import annotations

import base64
import dataclasses
import math
import types
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from interp.results import per_pair
from interp.results.base import Result, filed, resolve
from interp.results.effects import PairChecks
from interp.results.provenance import Provenance

# What annotations of results name that some files import for the type checker alone.
KNOWN: Mapping[str, Any] = {
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
class Exact:
    """A value of which a file says the type."""

    value: Any


@dataclass(frozen=True)
class Typed:
    """The fields of a result in a result, of which the file says the class."""

    kind: type[Result]
    fields: Any


def value_of(kind: Any, data: Any, known: Mapping[str, Any] = KNOWN) -> Any:
    """Return `data`, as a file holds it, as a value of the type `kind`; `known` is what annotations name.

    Raises
    ------
    TypeError, ValueError
        It is not one.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(data, Exact):
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
        return kind(*(value_of(hint, value, known) for hint, value in zip(hints.values(), listed(data), strict=True)))
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(value_of(inner[0], value, known) for value in listed(data))
        return tuple(value_of(one, value, known) for one, value in zip(inner, listed(data), strict=True))
    if origin is list:
        return [value_of(inner[0], value, known) for value in listed(data)]
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
    if isinstance(data, Typed):
        if not issubclass(data.kind, kind):
            raise TypeError(f"a {data.kind.__name__} is no {kind.__name__}")
        kind, data = data.kind, data.fields
    if not isinstance(data, dict):
        raise TypeError(f"{data!r:.40} is not a {kind.__name__}")
    if kind is Result:  # of a file that does not say which
        kinds = {one for one in known.values() if isinstance(one, type) and issubclass(one, Result)}
        kind = by_fields(set(cast("dict[str, Any]", data)), kinds - {Result})
    hints = get_type_hints(kind, localns=cast("dict[str, Any]", known))
    names = {field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")}
    held = cast("dict[str, Any]", data)
    if lost := sorted(held.keys() - names):
        raise ValueError(f"it has an unknown {', '.join(map(str, lost))}")
    if lost := sorted(names - optional(kind) - held.keys()):
        raise ValueError(f"it lacks {', '.join(lost)}")
    made = kind(**{name: value_of(hints[name], value, known) for name, value in held.items()})
    if issubclass(kind, Result) and (check := filed(kind).check) is not None:
        resolve(check)(made)
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
        said = cast("dict[str, Any]", data)
        return per_pair.of_data(said) if "parquet" in said else _unpacked(said, wanted)
    return of_list(data, np.dtype(wanted))


def of_list(data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
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
    shape = tuple(value_of(int, size) for size in listed(data["shape"]))
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


def listed(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise TypeError(f"{data!r:.40} is not a list")
    return cast("list[Any]", data)


def by_fields(given: set[str], kinds: Iterable[type[Result]]) -> type[Result]:
    """Return the class that has these fields, and no other that it needs.

    Raises
    ------
    ValueError
        There is none: it says what is lacking of the nearest.
    """
    found: list[tuple[int, int, type[Result]]] = []
    for kind in kinds:
        known = {f.name for f in dataclasses.fields(kind) if not f.name.startswith("_")}
        lost = len(known - optional(kind) - given) + len(given - known - filed(kind).beside)
        if known & given - {"provenance", "notes"}:
            found.append((lost, len(known - given), kind))
    if not found:
        raise ValueError("it has the fields of no result")
    lost, _, kind = min(found, key=lambda one: one[:2])
    if lost:
        known = {f.name for f in dataclasses.fields(kind) if not f.name.startswith("_")}
        lacking, more = known - optional(kind) - given, given - known - filed(kind).beside
        said = [f"lacks {', '.join(sorted(lacking))}"] * bool(lacking) + [f"has {', '.join(sorted(more))}"] * bool(more)
        raise ValueError(f"{kind.__name__}, which {' and '.join(said)}"[:200])
    return kind


def optional(kind: type[Any]) -> set[str]:
    return {f.name for f in dataclasses.fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}
