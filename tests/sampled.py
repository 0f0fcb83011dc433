"""Long rows of the same case: by default some of them, spread over all; with ``INTERP_ZOO=all`` every one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, TypeVar

EVERY = os.environ.get("INTERP_ZOO") == "all"

Case = TypeVar("Case")


def spread(cases: Sequence[Case], most: int) -> list[Case]:
    """Return the first of `cases`, the last, and others at equal distances: `most` in all."""
    if EVERY or len(cases) <= most:
        return list(cases)
    return [cases[round(n * (len(cases) - 1) / (most - 1))] for n in range(most)]


def turns(count: int) -> int:
    """Return how many of `count` random turns are made, and of what they must have met."""
    return count if EVERY else -(-count // 3)


def crossed(*factors: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return cases in which each value of each factor meets each value of each other; not all three at once.

    The last factor's values take turns over the others' (a Latin square).
    """
    *others, last = ([*enumerate(factor)] for factor in factors)
    return [
        (*(value for _, value in case), value)
        for case in product(*others)
        for number, value in last
        if EVERY or sum(at for at, _ in case) % len(last) == number
    ]


def in_turn(cases: Sequence[Case], turn: int) -> list[Case]:
    """Return every second of `cases`; the others are the next turn's."""
    return list(cases) if EVERY else [case for number, case in enumerate(cases) if (number + turn) % 2 == 0]
