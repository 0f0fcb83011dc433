"""Circuits in files: what ``save("c.json")`` writes, and the circuit that it gives back, as it was.

A file is the result's fields as JSON, of which those arrays that grow with the model are packed: their bytes,
compressed, as text.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import os
import types
import zlib
from collections.abc import Mapping
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from interp import files
from interp.errors import InputError
from interp.methods._shared.circuit import component, report, result
from interp.methods._shared.circuit.fitting import checked, require_room
from interp.methods._shared.circuit.packed import FORMAT
from interp.methods._shared.circuit.result import CircuitResult
from interp.results import Provenance
from interp.results.effects import PairChecks

# What the annotations of a result name, some of them imported for the type checker alone.
_KNOWN = {
    "Any": Any,
    "Callable": object,
    "CircuitReport": report.CircuitReport,
    "CircuitResult": CircuitResult,
    "ComponentFunction": component.ComponentFunction,
    "Edge": result.Edge,
    "Float": NDArray[np.float64],
    "PairChecks": PairChecks,
    "Mapping": Mapping,
    "Mask": NDArray[np.bool_],
    "NDArray": NDArray,
    "Provenance": Provenance,
    "np": np,
}


def load_circuit(path: str | os.PathLike[str]) -> CircuitResult:
    """Return a circuit that ``save("c.json")`` wrote: scores, edges, groups, functions, report, pairs and provenance.

    It is bound to no model; ``interp.validate(c).circuit`` is, to the current one.

    Parameters
    ----------
    path
        The JSON file.

    Raises
    ------
    InputError
        There is no such file, or it is no circuit's, or damaged.

    Examples
    --------
    >>> interp.load_circuit("c.json").heads  # doctest: +SKIP
    ['16.0', '17.3', '18.6']
    """
    content = files.read(path, "give the .json file that a circuit's save(…) wrote")
    text = str(path)
    data = files.parsed(content, repr(text), "save the circuit again, as .json")
    if not isinstance(data, dict) or not {"writers", "readers", "scores", "kept"} <= data.keys():
        raise InputError(f"{text!r} is not a circuit's file; give the .json file that a circuit's save(…) wrote")
    try:
        require_room(cast("dict[str, Any]", data), len(content))
        found = checked(value_of(CircuitResult, _fields(cast("dict[str, Any]", data))))
        for one in (found, found.report):
            if one is not None:  # what cannot be shown is not found out later
                _ = (one.html(), one.to_frame(), one.text())
        return found
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{text!r} is damaged, or of another version of interp: {reason}; save it again") from None


def _unpacked(data: Mapping[str, Any], scalar: type[np.generic]) -> NDArray[Any]:
    """Return an array that `_packed` wrote; its size is known before anything is unpacked.

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


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's fields of a circuit.

    Raises
    ------
    ValueError
        Some are missing or unknown, or a later version of interp wrote them.
    """
    held = dict(data)
    number = held.pop("format", None)
    held.pop("edges", None)
    if number != FORMAT:
        raise ValueError(f"its format is {number!r:.20}, and this version reads {FORMAT}")
    known = {field.name for field in dataclasses.fields(CircuitResult) if not field.name.startswith("_")}
    missing, unknown = known - held.keys(), held.keys() - known
    if missing or unknown:
        named = ", ".join(sorted(missing) or sorted(unknown))
        raise ValueError(f"{'it lacks' if missing else 'it has an unknown'} {named}")
    return held


def value_of(kind: Any, data: Any) -> Any:
    """Return `data`, as `as_file` or `results.as_data` writes it, as a value of the type `kind`.

    Raises
    ------
    TypeError, ValueError
        It is not one.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in {Union, types.UnionType}:
        if data is None and type(None) in inner:
            return None
        return value_of(next(one for one in inner if one is not type(None)), data)
    if origin is np.ndarray:
        return _array(data, get_args(inner[1])[0])
    if dataclasses.is_dataclass(kind):
        return _of_fields(cast(type, kind), data)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return kind(*(value_of(hint, value) for hint, value in zip(hints.values(), _listed(data), strict=True)))
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(value_of(inner[0], value) for value in _listed(data))
        return tuple(value_of(one, value) for one, value in zip(inner, _listed(data), strict=True))
    if origin is list:
        return [value_of(inner[0], value) for value in _listed(data)]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise TypeError(f"{data!r:.40} is not a mapping")
        return {key: value_of(inner[1], value) for key, value in cast("dict[str, Any]", data).items()}
    if kind is float and isinstance(data, str) and data not in {"nan", "inf", "-inf"}:
        raise ValueError(f"{data!r:.40} is no number")
    if kind is float and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind):
        raise TypeError(f"{data!r:.40} is not {kind.__name__}")
    return data


def _of_fields(kind: type, data: Any) -> Any:
    if not isinstance(data, dict):
        raise TypeError(f"{data!r:.40} is not a {kind.__name__}")
    hints = get_type_hints(kind, localns=_KNOWN)
    held = cast("dict[str, Any]", data)
    return kind(**{name: value_of(hints[name], value) for name, value in held.items()})


def _array(data: Any, scalar: type[np.generic]) -> Any:
    if isinstance(data, dict):
        return _unpacked(cast("dict[str, Any]", data), scalar)
    made = np.asarray(_listed(data), dtype=object if scalar is np.bool_ else scalar)
    if scalar is not np.bool_:
        return made
    if not all(isinstance(value, bool) for value in made.flat):
        raise TypeError("a truth value is neither true nor false")
    return made.astype(np.bool_)


def _listed(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise TypeError(f"{data!r:.40} is not a list")
    return cast("list[Any]", data)
