"""Scores as a circuit that has no edges yet, which choices are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared.circuit.result import CircuitResult
from interp.results.effects import PairChecks

if TYPE_CHECKING:
    from interp.engine.circuits.edges import EdgeScores
    from interp.results.tables import Float


def circuit_of(scored: EdgeScores, group: int, **said: Any) -> CircuitResult:
    """Return edges' scores as a circuit of none of them; the `said` is of whoever knows more.

    Parameters
    ----------
    group
        How many query heads share a KV head.
    """
    exists = scored.exists.numpy()
    scores: Float = scored.scores.numpy()
    by_position = np.zeros((*exists.shape, 0), np.float32)
    known: dict[str, Any] = {
        "writers": tuple(node.name for node in scored.writers),
        "readers": tuple(node.name for node in scored.readers),
        "exists": exists,
        "scores": scores,
        "per_pair": scored.per_pair.numpy(),
        "by_position": by_position if scored.by_position is None else scored.by_position.numpy(),
        "kept": np.zeros_like(exists),
        "method": "",
        "steps": 1,
        "ablation": "",
        "level": "",
        "metric": "",
        "clean_metric": scored.clean.numpy(),
        "ablated_metric": scored.ablated.numpy(),
        "group_size": group,
        "positions": (),
        "checks": PairChecks((), (), (), (), ()),
    }
    return CircuitResult(**(known | said))
