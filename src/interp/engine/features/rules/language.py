"""The language of rules: what can be said of a token, what stands before it, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import numpy as np

from interp.engine.features.rules.corpus import CLASSES, Bools, Corpus
from interp.errors import InputError, unknown

_NAMED = 4  # tokens of a set that a sentence names


@dataclass(frozen=True)
class Rule:
    """What holds at some tokens of a text and not at others.

    Examples
    --------
    >>> rule = And(Token((" Mary", " John"), called="name"), Seen())
    >>> str(rule), rule.fires([" Mary", " met", " John", " Mary"]).tolist()
    ('the token is a name and has occurred before', [False, False, False, True])
    """

    kind: ClassVar[str] = ""

    def on(self, corpus: Corpus) -> Bools:
        """Return where it holds, ``bool [token]``."""
        raise NotImplementedError

    def fires(self, tokens: Sequence[str]) -> Bools:
        """Return where it holds in a text of token strings, ``bool [token]``."""
        return self.on(Corpus.of([tokens]))

    def said(self, denied: bool) -> tuple[str, str]:
        """Return what it is about and what it says of that, or that this is not so."""
        raise NotImplementedError

    @property
    def brief(self) -> str:
        """It in a few words, for where there is no room.

        Examples
        --------
        >>> And(Token((" Mary", " John", " Anna")), Seen()).brief, Not(Class("capital", 1)).brief
        ('Mary/John…, again', 'not after capital')
        """
        raise NotImplementedError

    def __str__(self) -> str:
        return " ".join(self.said(False))

    def __and__(self, other: Rule) -> Rule:
        return And(self, other)

    def __invert__(self) -> Rule:
        return Not(self)

    @property
    def size(self) -> tuple[int, int]:
        """How many parts it has, and how many tokens they name."""
        return 1, len(getattr(self, "tokens", ()))

    def data(self) -> dict[str, Any]:
        """Return it as what JSON can hold: see `from_data`."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {
            k: v.data() if isinstance(v, Rule) else list(v) if isinstance(v, tuple) else v for k, v in held.items()
        }
        return {"kind": self.kind, **plain}


@dataclass(frozen=True)
class Token(Rule):
    """The token, or the one `back` places before, is one of `tokens`, which may be `called` something."""

    kind: ClassVar[str] = "token"
    tokens: tuple[str, ...]
    back: int = 0
    called: str = ""

    def on(self, corpus: Corpus) -> Bools:
        return corpus.table(self.tokens)[corpus.before(self.back)]

    @property
    def brief(self) -> str:
        return _after(self.back, self.called or _few(self.tokens))

    def said(self, denied: bool) -> tuple[str, str]:
        if self.called:
            return _subject(self.back), f"is {'no' if denied else 'a'} {self.called}"
        return _subject(self.back), f"is {'not ' * denied}{_listed(self.tokens)}"


@dataclass(frozen=True)
class Class(Rule):
    """The token, or the one `back` places before, is of a class by its string: one of `CLASSES`."""

    kind: ClassVar[str] = "class"
    of: str
    back: int = 0

    def on(self, corpus: Corpus) -> Bools:
        return corpus.classes(self.of)[corpus.before(self.back)]

    @property
    def brief(self) -> str:
        return _after(self.back, self.of)

    def said(self, denied: bool) -> tuple[str, str]:
        return _subject(self.back), CLASSES[self.of][denied]


@dataclass(frozen=True)
class Seen(Rule):
    """The token, or the one `back` places before, stood in the text before."""

    kind: ClassVar[str] = "seen"
    back: int = 0

    def on(self, corpus: Corpus) -> Bools:
        return corpus.moved(corpus.seen, self.back, 0)

    @property
    def brief(self) -> str:
        return _after(self.back, "again" if not self.back else "a repeat")

    def said(self, denied: bool) -> tuple[str, str]:
        return _subject(self.back), f"has {'not ' * denied}occurred before"


@dataclass(frozen=True)
class After(Rule):
    """One of `tokens` is among the `within` tokens before."""

    kind: ClassVar[str] = "after"
    tokens: tuple[str, ...]
    within: int = 4
    called: str = ""

    def on(self, corpus: Corpus) -> Bools:
        table = corpus.table(self.tokens)
        return np.logical_or.reduce([table[corpus.before(back)] for back in range(1, self.within + 1)])

    @property
    def brief(self) -> str:
        return f"near {self.called or _few(self.tokens)}"

    def said(self, denied: bool) -> tuple[str, str]:
        what = f"a {self.called}" if self.called else _listed(self.tokens)
        return what, f"is {'not ' * denied}among the {self.within} tokens before"


@dataclass(frozen=True)
class Position(Rule):
    """It is the token at position `at`, or one before that (`below`)."""

    kind: ClassVar[str] = "position"
    at: int
    below: bool = False

    def on(self, corpus: Corpus) -> Bools:
        return corpus.positions < self.at if self.below else corpus.positions == self.at

    @property
    def brief(self) -> str:
        return f"first {self.at}" if self.below else f"at {self.at}"

    def said(self, denied: bool) -> tuple[str, str]:
        of = f"among the first {self.at}" if self.below else f"at position {self.at}"
        return "the token", f"is {'not ' * denied}{of}"


@dataclass(frozen=True)
class Not(Rule):
    """It is not so that `rule` holds."""

    kind: ClassVar[str] = "not"
    rule: Rule

    def on(self, corpus: Corpus) -> Bools:
        return ~self.rule.on(corpus)

    @property
    def brief(self) -> str:
        return f"not {self.rule.brief}"

    def said(self, denied: bool) -> tuple[str, str]:
        return self.rule.said(not denied)

    @property
    def size(self) -> tuple[int, int]:
        return self.rule.size


@dataclass(frozen=True)
class And(Rule):
    """Both hold."""

    kind: ClassVar[str] = "and"
    first: Rule
    second: Rule

    def on(self, corpus: Corpus) -> Bools:
        return self.first.on(corpus) & self.second.on(corpus)

    @property
    def brief(self) -> str:
        return f"{self.first.brief}, {self.second.brief}"

    def said(self, denied: bool) -> tuple[str, str]:
        (about, first), (other, second) = self.first.said(False), self.second.said(False)
        both = f"{first} and {second if other == about else f'{other} {second}'}"
        return ("it is not so that", f"{about} {both}") if denied else (about, both)

    @property
    def size(self) -> tuple[int, int]:
        (parts, tokens), (more, others) = self.first.size, self.second.size
        return parts + more, tokens + others


KINDS: dict[str, type[Rule]] = {one.kind: one for one in (Token, Class, Seen, After, Position, Not, And)}


def from_data(data: object) -> Rule:
    """Return the rule that `Rule.data` gave.

    Raises
    ------
    InputError
        It is none.

    Examples
    --------
    >>> from_data({"kind": "not", "rule": {"kind": "seen", "back": 1}})
    Not(rule=Seen(back=1))
    """
    if not isinstance(data, Mapping):
        raise InputError(f"a rule is an object with a kind, not {data!r:.40}")
    held = dict(cast("Mapping[str, Any]", data))
    name = held.pop("kind", None)
    if name not in KINDS:
        raise unknown("kind of rule", name, KINDS, f"use {', '.join(KINDS)}")
    made, wanted = KINDS[name], {one.name for one in fields(KINDS[name])}
    if extra := set(held) - wanted:
        raise InputError(f"a rule of kind {name} has no {', '.join(sorted(extra))}; it has {', '.join(sorted(wanted))}")
    for key, value in held.items():
        if key not in _READ or not _READ[key][0](value):
            raise InputError(f"{key} of a rule of kind {name} is {_READ[key][1]}, not {value!r:.40}")
        held[key] = from_data(value) if key in {"rule", "first", "second"} else value
    if "tokens" in held:
        held["tokens"] = tuple(held["tokens"])
    try:
        return made(**held)
    except TypeError:
        missing = sorted(wanted - set(held))
        raise InputError(f"a rule of kind {name} needs {', '.join(missing)}") from None


def _texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in cast("Iterable[object]", value))


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_READ: dict[str, tuple[Callable[[object], bool], str]] = {
    "tokens": (_texts, "a list of texts"),
    "back": (_count, "a number of tokens"),
    "within": (_count, "a number of tokens"),
    "at": (_count, "a position"),
    "called": (lambda value: isinstance(value, str), "a text"),
    "of": (lambda value: value in CLASSES, f"one of {', '.join(CLASSES)}"),
    "below": (lambda value: isinstance(value, bool), "true or false"),
    "rule": (lambda value: isinstance(value, Mapping), "a rule"),
    "first": (lambda value: isinstance(value, Mapping), "a rule"),
    "second": (lambda value: isinstance(value, Mapping), "a rule"),
}


def _subject(back: int) -> str:
    return "the token" if not back else "the token before" if back == 1 else f"the token {back} before"


def _after(back: int, what: str) -> str:
    return what if not back else f"after {what}" if back == 1 else f"{back} after {what}"


def _few(tokens: Sequence[str]) -> str:
    return "/".join(token.strip() or repr(token) for token in tokens[:2]) + "…" * (len(tokens) > 2)


def _listed(tokens: Sequence[str]) -> str:
    named = [f"“{token}”" for token in tokens[:_NAMED]]
    if len(tokens) > _NAMED:
        return f"one of {', '.join(named)} … ({len(tokens)})"
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}" if named else "nothing"
