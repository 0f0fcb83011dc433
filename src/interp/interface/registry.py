"""One declaration per technique: the command, its flags, its help, its completion and its Python call come from it."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from interp.errors import InputError, closest, unknown
from interp.hints import ALIASES, HINTS
from interp.interface import kinds
from interp.interface.parameters import CHANGES, DRY, MISSING, MODEL, OUT, OVER, SHARED, Parameter
from interp.spec import ModelName

Function = TypeVar("Function", bound=Callable[..., Any])


Body = type | types.UnionType | None


def classes(body: Body) -> tuple[type, ...]:
    """Return the classes of a declared body.

    Examples
    --------
    >>> from interp.spec import Pairs, Texts
    >>> [kind.__name__ for kind in classes(Pairs | Texts)]
    ['Pairs', 'Texts']
    """
    if isinstance(body, types.UnionType):
        return get_args(body)
    return () if body is None else (body,)


@dataclass(frozen=True)
class Command:
    """A declared command: a technique, or one of the session's own.

    Attributes
    ----------
    function
        Takes the model (a technique) or the session first, then the body where there is one, then `parameters`.
    body
        The `spec` class that a cell's body becomes, a union of such classes, or ``None``.
    needs_model
        Whether the function's first argument is the current model.
    changes
        Whether the session makes the changes that ``interventions`` names in every run of the model.
    examples
        What stands behind the docstring's ``>>>``, each on one line.
    model
        The argument that names the function's model, where it needs one.
    per_pair
        Whether ``out`` names a file for its result's numbers of single pairs.
    """

    name: str
    function: Callable[..., Any]
    body: Body
    needs_model: bool
    parameters: tuple[Parameter, ...]
    summary: str
    doc: str
    examples: tuple[str, ...] = ()
    model: str = "model"
    changes: bool = False
    per_pair: bool = False

    @property
    def bodies(self) -> tuple[type, ...]:
        """The `spec` classes that a cell's body can become."""
        return classes(self.body)

    def parameter(self, name: str) -> Parameter:
        """Return the parameter called `name`.

        Raises
        ------
        InputError
            No such parameter; the closest one is named.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = [p.name for p in self.parameters]
        raise InputError(f"{self.name} has no argument {name!r}{closest(name, known)}; it takes {', '.join(known)}")


# Commands that leave something with the model, which later ones read: another process has other models.
MAKING = frozenset({"features-label", "features-load", "features-train", "lens-train"})

_commands: dict[str, Command] = {}

# Where commands declare themselves: every file of the techniques' folders but `_shared`, and the session's own.
_TECHNIQUES = "interp.methods"
_OWN = (
    "interp.interface.commands",
    "interp.interface.claims",
    "interp.interface.helping",
    "interp.interface.verifying",
    "interp.interface.workers",
)


def technique(
    *,
    body: Body,
    name: str | None = None,
    forecasts: bool = False,
    changes: bool = False,
    model: str = "model",
    per_pair: bool = False,
) -> Callable[[Function], Function]:
    """Declare a technique: a function ``(model, body, …) -> Result``.

    Parameters
    ----------
    body
        The `spec` class that a cell's body becomes (`spec.Prompt`), a union of such classes (``Pairs | Texts``), or
        ``None`` where it takes no body.
    name
        The command's name; the function's name with hyphens when not given.
    forecasts
        Whether it calls `foresee` before its work starts, on every way through it: it then takes ``--dry-run``.
    model
        Of a technique over several models: what the first is called, which is then given by its place, not by a flag.
    changes
        Whether it takes ``--interventions``, which are then on every run of the model that it makes.
    per_pair
        Whether its result has numbers of single pairs (`Result._pairs`), which ``--out`` then writes to a file.

    Returns
    -------
    Callable
        A decorator that registers the function and returns it unchanged.

    Raises
    ------
    TypeError
        A parameter whose annotation the command line cannot read.
    ValueError
        Another file already declares a command of this name.

    Examples
    --------
    >>> @technique(body=None)  # doctest: +SKIP
    ... def layers(model) -> Result: ...
    """
    options: dict[str, Any] = {"forecasts": forecasts, "changes": changes, "model": model, "per_pair": per_pair}
    return lambda function: _declare(function, body, needs_model=True, name=name, **options)


def command(function: Function) -> Function:
    """Declare one of the session's own commands: a function ``(session, …) -> Result``."""
    return _declare(function, None, needs_model=False, name=None)


def _declare(
    function: Function,
    body: Body,
    *,
    needs_model: bool,
    name: str | None,
    forecasts: bool = False,
    model: str = "model",
    changes: bool = False,
    per_pair: bool = False,
) -> Function:
    called = name or function.__name__.replace("_", "-")
    held = _commands.get(called)
    if held is not None and held.function.__module__ != function.__module__:
        raise ValueError(f"{held.function.__module__} already declares a command named {called!r}")
    doc = inspect.getdoc(function) or ""
    own = _parameters(function, skip=2 if body else 1, descriptions=_described(doc))
    if model != "model":
        own = (replace(MODEL, name=model, positional=True, default=MISSING, help="a loaded model"), *own)
    more = [
        *([CHANGES] if changes else []),
        *([OUT] if per_pair else []),
        *([DRY] if forecasts else []),
        *([MODEL] if needs_model and model == "model" else []),
        # What writes one file cannot write it for several models.
        *([OVER] if needs_model and not any(parameter.name == "out" for parameter in own) else []),
    ]
    shared = _shared(body, {parameter.name for parameter in own}, more)
    _commands[called] = Command(
        name=called,
        function=function,
        body=body,
        needs_model=needs_model,
        parameters=(*own, *shared),
        summary=doc.partition("\n")[0],
        doc=doc,
        examples=_examples(doc),
        model=model,
        changes=changes,
        per_pair=per_pair,
    )
    return function


def _shared(body: Body, own: set[str], more: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Return what a command takes besides its `own` arguments, each name once."""
    found: dict[str, Parameter] = {}
    for kind in classes(body):
        for parameter in SHARED.get(kind, ()):
            held = found.get(parameter.name, parameter)
            said = dict.fromkeys([held.help, parameter.help])
            found[parameter.name] = replace(parameter, help="; ".join(said))
    found |= {parameter.name: parameter for parameter in more}
    return tuple(parameter for name, parameter in found.items() if name not in own)


def _parameters(function: Callable[..., Any], skip: int, descriptions: Mapping[str, str]) -> tuple[Parameter, ...]:
    declared = list(inspect.signature(function).parameters.values())[skip:]

    def annotated() -> None: ...

    # Only these annotations are resolved: the model's type is imported for type checkers alone.
    annotated.__annotations__ = {p.name: p.annotation for p in declared}
    hints = get_type_hints(annotated, globalns=function.__globals__, include_extras=True)
    return tuple(
        _parameter(p.name, hints[p.name], p.default, p.kind is p.POSITIONAL_OR_KEYWORD, descriptions.get(p.name, ""))
        for p in declared
    )


def _parameter(name: str, hint: Any, default: Any, positional: bool, description: str) -> Parameter:
    names = ""
    choices: tuple[str, ...] = ()
    if get_origin(hint) in {Union, types.UnionType}:
        options = [option for option in get_args(hint) if option is not type(None)]
        hint = options[0] if len(options) == 1 else hint
    if get_origin(hint) is Annotated:
        base, names = get_args(hint)[:2]
        hint = str if isinstance(kinds.KINDS.get(names), kinds.Open) else base
    if get_origin(hint) is Literal:
        choices = tuple(str(choice) for choice in get_args(hint))
        hint = str
    if name == "seed" and hint is int:
        names = "seed"
    if hint not in {str, int, float, bool} or names not in {"", *kinds.KINDS}:
        raise TypeError(f"parameter {name}: the command line cannot read a {hint}")
    return Parameter(name, cast(type, hint), default, positional, choices, names, description)


def _described(doc: str) -> dict[str, str]:
    """Return parameter name → first sentence of its description in a numpy-style docstring."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+$|\Z)", doc, re.MULTILINE | re.DOTALL)
    entries = re.split(r"^(\w[\w, ]*)(?: :[^\n]*)?\n", section.group(1), flags=re.MULTILINE)[1:] if section else []
    described: dict[str, str] = {}
    for names, text in zip(entries[::2], entries[1::2], strict=True):
        line = re.split(r"(?<=[.;])\s", " ".join(text.split()))[0].rstrip(".;")
        described |= dict.fromkeys(names.split(", "), line)
    return described


def _examples(doc: str) -> tuple[str, ...]:
    """Return a docstring's examples, each on one line.

    Examples
    --------
    >>> _examples(">>> f(1,\\n...   2)  # doctest: +SKIP\\n3")
    ('f(1, 2)',)
    """
    found = re.findall(r"^>>> (.*(?:\n\.\.\. .*)*)", doc, re.MULTILINE)
    return tuple(re.sub(r"\n\.\.\.\s+", " ", one).partition("  # doctest:")[0].strip() for one in found)


def commands() -> Mapping[str, Command]:
    """Return every command by name, importing interp's own on the first call; no torch is imported."""
    _import_own()
    return dict(sorted(_commands.items()))


@functools.cache
def _import_own() -> None:
    for module in pkgutil.walk_packages(importlib.import_module(_TECHNIQUES).__path__, f"{_TECHNIQUES}."):
        if "._" not in module.name:
            importlib.import_module(module.name)
    for own in _OWN:
        importlib.import_module(own)


def find(name: str) -> Command:
    """Return the command called `name`; underscores may stand for hyphens.

    Raises
    ------
    InputError
        No such command; the closest one is named.

    Examples
    --------
    >>> find("attention").name
    'attention'
    """
    known = commands()
    plainly = name.replace("_", "-").lower()
    found = known.get(name) or known.get(name.replace("_", "-")) or known.get(ALIASES.get(plainly, ""))
    if found is None and plainly in HINTS:
        raise InputError(f"there is no command {name!r}: {HINTS[plainly]}")
    if found is None:
        raise unknown("command", name, known, "%interp help lists them")
    return found


__all__ = ["Command", "ModelName", "Parameter", "command", "commands", "find", "technique"]
