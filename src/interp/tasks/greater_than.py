"""Greater-than: a period ends after it began."""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.errors import InputError
from interp.spec import Pair
from interp.tasks import Vocabulary, combinations, make_pair, task
from interp.tasks._words import PERIODS

Answers = tuple[str | int, ...]
_TEMPLATE = "The {noun} lasted from the year {century}{start} to the year {last}"


@task("greater-than")
def greater_than(
    vocabulary: Vocabulary,
    rng: random.Random,
    n: int,  # noqa: ARG001
) -> Iterator[Pair | None]:
    """Greater-than: years that may follow a start year, against those that may not.

    After Hanna et al. (2023): "The war lasted from the year 1732 to the year 17" → 33 … 99, not 00 … 32; the corrupted
    prompt starts in 1701. Both answers are sets. Where the tokenizer writes digits singly, the next token is the tens
    digit alone: → 4 … 9, not 0 … 2; the start year's own, 3, leaves it open and is in neither set. Slots: noun,
    century, start (32), last (the century again), end.

    Parameters
    ----------
    vocabulary, rng, n
        The tokenizer, the source of chance, and how many pairs are wanted.

    Yields
    ------
    Pair
        Centuries from 11 to 17, starts whose sets are both not empty.
    """
    nouns = vocabulary.alike(PERIODS)
    years = [(century, start, sets) for century in range(11, 18) for start, sets in _starts(vocabulary, f" {century}")]
    if not nouns or not years:
        raise InputError(
            "task greater-than needs a tokenizer that splits a year after its century (1732: 17, 32) or into digits; "
            "load a model with such a tokenizer"
        )
    for noun, (century, start, (later, earlier)) in combinations(rng, nouns, years):
        clean = {"noun": noun, "century": f"{century}", "start": start, "last": f"{century}"}
        yield make_pair(vocabulary, _TEMPLATE, clean, clean | {"start": "01"}, later, earlier)


def _starts(vocabulary: Vocabulary, century: str) -> Iterator[tuple[str, tuple[Answers, Answers]]]:
    """Yield the last two digits of the years of a century that split as the answers do, each with its two sets."""
    for width in (2, 1):
        tokens = _tokens(vocabulary, century, [f"{number:0{width}d}" for number in range(10**width)])
        for start in (f"{number:02d}" for number in range(2, 99)):
            splits = {len(vocabulary.continuation(century, digits)) for digits in (start, "01")}
            mark = start[:width]
            later = tuple(token for digits, token in tokens if digits > mark)
            # An equal tens digit may go on to either side; an equal year is not later.
            earlier = tuple(token for digits, token in tokens if digits < mark or (digits == mark and width == 2))
            if splits == {2 // width} and later and earlier:
                yield start, (later, earlier)
        if tokens:
            return


def _tokens(vocabulary: Vocabulary, century: str, texts: list[str]) -> list[tuple[str, str | int]]:
    """Return the texts that are one token, each with itself, or with its id where that joins onto the century."""
    if all(vocabulary.one_token(text, after=century) for text in texts):
        return [(text, text) for text in texts]
    alone = [(text, tuple(vocabulary.encode(text))) for text in texts]
    found: list[tuple[str, str | int]] = [
        (text, ids[0]) for text, ids in alone if len(ids) == 1 and ids[0] != vocabulary.unknown
    ]
    # All of them, or nearly: a vocabulary without a few of the two-digit years still has the task.
    return found if len(found) >= 0.9 * len(texts) else []
