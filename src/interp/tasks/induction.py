"""Induction: what followed a word the last time."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

from interp.spec import InputError, Pair
from interp.tasks import Vocabulary, make_pair, task
from interp.tasks._words import ANIMALS, PLACES, THINGS


@task("induction")
def induction(
    vocabulary: Vocabulary, rng: random.Random, n: int, *, length: int = 10, repeated: int = 5
) -> Iterator[Pair | None]:
    """Induction: random words, then some of them again, which ends in A; B is what followed A before.

    "… A B … A" → B. The corrupted prompt has another word in B's place, which is the wrong answer; all else is the
    same. Slots: a1 and b (the first A, and what follows it), a2 (the second A), which is also the end. Where the
    tokenizer has too few words of one token, single letters stand for them.

    Parameters
    ----------
    vocabulary, rng, n
        The tokenizer, the source of chance, and how many pairs are wanted.
    length
        Number of different words before the repeat.
    repeated
        How many of them come again, A last; 1 repeats A alone.

    Yields
    ------
    Pair
        Up to a hundred for each that is wanted, in case many do not fit.
    """
    if not 1 <= repeated < length:
        raise InputError(f"repeated must be from 1 to length - 1 = {length - 1}, not {repeated}")
    space = " "
    pool = vocabulary.single([*ANIMALS, *THINGS, *PLACES])
    if len(pool) <= length:
        space = ""
        pool = [letter for letter in string.ascii_letters if vocabulary.one_token(letter, after="")]
    if len(pool) <= length:
        raise InputError(
            f"task induction with length {length} needs {length + 1} words or letters of one token, and this tokenizer "
            f"has {len(pool)}; use a smaller length"
        )
    start = (length - repeated) // 2
    a, b = start + repeated - 1, start + repeated
    for _ in range(100 * n):
        *words, other = rng.sample(pool, length + 1)
        fields = [*words[:a], "{a1}", "{b}", *words[b + 1 :], *words[start:a], "{a2}"]
        clean = {"a1": words[a], "b": words[b], "a2": words[a]}
        corrupted = clean | {"b": other}
        template = "".join(space + field for field in fields)
        yield make_pair(vocabulary, template, clean, corrupted, (space + words[b],), (space + other,))
