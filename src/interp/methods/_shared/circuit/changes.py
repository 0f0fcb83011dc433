"""Edges that one model's circuit has and another's has not, as far as the pairs tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.methods._shared.circuit import choice
from interp.methods._shared.circuit.unchosen import circuit_of
from interp.methods._shared.intervals import interval

if TYPE_CHECKING:
    from interp.engine.circuits.edges import EdgeScores

_ROUNDING = 1e-4  # of the largest score: what two runs of one model could differ by


@dataclass(frozen=True)
class EdgeChange:
    """An edge that is in one model's circuit alone.

    Attributes
    ----------
    writer, reader
        Its ends, such as ``"1.2"`` and ``"2.0.q"``.
    base, tuned
        Its score in the two models: what the metric loses when the edge alone is ablated.
    low, high
        The 95 % interval over pairs of the second score less the first; NaN for fewer than four pairs.
    said
        ``gained``, ``lost``, or ``unsure``: the pairs do not tell.
    """

    writer: str
    reader: str
    base: float
    tuned: float
    low: float
    high: float
    said: str


def changes(base: EdgeScores, tuned: EdgeScores, size: int, group: int) -> tuple[EdgeChange, ...]:
    """Return the edges that the circuit of at most `size` edges of one model has alone, the largest change first.

    Both circuits are chosen by one rule: the strongest edges, either way, on a way from the embedding to the logits. An
    edge is gained where it is in the second one's alone, the 95 % interval over pairs of its change leaves 0 out, and
    that of its score in the first model stays below the weakest that is in that one's circuit; lost the other way
    round. What is in one of them alone and does not fulfil that is unsure.

    Parameters
    ----------
    group
        How many query heads share a KV head.
    """
    models = [circuit_of(one, group, level="edge") for one in (base, tuned)]
    kept = [choice.of_size(one, size) for one in models]
    writer, reader = np.nonzero(kept[0] != kept[1])
    if not len(writer):
        return ()
    each = [one.per_pair[:, writer, reader].astype(np.float64) for one in models]
    scores = [one.scores[writer, reader] for one in models]
    cuts = [
        float(np.abs(one.scores[mask]).min()) if mask.any() else 0.0 for one, mask in zip(models, kept, strict=True)
    ]
    least = _ROUNDING * max(float(np.nanmax(np.abs(one.scores[one.exists]))) for one in models)
    low, high = interval(each[1] - each[0])
    moved = ((low > 0) | (high < 0)) & (np.abs(scores[1] - scores[0]) > least)
    weak = [np.abs(interval(one)).max(0) < cut for one, cut in zip(each, cuts, strict=True)]  # NaN is not
    gained = kept[1][writer, reader]
    sure = moved & np.where(gained, weak[0], weak[1])
    order = np.argsort(-np.abs(scores[1] - scores[0]), kind="stable")
    said = np.where(sure, np.where(gained, "gained", "lost"), "unsure")
    return tuple(
        EdgeChange(
            models[0].writers[writer[n]],
            models[0].readers[reader[n]],
            float(scores[0][n]),
            float(scores[1][n]),
            float(low[n]),
            float(high[n]),
            str(said[n]),
        )
        for n in order
    )


def summary(found: Sequence[EdgeChange], size: int) -> str:
    """Return how many edges were gained and lost, in words.

    Examples
    --------
    >>> summary((), 200)
    'no edges gained, none lost (circuits of 200 edges)'
    """
    gained, lost, unsure = (sum(one.said == kind for one in found) for kind in ("gained", "lost", "unsure"))
    near = f"; {unsure} too near to tell" if unsure else ""
    return f"{gained or 'no'} edges gained, {lost or 'none'} lost (circuits of {size} edges){near}"
