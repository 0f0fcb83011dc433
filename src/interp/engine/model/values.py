"""What a module's attributes hold, as plain data: whatever a forward may read, in whatever it is kept."""

from __future__ import annotations

import enum
import functools
import itertools
import logging
import os
import re
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from interp.engine.model import content, functions

SCALARS = {bool, int, float, complex, str, bytes, type(None), type(...), torch.dtype, torch.device}
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, functools.partial)
# Neither state of a forward's nor anything that an edit changes.
_INERT = (
    types.ModuleType,
    logging.Logger,
    re.Pattern,
    os.PathLike,
    threading.local,
    type(threading.Lock()),
    type(threading.RLock()),
    types.GenericAlias,
    torch.memory_format,
    torch.layout,
    property,
)
_MOST = 100_000  # things inside one model's attributes; what holds more is not looked through

# What libraries note down about themselves and no forward's result depends on: transformers in the first run that is
# asked for attentions, say.
NOTES = {
    "_commit_hash",
    "_name_or_path",
    "name_or_path",
    "_fsdp_plan",
    "_tp_plan",
    "_ep_plan",
    "_pp_plan",
    "_auto_class",
    "_is_hf_initialized",
    "_output_capturing_hooks_installed",
    "_conversion_state",
    "generation_config",  # read by `generate` alone, which is not stored
}


class Values:
    """Describes values: equal descriptions, equal values, but for what is named in `own` and `unseen`.

    Attributes
    ----------
    contents
        The bytes of tensors, to be hashed together; a description holds their numbers.
    classes, functions
        Classes of objects with methods, and code (with its globals), that a forward may run.
    own
        Functions of the user's own, as ``place: function``.
    unseen
        What cannot be looked into, as ``place: class``.
    """

    def __init__(self, modules: Sequence[tuple[str, nn.Module]]) -> None:
        self.contents: list[content.Bytes] = []
        self.classes: set[type] = set()
        self.functions: dict[CodeType, Mapping[str, Any]] = {}
        self.own: list[str] = []
        self.unseen: list[str] = []
        self._modules = {id(module): number for number, (_, module) in enumerate(modules)}
        self._tensors: list[Tensor] = []  # some are made when they are asked for, and read when all is described
        self._hashed: dict[content.Place, int] = {}
        self._seen: dict[int, tuple[int, Any]] = {}  # address → its number, and what keeps it another's never

    def tensor(self, tensor: Tensor, place: str) -> Any:
        """Describe a tensor, byte for byte, with where it lies in its storage and which other tensors share that."""
        held = tensor.detach()
        self._tensors.append(held)
        # Whole storages, once each: a slice or a transposed weight is then not copied.
        where = content.place(held)
        if where not in self._hashed:
            self._hashed[where] = len(self._hashed)
            try:
                self.contents.append(content.content(held, where))
            except (RuntimeError, NotImplementedError, TypeError):
                self.unseen.append(f"{place}: {type(tensor).__qualname__}")
        kind = type(tensor)
        layout: tuple[Any, ...] = (held.shape, held.dtype, str(held.device), tensor.requires_grad)
        if held.layout == torch.strided:
            layout = (held.storage_offset(), held.stride(), held.is_neg(), held.is_conj(), *layout)
        if kind in content.PLAIN and not held.is_quantized:
            return (self._hashed[where], layout)
        self.classes.add(kind)
        inside = [(key, self.value(value, f"{place}.{key}")) for key, value in content.inner(tensor)]
        return (self._hashed[where], layout, kind.__qualname__, inside)

    def value(self, value: Any, place: str) -> Any:
        """Describe anything."""
        sort = type(value)
        if sort in SCALARS:
            return value
        if isinstance(value, Tensor):
            return self.tensor(value, place)
        if isinstance(value, nn.Module) and id(value) in self._modules:
            return ("module", self._modules[id(value)])
        if isinstance(value, _INERT):
            return sort.__qualname__
        if isinstance(value, type):
            return ("class", name_of(value))
        if isinstance(value, weakref.ref):
            return self.value(cast("weakref.ref[Any]", value)(), place)
        if id(value) in self._seen:
            return ("again", self._seen[id(value)][0])
        if len(self._seen) > _MOST:
            self._blind(place, value)
            return None
        self._seen[id(value)] = (len(self._seen), value)
        if isinstance(value, _FUNCTIONS):
            return self.function(value, place)
        return self._held(value, sort, place)

    def _held(self, value: Any, sort: type, place: str) -> Any:
        name = sort.__qualname__
        if isinstance(value, enum.Enum):
            return (name, value.name)
        if isinstance(value, np.ndarray | np.generic):
            array: Any = np.ascontiguousarray(value)
            if array.dtype.hasobject:
                return (name, self.value(array.tolist(), place))
            self.contents.append(array.reshape(-1).view(np.uint8) if array.size else b"")
            return (name, array.dtype.str, array.shape, len(self._seen))
        if isinstance(value, Mapping):
            pairs = cast("Mapping[Any, Any]", value)
            items: Iterable[Any] = dict.items(pairs) if isinstance(pairs, dict) else pairs.items()
            inside = [(self.value(key, place), self.value(item, f"{place}.{key}")) for key, item in items]
            return (name, inside, self._attributes(value, place) if hasattr(value, "__dict__") else None)
        if isinstance(value, set | frozenset):
            return (name, sorted(repr(self.value(item, place)) for item in cast("set[Any]", value)))
        if isinstance(value, list | tuple) or _is_deque(value):
            items = cast("Iterable[Any]", value)
            return (name, [item if type(item) in SCALARS else self.value(item, place) for item in items])
        if isinstance(value, torch.Generator):
            return (name, self.tensor(value.get_state(), place))
        if isinstance(value, torch.ScriptObject):
            return self._packed(value, place)
        if hasattr(value, "__dict__") or hasattr(sort, "__slots__"):
            self.classes.add(sort)
            if callable(value) and not isinstance(value, nn.Module) and functions.is_own(value):
                self.own.append(f"{place} = {name}")
            return (name, name_of(sort), self._attributes(value, place))
        self._blind(place, value)
        return None

    def _attributes(self, value: Any, place: str) -> list[Any]:
        held: dict[str, Any] = dict(getattr(value, "__dict__", {}))
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for key in (slots,) if isinstance(slots, str) else slots:
                if key not in {"__dict__", "__weakref__"} and hasattr(value, key):
                    held[key] = getattr(value, key)
        return [(key, self.value(item, f"{place}.{key}")) for key, item in held.items() if key not in NOTES]

    def _packed(self, value: Any, place: str) -> Any:
        """Describe an object of TorchScript's, such as a quantised layer's packed weights, by what pickling gives."""
        try:
            return (str(value._type()), self.value(value.__getstate__(), place))
        except (RuntimeError, AttributeError, NotImplementedError):
            self._blind(place, value)
            return None

    def _blind(self, place: str, value: Any) -> None:
        self.unseen.append(f"{place}: {type(value).__qualname__} that cannot be looked into")

    def function(self, value: Any, place: str) -> Any:
        """Describe a function: which one it is, and what it was given beforehand."""
        if functions.is_own(value):
            self.own.append(f"{place} = {functions.called(value)}")
            return name_of(value)
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return ("partial", [self.value(part, place) for part in cast("tuple[Any, ...]", parts)])
        function: Any = value.__func__ if isinstance(value, MethodType) else value
        bound: list[Any] = [value.__self__] if isinstance(value, MethodType | BuiltinFunctionType) else []
        if isinstance(function, FunctionType):
            self.functions[function.__code__] = function.__globals__
            bound += (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
            bound += (function.__defaults__, function.__kwdefaults__)
        # Objects of a library's own are not looked through from here: the bridge's adapter hangs on one of its methods.
        data = [self.value(item, place) if self._is_data(item) else type(item).__qualname__ for item in bound]
        return (name_of(function), data)

    def _is_data(self, value: Any) -> bool:
        return isinstance(value, _DATA) or id(value) in self._modules


_DATA = (*SCALARS, Tensor, np.ndarray, list, tuple, dict, set, *_FUNCTIONS)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _is_deque(value: Any) -> bool:
    return type(value).__module__ == "collections" and hasattr(value, "maxlen")


_names: dict[int, tuple[Any, str]] = {}
_next = itertools.count()


def name_of(thing: Any) -> str:
    """Return a name for a function or a class that no other object ever gets.

    A library's goes by where it is written, which is the same in every process; what a function closes over is
    described beside it. For the user's own a number tells, where its module does not have it under its name: addresses
    are given again once they are free.
    """
    reference, name = _names.get(id(thing), (None, ""))
    if reference is not None and (reference() is thing if type(reference) is weakref.ref else reference is thing):
        return name
    name = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', '')}"
    found: Any = sys.modules.get(str(getattr(thing, "__module__", None)))
    for part in str(getattr(thing, "__qualname__", "")).split("."):
        found = getattr(found, part, None)
    if isinstance(thing, FunctionType) and found is not thing and not functions.is_own(thing):
        name += f" at line {thing.__code__.co_firstlineno}"
    elif found is not thing and not isinstance(thing, BuiltinFunctionType) and functions.is_own(thing):
        name += f" {next(_next)}"
    address = id(thing)
    try:
        held: Any = weakref.ref(thing, lambda _: _names.pop(address, None))
    except TypeError:  # kept alive, and its address with it
        held = thing
    _names[address] = (held, name)
    return name
