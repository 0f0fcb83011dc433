"""What a file of a result holds.

Its fields by name, as anyone reads them, and beside them, under ``interp``, what these do not say: the class, the
version of interp, the shape and dtype of each array, and arguments, whose types are nowhere declared, exactly.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, cast

import numpy as np

from interp.results.code import exact
from interp.results.per_pair import Filed

# What files hold beside the fields: a reader refuses those of a later number.
SCHEMA = 1
Path = tuple[str, ...]


def as_json(value: Any) -> bytes:
    """Return what JSON can hold as a file's bytes."""
    # Half a surrogate pair has no bytes in UTF-8; its escape is what JSON writes for it.
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def own_fields(value: Any) -> list[tuple[str, Any]]:
    """Return what a dataclass holds, by name; what begins with an underscore is not data."""
    return [(f.name, getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")]


def as_data(value: Any, arrays: bool = True) -> Any:
    """Return `value` as what JSON can hold; arrays become nested lists, or are left out.

    NaN and infinities become the strings ``"nan"``, ``"inf"`` and ``"-inf"``, which JSON has no numbers for.
    """
    if isinstance(value, np.ndarray):
        return as_data(value.tolist()) if arrays else None
    if isinstance(value, Filed):
        return value.data()
    if isinstance(value, np.generic):
        return as_data(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        held = [(k, v) for k, v in own_fields(value) if arrays or not isinstance(v, np.ndarray)]
        return {k: as_data(v, arrays) for k, v in held}
    if isinstance(value, Mapping):
        return {str(k): as_data(v, arrays) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [as_data(v, arrays) for v in cast("list[Any]", value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return repr(value)


@dataclass
class _Beside:
    """What lies where in a result: a path is the names of fields, the keys and the numbers that lead to it."""

    arrays: list[tuple[Path, np.ndarray[Any, Any]]] = field(default_factory=list[Any])
    results: list[tuple[Path, str]] = field(default_factory=list[Any])
    exact: list[tuple[Path, Any]] = field(default_factory=list[Any])

    def look(self, value: Any, at: Path = ()) -> None:
        """Note what is in `value`, which lies at `at`."""
        if isinstance(value, np.ndarray):
            self.arrays.append((at, cast("np.ndarray[Any, Any]", value)))
        elif is_dataclass(value) and not isinstance(value, type):
            if hasattr(value, "provenance"):
                self.results.append((at, type(value).__name__))
            anything = {f.name for f in fields(value) if "Any" in str(f.type)}
            for name, held in own_fields(value):
                if name in anything:
                    self.exact.append(((*at, name), exact(held)))
                else:
                    self.look(held, (*at, name))
        elif isinstance(value, Mapping):
            for key, held in cast("Mapping[Any, Any]", value).items():
                self.look(held, (*at, str(key)))
        elif isinstance(value, list | tuple):
            for number, held in enumerate(cast("list[Any]", value)):
                if not isinstance(held, str | int | float):
                    self.look(held, (*at, str(number)))


def header(value: Any, entries: Mapping[Path, str] | None = None) -> dict[str, Any]:
    """Return what a file of a result holds beside its fields; `entries` names the arrays of an npz file."""
    beside = _Beside()
    beside.look(value)
    found: list[dict[str, Any]] = []
    for at, array in beside.arrays:
        named = {} if entries is None else {"entry": entries[at]}
        found.append({"at": list(at), "dtype": array.dtype.name, "shape": list(array.shape), **named})
    return {
        "class": type(value).__name__,
        "schema": SCHEMA,
        "version": version(),
        "arrays": found,
        "results": [{"at": list(at), "class": name} for at, name in beside.results if at],
        "exact": [{"at": list(at), "value": held} for at, held in beside.exact],
    }


@cache
def version() -> str:
    """Return the version of interp that runs."""
    from importlib.metadata import version as installed

    return installed("interp")


def as_npz(value: Any, *, compressed: bool = True) -> bytes:
    """Return a dataclass as an npz file's bytes: its arrays by name, all else as JSON under ``meta`` and ``interp``.

    An array of a mapping is called by the field's name and the key, ``stats_entropy``; one that lies deeper by its
    path, ``report.curve``.
    """
    beside = _Beside()
    beside.look(value)
    own = dict(own_fields(value))
    entries: dict[Path, str] = {}
    for at, _ in beside.arrays:
        keyed = len(at) == 2 and isinstance(own[at[0]], Mapping)
        name = ("_" if keyed else ".").join(at)
        entries[at] = name if name not in {*entries.values(), "meta", "interp"} else f"{'.'.join(at)}."
    arrays = {entries[at]: array for at, array in beside.arrays}
    rest = {name: held for name, held in as_data(value, arrays=False).items() if name not in arrays}
    said = {"meta": rest, "interp": header(value, entries)}
    buffer = io.BytesIO()
    write = np.savez_compressed if compressed else np.savez
    write(buffer, allow_pickle=False, **arrays, **{name: np.array(json.dumps(held)) for name, held in said.items()})
    return buffer.getvalue()
