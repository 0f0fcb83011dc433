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


LEAST_SHARE = 0.01  # of a difference: less is nothing, however still the others are
_OUTLYING = 3.5 * 1.4826


@dataclass(frozen=True)
class Others:
    """The sizes of all other components' numbers.

    Attributes
    ----------
    median
        Of their sizes.
    fence
        Where an outlier among them begins.
    count
        How many there are.
    """

    median: float
    fence: float
    count: int


def among(values: Float, at: Sequence[int], least: float = LEAST_SHARE) -> Others:
    """Return the sizes of all numbers but that at `at`; what is not finite is left out.

    An outlier begins 3.5 deviations above the median, by the median absolute deviation (Iglewicz and Hoaglin 1993, "How
    to Detect and Handle Outliers"), which some other strong ones among them do not move; and not below `least`.

    Examples
    --------
    >>> among(np.array([9.0, -1.0, 2.0, float("nan"), 3.0]), (0,))
    Others(median=2.0, fence=7.1891, count=3)
    """
    left: NDArray[np.bool_] = np.isfinite(values)
    left[tuple(at)] = False
    rest = np.abs(values[left])
    if not len(rest):
        return Others(0.0, least, 0)
    median = float(np.median(rest))
    return Others(median, max(median + _OUTLYING * float(np.median(np.abs(rest - median))), least), len(rest))


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
