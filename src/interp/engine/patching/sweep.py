"""A sweep of patches: one activation at a time, of every head, neuron or position of a site, from another run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.forecast.work import one_batch
from interp.engine.patching.cases import Case
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.hooked import Place, patched_logits
from interp.engine.patching.plan import Plan
from interp.engine.patching.span_plan import SpanPlan
from interp.engine.patching.waves import Sweep, Swept, unfinished
from interp.sites import SITES, Site, axes, find

if TYPE_CHECKING:
    from interp.engine.forecast.work import Stored, Work
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.base_runs import Base
    from interp.engine.transformer.network import Network


def shape_of(
    model: LoadedModel, site: str, by: str, layers: Sequence[int], length: int, spans: int = 0
) -> tuple[int, ...]:
    """Return the shape of a sweep's answer over one pair of prompts of `length` tokens, with so many spans."""
    geometry = model.geometry
    heads = geometry.n_kv_heads if find(site).kv_heads else geometry.n_heads
    sizes = {"layer": len(layers), "head": heads, "position": length, "neuron": 0, "span": spans}
    if by == "neuron":
        sizes["neuron"] = min(map(model.neurons, layers))
    return tuple(sizes[axis] for axis in axes(site, by))


def sweep(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    site: str,
    by: str,
    layers: Sequence[int],
    source_model: LoadedModel | None = None,
    cells: Sequence[int] | None = None,
    on_step: OnStep = silent,
    on_partial: Callable[[Swept], None] = lambda swept: None,  # noqa: ARG005
) -> Sweep:
    """Return what puts the source run's activation at every cell of a site into the base run, one cell at a time.

    Parameters
    ----------
    model
        The model that runs.
    cases
        Pairs; for a division by position all of one length, by span with as many spans each.
    site, by, layers
        What is swept, see `interp.patch`.
    source_model
        Where the source activations come from, if not from `model`.
    cells
        Which cells, as indices into one pair's flattened answer; all when not given.
    on_step
        Called with cells done and cells in all.
    on_partial
        Called while the sweep is empty, and before `on_step` while cells are missing: `Swept.so_far` is what can be
        kept.
    """
    swept = unfinished(len(cases), shape_of(model, site, by, layers, len(cases[0].base), len(cases[0].spans)))

    def step(done: int, total: int) -> None:
        if done < total:
            on_partial(swept)
        on_step(done, total)

    source_model = source_model or model
    planner = Sites(model, source_model, site, by, layers, tuple(swept.values.shape[1:]))
    return Sweep(
        model, cases, planner, swept, step, source_model=source_model, cells=cells, on_begin=lambda: on_partial(swept)
    )


class Sites:
    """The cells of one site."""

    rides = True
    features = None
    refusal: exactness.Refusal | None = None

    def __init__(
        self,
        model: LoadedModel,
        source_model: LoadedModel,
        site: str,
        by: str,
        layers: Sequence[int],
        shape: tuple[int, ...],
    ) -> None:
        self.model = model
        self.source_model = source_model
        self.site = site
        self.by = by
        self.layers = tuple(layers)
        self.shape = shape
        self.key: exactness.Key = ("sweep", site, by)
        self.encoders: tuple[str, ...] | None = (site,)
        self.kept: tuple[Hashable, ...] | None = (site, by, self.layers)
        self.travels: Mapping[str, Any] | None = {"kind": "sites", "site": site, "by": by, "layers": self.layers}

    def plan(self, net: Network, base: Base, source: Base, case: Case, number: int, start: int) -> Plan:
        """Return the cells of one pair, whose runs can differ from `start` on."""
        kind = Plan if self.by != "span" else partial(SpanPlan, spans=case.spans)
        return kind(
            net,
            base,
            source,
            site=self.site,
            by=self.by,
            layers=self.layers,
            case=number,
            start=start,
            stop=case.position,
        )

    def written(self) -> list[Site]:
        """Return the activations that the hooked forward writes to."""
        return [Site(self.site, layer) for layer in self.layers]

    def hooked(self, case: Case, cells: Sequence[int]) -> Tensor:
        """Return the metric of the cells of one pair, ``[cell]``, each in its own row of one batch."""
        places = [self._place(cell, case) for cell in cells]
        return case.scorer.of_logits(patched_logits(self.model, self.source_model, case, self.site, places))

    def foreseen(self, case: Case, cells: Sequence[int], stored: Stored, there: Stored) -> Work:
        """Return the work of `hooked`."""
        layers = [self._place(cell, case)[0] for cell in cells]
        for layer in sorted(set(layers)):
            there.plain(case.source, Site(self.site, layer).hook_name)
            if SITES[self.site].through:
                stored.plain(case.base, Site("resid_pre", layer).hook_name)
        return one_batch(self.model, len(cells) * len(case.base), len(cells))

    def _place(self, cell: int, case: Case) -> Place:
        """Return layer, head or neuron, and position or span of a flattened cell of a pair."""
        index = [int(n) for n in torch.unravel_index(torch.tensor(cell), self.shape)]
        named = dict(zip(axes(self.site, self.by), index, strict=True))
        at = case.spans[named["span"]] if "span" in named else named.get("position")
        return self.layers[named["layer"]], named.get("head", named.get("neuron")), at
