"""What a number is held against, and how both are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.results import resolve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True)
class Others:
    """The sizes of all other components' numbers: their median, their 95th percentile, how many there are."""

    median: float
    high: float
    count: int


def among(values: Float, at: Sequence[int]) -> Others:
    """Return the sizes of all numbers but that at `at`; what is not finite is left out.

    The percentile is one of the values, the next below where it falls between two.

    Examples
    --------
    >>> among(np.array([9.0, -1.0, 2.0, float("nan"), 3.0]), (0,))
    Others(median=2.0, high=2.0, count=3)
    """
    left: NDArray[np.bool_] = np.isfinite(values)
    left[tuple(at)] = False
    rest = np.abs(values[left])
    if not len(rest):
        return Others(0.0, 0.0, 0)
    return Others(float(np.median(rest)), float(np.quantile(rest, 0.95, method="lower")), len(rest))


def number(value: float) -> str:
    """Return a number with two decimals, or with one figure where it is smaller; true minus signs.

    Examples
    --------
    >>> number(0.617), number(-5.05), number(0.003), number(0.0), number(2e-6)
    ('0.62', '−5.05', '0.003', '0.00', '0.00')
    """
    if abs(value) < 0.005:
        return f"{value:.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.00"
    return f"{value:.2f}".replace("-", "−")


def ranged(low: float, high: float) -> str:
    """Return the ends of an interval, or nothing where there is none.

    Examples
    --------
    >>> ranged(0.5, 0.7), ranged(float("nan"), float("nan"))
    (' [0.50, 0.70]', '')
    """
    return f" [{number(low)}, {number(high)}]" if np.isfinite([low, high]).all() else ""


def short(token: str) -> str:
    """Return a token in quotes, as pictures show it.

    Examples
    --------
    >>> short(" Mary")
    '“␣Mary”'
    """
    return f"“{resolve('interp.views.kit.text:visible')(token)}”"


def plural(count: int) -> str:
    """Return the ending of a word of which there are so many."""
    return "s" * (count != 1)
