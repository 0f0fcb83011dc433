"""Intervals hold what they say, for few values and for skewed ones, and there are none where none can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from interp.methods._shared.intervals import interval, jackknifed, of_ratio, too_few

DRAWS = 12_000  # so that a coverage is known to 0.2 %
Array = NDArray[np.float64]


def covered(ends: Array, true: float) -> float:
    return float(((ends[0] <= true) & (true <= ends[1])).mean())


@pytest.mark.parametrize("n", [4, 5, 6, 8, 12, 16, 32, 64])
def test_the_interval_of_a_mean_holds_it_in_95_of_100(n: int) -> None:
    chance = np.random.default_rng(n)
    for values in (chance.normal(1, 1, (n, DRAWS)), chance.exponential(1, (n, DRAWS))):
        assert 0.93 <= covered(interval(values), 1.0) <= 0.97
        assert 0.93 <= covered(interval(-values), -1.0) <= 0.97


@pytest.mark.parametrize("n", [4, 5, 8, 16, 32, 64])
@pytest.mark.parametrize("kind", ["as recovery", "apart", "shares", "skewed"])
def test_the_interval_of_a_ratio_counts_the_noise_of_the_denominators(n: int, kind: str) -> None:
    chance = np.random.default_rng(n)

    def one() -> tuple[Array, Array]:
        if kind == "as recovery":
            below = chance.normal(3, 0.9, n)
            return 0.5 * below + chance.normal(0, 0.5, n), below
        if kind == "apart":
            return chance.normal(0.5, 0.5, n), chance.normal(1, 0.5, n)
        below = 1 + chance.exponential(1, n) if kind == "shares" else chance.gamma(4, 1, n)
        return (below * chance.uniform(0, 1, n) if kind == "shares" else 0.5 * below + chance.normal(0, 1, n)), below

    draws = 4000
    hit = np.mean([low <= 0.5 <= high for low, high in (of_ratio(*one()) for _ in range(draws))])
    assert 0.925 <= hit <= 0.975


def test_there_is_no_interval_of_fewer_than_four_and_one_note_says_so() -> None:
    for n in (1, 2, 3):
        values = np.arange(2.0 * n).reshape(n, 2)
        assert np.isnan(interval(values)).all()
        assert np.isnan(of_ratio(values, np.ones(n))).all()
        assert np.isnan(interval(values, weights=np.arange(1.0, n + 1))).all()
        assert len(too_few(n)) == (n > 1)
    assert np.isfinite(interval(np.arange(4.0))).all()
    assert too_few(4) == []


def test_values_that_are_alike_and_values_that_are_not_numbers() -> None:
    assert interval(np.full((5, 2), 2.5)).tolist() == [[2.5, 2.5], [2.5, 2.5]]
    assert np.allclose(of_ratio(np.array([1.0, 2.0, 3.0, 2.0]), np.array([2.0, 4.0, 6.0, 4.0])), 0.5)
    values = np.random.default_rng(0).normal(size=(6, 3))
    values[2, 1] = np.nan
    assert np.isnan(interval(values)[:, 1]).all()
    assert np.isfinite(interval(values)[:, [0, 2]]).all()
    assert np.isnan(of_ratio(values, np.ones(6))[:, 1]).all()


def test_a_ratio_over_ones_is_a_mean_and_signs_and_scales_do_not_matter() -> None:
    chance = np.random.default_rng(1)
    values, below = chance.exponential(1, (7, 2, 3)), chance.normal(4, 1, 7)
    assert np.allclose(of_ratio(values, np.ones(7)), interval(values))
    ends = of_ratio(values, below)
    assert ends.shape == (2, 2, 3)
    assert np.allclose(of_ratio(-values, -below), ends)
    assert np.allclose(of_ratio(-values, below), -ends[::-1])
    assert np.allclose(of_ratio(1e4 * values, 1e-3 * below), 1e7 * ends)
    assert (ends[0] < values.mean(0) / below.mean()).all()
    assert (values.mean(0) / below.mean() < ends[1]).all()
    # The shape does not matter, nor how many columns there are: they are worked on in blocks.
    assert np.allclose(interval(np.tile(values[:, 0], (1, 400_000 // 3)))[:, -3:], interval(values)[:, 0])


def test_the_ends_solve_fiellers_equation() -> None:
    """Of each end r, 0 is an end of the interval of the mean of above − r · below."""
    chance = np.random.default_rng(2)
    below = chance.normal(4, 0.4, 12)
    above = 0.3 * below + chance.normal(0, 0.3, 12)
    low, high = of_ratio(above, below)
    assert interval(above - low * below)[0] == pytest.approx(0, abs=1e-4)
    assert interval(above - high * below)[1] == pytest.approx(0, abs=1e-4)


def test_weights_are_those_of_a_ratio() -> None:
    values, weights = np.array([1.0, 2.0, 4.0, 3.0, 2.5]), np.array([1.0, 5.0, 2.0, 2.0, 9.0])
    assert np.allclose(interval(values, weights=weights), of_ratio(values * weights, weights))
    assert np.allclose(interval(values, weights=np.full(5, 3.0)), interval(values))


def test_pseudo_values_of_a_mean_are_its_values() -> None:
    values = np.random.default_rng(3).exponential(1, 9)
    without: Any = (values.sum() - values) / 8
    assert np.allclose(jackknifed(float(values.mean()), without), interval(values))
