"""Scores of all edges at once, estimated from gradients: edge attribution patching, with and without an integral."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.engine import exactness, memory
from interp.engine.circuits.edge_products import EdgeProducts, Estimate
from interp.engine.circuits.edges import EdgeScores, corrupted, ends, require_one_length, written
from interp.engine.patching.cases import Case, measured, ready, unpatched_differ
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.gradients import differentiated, over_cases
from interp.engine.patching.path import reaching
from interp.engine.transformer import network

if TYPE_CHECKING:
    from interp.engine.memory import Stretch
    from interp.engine.model.loaded import LoadedModel


def attribute_edges(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    ablation: str = "corrupted",
    steps: int = 1,
    positions: bool = False,
    on_step: OnStep = silent,
) -> EdgeScores:
    """Estimate from gradients what ablating each edge would do, all edges at once.

    The estimate is ``(writer_clean − writer_ablated) · ∂m/∂(reader's input)``, summed over positions. With one step
    (EAP) the gradient is the clean run's. With more (EAP-IG) it is an integral's mean, by Gauss-Legendre quadrature:

    - ``corrupted``: the token embeddings go in a straight line from the corrupted prompt's to the clean one's, and all
      above answers: EAP-IG's inputs variant.
    - ``mean``, ``zero``: no prompt's embeddings make these values, so what moves is what is ablated: the writers of one
      half block (the embedding, a layer's heads, an MLP) from their ablated to their clean values, all above answers,
      and the mean gradient is for their own edges: EAP-IG's activations variant, with a run for every half block.

    Parameters
    ----------
    cases
        Pairs: `base` is the clean prompt, `source` the corrupted one. Those of one length are run together.
    ablation
        What an ablated edge carries: ``"corrupted"`` (the corrupted run's value), ``"mean"`` (over the cases' corrupted
        prompts, at each position) or ``"zero"``. An MLP's output bias is no part of it, and stays.
    steps
        At how many points gradients are taken.
    positions
        Whether the parts of the scores at each position are wanted; the prompts must have one length.
    on_step
        Called with pairs done and pairs in all.

    Raises
    ------
    InputError
        The metric has no gradient or failed, autograd is off for good, prompts of several lengths where one is needed,
        or a model whose forward is not known here.
    OutOfMemory
        Not even one pair fits; raised by the command that this is part of.

    Notes
    -----
    Syed, Rager and Conmy (2023), "Attribution Patching Outperforms Automated Circuit Discovery"; Hanna, Pezzelle and
    Belinkov (2024), "Have Faith in Faithfulness", whose sum over equal steps is a quadrature here: with five points its
    error is that of hundreds. A path through the activations: Marks et al. (2024), "Sparse Feature Circuits".
    """
    require_one_length(cases, ablation, positions)
    job: _Job | None = None

    def lean(check: exactness.Check) -> EdgeScores:  # noqa: ARG001
        nonlocal job
        job = _Job(model, cases, ablation, steps, positions, on_step)
        return job.run()

    def sample() -> Iterator[float]:
        assert job is not None
        # With every edge ablated by the corrupted run, it is the corrupted run.
        source = job.answer.source if job.ablation != "corrupted" else job.answer.ablated
        return unpatched_differ(model, model, cases, job.answer.clean, source)

    refusal = exactness.Refusal("edges are estimated", "use --method exact")
    return differentiated(
        cases,
        lambda: (
            exactness.run(
                model,
                ("edge gradients", ablation, steps > 1, *measured(cases, model, model)),
                lean=lean,
                hooked=refusal,
                sample=sample,
                path="gradients",
                length=max(len(case.base) for case in cases),
            ).answer
        ),
    )


class _Job:
    """One estimate under way."""

    def __init__(
        self,
        model: LoadedModel,
        cases: Sequence[Case],
        ablation: str,
        steps: int,
        positions: bool,
        on_step: OnStep,
    ) -> None:
        self.model = model
        self.given = tuple(cases)
        self.cases = list(cases)
        self.ablation = ablation
        self.on_step = on_step
        if steps == 1:
            self.points, self.weights = torch.ones(1), torch.ones(1)
        else:
            at, weight = np.polynomial.legendre.leggauss(steps)
            self.points, self.weights = torch.tensor((at + 1) / 2), torch.tensor(weight / 2)
        writers, readers = ends(model)
        exists = reaching(model, writers, readers)
        unknown = torch.full((2, len(cases)), float("nan"), dtype=torch.float64)
        length = len(cases[0].base)
        shape = (len(writers), len(readers))
        self.answer = EdgeScores(
            writers,
            readers,
            exists,
            per_pair=torch.zeros(len(cases), *shape),
            by_position=torch.zeros(*shape, length) if positions else None,
            clean=unknown[0],
            ablated=unknown[1],
            source=unknown[1],
        )
        self.asked = Estimate(
            model,
            network.read(model),
            constant=None,
            integral=steps > 1,
            positions=positions,
            shape=shape,
            below=exists.sum(0).tolist(),
        )

    def run(self) -> EdgeScores:
        """Estimate every edge."""
        self.cases = ready(self.model, self.model, self.given)
        if self.ablation != "corrupted":
            net = self.asked.network
            self.asked = replace(self.asked, constant=written(self.model, net, self.given, self.ablation))
            self.answer.source = corrupted(self.model, net, self.cases)
        over_cases(
            self.model,
            self.cases,
            self._piece,
            last=len(self.points),
            closed=False,
            limit=self._rows_that_fit(),
            on_step=self.on_step,
        )
        answer = self.answer
        answer.per_pair[:, ~answer.exists] = float("nan")
        if answer.by_position is not None:
            answer.by_position[~answer.exists] = float("nan")
        return answer

    def _rows_that_fit(self) -> int:
        """Return how many positions' activations, gradients and writers' differences fit into half of what is free."""
        shape = self.model.geometry
        length = max(len(case.base) for case in self.cases)
        run = 16 * shape.d_model + 6 * shape.n_heads * length + 6 * self.asked.network.layers[0].up.weight.shape[0]
        own = (len(self.answer.writers) + 3 * shape.n_heads) * shape.d_model
        element = self.asked.network.unembed.weight.element_size()
        return max(1, memory.free_bytes(self.model.device) // 2 // (element * (shape.n_layers * run + own)))

    def _piece(self, piece: Stretch) -> None:
        """Add what the pairs of `piece` get from its points."""
        cases, rows = [self.cases[index] for index in piece.cases], list(piece.cases)
        points, weights = (
            each[piece.first : piece.last].to(self.asked.network.unembed.weight) for each in (self.points, self.weights)
        )
        start = min(min(case.start, case.position) for case in cases) if self.asked.constant is None else 0
        found = EdgeProducts(self.asked, cases, start, weights)
        found.run(points)
        # Only now, all at once: memory may have run out on the way, and the piece is then done again.
        answer = self.answer
        answer.per_pair[rows] += found.values.cpu()
        if answer.by_position is not None and found.by_position is not None:
            answer.by_position[..., start:] += found.by_position.cpu() / len(self.cases)
        answer.clean[rows], answer.ablated[rows] = found.clean.cpu(), found.ablated.cpu()
