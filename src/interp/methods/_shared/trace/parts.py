"""What an attribution graph is made of, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
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
