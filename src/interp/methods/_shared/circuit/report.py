"""A circuit's evidence as data: a report of findings, each with its interval and in words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import InputError, printable
from interp.results import Result
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.methods._shared.circuit.result import CircuitResult
    from interp.results.tables import Float

REMOVABLE = 0.01  # of faithfulness: what a single edge takes with it when it goes, at the least


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CircuitReport(Result):
    """The evidence for a circuit.

    All faithfulness here is (m − m(∅)) / (m(M) − m(∅)), a ratio of means over pairs: 1 is the whole model's metric,
    m(M), and 0 that with every edge ablated, m(∅). Intervals are 95 % intervals over pairs (`interp.methods._shared
    .intervals`), and NaN for fewer than four. What was not reached is NaN.

    Attributes
    ----------
    edges, existing
        How many edges the circuit has, and the model.
    method, level
        How it was found; see `CircuitResult`.
    metric, ablation, task
        What was measured, what an ablated edge carries (the ``mean`` is over these pairs), on what task.
    pairs
        Which pairs: ``fresh`` ones, drawn with `seed`, or the ``same`` that the circuit was chosen by.
    seed
        Of the pairs, and of what is drawn besides.
    whole, nothing, alone, without
        ``float64 [pair]``: the metric of the whole model, with every edge ablated, of the circuit alone (all other
        edges ablated) and of the model without the circuit's edges.
    faithfulness, faithfulness_interval, per_pair
        Of the circuit alone: how far it is sufficient. `per_pair` is ``float64 [pair]``.
    left, left_interval, left_per_pair
        Of the model without the circuit's edges: 0 where the circuit is complete, and so necessary.
    sizes, curve, curve_interval
        ``int64 [point]``, ``float64 [point]``, ``float64 [2, point]``: faithfulness of the circuits that the same
        ranking makes of fewer and of more edges; the first point is no edge, the last all of them.
    ranking
        By what: ``absolute score`` (an edge that works against the answer counts as much as one for it), that of heads
        and MLPs, or ACDC's thresholds.
    cpr, cmd
        As MIB's circuit track has them: the areas under faithfulness, ∫ f dk, of the edges of the largest scores, and
        between faithfulness and 1, ∫ |1 − f| dk, of those of the largest sizes of scores; over the shares k of edges
        from 0.001 to 1 that are asked for, by trapezoids, of circuits from which what leads nowhere was left out.
    marginal_edges, marginal, marginal_interval
        The strongest edges, and ``float64 [edge]``, ``[2, edge]``: what faithfulness loses without each alone.
    removable
        Those of them whose loss is below `REMOVABLE`, each by itself.
    random, random_sizes
        ``float64 [circuit]``, ``int64 [circuit]``: faithfulness and size of random circuits; `matching` says how alike.
    p_value
        The share of circuits, random ones and this, that are as near to the whole model, 1, as this: never 0.
    stability
        ``float64 [resample]``: the Jaccard index of this circuit's edges and of those that its scores make on pairs
        drawn anew; none where scores are not per pair.
    forwards, seconds
        Runs of one prompt, and wall-clock time.
    """

    edges: int
    existing: int
    method: str
    level: str
    metric: str
    ablation: str
    task: str
    pairs: str
    seed: int
    whole: Float
    nothing: Float
    alone: Float
    without: Float
    faithfulness: float
    faithfulness_interval: Float
    per_pair: Float
    left: float
    left_interval: Float
    left_per_pair: Float
    sizes: NDArray[np.int64]
    curve: Float
    curve_interval: Float
    ranking: str
    cpr: float
    cmd: float
    marginal_edges: tuple[str, ...]
    marginal: Float
    marginal_interval: Float
    removable: tuple[str, ...]
    random: Float
    random_sizes: NDArray[np.int64]
    p_value: float
    stability: Float
    forwards: int
    seconds: float

    _circuit: CircuitResult | None = field(default=None, repr=False, compare=False)

    _html: ClassVar[str] = "interp.views.circuit_report:html"
    _svg: ClassVar[str | None] = "interp.views.circuit_report:svg"

    @property
    def circuit(self) -> CircuitResult:
        """The circuit with this report in it, bound to the model that judged it.

        Raises
        ------
        InputError
            The report was read from a file, which holds no circuit: that is in the circuit's own.
        """
        if self._circuit is None:
            raise InputError("this report does not hold its circuit; validate the circuit again")
        held = self._circuit
        return replace(
            held,
            report=self,
            groups=dict(held.groups),
            functions=dict(held.functions),
            _live=held._live if self._live is None else self._live,
        )

    @property
    def matching(self) -> str:
        """How random circuits are like this one."""
        if self.level == "head":
            return "other heads in place of its heads and other MLPs in place of its MLPs, all edges between them"
        return (
            "of one size, on whole ways to the logits, the strongest by scores dealt anew among inputs of the same kind"
        )

    def summary(self) -> str:
        """Return the circuit's size, its faithfulness and how random ones do."""
        where = f"{self.task}, " if self.task else ""
        return (
            f"{self.provenance.model}: {where}{self.edges:,} of {self.existing:,} edges, faithfulness "
            f"{spread(self.faithfulness, self.faithfulness_interval)}, random circuits {self.chance()}"
        )

    def chance(self) -> str:
        """Return the random circuits' mean and standard deviation in words."""
        known = self.random[np.isfinite(self.random)]
        if len(known) < 2:
            return "not run"
        sd = float(known.std(ddof=1))
        return f"{_two(known.mean())} ± {f'{sd:.2f}' if sd >= 0.005 else f'{sd:.0e}'}"

    def says(self) -> list[tuple[str, str, str]]:
        """Return the report's lines: (name, value, what it says)."""
        count = len(self.whole)
        chosen = {"fresh": "fresh pairs, which did not choose the circuit", "same": "the pairs that chose the circuit"}
        ends = f"whole model {_two(self.whole.mean())}, all ablated {_two(self.nothing.mean())}"
        lines = [
            (
                "measured",
                f"{printable(self.metric)}, n = {count}",
                f"{chosen[self.pairs]}{self._drawn()}; {self.ablation} ablation; {ends}",
            ),
            (
                "faithfulness",
                spread(self.faithfulness, self.faithfulness_interval),
                f"sufficiency: the circuit alone goes {_two(self.faithfulness)} of the way from all ablated to the "
                "whole model",
            ),
            (
                "completeness",
                spread(self.left, self.left_interval),
                f"necessity: without the circuit's edges, the model still goes {_two(self.left)} of that way",
            ),
            ("random", self.chance(), self._standing()),
            (
                "over size",
                f"CPR {self.cpr:.3f}, CMD {self.cmd:.3f}",
                f"MIB's areas of faithfulness over the share of edges; in the curve they are ranked by {self.ranking}",
            ),
            ("minimality", self._minimal(), self._spare()),
        ]
        if len(self.stability):
            low, high = np.quantile(self.stability, [0.025, 0.975])
            lines.append(
                (
                    "stability",
                    f"{self.stability.mean():.2f} [{low:.2f}, {high:.2f}]",
                    f"Jaccard index of the edges over {len(self.stability)} bootstrap resamples of the pairs that "
                    "chose them",
                )
            )
        else:
            why = "ACDC scores no pair by itself" if self.method == "acdc" else "there is one pair, or none by itself"
            lines.append(("stability", "not defined", why))
        lines.append(("run", f"{self.forwards:,} forwards, {self.seconds:.1f} s", f"seed {self.seed}"))
        return lines

    def _drawn(self) -> str:
        return f" (task {printable(self.task)}, seed {self.seed})" if self.pairs == "fresh" else ""

    def _standing(self) -> str:
        known = int(np.isfinite(self.random).sum())
        if known < 2:
            return "random circuits were not run"
        nearer = int((np.abs(1 - self.random) <= abs(1 - self.faithfulness)).sum())
        stands = (
            f"no nearer to the whole model than {nearer} of them"
            if nearer
            else "nearer to the whole model than all of them"
        )
        low, high = int(self.random_sizes.min()), int(self.random_sizes.max())
        sizes = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        return f"{known} circuits of {sizes} edges ({self.matching}): this one is {stands}, p = {self.p_value:.3f}"

    def _minimal(self) -> str:
        known = int(np.isfinite(self.marginal).sum())
        return f"{known - len(self.removable)} of {known}" if known else "not run"

    def _spare(self) -> str:
        known = int(np.isfinite(self.marginal).sum())
        if not known:
            return "edges were not removed"
        named = ", ".join(self.removable[:6]) + (f" and {len(self.removable) - 6} more" * (len(self.removable) > 6))
        spare = f"removable, each by itself: {named}" if self.removable else "none is removable by itself"
        return f"of the strongest edges take {REMOVABLE:g} of faithfulness or more with them; {spare}"

    def text(self) -> str:
        """Return the report's lines."""
        lines = [f"  {name:<13} {value:<22} {said}" for name, value, said in self.says()]
        first, *notes = super().text().split("\n")
        return "\n".join([first, *lines, *notes])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding: name, value, the ends of its interval, and what it says."""
        nan = (float("nan"), float("nan"))
        known = self.random[np.isfinite(self.random)]
        around = (float(known.min()), float(known.max())) if len(known) else nan
        stable = (float(self.stability.min()), float(self.stability.max())) if len(self.stability) else nan
        said = {name: words for name, _, words in self.says()}
        rows = [
            ("faithfulness", self.faithfulness, *self.faithfulness_interval, said["faithfulness"]),
            ("completeness", self.left, *self.left_interval, said["completeness"]),
            ("random", float(known.mean()) if len(known) else float("nan"), *around, said["random"]),
            ("p value", self.p_value, *nan, said["random"]),
            ("CPR", self.cpr, *nan, said["over size"]),
            ("CMD", self.cmd, *nan, said["over size"]),
            ("removable", float(len(self.removable)), *nan, said["minimality"]),
            ("stability", float(self.stability.mean()) if len(self.stability) else nan[0], *stable, said["stability"]),
        ]
        return frame_of(rows, columns=["finding", "value", "low", "high", "what it says"])


def spread(value: float, ends: Float) -> str:
    """Return a value and its interval, where it has one.

    Examples
    --------
    >>> spread(0.5, np.array([0.4, 0.6]))
    '0.50 [0.40, 0.60]'
    """
    return f"{_two(value)} [{_two(ends[0])}, {_two(ends[1])}]" if np.isfinite(ends).all() else _two(value)


def _two(value: float) -> str:
    """Return a number with two decimals, and no minus before a zero."""
    return f"{round(float(value), 2) + 0.0:.2f}"
