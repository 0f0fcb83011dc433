"""Induction: what followed a word the last time."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Literal

from interp.errors import InputError
from interp.spec import Pair
from interp.tasks import Vocabulary, make_pair, task
from interp.tasks._words import ANIMALS, PLACES, THINGS


@task("induction")
def induction(
    vocabulary: Vocabulary,
    rng: random.Random,
    n: int,
    *,
    length: int = 10,
    repeated: int = 5,
    corruption: Literal["other-next", "other-first"] = "other-next",
) -> Iterator[Pair | None]:
    """Induction: random words, then some of them again, which ends in A; B is what followed A before.

    "… A B … A" → B. The corrupted prompt has another word in B's place, which is the wrong answer: what an induction
    head brings is changed, what it looks for is not. With ``other-first`` another word stands in the place of the first
    A, so that nothing is found, and the wrong answer is a word of neither prompt. All else is the same. Slots: a1 and b
    (the first A, and what follows it), a2 (the second A), which is also the end. Where the tokenizer has too few words
    of one token, single letters stand for them.

    Parameters
    ----------
    vocabulary, rng, n
        The tokenizer, the source of chance, and how many pairs are wanted.
    length
        Number of different words before the repeat.
    repeated
        How many of them come again, A last; 1 repeats A alone.
    corruption
        What is changed: ``other-next``, B, or ``other-first``, the first A.

    Yields
    ------
    Pair
        Up to a hundred for each that is wanted, in case many do not fit.
    """
    if not 1 <= repeated < length:
        raise InputError(f"repeated must be from 1 to length - 1 = {length - 1}, not {repeated}")
    space = " "
    pool = vocabulary.single([*ANIMALS, *THINGS, *PLACES])
    needed = length + (1 if corruption == "other-next" else 2)
    if len(pool) < needed:
        space = ""
        pool = [letter for letter in string.ascii_letters if vocabulary.one_token(letter, after="")]
    if len(pool) < needed:
        raise InputError(
            f"task induction with length {length} needs {needed} words or letters of one token, and this tokenizer "
            f"has {len(pool)}; use a smaller length"
        )
    start = (length - repeated) // 2
    a, b = start + repeated - 1, start + repeated
    for _ in range(100 * n):
        *words, other = rng.sample(pool, length + 1)
        fields = [*words[:a], "{a1}", "{b}", *words[b + 1 :], *words[start:a], "{a2}"]
        clean = {"a1": words[a], "b": words[b], "a2": words[a]}
        corrupted = clean | ({"b": other} if corruption == "other-next" else {"a1": other})
        wrong = other if corruption == "other-next" else rng.choice([w for w in pool if w not in {*words, other}])
        template = "".join(space + field for field in fields)
        yield make_pair(vocabulary, template, clean, corrupted, (space + words[b],), (space + wrong,))
