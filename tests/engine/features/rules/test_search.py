"""The search finds rules that were planted, says nothing of noise, and its sets are the best there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from interp.engine.features.rules.corpus import Corpus
from interp.engine.features.rules.language import After, And, Class, Not, Position, Rule, Seen, Token
from interp.engine.features.rules.search import Scores, Search

NAMES = (" Mary", " John", " Anna", " Luke")
WORDS = (*NAMES, " Paris", " the", " store", " gave", " to", ".", " a", " drink", " 18", " 20", "ing")


def corpus(seed: int, texts: int = 150, length: int = 14) -> Corpus:
    draw = np.random.default_rng(seed)
    chances = np.linspace(2, 1, len(WORDS))
    return Corpus.of([draw.choice(WORDS, length, p=chances / chances.sum()).tolist() for _ in range(texts)])


def counted(given: Corpus) -> np.ndarray:
    return given.positions > 0


PLANTED: list[Rule] = [
    Token((" gave",)),
    Token((" 18", " 20")),
    Token((" the", " a"), 1),
    Token((".",), 2),
    Seen(),
    Seen(1),
    Class("capital", 1),
    Position(1),
    And(Token(NAMES), Seen()),
    And(Token(NAMES), Not(Seen())),
    And(Token((" to", " a")), Token((" gave", " drink"), 1)),
    And(Token((" store",)), Class("capital", 1)),
    After((" 18",), 4),
]


@pytest.mark.parametrize("rule", PLANTED, ids=str)
def test_a_planted_rule_is_found(rule: Rule) -> None:
    seen, others = corpus(0), corpus(1)
    found = Search(seen, counted(seen)).best(rule.on(seen)[counted(seen)])
    assert found is not None
    scores = Scores.of(found.on(others)[counted(others)], rule.on(others)[counted(others)])
    assert scores.f1 > 0.97, str(found)


def test_one_that_is_blurred_is_found_too() -> None:
    seen, others, draw = corpus(0), corpus(1), np.random.default_rng(5)
    rule = And(Token(NAMES), Seen())

    def blurred(given: Corpus) -> np.ndarray:
        holds = rule.on(given)[counted(given)]
        return (holds & (draw.random(len(holds)) < 0.9)) | (draw.random(len(holds)) < 0.01)

    found = Search(seen, counted(seen)).best(blurred(seen))
    assert found is not None
    assert Scores.of(found.on(others)[counted(others)], rule.on(others)[counted(others)]).f1 > 0.9, str(found)


def test_a_named_set_is_called_by_its_name() -> None:
    seen = corpus(0)
    search = Search(seen, counted(seen), {"name": NAMES})
    found = search.best(And(Token(NAMES), Seen()).on(seen)[counted(seen)])
    assert str(found) == "the token is a name and has occurred before"


def test_noise_has_no_rule_that_holds_elsewhere() -> None:
    seen, others, draw = corpus(0), corpus(1), np.random.default_rng(0)
    found = Search(seen, counted(seen)).best(draw.random(counted(seen).sum()) < 0.05)
    assert found is not None
    assert Scores.of(found.on(others)[counted(others)], draw.random(counted(others).sum()) < 0.05).f1 < 0.2


def test_the_best_token_is_the_best_of_all() -> None:
    seen, draw = corpus(0), np.random.default_rng(2)
    active = (Token((" to", " a")).on(seen) & (draw.random(len(seen)) < 0.8))[counted(seen)]
    found = Search(seen, counted(seen)).single_token(active)
    every = {word: Scores.of(Token((word,)).on(seen)[counted(seen)], active).f1 for word in WORDS}
    assert found == Token((max(every, key=lambda word: every[word]),))
    assert Search(seen, counted(seen)).single_token(np.zeros_like(active)) is None
    assert Search(seen, counted(seen)).best(np.zeros_like(active)) is None


def test_a_set_is_the_best_of_all_sets() -> None:
    """Beside every set of these words, but for what a smaller one may cost."""
    seen, draw = corpus(3), np.random.default_rng(4)
    chance = {word: draw.random() for word in WORDS}
    own = np.array([chance[seen.vocabulary[n]] for n in seen.ids])
    active = (draw.random(len(seen)) < own)[counted(seen)]
    found = Search(seen, counted(seen))._set(active, 0)
    assert found is not None
    masks = {word: Token((word,)).on(seen)[counted(seen)] for word in WORDS}
    best = 0.0
    for size in range(1, len(WORDS) + 1):
        for words in combinations(WORDS, size):
            best = max(best, Scores.of(np.logical_or.reduce([masks[word] for word in words]), active).f1)
    assert found[0] >= best - 0.015
