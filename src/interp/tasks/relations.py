"""Sentences in which two words are known to depend on each other, for heads that follow syntax.

The annotation is that of Universal Dependencies (de Marneffe et al. 2021): the dependent points at its head word.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from interp.errors import InputError, unknown
from interp.tasks._fitting import Vocabulary, combinations, fill

# Templates name the two words {dependent} and {head}; every other field is a word that varies.
_NOUNS = "cat dog teacher doctor farmer king child woman man boy girl queen".split()  # noqa: SIM905
_OTHERS = "garden house street school village river".split()  # noqa: SIM905
_VERBS = "runs sleeps sings waits works laughs eats plays".split()  # noqa: SIM905
_ADJECTIVES = "old young small happy tall quiet brave rich".split()  # noqa: SIM905
_OBJECTS = "book house car table letter picture box ring".split()  # noqa: SIM905
_COLOURS = "red green black white new old small big".split()  # noqa: SIM905


# How many sentences that do not fit are tried before the first that does.
_PATIENCE = 1000
_ENDED = "ended"


@dataclass(frozen=True)
class Sentence:
    """A sentence with two annotated words.

    Attributes
    ----------
    dependent, head
        The positions of each word's tokens, without BOS.
    template
        The number of its template: sentences of one template have the same shape.
    """

    text: str
    dependent: tuple[int, ...]
    head: tuple[int, ...]
    template: int


@dataclass(frozen=True)
class Relation:
    """A kind of dependency, and the sentences that show it.

    Attributes
    ----------
    name, summary
        What it is called, and what depends on what.
    templates
        Texts with the fields ``{dependent}`` and ``{head}``, between whose words the distance varies.
    dependents, heads
        The words for the two fields.
    """

    name: str
    summary: str
    templates: tuple[str, ...]
    dependents: tuple[str, ...]
    heads: tuple[str, ...]


RELATIONS = {
    relation.name: relation
    for relation in (
        Relation(
            "subject-verb",
            "a subject (nsubj) depends on its verb",
            (
                "The {dependent} {head} in the {place}",
                "The {adjective} {dependent} {head} near the {place}",
                "The {dependent} often {head} in the {place}",
                "The {dependent} near the {place} {head} every day",
                "The {dependent} from the old {place} never {head}",
                "In the {place} the {dependent} always {head} alone",
                "Every morning the {adjective} {dependent} of the {place} {head}",
            ),
            tuple(_NOUNS),
            tuple(_VERBS),
        ),
        Relation(
            "modifier",
            "an adjective (amod) depends on its noun",
            (
                "The {dependent} {head} was in the {place}",
                "She saw the {dependent} {head} near the {place}",
                "He has one {dependent} and cheap {head} at home",
                "They sold the {dependent} wooden {head} today",
                "I found one {dependent} but very good {head} in the {place}",
                "We wanted the {dependent} little {head} from the {place}",
            ),
            tuple(_COLOURS),
            tuple(_OBJECTS),
        ),
    )
}


def sentences(name: str, vocabulary: Vocabulary, n: int, seed: int = 0) -> tuple[tuple[Sentence, ...], int]:
    """Return `n` different sentences of a relation, spread evenly over its templates, and how many did not fit.

    Words of several tokens are kept: their positions are all named. A sentence does not fit where a token goes across a
    word's edge.

    Raises
    ------
    InputError
        No such relation, fewer than one sentence asked for, or none that fits the tokenizer.

    Examples
    --------
    >>> letters = Vocabulary(lambda text: [ord(character) for character in text])
    >>> found, dropped = sentences("modifier", letters, 6)
    >>> len(found), dropped
    (6, 0)
    """
    relation = RELATIONS.get(name)
    if relation is None:
        raise unknown("relation", name, RELATIONS, f"use {', '.join(RELATIONS)}")
    if n < 1:
        raise InputError(f"n must be at least 1, not {n}")
    rng = random.Random(seed)
    streams = [_stream(relation, number, vocabulary, rng) for number in range(len(relation.templates))]
    found: dict[str, Sentence] = {}
    dropped = 0
    for filled in itertools.chain.from_iterable(itertools.zip_longest(*streams, fillvalue=_ENDED)):
        if len(found) == n or (not found and dropped == _PATIENCE):
            break
        if isinstance(filled, Sentence):
            found.setdefault(filled.text, filled)
        elif filled is None:
            dropped += 1
    if not found:
        raise InputError(f"no sentence of {name} fits this tokenizer: its tokens go across words; load another model")
    if len(found) < n:
        raise InputError(f"{name} has {len(found)} different sentences for this tokenizer, not {n}; ask for fewer")
    return tuple(found.values()), dropped


def _stream(relation: Relation, number: int, vocabulary: Vocabulary, rng: random.Random) -> Iterator[Sentence | None]:
    template = relation.templates[number]
    for dependent, head, place, adjective in combinations(
        rng, relation.dependents, relation.heads, _OTHERS, _ADJECTIVES
    ):
        words = {"dependent": dependent, "head": head, "place": place, "adjective": adjective}
        filled = fill(vocabulary, template, words)
        if filled is None:
            yield None
            continue
        text, slots = filled
        yield Sentence(text, slots["dependent"], slots["head"], number)
