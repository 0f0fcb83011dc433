"""The rule that says best where a feature is active: searched over texts, scored on others.

Single statements first: fixed ones (classes, positions, what occurred before), and for the token, the one before and
the one before that the set of tokens whose F1 is best – of sets it is one of those that hold the tokens of the highest
precision, which are tried in their order (Lipton et al. 2014). Then pairs: of fixed ones, of a fixed one with a set
that is learnt where it holds, and of sets of two places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.engine.features.rules.corpus import CLASSES, Bools, Corpus
from interp.engine.features.rules.language import After, And, Class, Not, Position, Rule, Seen, Token

BACKS, WITHIN = (0, 1, 2), 4
_SET = 64  # tokens of a set
_SLACK = 0.01  # of F1, that a smaller set may cost
_PART, _TOKEN = 0.01, 0.0005  # what another statement, and another token of a set, must bring
_WIDE = 0.95  # recall of a set that only says where to look on
_SMOOTH = 1.0  # tokens of a kind at which it is not active, that are added to those seen

Float = NDArray[np.float64]
_ORDER = ("token", "class", "seen", "position", "after", "and")


@dataclass(frozen=True)
class Scores:
    """How well a rule says where a feature is active; all 0 of one that never holds there."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, holds: Bools, active: Bools) -> Scores:
        """Return the scores of where a rule holds, for where the feature is active: ``bool [token]`` both."""
        both = int((holds & active).sum())
        precision, recall = both / max(1, int(holds.sum())), both / max(1, int(active.sum()))
        return cls(precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0)


class Search:
    """Rules over one corpus, for one feature after the other.

    Parameters
    ----------
    corpus
        The texts that rules are found on.
    counted
        ``bool [token]``: which tokens count; a BOS is none.
    named
        Sets of tokens that have a name, such as ``{"name": [" Mary", " John"]}``.
    """

    def __init__(self, corpus: Corpus, counted: Bools, named: Mapping[str, Sequence[str]] | None = None) -> None:
        self.corpus, self.counted = corpus, counted
        self._size = len(corpus.vocabulary) + 1
        self._before = {back: corpus.before(back)[counted] for back in range(WITHIN + 1)}
        self._totals = {back: np.bincount(ids, minlength=self._size) for back, ids in self._before.items()}
        plain = _statements(named or {})
        masks = [rule.on(corpus)[counted] for rule in plain]
        useful = [(rule, mask) for rule, mask in zip(plain, masks, strict=True) if mask.any() and not mask.all()]
        self.fixed: list[Rule] = [rule for rule, _ in useful] + [Not(rule) for rule, _ in useful]
        self._masks = np.array([mask for _, mask in useful] + [~mask for _, mask in useful]).reshape(-1, counted.sum())
        self._float = self._masks.astype(np.float32)
        self._both = self._float @ self._float.T  # at how many tokens two hold

    def best(self, active: Bools) -> Rule | None:
        """Return the rule whose F1 is best, less what its length costs; ``None`` for what is never active.

        Parameters
        ----------
        active
            ``bool [token that counts]``.
        """
        if not active.any():
            return None
        found = [*self._single(active), *self._pairs(active)]
        return max(found, key=lambda one: one[0] - _cost(one[1]))[1] if found else None

    def single_token(self, active: Bools) -> Rule | None:
        """Return the single token whose F1 is best."""
        if not active.any():
            return None
        hits = np.bincount(self._before[0][active], minlength=self._size)
        scores = 2 * hits / (self._totals[0] + active.sum())
        scores[-1] = 0
        return Token((self.corpus.vocabulary[int(scores.argmax())],))

    def _single(self, active: Bools) -> list[tuple[float, Rule]]:
        hits = self._masks[:, active].sum(1)
        found = list(zip((2 * hits / (self._masks.sum(1) + active.sum())).tolist(), self.fixed, strict=True))
        sets = [self._set(active, back) for back in BACKS]
        return [*found, *[one for one in sets if one is not None], *self._after(active, None)]

    def _pairs(self, active: Bools) -> list[tuple[float, Rule]]:
        count = int(active.sum())
        found: list[tuple[float, Rule]] = []
        if len(self.fixed):
            own = self._float[:, active]
            scores = 2 * (own @ own.T) / (self._both + count)
            a, b = np.unravel_index(int(scores.argmax()), scores.shape)
            found.append((float(scores[a, b]), _both(self.fixed[int(a)], self.fixed[int(b)])))
            for n in np.flatnonzero(own.sum(1) >= 0.5 * count).tolist():
                for back in BACKS:
                    one = self._set(active, back, self._masks[n])
                    if one is not None:
                        found.append((one[0], _both(one[1], self.fixed[n])))
        for back in BACKS[1:]:
            found += self._two_places(active, back)
        wide = self._set(active, 0, wide=True)
        if wide is not None:
            found += self._after(active, wide[1])
        return found

    def _two_places(self, active: Bools, back: int) -> list[tuple[float, Rule]]:
        """Return a set of tokens and one of those `back` before: each is learnt where the other holds."""
        near = self._set(active, 0, wide=True)
        if near is None:
            return []
        far = self._set(active, back, self._on(near[1]))
        if far is None:
            return []
        near = self._set(active, 0, self._on(far[1]))
        return [] if near is None else [(near[0], And(near[1], far[1]))]

    def _set(
        self, active: Bools, back: int, where: Bools | None = None, *, wide: bool = False
    ) -> tuple[float, Token] | None:
        """Return the set of tokens `back` before whose F1 is best, where `where` holds; or one of high recall."""
        ids = self._before[back]
        hits = np.bincount(ids[active if where is None else active & where], minlength=self._size)
        totals = self._totals[back] if where is None else np.bincount(ids[where], minlength=self._size)
        hits[-1] = 0  # there is no token before the first
        order = np.flatnonzero(hits)
        order = order[np.lexsort((-hits[order], -hits[order] / (totals[order] + _SMOOTH)))]
        if not len(order):
            return None
        right, held = hits[order].cumsum(), totals[order].cumsum()
        scores = 2 * right / (held + active.sum())
        if wide:
            last = int(np.searchsorted(right, _WIDE * right[-1]))
        else:
            last = int(np.flatnonzero(scores[:_SET] >= scores[:_SET].max() - _SLACK)[0])
        chosen = order[: last + 1]
        words = tuple(self.corpus.vocabulary[n] for n in chosen[np.argsort(-hits[chosen], kind="stable")])
        return float(scores[last]), Token(words, back)

    def _after(self, active: Bools, also: Rule | None) -> list[tuple[float, Rule]]:
        """Return sets of tokens that stand among those before, the best first ones of the likeliest."""
        where = np.ones(len(active), np.bool_) if also is None else self._on(also)
        hits, totals = np.zeros(self._size), np.zeros(self._size)
        for back in range(1, WITHIN + 1):
            ids = self._before[back]
            hits += np.bincount(ids[active & where], minlength=self._size)
            totals += np.bincount(ids[where], minlength=self._size)
        hits[-1] = 0
        order = np.flatnonzero(hits)
        order = order[np.argsort(-hits[order] / (totals[order] + _SMOOTH), kind="stable")][:16]
        found: list[tuple[float, Rule]] = []
        holds = np.zeros(len(active), np.bool_)
        for n in range(len(order)):
            for back in range(1, WITHIN + 1):
                holds |= self._before[back] == order[n]
            score = Scores.of(holds & where, active).f1
            rule = After(tuple(self.corpus.vocabulary[k] for k in order[: n + 1]), WITHIN)
            found.append((score, rule if also is None else And(also, rule)))
        return found

    def _on(self, rule: Rule) -> Bools:
        return rule.on(self.corpus)[self.counted]


def _statements(named: Mapping[str, Sequence[str]]) -> list[Rule]:
    """Return what is tried of every feature."""
    classes: list[Rule] = [Class(of, back) for of in CLASSES for back in (0, 1)]
    sets: list[Rule] = [Token(tuple(tokens), back, name) for name, tokens in named.items() for back in BACKS]
    after: list[Rule] = [After(tuple(tokens), WITHIN, name) for name, tokens in named.items()]
    places: list[Rule] = [Position(1), *(Position(at, below=True) for at in (2, 3, 4, 8, 16))]
    return [*classes, Seen(0), Seen(1), Seen(2), *places, *sets, *after]


def statements(named: Mapping[str, Sequence[str]]) -> int:
    """Return how many statements are tried of every feature, at most: each one, and that it is not so."""
    return 2 * len(_statements(named))


def _both(first: Rule, second: Rule) -> Rule:
    """Return that both hold, what is said of the token itself first."""

    def order(rule: Rule) -> tuple[int, int]:
        plain = rule.rule if isinstance(rule, Not) else rule
        return int(getattr(plain, "back", 0)), _ORDER.index(plain.kind)

    return And(*sorted((first, second), key=order))


def _cost(rule: Rule) -> float:
    parts, tokens = rule.size
    named = sum(1 for one in _parts(rule) if getattr(one, "called", ""))
    return _PART * (parts - 1) + _TOKEN * (0 if named else tokens)


def _parts(rule: Rule) -> list[Rule]:
    if isinstance(rule, And):
        return [*_parts(rule.first), *_parts(rule.second)]
    return _parts(rule.rule) if isinstance(rule, Not) else [rule]
