"""Proofs about rules, beside every short text; their witnesses are what they are said to be."""

from __future__ import annotations

import sys
from itertools import combinations, product

import pytest

from interp.engine.features.rules.language import After, And, Class, Not, Position, Rule, Seen, Token
from interp.engine.features.rules.proofs import relation
from interp.errors import InputError

WORDS = [" a", "B", "."]
LONGEST = 6

RULES: list[Rule] = [
    Token((" a",)),
    Token((" a", "B")),
    Token((" a",), 1),
    Class("space"),
    Not(Class("capital")),
    Seen(),
    Seen(1),
    And(Token((" a",)), Seen()),
    And(Seen(), Seen(1)),
    After((" a",), 2),
    Position(0),
    Position(2, below=True),
    Not(Position(3, below=True)),
]


def every(first: Rule, second: Rule) -> str:
    """Return the relation in all texts of up to `LONGEST` tokens."""
    alone, other, both = False, False, False
    for length in range(1, LONGEST + 1):
        for text in product(WORDS, repeat=length):
            a, b = bool(first.fires(text)[-1]), bool(second.fires(text)[-1])
            alone, other, both = alone or (a and not b), other or (b and not a), both or (a and b)
    if not alone:
        return "implies" if other else "equals"
    return "is implied by" if not other else "overlaps" if both else "excludes"


@pytest.mark.slow
def test_relations_are_those_of_all_short_texts() -> None:
    pytest.importorskip("z3", reason="z3-solver is an extra: interp[prove]")
    for first, second in [*combinations(RULES, 2), *((one, Not(Not(one))) for one in RULES)]:
        found = relation(first, second, WORDS)
        assert found.kind == every(first, second), f"{first} / {second}"
        for name, wanted in (("first alone", (1, 0)), ("second alone", (0, 1)), ("both", (1, 1))):
            if name in found.witnesses:
                text = found.witnesses[name]
                assert (bool(first.fires(text)[-1]), bool(second.fires(text)[-1])) == tuple(map(bool, wanted))


def test_what_a_vocabulary_lacks_decides() -> None:
    pytest.importorskip("z3", reason="z3-solver is an extra: interp[prove]")
    capital, name = Class("capital"), Token((" Mary", " John"))
    assert relation(name, capital, [" Mary", " John", " the"]).kind == "equals"
    found = relation(name, capital, [" Mary", " John", " the", " Paris"])
    assert found.kind == "implies"
    assert found.witnesses["second alone"] == (" Paris",)


def test_without_z3_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    with pytest.raises(InputError, match=r"pip install 'interp\[prove\]'"):
        relation(Seen(), Seen(1), WORDS)
