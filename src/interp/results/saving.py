"""What a file of a result holds."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

import numpy as np


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


def as_npz(value: Any) -> bytes:
    """Return a dataclass as an npz file's bytes: its arrays by name, all else as JSON under ``meta``.

    Arrays of dataclasses in a mapping have the mapping's name and the key's in front: ``steps_heads_recovery``.
    """
    arrays: dict[str, Any] = {}
    for name, held in own_fields(value):
        if isinstance(held, np.ndarray):
            arrays[name] = held
        elif isinstance(held, Mapping):
            inner = cast("Mapping[Any, Any]", held)
            if any(isinstance(v, np.ndarray) for v in inner.values()):
                arrays |= {f"{name}_{key}": v for key, v in inner.items()}
            for key, v in inner.items():  # results that this one is made of
                if is_dataclass(v) and not isinstance(v, type):
                    parts = own_fields(v)
                    arrays |= {f"{name}_{key}_{part}": a for part, a in parts if isinstance(a, np.ndarray)}
    rest = {name: held for name, held in as_data(value, arrays=False).items() if name not in arrays}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays, meta=np.array(json.dumps(rest)))
    return buffer.getvalue()
