"""Attribution patching: from gradients, an estimate of what patching each node of every site would do."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from interp.engine import hooks, memory, network, sweep
from interp.engine.forward import Edit, forward
from interp.spec import SITES, InputError, Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model import LoadedModel
    from interp.engine.sweep import Case, OnStep

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
        The metric has no gradient, or autograd is off for good.
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

    Examples
    --------
    >>> attribute(model, cases).nodes[0]["z"].shape  # doctest: +SKIP
    torch.Size([12, 12, 15])
    """
    if torch.is_inference_mode_enabled():
        raise InputError("there are no gradients inside torch.inference_mode; use torch.no_grad there, or exact")
    job = _Job(model, cases, steps, neurons, source_model or model, on_step)
    return hooks.run_hooked([], job.run, gradients=True)


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
    """One run of a batch.

    Attributes
    ----------
    values
        The activations.
    graph
        What the metric is differentiated by, to have the gradient of each.
    ends
        What a runner's `score` needs, ``[row, position, …]``.
    """

    values: Sites
    graph: Sites
    ends: Tensor


class _Runner(Protocol):
    def start(self, ids: Tensor) -> Tensor:
        """Return the residual stream before layer 0, ``[row, position, d_model]``."""
        ...

    def run(self, ids: Tensor, start: Tensor | None = None) -> _Recorded:
        """Run a batch from its tokens, or from `start`."""
        ...

    def score(self, case: Case, ends: Tensor) -> Tensor:
        """Return the metric, ``[row]``, of the rows of one pair."""
        ...


class _Lean:
    """The runs of a model that `network.read` knows."""

    def __init__(self, model: LoadedModel, sites: Sequence[str]) -> None:
        self.model = model
        self.sites = sites
        self.network = network.read(model)

    def start(self, ids: Tensor) -> Tensor:
        return torch.stack([self.network.embed(prompt) for prompt in ids])

    def run(self, ids: Tensor, start: Tensor | None = None) -> _Recorded:
        held: Sites = {site: [] for site in self.sites}

        def keep(site: str) -> Edit:
            return lambda layer, tensor: held[site].append(tensor)  # noqa: ARG005

        first = self.start(ids) if start is None else start
        if torch.is_grad_enabled():
            first.requires_grad_()
        ends = forward(self.network, edits={site: keep(site) for site in self.sites}, resid=first)
        self.model.count(1)
        return _Recorded(held, held, ends)

    def score(self, case: Case, ends: Tensor) -> Tensor:
        return case.scorer.of_residual(self.network, ends[:, case.position])


class _Hooked:
    """The runs of any model, through its own forward."""

    def __init__(self, model: LoadedModel, sites: Sequence[str]) -> None:
        self.model = model
        self.sites = [site for site in sites if site != "resid_mid"]
        self.middle = "resid_mid" in sites

    def start(self, ids: Tensor) -> Tensor:
        held: list[Tensor] = []

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            held[:] = [tensor.detach()]

        self.model.forward(ids.tolist(), {Site("resid_pre", 0).hook_name: keep})
        return held[0]

    def run(self, ids: Tensor, start: Tensor | None = None) -> _Recorded:
        depth, recording = self.model.geometry.n_layers, torch.is_grad_enabled()
        held: dict[str, dict[int, Tensor]] = {site: {} for site in self.sites}

        def keep(site: str, layer: int) -> hooks.Hook:
            def read(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
                if site == "resid_pre" and layer == 0:
                    tensor = (tensor if start is None else start.to(tensor)).detach().requires_grad_(recording)
                held[site][layer] = tensor
                return tensor  # given back: what a hook point shows may be a copy in another shape

            return read

        points = {Site(site, layer).hook_name: keep(site, layer) for site in self.sites for layer in range(depth)}
        logits = self.model.forward(ids.tolist(), points, last_only=False, gradients=recording)
        fired = {site: [by[n] for n in range(depth)] for site, by in held.items() if len(by) == depth}
        graph = dict(fired)
        if self.middle and {"resid_pre", "attn_out"} <= fired.keys():
            # The bridge's hook_resid_mid is the norm's input alone; what reaches the middle is what attention writes.
            both = zip(fired["resid_pre"], fired["attn_out"], strict=True)
            fired = fired | {"resid_mid": [before + written for before, written in both]}
            graph["resid_mid"] = graph["attn_out"]
        return _Recorded(fired, graph, logits)

    def score(self, case: Case, ends: Tensor) -> Tensor:
        return case.scorer.of_logits(sweep.wide(ends[:, case.position]))


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
        self.sites = [site for site in SITES if Site(site, 0).hook_name in model.bridge.hook_dict]
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
            own = _Lean(self.model, self.sites)
            other = own if self.source_model is self.model else _Lean(self.source_model, self.sites)
            self._all(own, other)
            self._compare()
        except network.Unreadable as reason:
            notes = self.answer.notes
            self.answer = self._empty()
            self.answer.path, self.answer.notes = f"hooked: {reason}", notes
            self._all(_Hooked(self.model, self.sites), _Hooked(self.source_model, self.sites))
        return self.answer

    def _all(self, own: _Runner, other: _Runner) -> None:
        pieces = list(self._pieces())
        limit = min(ROWS, self._rows_that_fit())
        done = 0
        while pieces:
            piece = pieces.pop(0)
            rows = self._rows(piece)
            if rows > limit and (halves := piece.halves()):
                pieces[:0] = halves
                continue
            try:
                self._piece(piece, own, other)
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error) or not piece.halves():
                    raise
                traceback.clear_frames(error.__traceback__)
                memory.empty_cache(self.model.device)
                limit = rows // 2
                pieces.insert(0, piece)
                continue
            if piece.last == self._end:
                done += len(piece.cases)
                self.on_step(done, len(self.cases))

    @property
    def _end(self) -> int:
        """The number of the path's last point; the first is 0."""
        return max(1, self.steps - 1)

    def _pieces(self) -> Iterator[_Piece]:
        by_length: dict[int, list[int]] = {}
        for index, case in enumerate(self.cases):
            by_length.setdefault(len(case.base), []).append(index)
        for length, indices in by_length.items():
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

    def _piece(self, piece: _Piece, own: _Runner, other: _Runner) -> None:
        """Add what the pairs of `piece` get over its part of the way."""
        cases = [self.cases[index] for index in piece.cases]
        device = self.model.device
        base = torch.tensor([case.base for case in cases], device=device)
        source = torch.tensor([case.source for case in cases], device=device)
        if self.steps == 1:
            with torch.no_grad():
                there = other.run(source)
                arrived = _scores(other, cases, there.ends[None])
            here = own.run(base)
            scores = _scores(own, cases, here.ends[None])
            ends, points = torch.cat([scores.detach(), arrived]), 1
            target = there.values
        else:
            points = piece.last - piece.first + 1
            part = torch.linspace(0, 1, self.steps, device=device)[piece.first : piece.last + 1]
            with torch.no_grad():
                start, stop = own.start(base), own.start(source)
                way = start + part.view(-1, 1, 1, 1).to(start.dtype) * (stop - start)
            here = own.run(base.repeat(points, 1), way.flatten(0, 1))
            scores = _scores(own, cases, here.ends.unflatten(0, (points, len(cases))))
            ends, target = scores.detach(), None
        if not scores.requires_grad:
            raise InputError(f"the metric {cases[0].scorer.metric.name} has no gradient here; use --method exact")
        sites = [site for site in self.sites if site in here.values and (target is None or site in target)]
        graph = [tensor for site in sites for tensor in here.graph[site]]
        gradients = iter(torch.autograd.grad(scores.sum(), graph, allow_unused=True, materialize_grads=True))
        found: dict[str, Tensor] = {}
        singles: list[Tensor] = []
        for site in sites:
            layers: list[Tensor] = []
            for layer, value in enumerate(here.values[site]):
                gradient, value = next(gradients), value.detach()
                moved = _moved(value, points) if target is None else target[site][layer] - value
                product = sweep.wide(moved * gradient).unflatten(0, (points, len(cases))).sum(0)
                layers.append(_by_head(site, product.sum(-1)).double().cpu())
                if self.neurons and site == "neuron":
                    singles.append(product.sum(1).double().cpu())
            found[site] = torch.stack(layers, 1)
        # Only now, all at once: memory may have run out at any line above, and the piece is then done again.
        self._add(piece, found, torch.stack(singles, 1) if singles else None, ends.double().cpu())

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


def _scores(runner: _Runner, cases: Sequence[Case], ends: Tensor) -> Tensor:
    """Return the metric of runs ``[point, case, position, …]``, as ``[point, case]``."""
    return torch.stack([runner.score(case, ends[:, row]) for row, case in enumerate(cases)], 1)


def _moved(value: Tensor, points: int) -> Tensor:
    """Return by how much of its way each point's gradient counts: half of the steps before and after it."""
    along = value.unflatten(0, (points, -1))
    halves = (along[1:] - along[:-1]) / 2
    moved = torch.zeros_like(along)
    moved[:-1] += halves
    moved[1:] += halves
    return moved.flatten(0, 1)


def _by_head(site: str, node: Tensor) -> Tensor:
    """Return ``[case, head, position]`` or ``[case, position]``; a pattern's positions are its queries."""
    return node.transpose(1, 2) if site in {"z", "q", "k", "v"} else node
