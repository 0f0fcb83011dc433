"""What is read of many prompts: each one's values, their mean and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared.intervals import interval
from interp.results import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ManyResult(Result):
    """What was read of many prompts. Arrays have the axis ``prompt`` in front.

    Attributes
    ----------
    prompts
        The token strings, ``[prompt][position]``.
    numbers
        ``int64 [prompt]``: which of the prompts that were given each is; of an interrupted command some are missing.
    positions
        ``int64 [prompt]``: whose prediction is read in each; counted from 0.
    source
        The task or the file that they came from; empty for a list.
    interventions
        How many changes there were of the runs.
    """

    prompts: tuple[tuple[str, ...], ...]
    numbers: NDArray[np.int64]
    positions: NDArray[np.int64]
    source: str = ""
    interventions: int = 0

    @property
    def n(self) -> int:
        """How many prompts were read."""
        return len(self.prompts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``int64 [prompt]``: how many tokens each has."""
        return np.array([len(tokens) for tokens in self.prompts], np.int64)

    @property
    def over(self) -> str:
        """How many prompts of how many lengths, in words."""
        held = sorted(set(self.lengths.tolist()))
        tokens = f"{held[0]} tokens" if len(held) == 1 else f"{len(held)} lengths, {held[0]}–{held[-1]} tokens"
        whose = f"{self.source}: " if self.source else ""
        return f"{whose}{self.n} prompt{'s' * (self.n != 1)} of {tokens}"

    def mean_of(self, each: NDArray[Any]) -> Spread:
        """Return the mean of ``[prompt, …]`` and how sure it is: of one of the arrays, or of what is made of them."""
        return spread(each)


@dataclass(frozen=True)
class Spread:
    """The mean of values over prompts, and how sure it is.

    Attributes
    ----------
    n
        How many prompts.
    mean
        Over the first axis, ``prompt``.
    standard_error
        The standard deviation (of n − 1 degrees of freedom) by √n; NaN for a single prompt.
    interval
        ``[2, …]``: the 95 % interval of the mean, see `interp.methods._shared.intervals`; NaN for fewer than four.
    """

    n: int
    mean: Float
    standard_error: Float
    interval: Float


def spread(each: NDArray[Any]) -> Spread:
    """Return the mean of ``[prompt, …]`` and how sure it is.

    Examples
    --------
    >>> found = spread(np.array([1.0, 2.0, 3.0, 6.0]))
    >>> found.n, float(found.mean), round(float(found.standard_error), 3)
    (4, 3.0, 1.08)
    """
    values = np.asarray(each, np.float64)
    count = len(values)
    if count < 2:
        return Spread(count, values.mean(0), np.full(values.shape[1:], np.nan), interval(values))
    return Spread(count, values.mean(0), values.std(0, ddof=1) / np.sqrt(count), interval(values))
