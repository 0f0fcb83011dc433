"""Attribution patching: from gradients, an estimate of what patching each node of every site would do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine import memory
from interp.engine.metrics import MetricFailed
from interp.engine.model import hooks
from interp.engine.model.interventions import unread
from interp.engine.patching import sweep
from interp.engine.transformer import network
from interp.engine.transformer.network import Network
from interp.engine.transformer.shared_prefix import paired
from interp.errors import InputError
from interp.sites import SITES, Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.sweep import Case, OnStep

ROWS = 2048  # positions that are run together: more make the matrix products no faster
CHECKED = 2  # pairs that the plain hooked forward runs too, at the first estimate on a state of a model

Sites = dict[str, list[Tensor]]  # site → one tensor for each layer


@dataclass
class Attributed:
    """Estimates of the effect of every node.

    Attributes
    ----------
    nodes
        For each case, site → ``float64 [layer, head, position]`` (z, q, k, v, pattern) or ``[layer, position]``.
    neurons
        For each case, ``float64 [layer, neuron]``, summed over positions; empty unless asked for.
    base, source
        ``float64 [case]``: the metric of the unpatched runs.
    path
        How: ``"gradients"``, or ``"hooked: why"``.
    notes
        What is worth knowing.
    """

    nodes: list[dict[str, Tensor]]
    neurons: list[Tensor]
    base: Tensor
    source: Tensor
    path: str = "gradients"
    notes: list[str] = field(default_factory=list[str])


def attribute(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    steps: int = 1,
    neurons: bool = False,
    source_model: LoadedModel | None = None,
    on_step: OnStep = lambda done, total: None,  # noqa: ARG005
) -> Attributed:
    """Estimate the effect of patching every node of every site, all at once.

    With one step the estimate is first-order at the base run, ``Σ (a_source − a_base) · ∂m/∂a``: two forwards and one
    backward. With more, the token embeddings move in a straight line from the base's to the source's, `steps` points
    of it are run, both ends included, and every node is given its part of the integral along the way that its
    activation takes, ``∫ ∂m/∂a · da``, by the trapezoidal rule. Of the nodes through which everything passes, such as
    ``resid_pre`` at all positions of one layer, the parts then sum to the difference of the two runs' metrics.

    Parameters
    ----------
    model
        The model that is differentiated.
    cases
        Pairs; those of equal length are run together.
    steps
        Points at which the gradient is taken.
    neurons
        Whether single neurons are wanted.
    source_model
        Where the source activations come from, if not from `model`; with one step only.
    on_step
        Called with pairs done and pairs in all.

    Raises
    ------
    InputError
        The metric has no gradient or failed, or autograd is off for good.
    OutOfMemory
        Not even one pair, or one step of its way, fits; raised by the command that this is part of.

    Notes
    -----
    First order: Nanda (2023), "Attribution Patching: Activation Patching At Industrial Scale"; Syed, Rager and Conmy
    (2023), "Attribution Patching Outperforms Automated Circuit Discovery". The path is that of integrated gradients
    (Sundararajan, Taly and Yan 2017) and of EAP-IG's inputs variant (Hanna, Pezzelle and Belinkov 2024, "Have Faith in
    Faithfulness"). EAP-IG multiplies the mean gradient by ``a_source − a_base``, whose sums are right at the inputs
    alone; what is integrated here is each layer's conductance (Dhamdhere, Sundararajan and Yan 2018), right at every
    layer. A path for each site by itself would need a sweep's forwards, for which the exact sweep is the better use.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("there are no gradients inside torch.inference_mode; use torch.no_grad there, or exact")
    job = _Job(model, cases, steps, neurons, source_model or model, on_step)
    try:
        return hooks.run_hooked([], job.run, gradients=True)
    except MetricFailed as error:
        reason = f"the metric {cases[0].scorer.metric.name} failed on the way: {error}"
    raise InputError(reason)


@dataclass(frozen=True)
class _Piece:
    """Pairs that are run together, and the points of the way between them, the first and last included."""

    cases: tuple[int, ...]
    first: int
    last: int

    def halves(self) -> tuple[_Piece, ...]:
        """Return two pieces, of half the pairs, or of half the way; none where there is nothing to halve."""
        if len(self.cases) > 1:
            half = len(self.cases) // 2
            return replace(self, cases=self.cases[:half]), replace(self, cases=self.cases[half:])
        if self.last - self.first > 1:
            half = (self.first + self.last) // 2
            return replace(self, last=half), replace(self, first=half)
        return ()


@dataclass
class _Recorded:
    """The runs at some points of the way between pairs, the patched run first.

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
    """

    values: Sites
    graph: Sites
    scores: Tensor
    start: int


class _Runner(Protocol):
    def ends(self, cases: Sequence[Case]) -> _Recorded:
        """Run the pairs' base and source; the base is differentiated."""
        ...

    def way(self, cases: Sequence[Case], part: Tensor) -> _Recorded:
        """Run the points at `part` of the way from base to source; all are differentiated."""
        ...


class _Lean:
    """The runs of a model that `network.read` knows."""

    def __init__(self, model: LoadedModel, source_model: LoadedModel, sites: Sequence[str]) -> None:
        self.model = model
        self.source_model = source_model
        self.sites = sites
        self.network = network.read(model)
        self.source = self.network if source_model is model else network.read(source_model)

    def ends(self, cases: Sequence[Case]) -> _Recorded:
        base, source = self._embedded(cases)
        if self.source is self.network:
            start = _start(cases)
            return self._run(cases, base[:, :start], source[None, :, start:], base[None, :, start:])
        nothing = base[:, :0]
        here = self._run(cases, nothing, base[None][:0], base[None])
        there = self._run(cases, nothing, source[None], source[None][:0], self.source)
        values = {
            site: [torch.cat(both) for both in zip(here.values[site], there.values[site], strict=True)]
            for site in self.sites
        }
        return _Recorded(values, here.graph, torch.cat([here.scores, there.scores]), 0)

    def way(self, cases: Sequence[Case], part: Tensor) -> _Recorded:
        base, source = self._embedded(cases)
        start = _start(cases)
        later = base[:, start:]
        graded = later + part.view(-1, 1, 1, 1).to(base.dtype) * (source[:, start:] - later)
        return self._run(cases, base[:, :start], graded[:0], graded)

    def _embedded(self, cases: Sequence[Case]) -> tuple[Tensor, Tensor]:
        base, source = _ids(cases, self.model.device)
        with torch.no_grad():
            return _stream(self.network, base), _stream(self.source, source)

    def _run(
        self, cases: Sequence[Case], prefix: Tensor, frozen: Tensor, graded: Tensor, of: Network | None = None
    ) -> _Recorded:
        of, start = of or self.network, prefix.shape[1]
        values: Sites = {site: [] for site in self.sites}
        graph: Sites = {site: [] for site in self.sites}

        def keep(site: str, layer: int, still: Tensor, moving: Tensor) -> None:  # noqa: ARG001
            if site in values:
                rows = moving.detach().view(len(graded), *still.shape[1:])
                values[site].append(torch.cat([rows, still]))
                graph[site].append(moving)

        ends = paired(of, prefix, frozen, graded.detach().requires_grad_(), keep)
        self.model.count(1)
        still, moving = (
            torch.stack(
                [case.scorer.of_residual(of, end[:, n, case.position - start]) for n, case in enumerate(cases)], 1
            )
            for end in ends
        )
        return _Recorded(values, graph, torch.cat([moving, still.detach()]), start)


class _Hooked:
    """The runs of any model, through its own forward."""

    def __init__(self, model: LoadedModel, source_model: LoadedModel, sites: Sequence[str]) -> None:
        self.model = model
        self.source_model = source_model
        read = [site for site in sites if not unread(model, Site(site, 0))]
        self.sites = [site for site in read if site != "resid_mid"]
        self.middle = "resid_mid" in read

    def ends(self, cases: Sequence[Case]) -> _Recorded:
        base, source = _ids(cases, self.model.device)
        here = self._run(self.model, cases, base)
        with torch.no_grad():
            there = self._run(self.source_model, cases, source)
        sites = here.values.keys() & there.values.keys()
        values = {
            site: [torch.cat(both) for both in zip(here.values[site], there.values[site], strict=True)]
            for site in sites
        }
        return _Recorded(values, here.graph, torch.cat([here.scores, there.scores]), 0)

    def way(self, cases: Sequence[Case], part: Tensor) -> _Recorded:
        base, source = _ids(cases, self.model.device)
        begin, end = self._stream(base), self._stream(source)
        graded = begin + part.view(-1, 1, 1, 1).to(begin.dtype) * (end - begin)
        return self._run(self.model, cases, base.repeat(len(part), 1), graded.flatten(0, 1))

    def _stream(self, ids: Tensor) -> Tensor:
        """Return the residual stream before layer 0, ``[pair, position, d_model]``."""
        held: list[Tensor] = []

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            held[:] = [tensor.detach()]

        self.model.forward(ids.tolist(), {Site("resid_pre", 0).hook_name: keep})
        return held[0]

    def _run(self, model: LoadedModel, cases: Sequence[Case], ids: Tensor, begin: Tensor | None = None) -> _Recorded:
        depth, recording = model.geometry.n_layers, torch.is_grad_enabled()
        held: dict[str, dict[int, Tensor]] = {site: {} for site in self.sites}

        def keep(site: str, layer: int) -> hooks.Hook:
            def read(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
                if site == "resid_pre" and layer == 0:
                    tensor = (tensor if begin is None else begin.to(tensor)).detach().requires_grad_(recording)
                held[site][layer] = tensor
                return tensor  # given back: what a hook point shows may be a copy in another shape

            return read

        points = {Site(site, layer).hook_name: keep(site, layer) for site in self.sites for layer in range(depth)}
        logits = model.forward(ids.tolist(), points, last_only=False, gradients=recording)
        logits = sweep.wide(logits).unflatten(0, (-1, len(cases)))
        scores = torch.stack([case.scorer.of_logits(logits[:, n, case.position]) for n, case in enumerate(cases)], 1)
        graph = {site: [by[n] for n in range(depth)] for site, by in held.items() if len(by) == depth}
        values = {site: [tensor.detach() for tensor in layers] for site, layers in graph.items()}
        if self.middle and {"resid_pre", "attn_out"} <= graph.keys():
            # The bridge's hook_resid_mid is the norm's input alone; what reaches the middle is what attention writes.
            both = zip(values["resid_pre"], values["attn_out"], strict=True)
            values["resid_mid"] = [before + written for before, written in both]
            graph["resid_mid"] = graph["attn_out"]
        by_point = {site: [value.unflatten(0, (-1, len(cases))) for value in layers] for site, layers in values.items()}
        return _Recorded(by_point, graph, scores, 0)


def _ids(cases: Sequence[Case], device: torch.device) -> tuple[Tensor, Tensor]:
    base, source = (torch.tensor([getattr(case, run) for case in cases], device=device) for run in ("base", "source"))
    return base, source


def _start(cases: Sequence[Case]) -> int:
    """Return the first position at which any pair differs, or the one that is asked about if that is earlier."""
    return min(min(case.start, case.position) for case in cases)


def _stream(of: Network, ids: Tensor) -> Tensor:
    return torch.stack([of.embed(prompt) for prompt in ids])


class _Job:
    """One estimate under way."""

    def __init__(
        self,
        model: LoadedModel,
        cases: Sequence[Case],
        steps: int,
        neurons: bool,
        source_model: LoadedModel,
        on_step: OnStep,
    ) -> None:
        self.model = model
        self.source_model = source_model
        self.given = tuple(cases)
        self.cases = list(cases)
        self.steps = steps
        self.neurons = neurons
        self.on_step = on_step
        names = model.bridge.hook_dict
        self.sites = [site for site in SITES if Site(site, 0).hook_name in names]
        self.answer = self._empty()

    def _empty(self) -> Attributed:
        ends = torch.full((2, len(self.given)), float("nan"), dtype=torch.float64)
        return Attributed([{} for _ in self.given], [], ends[0], ends[1])

    def run(self) -> Attributed:
        """Estimate without hooks where the network can be read, otherwise through the model's own forward."""
        for index, case in enumerate(self.given):
            if case.scorer.metric.name == "kl" and case.scorer.metric.function is None:
                self.cases[index] = sweep.unpatched(self.model, self.source_model, case)[0]
        try:
            self._all(_Lean(self.model, self.source_model, self.sites))
            self._compare()
        except network.Unreadable as reason:
            notes = self.answer.notes
            self.answer = self._empty()
            self.answer.path, self.answer.notes = f"hooked: {reason}", notes
            self._all(_Hooked(self.model, self.source_model, self.sites))
        return self.answer

    def _all(self, runner: _Runner) -> None:
        done = 0

        def run(piece: _Piece) -> None:
            nonlocal done
            self._piece(piece, runner)
            if piece.last == self._end:
                done += len(piece.cases)
                self.on_step(done, len(self.cases))

        memory.halving_pieces(self._pieces(), min(ROWS, self._rows_that_fit()), self._rows, run, self.model.device)

    @property
    def _end(self) -> int:
        """The number of the path's last point; the first is 0."""
        return max(1, self.steps - 1)

    def _pieces(self) -> Iterator[_Piece]:
        by_length: dict[int, list[int]] = {}
        for index, case in enumerate(self.cases):
            by_length.setdefault(len(case.base), []).append(index)
        for length, indices in by_length.items():
            indices.sort(key=lambda index: self.cases[index].start)  # a batch shares its shortest prefix
            size = max(1, ROWS // (length * (self._end + 1)))
            for at in range(0, len(indices), size):
                yield _Piece(tuple(indices[at : at + size]), 0, self._end)

    def _rows(self, piece: _Piece) -> int:
        return len(piece.cases) * (piece.last - piece.first + 1) * len(self.cases[piece.cases[0]].base)

    def _rows_that_fit(self) -> int:
        """Return how many positions' activations and gradients fit into half of what is free."""
        g = self.model.geometry
        length = max(len(case.base) for case in self.cases)
        wide = 16 * g.d_model + 6 * g.n_heads * length + 8 * int(getattr(self.model.bridge.cfg, "d_mlp", 0) or 0)
        return max(1, memory.free_bytes(self.model.device) // 2 // (4 * g.n_layers * wide))

    def _piece(self, piece: _Piece, runner: _Runner) -> None:
        """Add what the pairs of `piece` get over its part of the way."""
        cases = [self.cases[index] for index in piece.cases]
        if self.steps == 1:
            found = runner.ends(cases)
        else:
            part = torch.linspace(0, 1, self.steps, device=self.model.device)[piece.first : piece.last + 1]
            found = runner.way(cases, part)
        if not found.scores.requires_grad:
            raise InputError(f"the metric {cases[0].scorer.metric.name} has no gradient here; use --method exact")
        sites = [site for site in self.sites if site in found.values]
        graph = [tensor for site in sites for tensor in found.graph[site]]
        gradients = iter(torch.autograd.grad(found.scores.sum(), graph, allow_unused=True, materialize_grads=True))
        nodes: dict[str, Tensor] = {}
        singles: list[Tensor] = []
        for site in sites:
            layers: list[Tensor] = []
            for value in found.values[site]:
                moved = value[1:] - value[:1] if self.steps == 1 else _moved(value)
                product = sweep.wide(moved * next(gradients).view_as(moved)).sum(0)
                layers.append(_by_head(site, product.sum(-1)).double().cpu())
                if self.neurons and site == "neuron":
                    singles.append(product.sum(1).double().cpu())
            nodes[site] = functional.pad(torch.stack(layers, 1), (found.start, 0))
        # Only now, all at once: memory may have run out at any line above, and the piece is then done again.
        ends = found.scores.detach().double().cpu()
        self._add(piece, nodes, torch.stack(singles, 1) if singles else None, ends)

    def _add(self, piece: _Piece, found: dict[str, Tensor], singles: Tensor | None, ends: Tensor) -> None:
        answer = self.answer
        if singles is not None and not answer.neurons:
            answer.neurons = [torch.zeros(singles.shape[1:], dtype=torch.float64) for _ in self.cases]
        for row, index in enumerate(piece.cases):
            for site, values in found.items():
                held = answer.nodes[index].get(site)
                answer.nodes[index][site] = values[row] if held is None else held + values[row]
            if singles is not None:
                answer.neurons[index] += singles[row]
            if piece.first == 0:
                answer.base[index] = ends[0, row]
            if piece.last == self._end:
                answer.source[index] = ends[-1, row]

    def _compare(self) -> None:
        """Compare the metric of a few runs with the plain hooked forward's.

        Raises
        ------
        Unreadable
            They differ: the network is not what was read.
        """
        if self.model.trusted("gradients"):
            return
        worst = 0.0
        for index, case in enumerate(self.given[:CHECKED]):
            found = (self.answer.base[index], self.answer.source[index])
            both = zip(found, sweep.unpatched(self.model, self.source_model, case)[1:], strict=True)
            worst = max(worst, *(sweep.apart(float(value), float(expected)) for value, expected in both))
        if worst > sweep.TOLERANCE:
            reason = f"the forward without hooks differed by {worst:.1g} from the hooked one"
            self.answer.notes.append(f"{reason} on this model and was not used")
            raise network.Unreadable(reason)
        self.model.trust("gradients")


def _moved(value: Tensor) -> Tensor:
    """Return by how much of its way each point's gradient counts: half of the steps before and after it."""
    halves = (value[1:] - value[:-1]) / 2
    moved = torch.zeros_like(value)
    moved[:-1] += halves
    moved[1:] += halves
    return moved


def _by_head(site: str, node: Tensor) -> Tensor:
    """Return ``[case, head, position]`` or ``[case, position]``; a pattern's positions are its queries."""
    return node.transpose(1, 2) if site in {"z", "q", "k", "v"} else node
