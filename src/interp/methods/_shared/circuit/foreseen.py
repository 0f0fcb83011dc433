"""What finding or judging a circuit will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.pairs import Encodings

if TYPE_CHECKING:
    from interp.engine.forecast.costs import Foresight
    from interp.engine.forecast.work import Work
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case


def of_circuit(
    model: LoadedModel,
    cases: Sequence[Case],
    encoded: Sequence[Encodings],
    method: str,
    *,
    ablation: str,
    steps: int | None,
    among: int | None,
    level: str,
    positions: bool,
    tried: int,
    part: float,
) -> tuple[Foresight, Work]:
    """Return the work of a method, and of looking at the pairs' answers.

    Parameters
    ----------
    tried
        Of acdc: how many thresholds.
    part
        Of acdc: what part of a run for each edge and threshold it takes, as a rule.
    """
    from interp.engine.circuits import edges, foreseen
    from interp.engine.forecast.work import NOTHING, Stored
    from interp.engine.patching.path import reaching

    stored, before = Stored(model), NOTHING
    if method == "exact":
        sight, work = foreseen.of_exact(model, cases, ablation, stored, nodes=level == "head")
    elif method == "acdc":
        if among is not None:
            before = foreseen.of_estimate(model, cases, ablation, steps, stored)[1]
        count = int(reaching(model, *edges.ends(model)).sum())
        begin = count if among is None else min(among, count)
        sight, work = foreseen.of_acdc(model, cases, ablation, stored, begin, tried, part)
    else:
        taken = steps if method == "eap-ig" else 1
        sight, work = foreseen.of_estimate(model, cases, ablation, taken, stored, positions=positions)
    own = None if method == "acdc" and among is None else sight
    return sight, before + work + pairs_of.looked_at(model, encoded, stored, own)
