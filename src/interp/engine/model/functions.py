"""Which functions a value is made of, and whose they are: a known package's, an installed one's, or the user's own."""

from __future__ import annotations

import functools
import sys
import sysconfig
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, cast

# Packages whose modules are what their class, scalars, functions and tensors say. Code from anywhere else may read
# anything: a global, a list in a closure.
KNOWN = {"torch", "transformers", "transformer_lens", "transformers_modules", "peft", "accelerate", "bitsandbytes"}

# What a forward's arithmetic is written in; elsewhere a function is watched where a name leads to it, and not read.
_READ_OF_TORCH = ("torch.nn", "torch.ao.nn", "torch.ao.quantization")
_NOT_READ = (
    "accelerate.state",
    "accelerate.utils",
    "torch.nn.init",
    "torch.nn.utils.rnn",
    "transformers.configuration_utils",
    "transformers.generation",
    "transformers.loss",
    "transformers.utils.hub",
    "transformers.utils.import_utils",
    "transformers.utils.logging",
)


def functions_in(value: Any) -> Iterator[FunctionType]:
    """Yield the Python functions that a value is made of: what it wraps, binds and closes over."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, FunctionType):
            yield item
            waiting.append(item.__dict__.get("__wrapped__"))
            for cell in item.__closure__ or ():
                try:
                    waiting.append(cell.cell_contents)
                except ValueError:  # not filled yet
                    continue
        elif isinstance(item, MethodType | staticmethod | classmethod):
            waiting.append(cast(Any, item).__func__)
        elif isinstance(item, property):
            waiting.append(item.fget)
        elif isinstance(item, functools.partial):
            waiting += (item.func, *item.args, *item.keywords.values())
        elif isinstance(item, functools.partialmethod | functools.cached_property):
            waiting.append(item.func)
        elif isinstance(item, functools._lru_cache_wrapper):  # pyright: ignore[reportPrivateUsage]
            waiting.append(item.__wrapped__)


def is_own(value: Any) -> bool:
    """Whether something callable, or a class, comes from code that is not a known package's.

    A function is known by the module in which it was written: ``functools.wraps`` copies the name of another one.
    """
    functions = list(functions_in(value))
    if functions:
        return any(package_of(module_of(function)) not in KNOWN for function in functions)
    if isinstance(value, BuiltinFunctionType | functools.partial) or not callable(value):
        return False
    named = value if isinstance(value, type) else type(value)
    return package_of(named.__module__ or "") not in KNOWN | {"builtins"}


def called(value: Any) -> str:
    """Return what to call a function, a class or an object in one word."""
    return getattr(getattr(value, "func", value), "__qualname__", None) or type(value).__qualname__


def module_of(function: FunctionType) -> str:
    """Return the module that a function was written in."""
    return str(function.__globals__.get("__name__") or function.__module__ or "")


def package_of(module: str) -> str:
    """Return the package that a module is of."""
    return module.partition(".")[0]


def is_read(module: str) -> bool:
    """Whether the code of a module's functions is read on, for what it mentions."""
    package = package_of(module)
    return (module.startswith(_READ_OF_TORCH) if package == "torch" else package in KNOWN) and not module.startswith(
        _NOT_READ
    )


@functools.cache
def is_library(module: str) -> bool:
    """Whether a module was installed, with Python or beside it, and so is nobody's own."""
    package = package_of(module)
    if package in KNOWN or package.startswith("namedtuple_") or package in sys.stdlib_module_names - {"__main__"}:
        return True
    file = getattr(sys.modules.get(package), "__file__", None)
    return file is not None and installed_file(file)


def installed_file(file: str) -> bool:
    """Whether a file lies where Python and packages are installed."""
    return file.startswith(_INSTALLED)


_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
