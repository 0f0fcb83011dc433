"""How sure a mean is: the bootstrap over what it was taken of, and whether it could be chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float64]

_RESAMPLES = 1000
_BLOCK = 2**22  # numbers that are there at once


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


def sign_flips(each: Float, draws: int, seed: int = 0) -> Float:
    """Return the two-sided p-value of the mean over the first axis of ``each [n, cell]``, ``[cell]``.

    Under the null hypothesis each value is as likely as its negative: p is the share of assignments of signs whose
    mean is at least as far from 0. All 2ⁿ are counted where there are no more than `draws`; else that many are drawn,
    and the one observed is counted with them. Fisher (1935); Phipson and Smyth (2010) on never being 0.

    Examples
    --------
    >>> sign_flips(np.ones((3, 1)), 9999).tolist()
    [0.25]
    """
    count, cells = each.shape
    observed = np.abs(each.sum(0)) * (1 - 1e-9)
    exact = 2**count <= draws
    total = 2**count if exact else draws
    source = np.random.default_rng(seed)
    beyond = np.zeros(cells, np.int64) if exact else np.ones(cells, np.int64)
    size = max(1, _BLOCK // max(cells, count))
    for start in range(0, total, size):
        stop = min(start + size, total)
        if exact:
            bits = np.arange(start, stop)[:, None] >> np.arange(count) & 1
        else:
            bits = source.integers(0, 2, (stop - start, count))
        beyond += (np.abs((2.0 * bits - 1) @ each) >= observed).sum(0)
    return beyond / (total if exact else total + 1)
