"""The kinds of argument: how each is read from a line, checked in Python, resolved, and completed on Tab."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex, cast

from interp import files, sites
from interp.errors import InputError, closest, unknown
from interp.interface.positions import Head, Heads, Indices, Kind, Loaded, Open, Positions
from interp.metric import LOSS, METRICS, metric_name
from interp.spec import FEATURE, as_answers

_LAST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Plain(Kind):
    """A number, or True and False."""

    of: type

    def parse(self, text: str, flag: str) -> Any:
        try:
            return self.of(text)
        except ValueError:
            kind = {"int": "a whole number", "float": "a number"}.get(self.of.__name__, self.of.__name__)
            raise InputError(f"{flag} {text!r} is not {kind}") from None

    def check(self, value: Any, name: str) -> Any:
        of_kind: dict[type, tuple[Any, str]] = {
            bool: (bool, "True or False"),
            int: (SupportsIndex, "a whole number"),
            float: (SupportsFloat, "a number"),
        }
        accepted, called = of_kind[self.of]
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.of is not bool):
            raise InputError(f"{name} {value!r} is not {called}")
        return value


class Seed(Plain):
    """What random numbers are drawn from: a number that every library's generator takes."""

    def __init__(self) -> None:
        super().__init__(int)

    def parse(self, text: str, flag: str) -> Any:
        return self.check(super().parse(text, flag), flag)

    def check(self, value: Any, name: str) -> Any:
        number = operator.index(super().check(value, name))
        if not 0 <= number <= _LAST_SEED:
            raise InputError(f"{name} {number} is no seed; use a whole number from 0 to {_LAST_SEED}")
        return number


class OneOf(Kind):
    """One of its `choices`."""

    def parse(self, text: str, flag: str) -> Any:
        return self.check(text, flag)

    def check(self, value: Any, name: str) -> Any:
        if isinstance(value, str) and value not in self.choices:
            value = value.lower().replace("_", "-")  # as Python spells names
        if value not in self.choices:
            near = closest(str(value), self.choices)
            raise InputError(f"{name} {value!r} is not one of {', '.join(self.choices)}{near}")
        return value

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return self.choices


@dataclass(frozen=True)
class Choice(OneOf):
    """One of the texts that a technique's signature lists."""

    listed: tuple[str, ...]

    @property
    def choices(self) -> Sequence[str]:
        return self.listed


class StreamSite(OneOf):
    """A site at which a vector of the residual stream's width can be written or taken out."""

    @property
    def choices(self) -> Sequence[str]:
        return sites.stream()


class FeatureSource(Kind):
    """A folder of dictionaries, or a hub name; in Python a path, too."""

    def check(self, value: Any, name: str) -> Any:
        return super().check(os.fspath(value) if isinstance(value, os.PathLike) else value, name)

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return ["bundled", *_folders(partial)]


class FeaturePoint(OneOf):
    """A point of a layer at which a dictionary of features can read."""

    @property
    def choices(self) -> Sequence[str]:
        return sites.POINTS


class Site(Kind):
    """A site of the table."""

    def parse(self, text: str, flag: str) -> Any:
        return self.check(text, flag)

    def check(self, value: Any, name: str) -> Any:
        return sites.find(super().check(value, name)).name

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        if session.current is None:
            return sites.SITES
        return [*session.get().sites, *([sites.FEATURES.name] if session.feature_names else [])]


@dataclass(frozen=True)
class Offered(Kind):
    """A text that may be any; `offers` gives the usual ones from what is typed, the session and the commands."""

    offers: Callable[[str, Loaded, Iterable[str]], Iterable[str]]

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:
        return self.offers(partial, session, commands)


class Task(Kind):
    """A task's name; behind a colon may stand which of its kinds."""

    def known(self, word: str) -> bool:
        """Return whether `word` names a task."""
        return word.partition(":")[0].replace("_", "-").lower() in self.names

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return self.names

    @property
    def names(self) -> Sequence[str]:
        """All tasks that there are."""
        from interp import tasks

        return tasks.names()


class Token(Open):
    """A token: a word, or an id."""

    def check(self, value: Any, name: str) -> Any:
        found = as_answers(value, name)
        return found[0] if len(found) == 1 else found


class Metric(Open):
    """A metric's name, or a function of the user's."""

    def named(self, value: Any, flag: str, variables: Mapping[str, Any]) -> Any:  # noqa: ARG002
        if metric_name(value).partition(":")[0] == LOSS or metric_name(value) in METRICS:
            return value
        function = variables.get(value)
        if not callable(function):
            own = "or the name of a function that this notebook defines"
            raise unknown("metric", value, METRICS, f"use {', '.join(METRICS)}, {own}")
        return function

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return METRICS

    def of_notebook(self, variables: Mapping[str, Any]) -> Iterable[str]:
        return [name for name, value in variables.items() if inspect.isfunction(value)]


class Variable(Open):
    """What the notebook holds; on a line, its name."""

    def named(self, value: Any, flag: str, variables: Mapping[str, Any]) -> Any:
        if value not in variables:
            near = closest(value, [name for name in variables if not name.startswith("_")])
            raise InputError(f"{flag} {value!r} is no variable of this notebook{near}; name one that is")
        return variables[value]

    def of_notebook(self, variables: Mapping[str, Any]) -> Iterable[str]:
        return [name for name, value in variables.items() if not callable(value) and not inspect.ismodule(value)]


class SavedResult(Variable):
    """A result that the notebook holds; on a line its name, or a file that one was saved to."""

    def named(self, value: Any, flag: str, variables: Mapping[str, Any]) -> Any:
        if value not in variables and value.lower().endswith((".json", ".npz")):
            return value
        return super().named(value, flag, variables)

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return _entries(partial, (".json", ".npz"))

    def of_notebook(self, variables: Mapping[str, Any]) -> Iterable[str]:
        # Results stand above this file: one is told by the field that all of them have.
        known = ((name, getattr(type(value), "__dataclass_fields__", ())) for name, value in variables.items())
        return [name for name, fields in known if "provenance" in fields]


class Direction(Variable):
    """A direction that the notebook holds; on a line its name, or a feature such as F2.417."""

    def named(self, value: Any, flag: str, variables: Mapping[str, Any]) -> Any:
        if value not in variables and FEATURE.fullmatch(value):
            return value
        return super().named(value, flag, variables)


class Model(Kind):
    """A loaded model's name."""

    def check(self, value: Any, name: str) -> Any:
        if isinstance(value, str):
            return value
        kind = type(value).__name__
        raise InputError(
            "a classifier is explained as it is: interp.saliency_of_classifier(text, model, tokenizer, target=1)"
            if kind.endswith("ForSequenceClassification")
            else f"{name} names a loaded model, and this is a {kind}; interp.load(…) loads it"
        )

    def resolve(self, value: Any, session: Loaded) -> Any:
        return session.get(value)

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return session.models


class Files(Open):
    """Files of results; on a line, all words that are left."""

    rest = True

    def parse(self, text: str, flag: str) -> Any:
        return self.check(text, flag)

    def check(self, value: Any, name: str) -> Any:
        """Return the paths as texts.

        Examples
        --------
        >>> Files().check("a.json", "files"), Files().check(["a.json", "b.json"], "files")
        (('a.json',), ('a.json', 'b.json'))
        """
        listed = [value] if isinstance(value, str | os.PathLike) else value
        if not isinstance(listed, list | tuple) or not all(isinstance(one, str | os.PathLike) for one in listed):
            raise InputError(f"{name} are paths of files, not {value!r:.60}")
        return tuple(os.fspath(one) for one in listed)


class Controls(Open):
    """The controls of a claim."""

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return ("all", "none", "labels", "model", "random", "below", "above")


class Over(Open):
    """What a call runs over: names of models, folders and revisions."""

    def parse(self, text: str, flag: str) -> tuple[str, ...]:
        return self.check(text, flag)

    def check(self, value: Any, name: str) -> tuple[str, ...]:
        listed: Any = value.split(",") if isinstance(value, str) else value
        if not isinstance(listed, list | tuple):
            raise InputError(f"{name} takes a list of models, folders or revisions, not a {type(value).__name__}")
        words = [os.fspath(one) if isinstance(one, os.PathLike) else one for one in cast("list[Any]", listed)]
        if not words or not all(isinstance(one, str) and one.strip() for one in words):
            raise InputError(f"{name} names nothing to run over; type models, folders or revisions with commas between")
        return tuple(one.strip() for one in words)

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        before, comma, last = partial.rpartition(",")
        origin = getattr(session.get(), "origin", None) if session.current is not None else None
        place = None if origin is None else origin.path
        found = [] if place is None else [*files.checkpoints(place), *files.checkpoints(place.parent)]
        offered = [*session.models, *(["checkpoints"] if found else []), *(one.name for one in found), *_folders(last)]
        return [f"{before}{comma}{one}" for one in offered]


class Pool(Kind):
    """Where work runs: in this process, in worker processes, of which a number alone is enough, or on Ray."""

    def check(self, value: Any, name: str) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else super().check(value, name)

    def complete(self, partial: str, session: Loaded, commands: Iterable[str]) -> Iterable[str]:  # noqa: ARG002
        return ("here", "processes", "ray", "ray://")


TASK = Task()

# What an annotation in `spec` names → the kind; a parameter of none of them is a text, a number or a choice.
KINDS: dict[str, Kind] = {
    "indices": Indices(),
    "positions": Positions(),
    "steered positions": Positions(words=("all", "prompt", "new")),
    "metric": Metric(several=False),
    "token": Token(several=False),
    "prompt": Open(several=False),
    "components": Open(),
    "controls": Controls(),
    "numbers": Open(),
    "examples": Open(),
    "variable": Variable(several=False),
    "direction": Direction(several=False),
    "saved result": SavedResult(several=False),
    "site": Site(),
    "stream site": StreamSite(),
    "feature point": FeaturePoint(),
    "feature source": FeatureSource(),
    "features": Offered(lambda _partial, session, _commands: session.feature_names),
    "feature": Kind(),
    "feature list": Open(),
    "unloadable": Offered(lambda _partial, session, _commands: [*session.models, *session.feature_names]),
    "model": Model(),
    "over": Over(),
    "pool": Pool(),
    "loadable": Offered(lambda partial, session, _commands: [*session.models, *_folders(partial)]),
    "command": Offered(lambda _partial, _session, commands: commands),
    "hook": Offered(lambda _partial, session, _commands: session.get().hook_names if session.current else ()),
    "head": Head(),
    "heads": Heads(),
    "file": Kind(),
    "files": Files(),
    "task": TASK,
    "seed": Seed(),
    "device": Offered(lambda _partial, _session, _commands: ("auto", "cpu", "cuda", "mps")),
    "dtype": Offered(lambda _partial, _session, _commands: ("auto", "float32", "bfloat16", "float16", "float64")),
}


def of(names: str, choices: tuple[str, ...], plain: type) -> Kind:
    """Return the kind of what is annotated so.

    Examples
    --------
    >>> of("", (), float).parse("0.5", "--spill")
    0.5
    """
    if choices:
        return Choice(choices)
    return KINDS[names] if names else Kind() if plain is str else Plain(plain)


def _folders(partial: str) -> list[str]:
    """Return the folders and GGUF files that `partial` may be the beginning of, spelled as it is."""
    return _entries(partial, (".gguf",))


def _entries(partial: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the folders, and the files with these suffixes, that `partial` may be the beginning of."""
    start, _, _ = partial.rpartition("/")
    prefix = f"{start}/" if "/" in partial else ""
    try:
        place = files.path_of(start or ("/" if partial.startswith("/") else "."))
        entries = [path for path in place.iterdir() if not path.name.startswith(".")]
    except (InputError, OSError):  # nothing is there to offer
        return []
    return [
        f"{prefix}{path.name}{'/' if path.is_dir() else ''}"
        for path in entries
        if path.is_dir() or path.suffix.lower() in suffixes
    ]
