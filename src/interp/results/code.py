"""How a call is written down: the Python expression that gives a value again, or JSON that does, where there is one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, cast

import numpy as np

from interp.errors import printable
from interp.prompts import Prompt, as_prompt

_VOCABULARY = {"interp.spec", "interp.metric", "interp.prompts", "interp.sites", "interp.spans", "interp.chats"}


@dataclass(frozen=True)
class Own:
    """What a call was given and its result does not keep, such as a model: its kind, and its name if it has one."""

    kind: str
    name: str = ""


def spelled(value: Any) -> str | None:
    """Return the Python expression that gives `value` again where `interp` is imported; ``None`` where there is none.

    Examples
    --------
    >>> spelled((1, "a")), spelled(float("inf")), spelled(print)
    ("(1, 'a')", "float('inf')", None)
    """
    if value is None or isinstance(value, bool | int | str | range):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else f"float({str(value)!r})"
    if isinstance(value, np.generic):
        return spelled(value.item())
    if isinstance(value, os.PathLike):
        return repr(os.fspath(cast("os.PathLike[str]", value)))
    if isinstance(value, list | tuple):
        items = [spelled(item) for item in cast("list[Any]", value)]
        inside = ", ".join(item for item in items if item is not None)
        if len(items) > sum(item is not None for item in items):
            return None
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(items) == 1)})"
    if isinstance(value, Mapping):
        both = [(spelled(key), spelled(item)) for key, item in cast("Mapping[Any, Any]", value).items()]
        whole = all(key is not None and item is not None for key, item in both)
        return "{" + ", ".join(f"{key}: {item}" for key, item in both) + "}" if whole else None
    if isinstance(value, Prompt) and (value.marks or value.turns):
        again = as_prompt(value.plain)
        if again == (replace(value, text=None) if value.turns else value):
            return spelled(value.plain)
    if type(value).__module__ in _VOCABULARY and is_dataclass(value):
        parts = {f.name: spelled(getattr(value, f.name)) for f in fields(value) if not _is_default(f, value)}
        inside = ", ".join(f"{name}={part}" for name, part in parts.items())
        return f"interp.{type(value).__name__}({inside})" if None not in parts.values() else None
    return None


def _is_default(one: Field[Any], value: Any) -> bool:
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    held = getattr(value, one.name)
    return type(held) is type(default) and held == default


def kind_of(value: Any) -> str:
    """Return what a value is, in a word or two."""
    if isinstance(value, Own):
        return f"your {printable(value.kind)}"
    shape = getattr(value, "shape", None)
    said = f"your {type(value).__name__}" + (f" {tuple(shape)}" if isinstance(shape, tuple) else "")
    return printable(said)


def name_of(value: Any) -> str:
    """Return what a value calls itself, as functions do; nothing where that is no name."""
    called = value.name if isinstance(value, Own) else str(getattr(value, "__name__", ""))
    return called if called.isidentifier() else ""


def exact(value: Any) -> Any:
    """Return a value as JSON that says its type, so that `from_exact` gives it again; what `spelled` cannot, as `Own`.

    Examples
    --------
    >>> exact(("a", 1)), from_exact(exact(("a", 1)))
    ({'tuple': ['a', 1]}, ('a', 1))
    >>> from_exact(exact(print))
    Own(kind='builtin_function_or_method', name='print')
    """
    if isinstance(value, Mapping):
        return {"map": [[exact(key), exact(item)] for key, item in cast("Mapping[Any, Any]", value).items()]}
    if isinstance(value, list | tuple):
        held = [exact(item) for item in cast("list[Any]", value)]
        return held if isinstance(value, list) else {"tuple": held}
    if spelled(value) is None:
        return {"own": kind_of(value).removeprefix("your "), "name": name_of(value)}
    if isinstance(value, np.generic):
        return exact(value.item())
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and np.isfinite(value)):
        return value
    if isinstance(value, float):
        return {"float": str(value)}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    parts = {f.name: exact(getattr(value, f.name)) for f in fields(value) if not _is_default(f, value)}
    return {"of": type(value).__name__, "fields": parts}


def from_exact(data: Any) -> Any:
    """Return what `exact` wrote; only plain values and interp's own words for prompts, pairs and the like are made.

    Raises
    ------
    TypeError, ValueError, KeyError
        It is something else.
    """
    if isinstance(data, list):
        return [from_exact(item) for item in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    match cast("dict[str, Any]", data):
        case {"map": list(held), **rest} if not rest:
            return {from_exact(key): from_exact(item) for key, item in cast("list[Any]", held)}
        case {"tuple": list(held), **rest} if not rest:
            return tuple(from_exact(item) for item in cast("list[Any]", held))
        case {"float": "nan" | "inf" | "-inf" as number, **rest} if not rest:
            return float(number)
        case {"range": [int(start), int(stop), int(step)], **rest} if not rest:
            return range(start, stop, step)
        case {"own": str(kind), "name": str(name), **rest} if not rest:
            return Own(kind, name)
        case {"of": str(name), "fields": dict(held), **rest} if not rest and name in words():
            parts = {str(key): from_exact(item) for key, item in cast("dict[str, Any]", held).items()}
            return words()[name](**parts)
        case _:
            raise ValueError(f"{data!r:.60} is no value of a call")


@cache
def words() -> Mapping[str, Any]:
    """Return the classes of interp's vocabulary by name: what a call may be given beside plain values."""
    found = [vars(importlib.import_module(module)) for module in sorted(_VOCABULARY)]
    return {
        name: one
        for held in found
        for name, one in held.items()
        if isinstance(one, type) and is_dataclass(one) and one.__module__ in _VOCABULARY
    }
