"""The functions that a model's forwards run by name, and which of them are no longer what interp first saw there.

A forward is more than its modules: it looks up functions of its own file, of ``torch.nn.functional``, methods of its
classes, entries of registries. Whoever replaces one of them changes every answer, and no weight. So code is read once
for each set of classes: from the methods by which modules are called, through the names that code mentions, into
globals, modules, classes and registries (reachable by name, whatever the types: Bacon and Sweeney 1996 without the
instantiations). From then on a look at each place that was found, by identity, tells whether anything was replaced.
"""

from __future__ import annotations

import builtins
import dis
import enum
import functools
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import attrgetter, is_, itemgetter
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from interp.engine.model.functions import (
    KNOWN,
    called,
    functions_in,
    installed_file,
    is_library,
    is_own,
    is_read,
    module_of,
    package_of,
)

_ABSENT: Any = enum.Enum("Absent", "ABSENT")["ABSENT"]
_NOISE = {"__doc__", "__annotations__", "__abstractmethods__", "_abc_impl", "__slotnames__", "__firstlineno__"}
_WRITTEN = attrgetter("__code__", "__defaults__", "__kwdefaults__")
# Builtins that speak to whoever sits there: nothing is computed by them, and front ends put in their own for each cell.
_FOR_PEOPLE = frozenset(["_", "breakpoint", "display", "exit", "get_ipython", "help", "input", "open", "print", "quit"])
_HOOKS = "torch.nn.modules.module._global_"  # torch's tables of hooks on all modules, which are looked for elsewhere
_LARGEST = 2000  # entries of a registry that is watched
_KEPT = 16  # sets of classes whose code stays known


@dataclass(frozen=True)
class Found:
    """What was found in a model's code.

    Attributes
    ----------
    changed
        What is not as it was when it was first seen: place → what is there now.
    own
        Functions of the user's own that forwards may run, as ``place: function``.
    """

    changed: tuple[tuple[str, Any], ...]
    own: tuple[str, ...]


def look(classes: frozenset[type], functions: Mapping[CodeType, Mapping[str, Any]]) -> Found:
    """Return what was replaced in the code that modules of `classes` run.

    Parameters
    ----------
    classes
        Of modules, and of other objects in them that have methods.
    functions
        Code of functions that stand on instances, and the globals of each.
    """
    key = (classes, frozenset(functions))
    reach = _reaches.get(key)
    if reach is None or not reach.stands():
        reach = _reaches[key] = _Reach(classes, functions)
        while len(_reaches) > _KEPT:
            _reaches.popitem(last=False)
    _reaches.move_to_end(key)
    return reach.found


_reaches: OrderedDict[Any, _Reach] = OrderedDict()

# By address, with what has that address, so that it is never another's: what stood in a namespace, or what a function
# was made of, when it was first seen.
_first: dict[int, tuple[Any, dict[Any, Any]]] = {}
_first_written: dict[int, tuple[FunctionType, tuple[Any, ...]]] = {}


class _Space:
    """Names in one namespace, and what they stand for: a class's or a registry's (all of them), or a module's."""

    def __init__(self, owner: Any, label: str, space: Mapping[Any, Any], whole: bool) -> None:
        self.owner = owner
        self.label = label
        self._space = space
        self._whole = whole
        # As a dictionary, whatever a subclass makes of looking things up.
        self._values: Any = functools.partial(dict.values, space) if isinstance(space, dict) else space.values
        items: Any = dict.items(space) if isinstance(space, dict) else space.items()
        self.held: dict[Any, Any] = dict(items) if whole else {}

    def add(self, name: str) -> None:
        self.held[name] = self._space.get(name, _ABSENT)

    def close(self) -> None:
        """Get ready to be asked whether it stands."""
        there = [name for name, value in self.held.items() if value is not _ABSENT]
        self._absent = self.held.keys() - set(there)
        self._ids = [id(self.held[name]) for name in there]
        self._take: Any = itemgetter(*there, there[0]) if there and not self._whole else None

    def stands(self) -> bool:
        """Whether every name stands for what it stood for."""
        if self._whole:
            return list(map(id, self._values())) == self._ids
        try:
            found = self._take(self._space)[:-1] if self._take else ()
        except KeyError:
            return False
        return list(map(id, found)) == self._ids and self._space.keys().isdisjoint(self._absent)

    def changed(self) -> Iterator[tuple[str, Any]]:
        """Yield what is another one than when it was first seen, in any reading of any model's code."""
        known = id(self.owner) in _first
        _, first = _first.setdefault(id(self.owner), (self.owner, {}))
        now = self.held | {name: _ABSENT for name in first.keys() - self.held.keys() if self._whole}
        for name, value in now.items():
            before = first.setdefault(name, _ABSENT if known and self._whole else value)
            if before is not value and name not in _NOISE and name not in _rebound(self.owner, self._whole):
                yield f"{self.label}.{name}", value


class _Reach:
    """All that forwards of some classes may look up by name, as it stood when it was read."""

    def __init__(self, classes: Iterable[type], functions: Mapping[CodeType, Mapping[str, Any]]) -> None:
        self._spaces: dict[int, _Space] = {}
        self._names = {"forward"}
        self._waiting: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
        self._classes: set[type] = set()
        self._read: set[CodeType] = set()
        self._functions: dict[int, FunctionType] = {}
        self._todo: list[tuple[CodeType, Mapping[str, Any]]] = list(functions.items())
        self._own: dict[str, None] = {}
        for kind in sorted(classes, key=lambda kind: (kind.__module__, kind.__qualname__)):
            self._class(kind)
        while self._todo:
            self._code(*self._todo.pop())
        for space in self._spaces.values():
            space.close()
        self._written = list(chain.from_iterable(map(_WRITTEN, self._functions.values())))
        changed = [entry for space in self._spaces.values() for entry in space.changed()]
        changed += self._rewritten()
        own = [f"{place}: {called(value)}" for place, value in changed if value is not _ABSENT and is_own(value)]
        self.found = Found(tuple(changed), tuple(dict.fromkeys((*self._own, *own))))

    def stands(self) -> bool:
        """Whether everything is as it was when it was read."""
        written = chain.from_iterable(map(_WRITTEN, self._functions.values()))
        return all(space.stands() for space in self._spaces.values()) and all(map(is_, written, self._written))

    def _rewritten(self) -> Iterator[tuple[str, Any]]:
        for function in self._functions.values():
            made = _WRITTEN(function)
            _, before = _first_written.setdefault(id(function), (function, made))
            for what, old, new in zip(("code", "defaults", "kwdefaults"), before, made, strict=True):
                if old is not new:
                    place = f"{function.__module__}.{function.__qualname__}"
                    yield f"{place}, its {what}", new
                    if what == "code" and not installed_file(new.co_filename):
                        self._own[f"{place}: {new.co_name}"] = None

    # -- reading -------------------------------------------------------------------------------------------------------

    def _space(self, owner: Any, label: str, space: Mapping[Any, Any], whole: bool = False) -> _Space:
        found = self._spaces.get(id(owner))
        if found is None:
            found = self._spaces[id(owner)] = _Space(owner, label, space, whole)
        return found

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            if base is object or base in self._classes:
                continue
            self._classes.add(base)
            module = base.__module__ or ""
            label = f"{module}.{base.__qualname__}"
            space = vars(base)
            if package_of(module) in KNOWN:
                self._space(base, label, space, whole=True)
            if not is_read(module) and package_of(module) in KNOWN:
                continue
            if is_library(module) and package_of(module) not in KNOWN:
                continue
            for name, value in tuple(space.items()):
                if isinstance(value, dict):
                    self._registry(f"{label}.{name}", cast("dict[Any, Any]", value))
                elif name in self._names or (name.startswith("__") and name.endswith("__")):
                    self._value(f"{label}.{name}", value)
                elif not isinstance(value, type):
                    self._waiting[name].append((f"{label}.{name}", value))

    def _registry(self, label: str, held: dict[Any, Any]) -> None:
        if len(held) > _LARGEST or id(held) in self._spaces or label.startswith(_HOOKS):
            return
        if not held or any(callable(value) or isinstance(value, tuple) for value in dict.values(held)):
            self._space(held, label, held, whole=True)
            for key, value in tuple(dict.items(held)):
                self._value(f"{label}.{key}", value)

    def _value(self, place: str, value: Any, mentioned: frozenset[str] = frozenset()) -> None:
        """Read what a name stands for."""
        if isinstance(value, type):
            if is_read(value.__module__ or ""):
                self._class(value)
            elif value.__module__ == "torch" or value.__module__.startswith("torch._tensor"):
                self._class(value)  # Tensor
        elif isinstance(value, ModuleType):
            self._module(value, mentioned, set())
        elif isinstance(value, dict):
            self._registry(place, cast("dict[Any, Any]", value))
        else:
            functions = list(functions_in(value))
            for function in functions:
                module = module_of(function)
                if not is_library(module):
                    self._own[f"{place}: {function.__qualname__}"] = None
                elif is_read(module) and function.__code__ not in self._read:
                    self._functions[id(function)] = function
                    self._todo.append((function.__code__, function.__globals__))
            kind = type(value)
            if not functions and is_read(kind.__module__) and kind.__module__ != "torch.nn.modules.module":
                self._class(kind)
                for name, inner in tuple(getattr(value, "__dict__", {}).items()):
                    if isinstance(inner, dict):  # of a registry's own entries
                        self._registry(f"{place}.{name}", cast("dict[Any, Any]", inner))

    def _module(self, module: ModuleType, mentioned: frozenset[str], seen: set[int]) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        space = vars(module)
        held: _Space | None = None
        for name in mentioned & space.keys():
            value = space[name]
            if isinstance(value, ModuleType):
                if package_of(value.__name__) in KNOWN:
                    self._module(value, mentioned, seen)
                continue
            if held is None:
                held = self._space(space, module.__name__, space)
            if name not in held.held:
                held.add(name)
                self._value(f"{module.__name__}.{name}", value, mentioned)

    def _code(self, code: CodeType, space: Mapping[str, Any]) -> None:
        if code in self._read:
            return
        self._read.add(code)
        mentioned = _mentioned(code)
        for name in mentioned - self._names:
            self._names.add(name)
            for place, value in self._waiting.pop(name, ()):
                self._value(place, value)
        label = str(space.get("__name__", code.co_filename))
        held = self._space(space, label, space)
        common = self._space(vars(builtins), "builtins", vars(builtins))
        for name in mentioned:
            if name in space:
                value = space[name]
                new = name not in held.held
                if new and not isinstance(value, ModuleType):
                    held.add(name)
                if new or isinstance(value, ModuleType):
                    self._value(f"{label}.{name}", value, mentioned)
            elif (module := _imported(name, str(space.get("__package__") or ""))) is not None:
                self._module(module, mentioned, set())
            elif name in vars(builtins) and name not in _FOR_PEOPLE:
                held.add(name)
                common.add(name)


def _imported(name: str, package: str) -> ModuleType | None:
    """Return the module that code imports by `name` where it runs, from the top or from a package around it."""
    while True:
        module = sys.modules.get(f"{package}.{name}" if package else name)
        if isinstance(module, ModuleType):
            return module if package_of(module.__name__) in KNOWN else None
        if not package:
            return None
        package = package.rpartition(".")[0]


_rebinding: dict[int, frozenset[str]] = {}


def _rebound(owner: Any, whole: bool) -> frozenset[str]:
    """Return the names that the code of a module or a class binds anew itself: counters and caches of its own."""
    if id(owner) not in _rebinding:
        if isinstance(owner, type):
            found = {name for base in owner.__mro__ for code in _codes(vars(base)) for name in _stored(code, base)}
        else:
            held = {} if whole else owner  # a registry has no code
            inner = [code for kind in held.values() if isinstance(kind, type) for code in _codes(vars(kind))]
            codes = [*_codes(held), *inner]
            found = {str(step.argval) for code in codes for step in _steps(code) if step.opname == "STORE_GLOBAL"}
        _rebinding[id(owner)] = frozenset(found)
    return _rebinding[id(owner)]


def _codes(space: Mapping[str, Any]) -> list[CodeType]:
    return [function.__code__ for value in space.values() for function in functions_in(value)]


def _steps(code: CodeType) -> list[dis.Instruction]:
    return list(dis.get_instructions(code)) if not _STORES.isdisjoint(code.co_code[::2]) else []


_STORES = {dis.opmap["STORE_GLOBAL"], dis.opmap["STORE_ATTR"]}


def _stored(code: CodeType, kind: type) -> Iterator[str]:
    """Yield the attributes that a method sets on its class: ``cls.name = …``, ``Kind.name = …``, ``Kind.name += …``."""
    steps = [step for step in _steps(code) if step.opname not in ("COPY", "CACHE")]
    first = code.co_varnames[0] if code.co_argcount and isinstance(vars(kind).get(code.co_name), classmethod) else None
    read: set[str] = set()
    for before, step in pairwise(steps):
        # Two loads may be one instruction, which names both.
        loaded: Any = before.argval[-1] if isinstance(before.argval, tuple) and before.argval else before.argval
        of_kind = loaded == (kind.__name__ if before.opname == "LOAD_GLOBAL" else first) is not None
        if of_kind and step.opname == "LOAD_ATTR":
            read.add(str(step.argval))
        elif step.opname == "STORE_ATTR" and (of_kind or step.argval in read):
            yield str(step.argval)


@functools.cache
def _mentioned(code: CodeType) -> frozenset[str]:
    """Return the names that code looks up, in functions inside it too, and texts that may be names (``getattr``)."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _mentioned(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            names.add(constant)
    return frozenset(names)
