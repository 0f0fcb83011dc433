"""Factual recall: capitals and landmarks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from interp.errors import InputError
from interp.spec import Pair
from interp.tasks import Vocabulary, make_pair, task
from interp.tasks._words import CAPITALS, LANDMARKS

_RELATIONS = {
    "capitals": ("The capital of {subject} is", CAPITALS),
    "landmarks": ("The {subject} is in", LANDMARKS),
}


@task("facts")
def facts(
    vocabulary: Vocabulary,
    rng: random.Random,
    n: int,  # noqa: ARG001
    *,
    relation: Literal["capitals", "landmarks"] = "capitals",
) -> Iterator[Pair | None]:
    """Factual recall: the capital of a country, or the city that a landmark is in.

    "The capital of France is" → " Paris"; the corrupted prompt asks about another subject, whose answer is the wrong
    one. Slots: subject, end. Used are facts whose answer is one token and whose subject has the commonest length.

    Parameters
    ----------
    vocabulary, rng, n
        The tokenizer, the source of chance, and how many pairs are wanted.
    relation
        "capitals", or "landmarks": "The Eiffel Tower is in" → " Paris".

    Yields
    ------
    Pair
        Every subject once, in random order, before the first comes again with another one against it.
    """
    template, all_known = _RELATIONS[relation]
    known = {subject: answer for subject, answer in all_known.items() if vocabulary.one_token(f" {answer}")}
    subjects = vocabulary.alike(known)
    if len({known[subject] for subject in subjects}) < 2:
        raise InputError(
            f"task facts needs two {relation} of one length whose answers are one token, and this tokenizer has "
            f"{len(subjects)} of {len(all_known)}; load a model whose tokenizer knows them"
        )
    rng.shuffle(subjects)
    for step in range(1, len(subjects)):
        for place, subject in enumerate(subjects):
            other = subjects[(place + step) % len(subjects)]
            answer, wrong = known[subject], known[other]
            if answer != wrong:
                words = {"subject": subject}, {"subject": other}
                yield make_pair(vocabulary, template, *words, (f" {answer}",), (f" {wrong}",))
