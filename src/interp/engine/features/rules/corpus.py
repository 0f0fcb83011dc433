"""Texts as rules read them: token strings, numbered, text after text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

# What a token's string can be, and how a sentence about a token says it.
CLASSES: dict[str, tuple[str, str]] = {
    "capital": ("begins with a capital", "does not begin with a capital"),
    "digit": ("is a number", "is no number"),
    "punctuation": ("is punctuation", "is no punctuation"),
    "space": ("begins with a space", "does not begin with a space"),
    "newline": ("holds a line's end", "holds no line's end"),
}


def is_class(kind: str, token: str) -> bool:
    """Return whether a token's string is of one of `CLASSES`.

    Examples
    --------
    >>> is_class("capital", " Mary"), is_class("punctuation", "."), is_class("digit", " 1869"), is_class("space", "a")
    (True, True, True, False)
    """
    bare = token.strip()
    if kind == "capital":
        return bare[:1].isupper()
    if kind == "digit":
        return bare.isdigit()
    if kind == "punctuation":
        return bool(bare) and all(unicodedata.category(one)[0] in "PS" for one in bare)
    return token.startswith(" ") if kind == "space" else "\n" in token


class Corpus:
    """Texts, one behind the other.

    Attributes
    ----------
    vocabulary
        The strings that there are.
    ids
        ``int64 [token]``: which of them each token is.
    starts
        ``int64 [text + 1]``: where texts begin.
    """

    def __init__(self, vocabulary: Sequence[str], ids: Ints, starts: Ints) -> None:
        self.vocabulary, self.ids, self.starts = tuple(vocabulary), ids, starts
        self._numbers = {token: n for n, token in enumerate(self.vocabulary)}
        self._before: dict[int, Ints] = {0: ids}

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> Corpus:
        """Return texts of token strings.

        Examples
        --------
        >>> Corpus.of([["a", "b", "a"], ["b"]]).ids.tolist()
        [0, 1, 0, 1]
        """
        numbers: dict[str, int] = {}
        ids = [numbers.setdefault(token, len(numbers)) for text in texts for token in text]
        starts = np.cumsum([0, *(len(text) for text in texts)])
        return cls(list(numbers), np.array(ids, np.int64), starts.astype(np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def positions(self) -> Ints:
        """The position of each token in its text."""
        return np.arange(len(self.ids)) - np.repeat(self.starts[:-1], np.diff(self.starts))

    @cached_property
    def seen(self) -> Bools:
        """Whether each token stood in its text before."""
        text = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        _, first = np.unique(text * max(1, len(self.vocabulary)) + self.ids, return_index=True)
        again = np.ones(len(self.ids), np.bool_)
        again[first] = False
        return again

    def before(self, back: int) -> Ints:
        """Return the token `back` places before each; one more than all that there are where there is none."""
        if back not in self._before:
            self._before[back] = self.moved(self.ids, back, len(self.vocabulary))
        return self._before[back]

    def moved(self, values: NDArray[Scalar], back: int, otherwise: int) -> NDArray[Scalar]:
        """Return what `values` have `back` places before each token, in its text, and `otherwise` where it begins."""
        if not back:
            return values
        out = np.full_like(values, otherwise)
        out[back:] = values[: len(values) - back]
        out[self.positions < back] = otherwise
        return out

    def table(self, tokens: Sequence[str] | frozenset[str]) -> Bools:
        """Return whether each string is one of `tokens`, and no for none: ``bool [string + 1]``."""
        found = np.zeros(len(self.vocabulary) + 1, np.bool_)
        found[[self._numbers[token] for token in tokens if token in self._numbers]] = True
        return found

    def classes(self, kind: str) -> Bools:
        """Return whether each string is of a class, and no for none: ``bool [string + 1]``."""
        return np.array([*(is_class(kind, token) for token in self.vocabulary), False])
