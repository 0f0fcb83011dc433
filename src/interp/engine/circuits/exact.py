"""Exact scores of edges: each ablated by itself, all else as in the clean run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.circuits.edges import EdgeScores, Written, corrupted, ends, left, require_one_length, written
from interp.engine.model import hooks
from interp.engine.patching.aligned import aligned_to, put
from interp.engine.patching.cases import Case, measured, ready, unpatched
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.path import PathPlan, Paths
from interp.engine.patching.waves import Sweep, unfinished
from interp.engine.transformer import network
from interp.engine.transformer.base_runs import Base
from interp.engine.transformer.network import Network
from interp.sites import Site
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.forecast.work import Stored, Work
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Aligned


def exact_edges(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    ablation: str = "corrupted",
    on_step: OnStep = silent,
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
    constant: Written | None = None
    refusal: exactness.Refusal | None = None
    ablated = torch.full((len(cases),), float("nan"), dtype=torch.float64)
    if ablation != "corrupted":
        refusal = exactness.Refusal(f"{ablation} ablation of edges is done", "use --ablation corrupted")
        constant, ablated = hooks.guarded(lambda: _nothing_left(model, cases, ablation, refusal))
    planner = edge_paths(model, ablation, constant, refusal)
    writers, readers = list(planner.senders), list(planner.receivers)
    swept = unfinished(len(cases), (len(writers), len(readers)))
    Sweep(model, cases, planner, swept, on_step).run()
    exists = planner.exists
    per_pair = (swept.base[:, None, None] - swept.values).float()
    per_pair[:, ~exists] = float("nan")
    return EdgeScores(
        writers,
        readers,
        exists,
        per_pair,
        by_position=None,
        clean=swept.base,
        ablated=swept.source if constant is None else ablated,
        source=swept.source,
        path=swept.path,
        notes=swept.notes,
        stopped=swept.stopped,
        interrupt=swept.interrupt,
    )


def edge_paths(
    model: LoadedModel, ablation: str, constant: Written | None, refusal: exactness.Refusal | None = None
) -> Paths:
    """Return the edges as paths; what ablated writers write is `constant` where it is no run's."""
    writers, readers = ends(model)
    planner = _Aligned(model, writers, readers, "all")
    if ablation != "corrupted":
        given = None if constant is None else functools.partial(_given, constant)
        make = functools.partial(_EdgePlan, constant=constant)
        planner = Paths(model, writers, readers, "all", make=make, given=given, refusal=refusal)
    planner.key = ("edges", ablation)
    planner.travels = {"job": "edges", "ablation": ablation, "constant": constant}
    return planner


def planned(model: LoadedModel, cases: Sequence[Case], ablation: str) -> Sweep:
    """Return the sweep of all edges, to be looked at: what ablated writers write is not in it."""
    planner = edge_paths(model, ablation, None)
    return Sweep(model, cases, planner, unfinished(len(cases), tuple(planner.exists.shape)), silent)


def key_of(model: LoadedModel, cases: Sequence[Case]) -> exactness.Key:
    """Return what is compared of what is left without edges, once."""
    return ("ablated edges", *measured(cases, model, model))


def _nothing_left(
    model: LoadedModel, cases: Sequence[Case], ablation: str, refusal: exactness.Refusal
) -> tuple[Written, Tensor]:
    """Return what ablated writers write, and the metric of a run of nothing else, ``float64 [case]``."""
    asked = ready(model, model, cases)
    few = asked[: exactness.sample_of(model)]

    def lean(check: exactness.Check) -> tuple[Written, Tensor]:
        net = network.read(model)
        check()
        constant = written(model, net, cases, ablation)
        found = torch.full((len(cases),), float("nan"), dtype=torch.float64)
        for n, case in enumerate(asked):
            end = left(net, constant, len(case.base))
            found[n] = case.scorer.of_residual(net, end[case.position][None])[0]
        return constant, found

    return exactness.run(
        model,
        key_of(model, cases),
        lean=lean,
        hooked=refusal,
        sample=lambda: (
            exactness.difference(found, unpatched(model, model, case)[2])
            for found, case in zip(corrupted(model, network.read(model), few), few, strict=True)
        ),
        length=max(len(case.base) for case in few),
    ).answer


def _given(constant: Written, case: Case, site: Site) -> Tensor:
    own = constant.of(site.name, site.layer)
    return own.expand(len(case.base), *own.shape[1:])[None]


class _Aligned(Paths):
    """Edges that carry the corrupted run's values, aligned to the clean run where a pair has two lengths."""

    def plan(self, net: Network, base: Base, source: Base, case: Case, number: int, start: int) -> PathPlan:
        """Return the edges of one pair, whose runs can differ from `start` on."""
        if case.aligned is None:
            return super().plan(net, base, source, case, number, start)
        own: dict[str, Any] = {"senders": self.senders, "receivers": self.receivers, "freeze": self.freeze}
        return _EdgePlan(net, base, source, **own, case=number, stop=case.position, aligned=case.aligned)

    def foreseen(self, case: Case, cells: Sequence[int], stored: Stored, there: Stored) -> Work:
        """Return the work of `hooked`."""
        placed = [divmod(cell, len(self.receivers)) for cell in cells]
        sent = any(self.senders[row].kind == "embed" and self.exists[row, column] for row, column in placed)
        if case.aligned is not None and sent:  # what heads and MLPs write is read to be frozen in any case
            stored.plain(case.base, Site("resid_pre", 0).hook_name)
        return super().foreseen(case, cells, stored, there)

    def _of_source(self, asked: Case, site: Site) -> Tensor:
        given = super()._of_source(asked, site)
        if asked.aligned is None:
            return given
        return aligned_to(self.model.activations_of(asked.base, [site.hook_name])[site.hook_name], given, [asked])


class _EdgePlan(PathPlan):
    """Edges whose ablated value is no run's, and so differs from the first position on.

    Parameters
    ----------
    constant, aligned
        What ablated writers write, or how the source run is aligned that writes it.
    """

    def __init__(
        self, *runs: Any, constant: Written | None = None, aligned: Aligned | None = None, **options: Any
    ) -> None:
        super().__init__(*runs, **(options | {"start": 0}))
        self.constant = constant
        self.aligned = aligned

    def _difference(self, node: Node, heads: Sequence[int]) -> Tensor:
        site = {"embed": "resid_pre", "mlp": "mlp_out"}.get(node.kind, "z")
        index, own = node.layer, self._written_in(self.base, site, node.layer)
        if self.aligned is not None:
            ablated = put(own, self._written_in(self.source, site, index), self.aligned)
        else:
            assert self.constant is not None
            ablated = self.constant.of(site, index)
        if site != "z":
            return (ablated - own)[None]
        layer, change = self.network.layers[index], (ablated - own)[:, heads]
        return layer.rewritten(own, torch.einsum("phd,mhd->hpm", change, layer.head_weights(heads)))

    def _written_in(self, run: Base, site: str, index: int) -> Tensor:
        """Return what is written in a run, ``[position, …]``."""
        if site == "resid_pre":
            return run.resid[0]
        if site == "z":
            return run.z[index]
        layer = self.network.layers[index]
        return layer.mlp(layer.mlp_reads(run.resid[index], run.mid[index]))
