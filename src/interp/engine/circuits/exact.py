"""Exact scores of edges: each ablated by itself, all else as in the clean run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.circuits.edges import EdgeScores, Written, ends, left, require_one_length, written
from interp.engine.model import hooks
from interp.engine.patching import sweep
from interp.engine.patching.path import PathJob, PathPlan
from interp.engine.transformer import network
from interp.engine.transformer.incremental import Base
from interp.engine.transformer.network import Network
from interp.errors import InputError
from interp.sites import Site
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.sweep import Case, OnStep


def exact_edges(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    ablation: str = "corrupted",
    on_step: OnStep = lambda done, total: None,  # noqa: ARG005
) -> EdgeScores:
    """Ablate every edge by itself: one run of what lies above its reader for each.

    Parameters
    ----------
    cases, ablation
        As for `attribute_edges`.
    on_step
        Called with edges done and edges in all, over all pairs.

    Returns
    -------
    EdgeScores
        Complete, or with what was finished when memory ran out, a metric failed or the user interrupted.

    Raises
    ------
    InputError
        Prompts of several lengths with ``mean``; with ``mean`` or ``zero``, a model whose forward is not known here.
    """
    require_one_length(cases, ablation, positions=False)
    still: Written | None = None
    ablated = torch.full((len(cases),), float("nan"), dtype=torch.float64)
    if ablation != "corrupted":
        try:
            still, ablated = hooks.run_hooked([], lambda: _nothing_left(model, cases, ablation))
        except network.Unreadable as error:
            reason = f"{ablation} ablation needs a forward without hooks ({error}); use --ablation corrupted"
            raise InputError(reason) from None
    writers, readers = ends(model)
    swept = sweep.unfinished(len(cases), (len(writers), len(readers)))
    job = _EdgeJob(model, cases, writers, readers, "all", on_step, swept)
    job.still = still
    job.site = f"edges, {ablation} ablation"
    sweep.finished(job)
    per_pair = (swept.base[:, None, None] - swept.values).float()
    per_pair[:, ~job.exists] = float("nan")
    return EdgeScores(
        writers,
        readers,
        job.exists,
        per_pair,
        by_position=None,
        clean=swept.base,
        ablated=swept.source if still is None else ablated,
        source=swept.source,
        path=swept.path,
        notes=swept.notes,
        stopped=swept.stopped,
        interrupt=swept.interrupt,
    )


def _nothing_left(model: LoadedModel, cases: Sequence[Case], ablation: str) -> tuple[Written, Tensor]:
    """Return what ablated writers write, and the metric of a run of nothing else, ``float64 [case]``."""
    net = network.read(model)
    still = written(model, net, cases, ablation)
    found = torch.full((len(cases),), float("nan"), dtype=torch.float64)
    for n, given in enumerate(cases):
        kl = given.scorer.metric.name == "kl" and given.scorer.metric.function is None
        case = sweep.unpatched(model, model, given)[0] if kl else given
        end = left(net, still, len(case.base))
        found[n] = case.scorer.of_residual(net, end[case.position][None])[0]
    return still, found


class _EdgeJob(PathJob):
    """The ablations of single edges, all else as in the clean run."""

    still: Written | None = None

    def _plan(self, net: Network, base: Base, source: Base, index: int, start: int) -> PathPlan:
        if self.still is None:
            return super()._plan(net, base, source, index, start)
        plan = _EdgePlan(
            net,
            base,
            source,
            senders=self.senders,
            receivers=self.receivers,
            freeze=self.freeze,
            case=index,
            start=0,
            stop=self.cases[index].position,
        )
        plan.still = self.still
        return plan

    def _given(self, asked: Case, site: Site) -> Tensor:
        if self.still is None:
            return super()._given(asked, site)
        own = self.still.of(site.name, site.layer)
        return own.expand(len(asked.base), *own.shape[1:])[None]


class _EdgePlan(PathPlan):
    """Edges whose ablated value is no run's."""

    still: Written

    def _difference(self, node: Node, heads: Sequence[int]) -> Tensor:
        base, index = self.base, node.layer
        if node.kind == "embed":
            return (self.still.embed - base.resid[0])[None]
        layer = self.network.layers[index]
        if node.kind == "mlp":
            return (self.still.mlp[index] - layer.down(self._activated(base, index)))[None]
        width = (-1, self.network.n_heads, self.network.d_head)
        change = (self.still.z[index] - base.z[index].view(width))[:, heads]
        return torch.einsum("phd,mhd->hpm", change, layer.o.weight.view(width)[:, heads])
