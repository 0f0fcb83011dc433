"""One shard of a sweep, as a worker runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from interp.engine import exactness
from interp.engine.patching.driver import Outcome, contained
from interp.engine.patching.feature_plan import Features
from interp.engine.patching.features import Cells
from interp.engine.patching.path import Paths
from interp.engine.patching.sweep import Sites
from interp.engine.patching.waves import Sweep, unfinished
from interp.errors import OutOfMemory
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case
    from interp.engine.patching.planner import Planner

Found = TypeVar("Found", bound=Outcome)


def swept(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    way: exactness.Way,
    planner: Mapping[str, Any],
    shape: tuple[int, ...],
    cases: Sequence[Case],
    cells: Sequence[int],
    features: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Return what a shard gives: ``values`` and ``reached``, ``[case, cell]``, ``base`` and ``source``, ``[case]``.

    Parameters
    ----------
    models
        The model that runs, and the one whose activations are put in.
    step
        Called between waves.
    planner, shape, cases, cells, features
        As `interp.engine.patching.pooled` writes them.

    Raises
    ------
    OutOfMemory
        Not even one cell fits.
    """
    model, source_model = models
    known = features_of(model, source_model, cases, features)
    made = _planner(planner, model, source_model, shape, known)
    return done(models, step, made, way=way, shape=shape, cases=cases, cells=cells)


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
    _raise(*contained(lambda: job.shard(way), job.driver.progress))  # of a shard all is kept, or nothing
    part = {"values": job.values[:, list(cells)], "reached": job.reached[:, list(cells)]}
    return {**part, "base": found.base, "source": found.source}


def whole(found: Found) -> Found:
    """Return what ran to its end, and raise what stopped it."""
    _raise(found.stopped, found.interrupt)
    return found


def _raise(stopped: str, interrupt: BaseException | None) -> None:
    if interrupt is not None:
        raise interrupt
    if stopped:
        raise OutOfMemory(stopped)


def features_of(
    model: LoadedModel, source_model: LoadedModel, cases: Sequence[Case], part: Mapping[str, Any] | None
) -> Features | None:
    """Return the features of pairs' runs of which `Features.part` told; none where there are none."""
    if part is None:
        return None
    dictionaries = [placed(one, model) for one in part["dictionaries"]]
    return Features(model, source_model, cases, dictionaries, known=part)


def placed(one: Dictionary, model: LoadedModel) -> Dictionary:
    """Return a dictionary where a model computes."""
    return one if one.encoder.device == model.device else one.to(model.device, one.encoder.dtype)


def _planner(
    given: Mapping[str, Any],
    model: LoadedModel,
    source_model: LoadedModel,
    shape: tuple[int, ...],
    features: Features | None,
) -> Planner:
    if given["kind"] == "sites":
        return Sites(model, source_model, given["site"], given["by"], given["layers"], shape)
    if given["kind"] == "features":
        assert features is not None
        return Cells(features, given["by"])
    assert given["kind"] == "paths"
    senders, receivers = ([Node.parse(name) for name in names] for names in given["ends"])
    return Paths(model, senders, receivers, given["freeze"], features=features)
