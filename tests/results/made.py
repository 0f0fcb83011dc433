"""A result of every command, made through a door as the tests of faults make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from faults import harness
from interp.results import Result

# Commands that return no result, or take what is loaded away.
NONE = frozenset({"clear", "load", "unload", "use"})


def names() -> list[str]:
    """Return the commands that return a result."""
    return [name for name in harness.commands() if name not in NONE]


def result_of(name: str, door: str = "python", shell: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return what a valid cell of the command gives, and the arguments of it that are results themselves."""
    cell = harness.valid(name)
    made = harness.worked(harness.ask(door, shell, cell))
    assert isinstance(made, Result)
    return made, {key: value for key, value in cell.arguments.items() if isinstance(value, Result)}


def differences(a: Any, b: Any, at: str = "") -> Iterator[str]:
    """Yield where two values differ: in type, dtype, shape, keys or content; NaN is NaN."""
    if isinstance(a, str) and isinstance(b, str):  # a word of a typed line knows that it was quoted
        if a != b:
            yield f"{at}: {a!r} and {b!r}"
    elif type(a) is not type(b):
        yield f"{at}: {type(a).__name__} and {type(b).__name__}"
    elif isinstance(a, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            yield f"{at}: {a.dtype}{a.shape} and {b.dtype}{b.shape}"
        elif not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            yield f"{at}: other numbers"
    elif is_dataclass(a):
        for field in fields(a):
            if not field.name.startswith("_"):
                yield from differences(getattr(a, field.name), getattr(b, field.name), f"{at}.{field.name}")
    elif isinstance(a, dict):
        if list(a) != list(b):
            yield f"{at}: keys"
        for key in a.keys() & b.keys():
            yield from differences(a[key], b[key], f"{at}[{key!r}]")
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            yield f"{at}: {len(a)} and {len(b)}"
        for n, (one, other) in enumerate(zip(a, b, strict=False)):
            yield from differences(one, other, f"{at}[{n}]")
    elif a != b and (a == a or b == b):
        yield f"{at}: {a!r} and {b!r}"
