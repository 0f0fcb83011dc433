"""Attribution patching: from gradients, an estimate of what patching each node of every site would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine import exactness, memory
from interp.engine.forecast.work import NOTHING, Work
from interp.engine.metrics import upcast
from interp.engine.patching import attribution_pooled
from interp.engine.patching.cases import Case, measured, ready, unpatched_differ
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.gradients import differentiated, over_cases, require_slope
from interp.engine.patching.noise import measured_noise
from interp.engine.patching.recorded import HookedRuns, LeanRuns, Recorded, Runner
from interp.engine.patching.runs import keep_end
from interp.engine.pool import sharing
from interp.sites import SITES

if TYPE_CHECKING:
    from interp.engine.features.places import Place
    from interp.engine.memory import Stretch
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool


@dataclass
class Attributed:
    """Estimates of the effect of every node.

    Attributes
    ----------
    kept
        The numbers of the cases that these are estimates of: all, unless it was stopped; an axis of cases is theirs.
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
    stopped, interrupt
        Why it ended early, or an empty string, and the interrupt that ended it.
    """

    kept: tuple[int, ...]
    nodes: list[dict[str, Tensor]]
    neurons: list[Tensor]
    base: Tensor
    source: Tensor
    path: str = "gradients"
    notes: list[str] = field(default_factory=list[str])
    stopped: str = ""
    interrupt: KeyboardInterrupt | None = None


def attribute(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    steps: int = 1,
    neurons: bool = False,
    asked: str = "neuron",
    source_model: LoadedModel | None = None,
    on_step: OnStep = silent,
) -> Attributed:
    """Estimate the effect of patching every node of every site, all at once.

    With one step the estimate is first-order at the base run, ``Σ (a_source − a_base) · ∂m/∂a``: two forwards and one
    backward. With more, the token embeddings move in a straight line from the base's to the source's, `steps` points
    of it are run, both ends included, and every node is given its part of the integral along the way that its
    activation takes, ``∫ ∂m/∂a · da``, by the trapezoidal rule. Of the nodes through which everything passes, such as
    ``resid_pre`` at all positions of one layer, the parts then sum to the difference of the two runs' metrics.

    Of pairs that are aligned by spans (`Case.aligned`), ``a_source`` is what the exact sweep puts in, and positions
    that are given nothing have no effect. The way then ends in the base run with the aligned embeddings; what an
    activation is there is not yet what it is given, and the rest is spread evenly over the way. Patterns are left out:
    their keys have no counterparts.

    Parameters
    ----------
    model
        The model that is differentiated.
    cases
        Pairs; those of equal length are run together, and of those that are aligned, of equal lengths of both prompts.
    steps
        Points at which the gradient is taken.
    neurons
        Whether single neurons are wanted.
    asked
        The site that must be among those estimated; its single neurons are the wanted ones.
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
    return Job(model, cases, steps, neurons, asked, source_model or model, on_step).run()


class Job:
    """One estimate under way."""

    def __init__(
        self,
        model: LoadedModel,
        cases: Sequence[Case],
        steps: int,
        neurons: bool,
        asked: str,
        source_model: LoadedModel,
        on_step: OnStep,
    ) -> None:
        self.model = model
        self.source_model = source_model
        self.given = tuple(cases)
        self.cases = list(cases)
        self.steps = steps
        self.asked = asked
        self.neurons = neurons
        self.on_step = on_step
        self.sites = model.sites
        self.reads: tuple[Place, ...] = ()  # where dictionaries of features read that the runs are to show
        self.answer, self.done = self._empty()
        self.pool: Pool | None = None
        self.compared: Sequence[int] = ()  # the pairs of which some are compared; all where it is empty
        self.where = ""  # what a provenance adds of shards

    def _empty(self) -> tuple[Attributed, Tensor]:
        count = len(self.given)
        ends = torch.full((2, count), float("nan"), dtype=torch.float64)
        empty = Attributed(tuple(range(count)), [{} for _ in self.given], [], ends[0], ends[1])
        return empty, torch.zeros(count, dtype=torch.bool)

    def run(self) -> Attributed:
        """Estimate without hooks where the network can be read, otherwise through the model's own forward.

        In the command's pool, where there is one.
        """
        return differentiated(self.given, self._run)

    def _run(self) -> Attributed:
        self.pool = sharing.pool_of(self.model, self.source_model, metric=self.given[0].scorer.metric)
        if self.pool is None:
            self.cases = ready(self.model, self.source_model, self.given)
        exactness.run(
            self.model,
            self.key if self.pool is None else (*self.key, self.pool.name),
            lean=self._without_hooks,
            hooked=self._with_hooks,
            sample=self._sample,
            length=max(len(case.base) for case in self.given),
            noise=lambda: measured_noise(self.model, self.source_model, self.given).relative,
        )
        self.answer.path += self.where
        return self._finished()

    @property
    def key(self) -> exactness.Key:
        """What is compared with the hooked forward once."""
        return ("gradients", self.steps, *measured(self.given, self.model, self.source_model))

    def _sample(self) -> Iterator[float]:
        done = self.done.nonzero()[:, 0].tolist()
        some = [number for number in self.compared if self.done[number]] or done
        base, source = self.answer.base[some], self.answer.source[some]
        return unpatched_differ(self.model, self.source_model, [self.given[n] for n in some], base, source)

    def _finished(self) -> Attributed:
        """Return the estimates of the pairs that are done."""
        answer, kept = self.answer, self.done.nonzero()[:, 0].tolist()
        return replace(
            answer,
            kept=tuple(kept),
            nodes=[answer.nodes[number] for number in kept],
            neurons=[answer.neurons[number] for number in kept] if answer.neurons else [],
            base=answer.base[kept],
            source=answer.source[kept],
        )

    def _without_hooks(self, check: exactness.Check) -> None:
        exactness.require_known(self.asked)
        runs = LeanRuns(self.model, self.source_model, self.sites, self.reads)
        longest = max(range(len(self.cases)), key=lambda number: len(self.cases[number].base))

        def step(done: int, total: int) -> None:
            if self.done[longest]:  # as soon as it says enough: a stop does not wait for it then
                check()
            self.on_step(done, total)

        self._all("lean", runs, step, check)
        check(stopped=self.answer.interrupt is not None)

    def _with_hooks(self, fallback: exactness.Fallback) -> None:
        self.answer, self.done = self._empty()
        self.answer.path, self.answer.notes = fallback.path, list(fallback.notes)
        self._all("hooked", HookedRuns(self.model, self.source_model, self.sites, self.reads), self.on_step)

    def _all(
        self, way: exactness.Way, runner: Runner, step: OnStep, check: exactness.Check = exactness.unchecked
    ) -> None:
        try:
            if self.pool is not None:
                attribution_pooled.run(self, self.pool, way, check)
            else:
                self.over(lambda piece: self._piece(piece, runner), step)
        except KeyboardInterrupt as interrupt:  # caught here: what is kept is compared as a whole answer is
            if not self.done.any():
                raise
            self.answer.interrupt = interrupt
            self.answer.stopped = f"interrupted after {int(self.done.sum())}/{len(self.cases)} pairs"

    def over(self, run: Callable[[Stretch], None], step: OnStep) -> None:
        """Call `run` with all pairs, as many at a time as are differentiated together."""
        over_cases(
            self.model,
            self.cases,
            run,
            last=self.last,
            closed=True,
            limit=min(memory.GRADIENT_ROWS, self._rows_that_fit()),
            on_step=step,
        )

    @property
    def last(self) -> int:
        """The number of the path's last point; the first is 0."""
        return max(1, self.steps - 1)

    def _rows_that_fit(self) -> int:
        """Return how many positions' activations and gradients fit into half of what is free."""
        g = self.model.geometry
        length = max(max(len(case.base), len(case.source)) for case in self.cases)
        width = 16 * g.d_model + 6 * g.n_heads * length + 8 * self.model.neurons()
        return max(1, memory.free_bytes(self.model.device) // 2 // (4 * g.n_layers * width))

    def _piece(self, piece: Stretch, runner: Runner) -> None:
        """Add what the pairs of `piece` get over its part of the way."""
        cases = [self.cases[index] for index in piece.cases]
        if self.steps == 1:
            found = runner.ends(cases)
        else:
            part = torch.linspace(0, 1, self.steps, device=self.model.device)[piece.first : piece.last + 1]
            found = runner.way(cases, part)
        require_slope(found.scores, cases)
        nodes, singles = self._nodes(found, piece)
        # Only now, all at once: memory may have run out at any line above, and the piece is then done again.
        ends = found.scores.detach().double().cpu()
        if found.ends is not None:
            self._keep(piece, found.ends)
        self._add(piece, nodes, singles, ends)

    def asks(self, numbers: Sequence[int]) -> dict[str, Any]:  # noqa: ARG002
        """Return what makes an estimate of some of the pairs in another process."""
        return {"steps": self.steps, "neurons": self.neurons, "asked": self.asked}

    def beside(self, rows: int) -> Work:  # noqa: ARG002
        """Return the work of what is done at `rows` differentiated positions beside running them."""
        return NOTHING

    def _nodes(self, found: Recorded, piece: Stretch) -> tuple[dict[str, Tensor], Tensor | None]:  # noqa: ARG002
        """Return site → what its nodes get, ``[case, …]``, and of single neurons, ``[case, layer, neuron]``."""
        sites = [site for site in self.sites if site in found.values]
        graph = [tensor for site in sites for tensor in found.graph[site]]
        gradients = iter(torch.autograd.grad(found.scores.sum(), graph, allow_unused=True, materialize_grads=True))
        nodes: dict[str, Tensor] = {}
        singles: list[Tensor] = []
        for site in sites:
            layers: list[Tensor] = []
            for value in found.values[site]:
                moved = value[1:] - value[:1] if self.steps == 1 else _moved(value)
                product = upcast(moved * next(gradients).view_as(moved)).sum(0)
                layers.append(_by_head(site, product.sum(-1)).double().cpu())
                if self.neurons and site == self.asked:
                    singles.append(product.sum(1).double().cpu())
            nodes[site] = functional.pad(torch.stack(layers, 1), (found.start, 0))
        return nodes, torch.stack(singles, 1) if singles else None

    def _keep(self, piece: Stretch, ends: Tensor) -> None:
        """Store where unpatched runs end."""
        for row, case in enumerate(self.cases[index] for index in piece.cases):
            if piece.first == 0 and case.position == len(case.base) - 1:
                keep_end(self.model, case.base, ends[0, row])
            if piece.last == self.last and case.source_position == len(case.source) - 1:
                keep_end(self.source_model, case.source, ends[-1, row])

    def _add(self, piece: Stretch, found: dict[str, Tensor], singles: Tensor | None, ends: Tensor) -> None:
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
            if piece.last == self.last:
                answer.source[index] = ends[-1, row]
                self.done[index] = True


def _moved(value: Tensor) -> Tensor:
    """Return by how much of its way each point's gradient counts: half of the steps before and after it."""
    halves = (value[1:] - value[:-1]) / 2
    moved = torch.zeros_like(value)
    moved[:-1] += halves
    moved[1:] += halves
    return moved


def _by_head(site: str, node: Tensor) -> Tensor:
    """Return ``[case, head, position]`` or ``[case, position]``; a pattern's positions are its queries."""
    return node.transpose(1, 2) if SITES[site].headed and not SITES[site].heads_first else node
