"""Runs of pairs whose activations are kept, with the graph to differentiate a metric by: without hooks, and with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from interp.engine.exactness import Unreadable
from interp.engine.features.edits import shown
from interp.engine.features.places import Place, flat
from interp.engine.metrics import upcast
from interp.engine.model import hooks
from interp.engine.model.interventions import composed, unread
from interp.engine.patching.aligned import aligned_to, given_at
from interp.engine.patching.cases import Case, Ids
from interp.engine.transformer import network
from interp.engine.transformer.network import Network
from interp.engine.transformer.shared_prefix import paired
from interp.sites import MLP_INPUTS, SITES, Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

Sites = dict[str, list[Tensor]]  # site → one tensor for each layer


@dataclass
class Recorded:
    """The runs at some points of the way between pairs, the patched run first.

    Of pairs that are aligned, what the source run has stands where the base run is given it, and what that is not given
    stands still; the way ends in the base run with all its embeddings put in, and each activation goes on from there
    to what the source run has.

    Attributes
    ----------
    values
        The activations, ``[point, pair, position, …]`` from position `start` on (patterns: ``[…, head, query, key]``).
    graph
        What the metric is differentiated by, to have each one's gradient at the points where that is taken.
    scores
        The metric, ``[point, pair]``; it is differentiated at the same points.
    start
        The first position at which the pairs differ; what is before it has no effect.
    ends
        ``[point, pair, d_model]``: the stream after the last layer at the position asked about; ``None`` with hooks.
    read
        What dictionaries of features read at places, ``[point, pair, position, width]`` from position `start` on.
    """

    values: Sites
    graph: Sites
    scores: Tensor
    start: int
    ends: Tensor | None = None
    read: Mapping[Place, Tensor] = field(default_factory=dict[Place, Tensor])


class Runner(Protocol):
    def ends(self, cases: Sequence[Case]) -> Recorded:
        """Run the pairs' base and source; the base is differentiated."""
        ...

    def way(self, cases: Sequence[Case], part: Tensor) -> Recorded:
        """Run the points at `part` of the way from base to source; all are differentiated."""
        ...


class LeanRuns:
    """The runs of a model that `network.read` knows.

    Parameters
    ----------
    reads
        Where dictionaries read that is wanted, too.
    """

    def __init__(
        self, model: LoadedModel, source_model: LoadedModel, sites: Sequence[str], reads: Sequence[Place] = ()
    ) -> None:
        self.model = model
        self.source_model = source_model
        self.network = network.read(model, half=True, encoders=())
        self.source = self.network if source_model is model else network.read(source_model, half=True, encoders=())
        self.sites = [site for site in sites if site not in self.network.normed]
        self.reads = {place: "mlp_in" if place.point in MLP_INPUTS else place.point for place in reads}
        lacking = self.network.normed.intersection(self.reads.values())
        if lacking:
            raise Unreadable(f"its hooks show {min(lacking)} normed, as part of the stream")

    def ends(self, cases: Sequence[Case]) -> Recorded:
        base, source = self._embedded(cases)
        if self.source is self.network and cases[0].aligned is None:
            start = self._start(cases)
            return self._run(cases, base[:, :start], source[None, :, start:], base[None, :, start:])
        here = self._run(cases, base[:, :0], base[None][:0], base[None])
        return _with_source(here, self._there(cases, source), cases)

    def way(self, cases: Sequence[Case], part: Tensor) -> Recorded:
        base, source = self._embedded(cases)
        if cases[0].aligned is not None:
            end = aligned_to(base, source, cases)
            graded = base + part.view(-1, 1, 1, 1).to(base.dtype) * (end - base)
            way = self._run(cases, base[:, :0], graded[:0], graded)
            last = self._run(cases, base[:, :0], end[None], graded[:0])
            return _to_source(way, last, self._there(cases, source), cases, part)
        start = self._start(cases)
        later = base[:, start:]
        graded = later + part.view(-1, 1, 1, 1).to(base.dtype) * (source[:, start:] - later)
        return self._run(cases, base[:, :start], graded[:0], graded)

    def _there(self, cases: Sequence[Case], source: Tensor) -> Recorded:
        """Return the pairs' source runs by themselves."""
        ends = [case.source_position for case in cases]
        return self._run(cases, source[:, :0], source[None], source[None][:0], self.source, ends)

    def _embedded(self, cases: Sequence[Case]) -> tuple[Tensor, Tensor]:
        base, source = _ids(cases)
        with torch.no_grad():
            return self.network.begin(base), self.source.begin(source)

    def _start(self, cases: Sequence[Case]) -> int:
        """Return the first position at which any pair's runs differ, or one that is measured if that is earlier."""
        return 0 if self.network.both_ways else min(case.first for case in cases)

    def _run(
        self,
        cases: Sequence[Case],
        prefix: Tensor,
        frozen: Tensor,
        graded: Tensor,
        of: Network | None = None,
        asked: Sequence[int] = (),
    ) -> Recorded:
        of, start = of or self.network, prefix.shape[1]
        asked = asked or [case.position for case in cases]
        values: Sites = {site: [] for site in self.sites}
        graph: Sites = {site: [] for site in self.sites}
        read: dict[Place, Tensor] = {}

        def keep(site: str, layer: int, fixed: Tensor, moving: Tensor) -> None:
            there = [place for place, own in self.reads.items() if (own, place.layer) == (site, layer)]
            if site not in values and not there:
                return
            value = torch.cat([moving.detach().view(len(graded), *fixed.shape[1:]), fixed])
            if site in values:
                values[site].append(value)
                graph[site].append(moving)
            for place in there:
                read[place] = shown(of, place, value)

        ends = paired(of, prefix, frozen, graded.detach().requires_grad_(), keep)
        self.model.count(1)
        last = [
            torch.stack([end[:, n, position - start] for n, position in enumerate(asked)], 1) for end in ends
        ]  # frozen, graded
        fixed, moving = (
            torch.stack(
                [
                    case.scorer.of_residual(of, case.scorer.measured(end[:, n], position - start))
                    for n, (case, position) in enumerate(zip(cases, asked, strict=True))
                ],
                1,
            )
            for end in ends
        )
        both = torch.cat([last[1].detach(), last[0]])
        return Recorded(values, graph, torch.cat([moving, fixed.detach()]), start, both, read)


class HookedRuns:
    """The runs of any model, through its own forward; the parameters are those of `LeanRuns`."""

    def __init__(
        self, model: LoadedModel, source_model: LoadedModel, sites: Sequence[str], reads: Sequence[Place] = ()
    ) -> None:
        self.model = model
        self.source_model = source_model
        self.reads = tuple(reads)
        read = [site for site in sites if not unread(model, Site(site, 0))]
        self.sites = [site for site in read if site != "resid_mid"]
        self.middle = "resid_mid" in read

    def ends(self, cases: Sequence[Case]) -> Recorded:
        base, source = _ids(cases)
        here = self._run(self.model, cases, base)
        return _with_source(here, self._there(cases, source), cases)

    def way(self, cases: Sequence[Case], part: Tensor) -> Recorded:
        base, source = _ids(cases)
        begin, end = self._stream(base), self._stream(source)
        aligned = cases[0].aligned is not None
        end = aligned_to(begin, end, cases) if aligned else end
        graded = begin + part.view(-1, 1, 1, 1).to(begin.dtype) * (end - begin)
        way = self._run(self.model, cases, base * len(part), graded.flatten(0, 1))
        if not aligned:
            return way
        with torch.no_grad():
            last = self._run(self.model, cases, base, end)
        return _to_source(way, last, self._there(cases, source), cases, part)

    def _there(self, cases: Sequence[Case], source: list[Ids]) -> Recorded:
        """Return the pairs' source runs by themselves."""
        with torch.no_grad():
            return self._run(self.source_model, cases, source, asked=[case.source_position for case in cases])

    def _stream(self, ids: list[Ids]) -> Tensor:
        """Return the residual stream before layer 0, ``[pair, position, d_model]``."""
        held: list[Tensor] = []

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            held[:] = [tensor.detach()]

        self.model.forward(ids, {Site("resid_pre", 0).hook_name: keep})
        return held[0]

    def _run(
        self,
        model: LoadedModel,
        cases: Sequence[Case],
        ids: list[Ids],
        begin: Tensor | None = None,
        asked: Sequence[int] = (),
    ) -> Recorded:
        asked = asked or [case.position for case in cases]
        depth, recording = model.geometry.n_layers, torch.is_grad_enabled()
        held: dict[str, dict[int, Tensor]] = {site: {} for site in self.sites}

        def keep(site: str, layer: int) -> hooks.Hook:
            def read(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
                if site == "resid_pre" and layer == 0:
                    tensor = (tensor if begin is None else begin.to(tensor)).detach().requires_grad_(recording)
                held[site][layer] = tensor
                if site == "resid_pre":
                    hooks.stoppable(tensor)
                return tensor  # given back: what a hook point shows may be a copy in another shape

            return read

        seen: dict[Place, Tensor] = {}

        def look(place: Place) -> hooks.Hook:
            def read(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                seen[place] = flat(place, tensor.detach())

            return read

        points = {Site(site, layer).hook_name: keep(site, layer) for site in self.sites for layer in range(depth)}
        for place in self.reads:  # after what is kept: that may put another stream there
            name = place.hook(model)
            points[name] = composed([points[name], look(place)]) if name in points else look(place)
        logits = model.forward(ids, points, last_only=False, gradients=recording)
        logits = upcast(logits).unflatten(0, (-1, len(cases)))
        each = enumerate(zip(cases, asked, strict=True))
        measured = [case.scorer.measured(logits[:, n], position) for n, (case, position) in each]
        scores = torch.stack([case.scorer.of_logits(own) for case, own in zip(cases, measured, strict=True)], 1)
        graph = {site: [by[n] for n in range(depth)] for site, by in held.items() if len(by) == depth}
        values = {site: [tensor.detach() for tensor in layers] for site, layers in graph.items()}
        if self.middle and {"resid_pre", "attn_out"} <= graph.keys():
            # The bridge's hook_resid_mid is the norm's input alone; what reaches the middle is what attention writes.
            both = zip(values["resid_pre"], values["attn_out"], strict=True)
            values["resid_mid"] = [before + written for before, written in both]
            graph["resid_mid"] = graph["attn_out"]
        by_point = {site: [value.unflatten(0, (-1, len(cases))) for value in layers] for site, layers in values.items()}
        read = {place: tensor.unflatten(0, (-1, len(cases))) for place, tensor in seen.items()}
        return Recorded(by_point, graph, scores, 0, read=read)


def _with_source(here: Recorded, there: Recorded, cases: Sequence[Case]) -> Recorded:
    """Return the base runs, and behind them the source runs, aligned to them."""
    values = {
        site: [
            torch.cat([own, _aligned(own, given, cases)]) for own, given in zip(layers, there.values[site], strict=True)
        ]
        for site, layers in here.values.items()
        if site in there.values and _lines_up(site, cases)
    }
    scores = torch.cat([here.scores, there.scores.detach()])
    ends = None if here.ends is None or there.ends is None else torch.cat([here.ends, there.ends])
    return Recorded(values, here.graph, scores, 0, ends)


def _to_source(way: Recorded, last: Recorded, there: Recorded, cases: Sequence[Case], part: Tensor) -> Recorded:
    """Return a way that goes on, in each activation, from what it is at the last point to what it is given."""
    given_there = given_at(cases, part.device)
    values: Sites = {}
    for site in way.values:
        if site not in there.values or not _lines_up(site, cases):
            continue
        values[site] = []
        for own, end, given in zip(way.values[site], last.values[site], there.values[site], strict=True):
            shape = (-1, *[1] * (own.dim() - 1))
            on = part.view(shape).to(own.dtype) * (_aligned(end, given, cases) - end)
            moving = given_there.view(1, *given_there.shape, *[1] * (own.dim() - 3))
            values[site].append(torch.where(moving, own + on, end))
    scores = torch.cat([way.scores, there.scores.detach()])
    ends = None if way.ends is None or there.ends is None else torch.cat([way.ends, there.ends])
    return Recorded(values, way.graph, scores, 0, ends)


def _aligned(own: Tensor, given: Tensor, cases: Sequence[Case]) -> Tensor:
    """Return what the source runs have, ``[1, pair, position, …]``, at the base runs' positions."""
    return given if cases[0].aligned is None else aligned_to(own[0], given[0], cases)[None]


def _lines_up(site: str, cases: Sequence[Case]) -> bool:
    """Whether a site has a row for each position: a pattern has one for each query, over keys that differ in number."""
    return cases[0].aligned is None or not SITES[site].heads_first


def _ids(cases: Sequence[Case]) -> tuple[list[Ids], list[Ids]]:
    return [case.base for case in cases], [case.source for case in cases]
