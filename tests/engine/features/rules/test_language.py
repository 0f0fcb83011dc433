"""Rules on texts, beside loops that read the definitions aloud; in words, and there and back as data."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from interp.engine.features.rules.corpus import Corpus, is_class
from interp.engine.features.rules.language import After, And, Class, Not, Position, Rule, Seen, Token, from_data
from interp.errors import InputError

WORDS = (" Mary", " John", " met", " the", "ing", ".", " 1869", "Mary", "\n")


def text(seed: int, length: int = 40) -> list[str]:
    return np.random.default_rng(seed).choice(WORDS, length).tolist()


def at(tokens: list[str], n: int, back: int) -> str | None:
    return tokens[n - back] if n >= back else None


CASES: list[tuple[Rule, Callable[[list[str], int], bool], str]] = [
    (Token((" Mary", "ing")), lambda t, n: t[n] in {" Mary", "ing"}, "the token is “ Mary” or “ing”"),
    (Token((" the",), 2), lambda t, n: at(t, n, 2) == " the", "the token 2 before is “ the”"),
    (Class("capital"), lambda t, n: t[n].strip()[:1].isupper(), "the token begins with a capital"),
    (
        Not(Class("space", 1)),
        lambda t, n: not (at(t, n, 1) or "").startswith(" "),
        "the token before does not begin with a space",
    ),
    (Seen(), lambda t, n: t[n] in t[:n], "the token has occurred before"),
    (Seen(1), lambda t, n: n > 0 and t[n - 1] in t[: n - 1], "the token before has occurred before"),
    (
        After((" met", "."), 3),
        lambda t, n: any(one in {" met", "."} for one in t[max(0, n - 3) : n]),
        "“ met” or “.” is among the 3 tokens before",
    ),
    (Position(4), lambda _, n: n == 4, "the token is at position 4"),
    (Not(Position(3, below=True)), lambda _, n: n >= 3, "the token is not among the first 3"),
    (
        And(Token((" Mary", " John"), called="name"), Seen()),
        lambda t, n: t[n] in {" Mary", " John"} and t[n] in t[:n],
        "the token is a name and has occurred before",
    ),
    (
        And(Not(Token((" Mary",), called="name")), Token((".",), 1)),
        lambda t, n: t[n] != " Mary" and at(t, n, 1) == ".",
        "the token is no name and the token before is “.”",
    ),
    (
        Not(And(Seen(), Seen(1))),
        lambda t, n: not (t[n] in t[:n] and n > 0 and t[n - 1] in t[: n - 1]),
        "it is not so that the token has occurred before and the token before has occurred before",
    ),
]


@pytest.mark.parametrize(("rule", "meant", "said"), CASES, ids=lambda case: str(case) if isinstance(case, Rule) else "")
def test_a_rule_is_what_it_says(rule: Rule, meant: Callable[[list[str], int], bool], said: str) -> None:
    texts = [text(seed) for seed in range(6)] + [[" Mary"], []]
    assert str(rule) == said
    for one in texts:
        assert rule.fires(one).tolist() == [meant(one, n) for n in range(len(one))]
    together = rule.on(Corpus.of(texts))
    np.testing.assert_array_equal(together, np.concatenate([rule.fires(one) for one in texts]))
    assert from_data(json.loads(json.dumps(rule.data()))) == rule


def test_a_long_set_names_the_first() -> None:
    assert str(Token(tuple("abcdefg"))) == "the token is one of “a”, “b”, “c”, “d” … (7)"
    assert str(Token(tuple("abc"))) == "the token is “a”, “b” or “c”"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Token((" Mary",)), "Mary"),
        (Token((" Mary", "\n", "x"), 2), "2 after Mary/'\\n'…"),
        (And(Token((" Mary",), called="name"), Not(Seen())), "name, not again"),
        (Seen(1), "after a repeat"),
        (After((" met",), 4), "near met"),
        (And(Class("capital"), Position(4, below=True)), "capital, first 4"),
        (Position(2), "at 2"),
    ],
)
def test_in_few_words(rule: Rule, said: str) -> None:
    assert rule.brief == said


def test_classes() -> None:
    assert is_class("newline", " \n")
    assert is_class("punctuation", " ...")
    assert not is_class("punctuation", " ")
    assert not is_class("digit", " 3rd")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "a rule is an object"),
        ({"kind": "tokens"}, "no kind of rule 'tokens' (did you mean token?)"),
        ({"kind": "token"}, "needs back, called, tokens"),
        ({"kind": "token", "tokens": "abc"}, "tokens of a rule of kind token is a list of texts"),
        ({"kind": "seen", "back": -1}, "back of a rule of kind seen is a number"),
        ({"kind": "seen", "at": 1}, "has no at; it has back"),
        ({"kind": "class", "of": "noun"}, "of of a rule of kind class is one of capital"),
        ({"kind": "not", "rule": {"kind": "none"}}, "kind of rule"),
    ],
)
def test_data_that_is_no_rule_is_refused(data: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        from_data(data)
    assert said in str(caught.value)
