"""Indirect object identification."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Literal

from interp.errors import InputError
from interp.spec import Pair
from interp.tasks import Vocabulary, combinations, make_pair, task
from interp.tasks._words import NAMES, PLACES, THINGS

_ORDERS = {"ABBA": "{io} and {s1}", "BABA": "{s1} and {io}"}


@task("ioi")
def ioi(
    vocabulary: Vocabulary,
    rng: random.Random,
    n: int,  # noqa: ARG001
    *,
    corruption: Literal["swap-subject", "random-names"] = "swap-subject",
    order: Literal["both", "ABBA", "BABA"] = "both",
) -> Iterator[Pair | None]:
    """Indirect object identification: of two names, the one that is not repeated.

    After Wang et al. (2022): "When Mary and John went to the store, John gave a drink to" → " Mary", not " John".
    Slots: io (the answer's name), s1 and s2 (the subject's two mentions), end.

    Parameters
    ----------
    vocabulary, rng, n
        The tokenizer, the source of chance, and how many pairs are wanted.
    corruption
        "swap-subject": the second mention becomes the other name, so that the answer flips; "random-names": all three
        mentions become three different names, so that no name is repeated.
    order
        Which name comes first: the answer ("ABBA"), the subject ("BABA"), or half of each, in which io and s1
        exchange their positions.

    Yields
    ------
    Pair
        Alternately ABBA and BABA where both are asked for.
    """
    people = vocabulary.single(NAMES)
    needed = 2 if corruption == "swap-subject" else 5
    if len(people) < needed:
        raise InputError(
            f"task ioi with {corruption} needs {needed} names of one token, and this tokenizer has {len(people)} "
            f"of its {len(NAMES)}; load a model whose tokenizer knows names"
        )
    lists = (
        vocabulary.alike(["When", "After", "While"], after="", space=""),
        list(itertools.permutations(people, 2)),
        vocabulary.alike(PLACES),
        vocabulary.alike(["gave", "handed", "passed", "offered"]),
        vocabulary.alike(THINGS),
    )
    orders = list(_ORDERS) if order == "both" else [order]
    streams = [combinations(rng, *lists) for _ in orders]
    for drawn in zip(*streams, strict=True):
        for kind, (opening, (io, subject), place, verb, thing) in zip(orders, drawn, strict=True):
            template = f"{opening} {_ORDERS[kind]} went to the {place}, {{s2}} {verb} a {thing} to"
            clean = {"io": io, "s1": subject, "s2": subject}
            if corruption == "swap-subject":
                corrupted = clean | {"s2": io}
            else:
                others = rng.sample([name for name in people if name not in (io, subject)], 3)
                corrupted = dict(zip(clean, others, strict=True))
            yield make_pair(vocabulary, template, clean, corrupted, (f" {io}",), (f" {subject}",))
