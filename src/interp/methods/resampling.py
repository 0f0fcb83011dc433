"""How sure a mean is: the bootstrap over what it was taken of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float64]

_RESAMPLES = 1000


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
    drawn = (
        np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES).astype(np.float64)
    )
    if weights is not None:
        drawn *= weights
    drawn /= drawn.sum(axis=1, keepdims=True)
    return np.quantile(np.tensordot(drawn, each, axes=1), [0.025, 0.975], axis=0)
