"""What a task may know of a tokenizer, and the helpers that make pairs which line up under it."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.spec import Pair, Prompt

Span = tuple[int, int]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, as far as a task needs one.

    Parameters
    ----------
    encode
        Text → token ids, without BOS or any other token that the text does not spell.
    unknown
        The id that stands for whatever the tokenizer cannot spell, if there is one: it counts as no token.

    Examples
    --------
    >>> letters = Vocabulary(lambda text: [ord(character) for character in text])
    >>> letters.one_token("a"), letters.one_token(" John")
    (True, False)
    """

    encode: Callable[[str], Sequence[int]]
    unknown: int | None = None

    def continuation(self, text: str, more: str) -> tuple[int, ...]:
        """Return the ids that `more` adds behind `text`; none where it changes the tokens of `text`, or is unknown."""
        before, whole = tuple(self.encode(text)), tuple(self.encode(text + more))
        added = whole[len(before) :]
        return added if whole[: len(before)] == before and self.unknown not in added else ()

    def one_token(self, text: str, after: str = "The") -> bool:
        """Whether `text` is one token where it continues `after`; a word carries its space: ``" John"``."""
        return len(self.continuation(after, text)) == 1

    def single(self, words: Iterable[str]) -> list[str]:
        """Return those words that are one token with a space in front."""
        return [word for word in words if self.one_token(f" {word}")]

    def alike(self, words: Iterable[str], after: str = "The", space: str = " ") -> list[str]:
        """Return the most words that have one number of tokens, the smaller number where two groups tie."""
        groups: dict[int, list[str]] = {}
        for word in words:
            groups.setdefault(len(self.continuation(after, space + word)), []).append(word)
        groups.pop(0, None)
        return max(groups.items(), key=lambda group: (len(group[1]), -group[0]), default=(0, []))[1]


def make_pair(
    vocabulary: Vocabulary,
    template: str,
    clean: Mapping[str, str],
    corrupted: Mapping[str, str],
    answer: tuple[str | int, ...],
    wrong: tuple[str | int, ...],
) -> Pair | None:
    """Fill one template twice and return the pair, with a slot for every field and ``end`` for the last token.

    Parameters
    ----------
    vocabulary
        The tokenizer that the slots' positions are counted in.
    template
        A text with fields: ``"When {io} and {s1} went to the store, {s2} gave a drink to"``.
    clean, corrupted
        Field → word, without its space.
    answer, wrong
        As in `Pair`.

    Returns
    -------
    Pair or None
        ``None`` where the two texts do not line up: another length, other positions, or tokens across a field's edge.

    Examples
    --------
    >>> letters = Vocabulary(lambda text: [ord(character) for character in text])
    >>> dict(make_pair(letters, "a{x}c", {"x": "b"}, {"x": "d"}, ("e",), ("f",)).slots)
    {'x': (1,), 'end': (2,)}
    """
    texts = [fill(vocabulary, template, words) for words in (clean, corrupted)]
    if texts[0] is None or texts[1] is None or texts[0][1] != texts[1][1]:
        return None
    return Pair(Prompt(texts[0][0]), Prompt(texts[1][0]), answer, wrong, texts[0][1])


def fill(
    vocabulary: Vocabulary, template: str, words: Mapping[str, str]
) -> tuple[str, dict[str, tuple[int, ...]]] | None:
    """Fill a template and return the text with its slots; ``None`` where a token goes across a field's edge.

    Examples
    --------
    >>> fill(Vocabulary(lambda text: [ord(character) for character in text]), "a{x}c", {"x": "b"})
    ('abc', {'x': (1,), 'end': (2,)})
    """
    text, spans = _filled(template, words)
    slots = _located(vocabulary, text, spans)
    return None if slots is None else (text, slots)


def _filled(template: str, words: Mapping[str, str]) -> tuple[str, list[tuple[str, Span]]]:
    """Return the text and each field's characters; a space before a field belongs to it, as it does to its token."""
    text = ""
    spans: list[tuple[str, Span]] = []
    for literal, name, _, _ in string.Formatter().parse(template):
        text += literal
        if name is not None:
            start = len(text) - literal.endswith(" ")
            text += words[name]
            spans.append((name, (start, len(text))))
    return text, spans


def _located(vocabulary: Vocabulary, text: str, spans: Iterable[tuple[str, Span]]) -> dict[str, tuple[int, ...]] | None:
    ids = tuple(vocabulary.encode(text))
    slots: dict[str, tuple[int, ...]] = {}
    for name, (start, stop) in spans:
        edges: list[int] = []
        for cut in (start, stop):
            before = tuple(vocabulary.encode(text[:cut]))
            if ids[: len(before)] != before:
                return None
            edges.append(len(before))
        if edges[0] == edges[1]:
            return None
        slots[name] = (*slots.get(name, ()), *range(*edges))
    return {**slots, "end": (len(ids) - 1,)}


def combinations(rng: random.Random, *lists: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield every choice of one item from each list, once each, in random order; their number may be huge.

    Examples
    --------
    >>> sorted(combinations(random.Random(0), "ab", "xy"))
    [('a', 'x'), ('a', 'y'), ('b', 'x'), ('b', 'y')]
    """
    total = 1
    for items in lists:
        total *= len(items)
    moved: dict[int, int] = {}  # a shuffled range of which only what was touched is written down
    for last in range(total - 1, -1, -1):
        drawn = rng.randrange(last + 1)
        index = moved.get(drawn, drawn)
        moved[drawn] = moved.get(last, last)
        chosen: list[Any] = []
        for items in lists:
            index, place = divmod(index, len(items))
            chosen.append(items[place])
        yield tuple(chosen)
