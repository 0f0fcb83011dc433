"""What an attribution graph is made of, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from interp.errors import InputError
from interp.methods._shared.intervals import interval
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class TraceNode(NamedTuple):
    """One node: its name is ``embed@3``, ``2.417@5`` (a feature), ``2.error@5`` or ``logit: Mary``."""

    name: str
    kind: str
    layer: int
    position: int
    feature: int
    activation: float
    preactivation: float
    influence: float


class TraceEdge(NamedTuple):
    """One edge: what it adds to its target, and of that the shares of the last heads that it passes, and of none."""

    source: str
    target: str
    weight: float
    direct: float
    heads: Mapping[str, float]


class TraceMove(NamedTuple):
    """What a changed feature does to a logit."""

    logit: str
    foretold: float
    measured: float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TraceCheck:
    """What the graph foretells of changed features, and what the model does.

    Attributes
    ----------
    changed
        ``int32 [run]``: which node's feature was changed.
    changes
        ``float32 [run]``: by which multiple of its activation: −1 takes it away, 1 doubles it.
    nodes
        ``int32 [node]``: the features and logits that were looked at.
    foretold, measured
        ``float32 [run, node]``: changes of pre-activations, and of logits.
    downstream
        ``bool [run, node]``: whether the graph has a way from the one to the other.
    """

    changed: NDArray[np.int32]
    changes: NDArray[np.float32]
    nodes: NDArray[np.int32]
    foretold: NDArray[np.float32]
    measured: NDArray[np.float32]
    downstream: NDArray[np.bool_]

    def of(self, chosen: NDArray[np.bool_]) -> tuple[float, float, int]:
        """Return Pearson's correlation, the share of equal signs, and the number of comparisons, at some nodes.

        Parameters
        ----------
        chosen
            ``bool [node]``.
        """
        where = self.downstream & chosen[None]
        told, found = self.foretold[where].astype(float), self.measured[where].astype(float)
        if len(told) < 2:
            return float("nan"), float("nan"), len(told)
        spread = float(told.std() * found.std())
        together = float(np.mean((told - told.mean()) * (found - found.mean())))
        return together / spread if spread else float("nan"), float(np.mean(np.sign(told) == np.sign(found))), len(told)


FIGURES = ("influence", "found again", "top edges", "ranks")
TOP_EDGES = 50  # of a graph's pairs of features, of which the overlap is told


class Mean(NamedTuple):
    """A figure over prompts: its mean, and the ends of its 95 % interval, NaN for fewer than four prompts."""

    mean: float
    low: float
    high: float

    @property
    def said(self) -> str:
        """In words.

        Examples
        --------
        >>> Mean(0.5, 0.25, 0.75).said, Mean(0.5, *[float("nan")] * 2).said, Mean(*[float("nan")] * 3).said
        ('0.50 [0.25, 0.75]', '0.50', 'unknown')
        """
        if not np.isfinite(self.mean):
            return "unknown"
        return f"{self.mean:.2f}" + (f" [{self.low:.2f}, {self.high:.2f}]" if np.isfinite(self.low) else "")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TraceStability:
    """How alike this graph and those of other prompts are, wherever in them a feature stands.

    A feature is its layer and number, its influence the sum over all positions, divided by that of all features.
    `FIGURES` are, with p this graph's influences by feature and q those of another prompt's graph:

    - ``influence``: Σ min(p, q) / Σ max(p, q), the weighted Jaccard index;
    - ``found again``: the share Σ p of the features that the other graph has too;
    - ``top edges``: the Jaccard index of both graphs' `TOP_EDGES` most influential pairs of features (source, target);
    - ``ranks``: Spearman's correlation of p and q over the features of either graph; one that a graph has not is 0
      there, so that of two graphs with no feature in common it is negative.

    Attributes
    ----------
    paraphrases, controls
        The prompts.
    paraphrased, control
        ``float64 [prompt, figure]``: of each of them; NaN where a graph has no features, or neither has edges between
        two.
    values
        ``float64 [paraphrase]``: the logit that is traced, there; NaN where several are.
    shuffled
        Whether the controls are the paraphrases with their tokens shuffled.
    """

    paraphrases: tuple[str, ...]
    controls: tuple[str, ...]
    paraphrased: NDArray[np.float64]
    control: NDArray[np.float64]
    values: NDArray[np.float64]
    shuffled: bool

    figures: ClassVar[tuple[str, ...]] = FIGURES

    def __post_init__(self) -> None:
        for name, count in (("paraphrased", len(self.paraphrases)), ("control", len(self.controls))):
            held = np.asarray(getattr(self, name), np.float64).reshape(-1, len(FIGURES))
            if len(held) != count:
                raise InputError(f"figures of {len(held)} prompts do not fit {count} prompts")
            object.__setattr__(self, name, held)

    def of(self, figure: str, *, control: bool = False) -> Mean:
        """Return a figure's mean over the paraphrases, or over the controls, with its interval."""
        held = (self.control if control else self.paraphrased)[:, FIGURES.index(figure)]
        known = held[np.isfinite(held)]
        if not len(known):
            return Mean(*[float("nan")] * 3)
        least = -1.0 if figure == "ranks" else 0.0  # no mean is beyond what its values can be
        return Mean(float(known.mean()), *(float(end) for end in interval(known).clip(least, 1.0)))

    @property
    def beside(self) -> str:
        """What the controls are, in words."""
        return f"{len(self.controls)} {'with shuffled tokens' if self.shuffled else 'unrelated prompts'}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per prompt: what it is, its text and its figures."""
        kinds = ["paraphrase"] * len(self.paraphrases) + ["control"] * len(self.controls)
        held = np.concatenate([self.paraphrased, self.control])
        columns = {figure: held[:, n] for n, figure in enumerate(FIGURES)}
        return frame_of({"kind": kinds, "prompt": [*self.paraphrases, *self.controls], **columns})

    def lines(self) -> list[str]:
        """Return what a terminal shows."""
        found = [f"stability over {len(self.paraphrases)} paraphrases, beside {self.beside}"]
        for figure in FIGURES:
            own, other = self.of(figure), self.of(figure, control=True)
            found.append(f"  {figure:11} {own.said:20} beside {other.said}")
        return found
