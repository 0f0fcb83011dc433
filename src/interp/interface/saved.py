"""Results that were saved, of every kind."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from interp.interface import registry
from interp.results import Result, loading

_METHODS = "interp.methods"
_OTHERS = ("interp.results.comparison", "interp.results.forecast", "interp.results.verified")


def load_result(path: str | os.PathLike[str]) -> Any:
    """Return the result that ``save("name.json")`` or ``save("name.npz")`` wrote, of any kind.

    It has its data, its views, its tables and its ``code()`` as they were. It is bound to no model: what asks for one
    says so, and ``verify()`` runs the call again on the one that is loaded.

    Parameters
    ----------
    path
        The .json or .npz file.

    Returns
    -------
    Result
        Of the class that was saved.

    Raises
    ------
    InputError
        There is no such file; it is no result's, damaged, or of a later version of interp.

    Examples
    --------
    >>> saved = interp.attention("Alice met Bob").save("attention.json")
    >>> interp.load_result(saved).pattern.shape
    (4, 4, 4, 4)
    """
    return _made(loading.opened(path))


def from_bytes(content: bytes, name: str) -> Any:
    """Return the result that a file of these bytes holds; messages call it `name`.

    Raises
    ------
    InputError
        They are no result's.
    """
    return _made(loading.unpacked(content, name))


def _made(saved: loading.Saved) -> Any:
    return loading.built(loading.kind_in(saved, kinds()), saved, kinds(), _named())


@functools.cache
def kinds() -> Mapping[str, type[Result]]:
    """Return the classes of interp's results by name: what commands, and comparing and verifying, return."""
    registry.commands()
    for module in (*_modules(), *_OTHERS):
        importlib.import_module(module)
    return {kind.__name__: kind for kind in _below(Result) if kind.__module__.startswith("interp.")}


def _modules() -> Iterator[str]:
    """Yield the modules of results that several techniques share; commands have imported those of their own."""
    found = pkgutil.walk_packages(importlib.import_module(_METHODS).__path__, f"{_METHODS}.")
    return (module.name for module in found if module.name.endswith(("result", "report", "component")))


def _below(kind: type[Result]) -> Iterator[type[Result]]:
    for one in kind.__subclasses__():
        yield from _below(one)
        if not inspect.isabstract(one):
            yield one


@functools.cache
def _named() -> Mapping[str, Any]:
    """Return the dataclasses beside which results are declared: what their annotations name."""
    return {
        name: one
        for module in sorted({*_modules(), *(kind.__module__ for kind in kinds().values())})
        for name, one in vars(importlib.import_module(module)).items()
        if isinstance(one, type) and (is_dataclass(one) or (issubclass(one, tuple) and hasattr(one, "_fields")))
    }
