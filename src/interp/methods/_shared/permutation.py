"""Whether a mean could be chance: sign-flip permutation over pairs, and the correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError

if TYPE_CHECKING:
    from interp.results.tables import Float

LEVEL = 0.05
_DRAWS = 9999
_PER_CELL = 40  # draws, so that a p-value can stay below the level after the correction
_WORK = 2 * 10**10
_BLOCK = 2**22  # numbers that are there at once


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


def assignments(count: int, cells: int) -> int:
    """Return how many assignments of signs to count: enough for the correction, few enough to be quick."""
    return max(_DRAWS, min(_PER_CELL * cells, _WORK // (count * cells)))


def too_few(pairs: int, cells: int, draws: int, correction: str) -> list[str]:
    """Return a note where so few pairs, of so many cells, cannot give a p-value that is significant."""
    tests = cells if correction in {"holm", "bonferroni"} else 1
    least = 2.0 ** (1 - pairs) if 2**pairs <= draws else 1 / (draws + 1)
    if least * tests <= LEVEL:
        return []
    enough = math.ceil(1 - math.log2(LEVEL / tests))
    few = f"from {pairs} pair{'s' * (pairs != 1)} no p-value is below {least:.2g}"
    many = f", and {tests} tests need {LEVEL / tests:.2g}" if tests > 1 else ""
    return [f"{few}{many}: nothing can be significant; take {enough} pairs or more, or name fewer mediators"]


Corrector = Callable[["Float"], "Float"]


def corrector(correction: str) -> Corrector:
    """Return what corrects p-values, ``[test]``.

    Raises
    ------
    InputError
        It needs statsmodels, which is not there.
    """
    if correction == "none":
        return lambda p: p
    try:
        from statsmodels.stats.multitest import multipletests
    except ImportError:
        raise InputError(
            f"--correction {correction} needs statsmodels: pip install 'interp[mediate]'; --correction none does not"
        ) from None
    return lambda p: np.asarray(multipletests(p, alpha=LEVEL, method=correction)[1], np.float64)
