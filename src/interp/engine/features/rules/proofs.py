"""Whether one rule implies, equals or excludes another, decided for every text by Z3 (de Moura and Bjørner 2008).

A rule looks at a token, a few before it, whether some of them occurred before, and whether a position is below a
number. So a text that tells two rules apart has a short one that does: but for the tokens that a rule looks back at and
one earlier occurrence for each statement about occurring, any token can be left out, as long as no position that a rule
names is passed. Texts up to that length are all that Z3 has to look at. Tokens that no rule tells apart are alike: of
each kind there are as many as a text can hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from interp.engine.features.rules.corpus import CLASSES, is_class
from interp.engine.features.rules.language import After, And, Class, Not, Position, Rule, Seen, Token
from interp.errors import InputError

RELATIONS = ("equals", "implies", "is implied by", "excludes", "overlaps")


@dataclass(frozen=True)
class Relation:
    """How two rules go together in all texts.

    Attributes
    ----------
    kind
        ``"equals"``: they hold at the same tokens; ``"implies"``: where the first holds the second does; ``"is implied
        by"``: the other way round; ``"excludes"``: they never hold together; ``"overlaps"``: none of these.
    witnesses
        Texts that show what is not so, as tokens, the last of which counts: ``"first alone"``, ``"second alone"``,
        ``"both"``, of which a relation leaves some out.
    """

    kind: str
    witnesses: dict[str, tuple[str, ...]]


def relation(first: Rule, second: Rule, vocabulary: Sequence[str]) -> Relation:
    """Return how two rules go together in every text of tokens of a vocabulary.

    Raises
    ------
    InputError
        Z3 is not installed.

    Examples
    --------
    >>> words = [" a", " b", "."]
    >>> relation(Token((" a",)), Token((" a", " b")), words).kind
    'implies'
    >>> relation(Seen(), Position(0), words).kind, relation(Seen(), Not(Not(Seen())), words).kind
    ('excludes', 'equals')
    """
    proof = _Proof(first, second, vocabulary)
    found = {
        "first alone": proof.text(True, False),
        "second alone": proof.text(False, True),
        "both": proof.text(True, True),
    }
    there = {name: text for name, text in found.items() if text is not None}
    if "first alone" not in there:
        kind = "equals" if "second alone" not in there else "implies"
    elif "second alone" not in there:
        kind = "is implied by"
    else:
        kind = "overlaps" if "both" in there else "excludes"
    return Relation(kind, there)


class _Proof:
    def __init__(self, first: Rule, second: Rule, vocabulary: Sequence[str]) -> None:
        try:
            import z3
        except ImportError:
            raise InputError("proofs need Z3; type pip install 'interp[prove]'") from None
        self.z3: Any = z3
        self.rules = (first, second)
        self.atoms = [one for rule in self.rules for one in _atoms(rule)]
        back = max((_back(one) for one in self.atoms), default=0)
        seen = sum(isinstance(one, Seen) for one in self.atoms)
        named = max((one.at + 1 for one in self.atoms if isinstance(one, Position)), default=0)
        self.length = max(named, back + seen) + 1
        self.tokens, self._ranges = self._kinds(vocabulary)

    def _kinds(self, vocabulary: Sequence[str]) -> tuple[list[str], dict[tuple[bool, ...], tuple[int, int]]]:
        """Return tokens, as many of each kind as a text can hold, and where those of each kind are."""
        kinds: dict[tuple[bool, ...], list[str]] = {}
        for token in dict.fromkeys(vocabulary):
            own = kinds.setdefault(tuple(_tells(one, token) for one in self._tests()), [])
            if len(own) < self.length:
                own.append(token)
        tokens: list[str] = []
        ranges: dict[tuple[bool, ...], tuple[int, int]] = {}
        for kind, own in kinds.items():
            ranges[kind] = (len(tokens), len(tokens) + len(own))
            tokens += own
        return tokens, ranges

    def _tests(self) -> list[Rule]:
        return [one for one in self.atoms if isinstance(one, Token | Class | After)]

    def text(self, first: bool, second: bool) -> tuple[str, ...] | None:
        """Return a text at whose last token the rules hold, or not, as asked; ``None`` where there is none."""
        z3 = self.z3
        for position in range(self.length):
            solver: Any = z3.Solver()
            x = [z3.Int(f"x{n}") for n in range(position + 1)]
            solver.add(*(z3.And(one >= 0, one < len(self.tokens)) for one in x))
            for rule, wanted in zip(self.rules, (first, second), strict=True):
                said = self._said(rule, x)
                solver.add(said if wanted else z3.Not(said))
            if solver.check() == z3.sat:
                model: Any = solver.model()
                return tuple(self.tokens[model.eval(one, model_completion=True).as_long()] for one in x)
        return None

    def _said(self, rule: Rule, x: Sequence[Any]) -> Any:
        """Return a rule at the last of a text's tokens as a formula."""
        z3, last = self.z3, len(x) - 1
        if isinstance(rule, And):
            return z3.And(self._said(rule.first, x), self._said(rule.second, x))
        if isinstance(rule, Not):
            return z3.Not(self._said(rule.rule, x))
        if isinstance(rule, Position):
            return z3.BoolVal(last < rule.at if rule.below else last == rule.at)
        if isinstance(rule, After):
            return z3.Or(*(self._one_of(rule, x[last - back]) for back in range(1, min(rule.within, last) + 1)), False)
        back = int(getattr(rule, "back", 0))
        if back > last:
            return z3.BoolVal(False)
        if isinstance(rule, Seen):
            return z3.Or(*(x[n] == x[last - back] for n in range(last - back)), False)
        return self._one_of(rule, x[last - back])

    def _one_of(self, test: Rule, token: Any) -> Any:
        z3, column = self.z3, self._tests().index(test)
        own = [places for kind, places in self._ranges.items() if kind[column]]
        return z3.Or(*(z3.And(token >= start, token < stop) for start, stop in own), False)


def _atoms(rule: Rule) -> Iterator[Rule]:
    if isinstance(rule, And):
        yield from _atoms(rule.first)
        yield from _atoms(rule.second)
    elif isinstance(rule, Not):
        yield from _atoms(rule.rule)
    else:
        yield rule


def _back(rule: Rule) -> int:
    return rule.within if isinstance(rule, After) else int(getattr(rule, "back", 0))


def _tells(test: Rule, token: str) -> bool:
    """Return whether a token is one that a statement speaks of."""
    if isinstance(test, Class):
        assert test.of in CLASSES
        return is_class(test.of, token)
    return token in getattr(test, "tokens", ())
