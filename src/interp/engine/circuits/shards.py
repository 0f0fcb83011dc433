"""One shard of what circuits ask for, as a worker runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.engine import exactness
from interp.engine.circuits.eap import EdgeGradients
from interp.engine.circuits.exact import edge_paths
from interp.engine.circuits.subgraph import Subset
from interp.engine.patching import shards
from interp.engine.patching.gradients import differentiated

if TYPE_CHECKING:
    from interp.engine.circuits.edges import Written
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case


def subsets(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    ablation: str,
    carried: Written | None,
    cases: Sequence[Case],
    masks: Tensor,
) -> Tensor:
    """Return the metric of subsets of edges, ``float64 [mask, pair]``; the arguments are those of `Subset`."""
    (model,) = models
    carried = None if carried is None else carried.to(model.device)
    return Subset(model, cases, ablation, carried).run(masks, on_step=lambda done, total: step())  # noqa: ARG005


def edges(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    way: exactness.Way,
    planner: Mapping[str, Any],
    shape: tuple[int, ...],
    cases: Sequence[Case],
    cells: Sequence[int],
) -> dict[str, Tensor]:
    """Return what a sweep over edges gives; the arguments are those of `interp.engine.patching.shards.swept`."""
    constant: Written | None = planner["constant"]
    constant = None if constant is None else constant.to(models[0].device)
    made = edge_paths(models[0], planner["ablation"], constant)
    return shards.done(models, step, made, way=way, shape=shape, cases=cases, cells=cells)


def gradients(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    cases: Sequence[Case],
    ablation: str,
    constant: Written | None,
    integral: bool,
    points: Tensor,
    weights: Tensor,
    positions: bool,
    total: int,
) -> dict[str, Tensor | None]:
    """Return what pairs get from some points of an integral.

    Parameters
    ----------
    ablation, constant, integral, positions, total
        As `EdgeGradients` and its estimate have them.
    points, weights
        Of the integral.

    Returns
    -------
    dict
        ``values``, ``[pair, writer, reader]``; ``clean`` and ``ablated``, ``[pair]``; ``by_position``, ``[writer,
        reader, position]``, a sum over the pairs and over `total`.
    """
    (model,) = models

    def work() -> dict[str, Tensor | None]:
        job = EdgeGradients(
            model,
            cases,
            ablation,
            None if integral else 1,
            positions,
            lambda done, total: step(),  # noqa: ARG005
            constant=None if constant is None else constant.to(model.device),
            total=total,
        )
        job.points, job.weights = points, weights
        job.prepare()
        job.add(range(len(cases)))
        found = job.answer
        values = {"values": found.per_pair, "clean": found.clean, "ablated": found.ablated}
        return {**values, "by_position": found.by_position}

    return differentiated(cases, work)
