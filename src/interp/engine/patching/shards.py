"""One shard of a sweep, as a worker runs it: from plain data to arrays, and nothing of what ran before in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine.metrics import Scorer
from interp.engine.model import hooks
from interp.engine.model.store import ActivationStore
from interp.engine.patching.cases import Case, Ids
from interp.engine.patching.driver import contained
from interp.engine.patching.path import Paths
from interp.engine.patching.sweep import Sites
from interp.engine.patching.waves import Sweep, unfinished
from interp.errors import OutOfMemory
from interp.ids import typed
from interp.metric import Metric
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.planner import Planner
    from interp.engine.pool.protocol import Asset


def run(
    head: Mapping[str, Any],
    tensors: Mapping[str, Tensor],  # noqa: ARG001  # everything stands in the head
    assets: Mapping[str, Asset],  # noqa: ARG001
    models: Sequence[LoadedModel],
    step: Callable[[], None],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a shard gives: ``values`` and ``reached``, ``[case, cell]``, ``base`` and ``source``, ``[case]``.

    Parameters
    ----------
    head
        As `interp.engine.patching.pooled` writes it.
    models
        The model that runs, and the one whose activations are put in, where that is another.
    step
        Called between steps; what it raises ends the work.

    Raises
    ------
    OutOfMemory
        Not even one cell fits.
    """
    model, source_model = models[0], models[-1]
    shape = tuple(head["shape"])
    cases = [_case(given) for given in head["cases"]]
    planner = _planner(head["planner"], model, source_model, shape)
    cells: list[int] = head["cells"]
    job = Sweep(
        model,
        cases,
        planner,
        unfinished(len(cases), shape),
        lambda done, total: step(),  # noqa: ARG005
        source_model=source_model,
        cells=cells,
    )
    before = model.forwards
    stopped, interrupt = _alone(models, lambda: contained(lambda: job.shard(head["way"]), job.driver.progress))
    if interrupt is not None:
        raise interrupt
    if stopped:
        raise OutOfMemory(stopped)
    swept = job.swept
    found = {"values": job.values[:, cells], "reached": job.reached[:, cells]}
    return {"forwards": model.forwards - before}, {**found, "base": swept.base, "source": swept.source}


def _alone(models: Sequence[LoadedModel], body: Callable[[], Any]) -> Any:
    """Call `body` on models that remember nothing and that nobody watches, with one thread: the last bits depend on
    what is computed together, and on how many do it.
    """
    stores = {model: model.store for model in models}
    operations = [model.operation for model in models if model.operation is not None]
    watchers = [operation.on_partial for operation in operations]
    threads = torch.get_num_threads()

    def begin() -> None:
        torch.set_num_threads(1)
        for model in stores:
            model.store = ActivationStore(model.store.budget)
        for operation in operations:
            operation.on_partial = None

    def end() -> None:
        torch.set_num_threads(threads)
        for model, store in stores.items():
            model.store = store
        for operation, watcher in zip(operations, watchers, strict=True):
            operation.on_partial = watcher

    return hooks.interruptible(body, before=begin, after=end)


def _planner(
    given: Mapping[str, Any], model: LoadedModel, source_model: LoadedModel, shape: tuple[int, ...]
) -> Planner:
    if given["kind"] == "sites":
        return Sites(model, source_model, given["site"], given["by"], given["layers"], shape)
    assert given["kind"] == "paths"
    senders, receivers = ([Node.parse(name) for name in names] for names in given["ends"])
    return Paths(model, senders, receivers, given["freeze"])


def _case(given: Mapping[str, Any]) -> Case:
    name, positions = given["metric"]
    return Case(
        base=_ids(given["base"]),
        source=_ids(given["source"]),
        scorer=Scorer(
            Metric(name, positions=positions),
            answer=tuple(given["answer"]),
            wrong=tuple(given["wrong"]),
            positions=given["positions"],
            following=tuple(given["following"]),
        ),
        position=given["position"],
        clean_base=given["clean_base"],
        source_position=given["source_position"],
        spans=_tuples(given["spans"]),
        aligned=_tuples(given["aligned"]),
        heard=_tuples(given["heard"]),
    )


def _ids(given: Sequence[Sequence[int]]) -> Ids:
    ids, types = given
    return typed(ids, types)


def _tuples(given: Any) -> Any:
    """Return nested lists as the tuples that they were."""
    return tuple(map(_tuples, given)) if isinstance(given, list | tuple) else given
