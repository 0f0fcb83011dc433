"""One shard of a sweep, as a worker runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.engine import exactness
from interp.engine.patching.driver import contained
from interp.engine.patching.path import Paths
from interp.engine.patching.sweep import Sites
from interp.engine.patching.waves import Sweep, unfinished
from interp.errors import OutOfMemory
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case
    from interp.engine.patching.planner import Planner


def swept(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    way: exactness.Way,
    planner: Mapping[str, Any],
    shape: tuple[int, ...],
    cases: Sequence[Case],
    cells: Sequence[int],
) -> dict[str, Tensor]:
    """Return what a shard gives: ``values`` and ``reached``, ``[case, cell]``, ``base`` and ``source``, ``[case]``.

    Parameters
    ----------
    models
        The model that runs, and the one whose activations are put in.
    step
        Called between waves.
    planner, shape, cases, cells
        As `interp.engine.patching.pooled` writes them.

    Raises
    ------
    OutOfMemory
        Not even one cell fits.
    """
    return done(models, step, _planner(planner, *models, shape), way=way, shape=shape, cases=cases, cells=cells)


def done(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    planner: Planner,
    *,
    way: exactness.Way,
    shape: tuple[int, ...],
    cases: Sequence[Case],
    cells: Sequence[int],
) -> dict[str, Tensor]:
    """Return what `swept` does, of a planner that is there."""
    model, source_model = models
    found = unfinished(len(cases), shape)

    def on_step(*_: int) -> None:
        step()

    job = Sweep(model, cases, planner, found, on_step, source_model=source_model, cells=cells)
    finish(lambda: job.shard(way), job.driver.progress)
    part = {"values": job.values[:, list(cells)], "reached": job.reached[:, list(cells)]}
    return {**part, "base": found.base, "source": found.source}


def finish(body: Any, progress: Any) -> None:
    """Call what keeps what it has, and raise what stopped it: of a shard all is kept, or nothing."""
    stopped, interrupt = contained(body, progress)
    if interrupt is not None:
        raise interrupt
    if stopped:
        raise OutOfMemory(stopped)


def _planner(
    given: Mapping[str, Any], model: LoadedModel, source_model: LoadedModel, shape: tuple[int, ...]
) -> Planner:
    if given["kind"] == "sites":
        return Sites(model, source_model, given["site"], given["by"], given["layers"], shape)
    assert given["kind"] == "paths"
    senders, receivers = ([Node.parse(name) for name in names] for names in given["ends"])
    return Paths(model, senders, receivers, given["freeze"])
