"""How far what is computed without hooks is from what the plain hooked forward computes."""

from __future__ import annotations

import math


def difference(value: float, expected: float) -> float:
    """Return how far a value is from what it should be, by that one's size; infinite where only one is a number.

    Examples
    --------
    >>> difference(3.0, 2.0), difference(float("nan"), float("nan")), difference(1.0, float("nan"))
    (0.5, 0.0, inf)
    """
    if value == expected or (math.isnan(value) and math.isnan(expected)):
        return 0.0
    found = abs(value - expected) / max(1.0, abs(expected))
    return found if math.isfinite(found) else math.inf
