"""How a call is written down: the Python expression that gives a value again, where there is one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import Any, cast

import numpy as np

from interp.errors import printable
from interp.prompts import Prompt, as_prompt

_VOCABULARY = {"interp.spec", "interp.metric", "interp.prompts", "interp.sites", "interp.spans", "interp.chats"}


@dataclass(frozen=True)
class Own:
    """What a call was given and its result does not keep, such as a model: its kind alone."""

    kind: str


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
