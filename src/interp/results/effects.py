"""What interventions do to a metric over prompt pairs: the fields, checks and tables that their results share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.results.base import Result
from interp.results.per_pair import PairTable
from interp.results.tables import frame_of, lines_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Float = NDArray[np.float64]


@dataclass(frozen=True)
class PairChecks:
    """What the pairs are, token by token, and whether the model does what they suppose.

    Attributes
    ----------
    clean, corrupted
        Token strings, ``[pair][position]``.
    differing
        Positions at which a pair's prompts differ.
    answer, wrong
        The tokens that were taken, ``[pair]``, each as (string, id) …
    clean_metric, corrupted_metric
        The metric of each pair's own runs.
    warnings
        What to know before believing the result.
    spans
        ``[pair]``: name → the positions of a span in clean and in corrupted; empty where none were asked for, and for
        a pair that lines up token by token.
    """

    clean: tuple[tuple[str, ...], ...]
    corrupted: tuple[tuple[str, ...], ...]
    differing: tuple[tuple[int, ...], ...]
    answer: tuple[tuple[tuple[str, int], ...], ...]
    wrong: tuple[tuple[tuple[str, int], ...], ...]
    clean_metric: tuple[float, ...] = ()
    corrupted_metric: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    spans: tuple[Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]], ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row per pair."""
        return frame_of(
            {
                "clean": ["".join(tokens) for tokens in self.clean],
                "corrupted": ["".join(tokens) for tokens in self.corrupted],
                "differing": list(self.differing),
                "answer": [_named(tokens) for tokens in self.answer],
                "wrong": [_named(tokens) for tokens in self.wrong],
                "clean metric": self.clean_metric or [float("nan")] * len(self.clean),
                "corrupted metric": self.corrupted_metric or [float("nan")] * len(self.clean),
            }
        )


def _named(tokens: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(repr(string) for string, _ in tokens[:4])
    return shown if len(tokens) <= 4 else f"{shown} … ({len(tokens)} tokens)"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class EffectsResult(Result, ABC):
    """Effects on a metric over prompt pairs, in arrays ``[*axes]``.

    Attributes
    ----------
    metric
        What was measured.
    clean_metric, corrupted_metric
        The metric of the prompts' own runs, mean over pairs.
    done
        ``bool [*axes]``: which cells were computed for every pair.
    checks
        The pairs, token by token, with warnings.
    task
        The task that the pairs came from, or an empty string.
    """

    metric: str
    clean_metric: float
    corrupted_metric: float
    done: NDArray[np.bool_]
    checks: PairChecks
    task: str = ""

    @abstractmethod
    def name(self, index: Sequence[int]) -> str:
        """Return what the cell at `index` is called."""

    @abstractmethod
    def _ranked(self) -> Float:
        """Return the numbers, ``[*axes]``, by whose size cells are ranked."""

    def strongest(self, n: int) -> list[tuple[int, ...]]:
        """Return where the `n` largest effects are, either way, largest first."""
        return strongest(self._ranked(), n)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PatchedResult(EffectsResult):
    """Effects of putting what one run computed into the other run of a pair.

    Attributes
    ----------
    direction
        Which run was patched: ``denoise``, the corrupted one, with what the clean run computed; ``noise``, the reverse.
    patched
        ``float64 [*axes]``: the metric of every patched run, mean over pairs; NaN where the sweep did not get to.
    effect
        ``float64 [*axes]``: `patched` less the metric of the run that was patched.
    recovery
        ``float64 [*axes]``: (patched − corrupted) / (clean − corrupted), a ratio of means over pairs: 0 nothing,
        1 clean behaviour restored, negative works against it.
    interval
        ``float64 [2, *axes]``: the 95 % interval of `effect` over pairs; NaN for fewer than four.
    recovery_interval
        ``float64 [2, *axes]``: that of `recovery`, whose clean and corrupted runs are not sure either.
    per_pair
        ``float64 [pair, *axes]``: `patched` of each pair.
    noise
        Below what an effect is rounding alone, three standard deviations of the mean over pairs: in half precision it
        is measured (Monte Carlo arithmetic; Parker 1997), in single and double precision it is 0. Pictures and `top`
        show an effect below it as none.
    """

    direction: str
    patched: Float
    effect: Float
    recovery: Float
    interval: Float
    recovery_interval: Float
    per_pair: Float
    noise: float = 0.0

    def _pairs(self) -> PairTable:
        own = {
            name: np.array(held)
            for name, held in (("clean", self.checks.clean_metric), ("corrupted", self.checks.corrupted_metric))
            if len(held) == len(self.per_pair)
        }
        axes = {"pair": range(len(self.per_pair)), **self._labels()}
        there = self._there()
        mask = None if there is None else np.broadcast_to(there, self.per_pair.shape)
        return PairTable(
            axes, {"patched": self.per_pair, **own}, {} if mask is not None else {"patched": "per_pair"}, mask
        )

    @abstractmethod
    def _labels(self) -> Mapping[str, Sequence[Any]]:
        """Return the labels of each of the axes."""

    def _there(self) -> NDArray[np.bool_] | None:
        """Return which cells there are, ``[*axes]``; ``None`` for all."""
        return None

    @property
    def below_noise(self) -> NDArray[np.bool_]:
        """``bool [*axes]``: whether an effect is smaller than what rounding alone makes."""
        return np.abs(self.effect) < self.noise

    def above_noise(self, values: Float) -> Float:
        """Return numbers of cells, ``[*axes]``, with 0 where the effect is below the noise."""
        return np.where(self.below_noise, 0.0, values) if self.noise else values

    def _ranked(self) -> Float:
        return self.above_noise(self.effect)

    def top(self, n: int = 10) -> list[tuple[str, float, float]]:
        """Return the `n` cells of the largest effect either way: (name, effect, recovery), strongest first.

        Examples
        --------
        >>> result.top(1)  # doctest: +SKIP
        [('18.6', 3.41, 0.52)]
        """
        return [(self.name(c), float(self.effect[c]), float(self.recovery[c])) for c in self.strongest(n)]

    def _lines(self) -> list[str]:
        return lines_of(("strongest", "effect", "recovery"), self.top(5))

    def _columns(self, *cells: NDArray[np.int64]) -> dict[str, Any]:
        """Return the numbers of some cells, given as one array of indices for each axis, as columns of a table."""
        numbers = {name: getattr(self, name)[cells] for name in ("patched", "effect", "recovery")}
        low, high = self.interval[:, *cells]
        noise = {"below noise": self.below_noise[cells]} if self.noise else {}
        return {**numbers, "low": low, "high": high, **noise}


def strongest(values: Any, n: int) -> list[tuple[int, ...]]:
    """Return where the `n` numbers furthest from 0 are, the furthest first; what is not finite is nowhere.

    Examples
    --------
    >>> strongest(np.array([[1.0, -3.0], [float("nan"), 2.0]]), 2)
    [(0, 1), (1, 1)]
    """
    size = np.where(np.isfinite(values), np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:n]
    cells = [tuple(int(i) for i in np.unravel_index(at, size.shape)) for at in order]
    return [cell for cell in cells if size[cell] >= 0]
