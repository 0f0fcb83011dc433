"""Long rows of the same case: by default some of them, spread over all; with ``INTERP_ZOO=all`` every one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

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
