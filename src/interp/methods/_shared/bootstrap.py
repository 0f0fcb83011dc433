"""How sure a mean is: the bootstrap over what it was taken of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from interp.results.tables import Float

_RESAMPLES = 1000


def resamples(count: int, seed: int, draws: int = _RESAMPLES) -> Float:
    """Return how often each of `count` values is in each resample of as many, ``[draw, value]``.

    Examples
    --------
    >>> resamples(4, seed=0, draws=2).sum(axis=1).tolist()
    [4.0, 4.0]
    """
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def percentiles(values: Any) -> Float:
    """Return the ends of the middle 95 % of what the resamples gave, ``[2, …]`` of ``[draw, …]``.

    Examples
    --------
    >>> percentiles(np.arange(101.0)).tolist()
    [2.5, 97.5]
    """
    return np.quantile(values, [0.025, 0.975], axis=0)


def interval(each: Float, seed: int = 0, weights: Float | None = None) -> Float:
    """Return the 95 % percentile interval of the mean over the first axis, ``[2, …]``; NaN for a single value.

    Efron and Tibshirani (1993), "An Introduction to the Bootstrap". `weights`, ``[n]``, say how much each value counts
    in the mean, such as a text by its tokens; alike when not given.

    Examples
    --------
    >>> interval(np.ones((5, 2))).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    count = len(each)
    if count < 2:
        return np.full((2, *each.shape[1:]), np.nan)
    drawn = resamples(count, seed)
    if weights is not None:
        drawn *= weights
    drawn /= drawn.sum(axis=1, keepdims=True)
    return percentiles(np.tensordot(drawn, each, axes=1))


def of_ratio(above: Float, below: Float, seed: int = 0) -> Float:
    """Return the 95 % percentile interval of a ratio of means over the first axis, ``[2, …]``; NaN for a single value.

    Parameters
    ----------
    above
        ``[n, …]``.
    below
        ``[n]``: what is drawn together with it.

    Examples
    --------
    >>> of_ratio(np.array([1.0, 2.0]), np.array([2.0, 4.0])).tolist()
    [0.5, 0.5]
    """
    count = len(above)
    if count < 2:
        return np.full((2, *above.shape[1:]), np.nan)
    drawn = resamples(count, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.tensordot(drawn, above, axes=1) / (drawn @ below).reshape(-1, *[1] * (above.ndim - 1))
    return percentiles(ratios)
