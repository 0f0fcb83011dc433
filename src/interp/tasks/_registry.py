"""The tasks that there are: each declares itself, with its options, under a name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from interp.errors import InputError, closest, unknown
from interp.spec import METRICS, Pair

Generator = Callable[..., Iterable[Pair | None]]
_PACKAGE = "interp.tasks"


@dataclass(frozen=True)
class Option:
    """One keyword of a task.

    Attributes
    ----------
    default
        ``inspect.Parameter.empty`` where it must be given.
    kind
        ``str``, ``int``, ``float``, ``bool``, or ``object`` where anything goes.
    choices
        The values allowed; empty where any is.
    """

    name: str
    default: Any
    kind: type = object
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Task:
    """A registered task.

    Attributes
    ----------
    function
        ``(vocabulary, rng, n, **options)`` → pairs.
    metric
        The name of the metric that it is measured with.
    summary, doc
        The first line of the function's docstring, and all of it.
    """

    name: str
    function: Generator
    metric: str
    options: tuple[Option, ...]
    summary: str
    doc: str

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse an option that the task does not take, or a value that it does not allow.

        Raises
        ------
        InputError
            The closest name, or the values allowed, are in the message.
        """
        known = {option.name: option for option in self.options}
        for name, value in given.items():
            option = known.get(name)
            if option is None:
                takes = f"it takes {', '.join(map(self._typed, self.options))}" if known else "it takes none"
                raise InputError(f"task {self.name} has no option {name!r}{closest(name, known)}; {takes}")
            if option.choices and value not in option.choices:
                near = closest(str(value), map(str, option.choices))
                allowed = ", ".join(map(str, option.choices))
                raise InputError(f"{name} {value!r} is not one of {allowed}{near}")
            if not isinstance(value, option.kind) or (isinstance(value, bool) and option.kind is int):
                raise InputError(f"{name} {value!r} is not of type {option.kind.__name__}")
        for option in self.options:
            if option.default is inspect.Parameter.empty and option.name not in given:
                raise InputError(f"task {self.name} needs {option.name}=…")

    def chosen(self, choice: str) -> dict[str, Any]:
        """Return the option that has `choice` among its values, with that value.

        Raises
        ------
        InputError
            None has it; the closest one is named.

        Examples
        --------
        >>> find("facts").chosen("landmarks")
        {'relation': 'landmarks'}
        """
        known = {str(value): {option.name: value} for option in self.options for value in option.choices}
        if choice not in known:
            takes = f"write {' or '.join(f'{self.name}:{c}' for c in known)}" if known else f"write {self.name}"
            raise InputError(f"task {self.name} has no {choice!r}{closest(choice, known)}; {takes}")
        return known[choice]

    def _typed(self, option: Option) -> str:
        """Return an option's name, and how its values are typed behind the task's."""
        typed = " or ".join(f"{self.name}:{choice}" for choice in option.choices)
        return f"{option.name} ({typed})" if typed else option.name


_tasks: dict[str, Task] = {}


def task(name: str, *, metric: str = "logit-diff") -> Callable[[Generator], Generator]:
    """Register a task: a function ``(vocabulary, rng, n, **options)`` that yields pairs.

    Parameters
    ----------
    name
        What it is called: ``"ioi"``.
    metric
        One of `interp.spec.METRICS`.

    Returns
    -------
    Callable
        A decorator that registers the function and returns it unchanged.

    Raises
    ------
    ValueError
        The name is taken by a task of another module, or cannot be typed as a flag's value.
    InputError
        No such metric.

    Examples
    --------
    >>> from interp.tasks import combinations, make_pair
    >>> @task("letters")
    ... def letters(vocabulary, rng, n):
    ...     '''The next letter of the alphabet.'''
    ...     for a, b in combinations(rng, ["a b c", "b c d"], ["d e f", "e f g"]):
    ...         yield make_pair(vocabulary, "{seen}", {"seen": a}, {"seen": b}, (" d",), (" g",))
    >>> find("letters").summary
    'The next letter of the alphabet.'
    """
    if not name or name.split() != [name]:
        raise ValueError(f"{name!r} cannot be a task's name: it is typed as one word")
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS, f"metrics are {', '.join(METRICS)}")

    def register(function: Generator) -> Generator:
        if not function.__module__.startswith(f"{_PACKAGE}."):
            _load()  # so that a name of ours is seen to be taken
        held = _tasks.get(name)
        if held is not None and held.function.__module__ != function.__module__:
            raise ValueError(f"{held.function.__module__} already declares a task named {name!r}")
        doc = inspect.getdoc(function) or ""
        _tasks[name] = Task(name, function, metric, _options(function), doc.partition("\n")[0], doc)
        return function

    return register


def _options(function: Generator) -> tuple[Option, ...]:
    declared = list(inspect.signature(function).parameters.values())[3:]
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # a name that exists for type checkers only: then nothing is checked
        hints = {}
    options: list[Option] = []
    for parameter in declared:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        hint = hints.get(parameter.name)
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        kind = cast("type", hint) if hint in (str, int, float, bool) else object
        options.append(Option(parameter.name, parameter.default, kind, choices))
    return tuple(options)


def _load() -> None:
    """Import interp's own task files, which register themselves."""
    for module in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{_PACKAGE}.{module.name}")


def names() -> tuple[str, ...]:
    """Return the names of all tasks.

    Examples
    --------
    >>> "ioi" in names()
    True
    """
    _load()
    return tuple(sorted(_tasks))


def find(name: str) -> Task:
    """Return the task called `name`; underscores may stand for hyphens.

    Raises
    ------
    InputError
        No such task; the closest one is named.

    Examples
    --------
    >>> find("ioi").metric
    'logit-diff'
    """
    known = names()
    found = _tasks.get(name) or _tasks.get(name.replace("_", "-").lower())
    if found is None:
        raise unknown("task", name, known, f"tasks are {', '.join(known)}")
    return found
