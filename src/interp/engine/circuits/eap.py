"""Scores of all edges at once, estimated from gradients: edge attribution patching, with and without an integral."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.circuits import pooled
from interp.engine.circuits.edge_products import EdgeProducts, Estimate
from interp.engine.circuits.edges import EdgeScores, corrupted, ends, require_one_length, written
from interp.engine.patching.cases import Case, measured, ready, unpatched_differ
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.gradients import differentiated, over_cases
from interp.engine.patching.noise import measured_noise
from interp.engine.patching.path import reaching
from interp.engine.pool import sharing
from interp.engine.transformer import network

if TYPE_CHECKING:
    from interp.engine.circuits.edges import Written
    from interp.engine.memory import Stretch
    from interp.engine.model.loaded import LoadedModel

MOST = 256  # equal steps of an integral that has not converged, and of one in half precision
_FEW = 32
_FIRST = 4  # equal steps that it begins with
_CLOSE, _ROUGH = 0.005, 0.05  # of the largest score: what may be missing, and in half precision
_ROUNDING = 1e-5
JUDGED = 4  # pairs by which the gradients of --steps are judged
_SAID = 0.01  # of the largest score: what these may miss before it is said


def attribute_edges(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    ablation: str = "corrupted",
    steps: int | None = 1,
    positions: bool = False,
    on_step: OnStep = silent,
) -> EdgeScores:
    """Estimate from gradients what ablating each edge would do, all edges at once.

    The estimate is ``(writer_clean − writer_ablated) · ∂m/∂(reader's input)``, summed over positions. With one step
    (EAP) the gradient is the clean run's. With more, or where the integral decides (EAP-IG), it is an integral's mean:

    - ``corrupted``: the token embeddings go in a straight line from the corrupted prompt's to the clean one's, and all
      above answers: EAP-IG's inputs variant.
    - ``mean``, ``zero``: no prompt's embeddings make these values, so what moves is what is ablated: the writers of one
      half block (the embedding, a layer's heads, an MLP) from their ablated to their clean values, all above answers,
      and the mean gradient is for their own edges: EAP-IG's activations variant, with a run for every half block.

    Without `steps` each pair's points are halved in their distance, those there are being kept, until all scores are
    settled: 15 points as a rule, `MOST` at most, and a note says by how much it is not enough. They are equal steps of
    s in x = s − sin(2πs) / 2π, in which the integrand ends in zeros and their sum converges quickly. With `steps` these
    many Gauss-Legendre points are taken and no more; a few pairs are then integrated to the end besides, to say how far
    off that is.

    Where a pair's prompts have two lengths (`Case.aligned`), the corrupted run aligned to the clean one takes the
    corrupted run's place: in what writers write, and in the embeddings that the way begins with.

    Parameters
    ----------
    cases
        Pairs: `base` is the clean prompt, `source` the corrupted one. Those of one length are run together. Of those
        that are aligned, the position asked about is given the other's.
    ablation
        What an ablated edge carries: ``"corrupted"`` (the corrupted run's value), ``"mean"`` (over the cases' corrupted
        prompts, at each position) or ``"zero"``. An MLP's output bias is no part of it, and stays.
    steps
        At how many points gradients are taken; until it has converged where ``None``.
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
    Belinkov (2024), "Have Faith in Faithfulness", who sum over five equal steps: on the bundled model that is off by
    9 % of the largest score, five Gauss-Legendre points by up to 22 %. A path through the activations: Marks et al.
    (2024), "Sparse Feature Circuits". A norm after the attention is part of what reads the heads: what a head changes
    goes through it to first order at the clean run, at every point. The points: Sidi (1993), "A New Variable
    Transformation for Numerical Integration".
    """
    require_one_length(cases, ablation, positions)
    key, pool = key_of(model, cases, ablation, steps), sharing.pool_of(model, metric=cases[0].scorer.metric)
    job: EdgeGradients | None = None

    def lean(check: exactness.Check) -> EdgeScores:
        nonlocal job
        job = EdgeGradients(model, cases, ablation, steps, positions, on_step, check)
        found = job.run()
        check(stopped=found.interrupt is not None)
        if steps is not None and steps > 1:
            found.notes += _missed(job, found)
        return found

    def sample() -> Iterator[float]:
        assert job is not None
        # With every edge ablated by the corrupted run, it is the corrupted run.
        source = job.answer.source if job.ablation != "corrupted" else job.answer.ablated
        rows = job.done.nonzero()[: exactness.sample_of(model), 0].tolist()
        return unpatched_differ(model, model, [cases[row] for row in rows], job.answer.clean[rows], source[rows])

    refusal = exactness.Refusal("edges are estimated", "use --method exact")
    return differentiated(
        cases,
        lambda: (
            exactness.run(
                model,
                key if pool is None else (*key, pool.name),
                lean=lean,
                hooked=refusal,
                sample=sample,
                path="gradients",
                length=max(len(case.base) for case in cases),
                noise=lambda: measured_noise(model, model, cases).relative,
            ).answer
        ),
    )


def key_of(model: LoadedModel, cases: Sequence[Case], ablation: str, steps: int | None) -> exactness.Key:
    """Return what is compared with the hooked forward once."""
    return ("edge gradients", ablation, steps != 1, *measured(cases, model, model))


def rows_that_fit(model: LoadedModel, d_mlp: int, element: int, writers: int, cases: Sequence[Case]) -> int:
    """Return how many positions' activations, gradients and writers' differences fit into half of what is free."""
    shape = model.geometry
    length = max(len(case.base) for case in cases)
    run = 16 * shape.d_model + 6 * shape.n_heads * length + 6 * d_mlp
    own = (writers + 3 * shape.n_heads) * shape.d_model
    return max(1, memory.free_bytes(model.device) // 2 // (element * (shape.n_layers * run + own)))


class EdgeGradients:
    """One estimate under way.

    Parameters
    ----------
    constant
        What ablated writers write, where it is known already.
    total
        How many pairs the parts at positions are the mean over; all of these when not given.
    """

    def __init__(
        self,
        model: LoadedModel,
        cases: Sequence[Case],
        ablation: str,
        steps: int | None,
        positions: bool,
        on_step: OnStep,
        check: exactness.Check = exactness.unchecked,
        *,
        constant: Written | None = None,
        total: int = 0,
    ) -> None:
        self.model = model
        self.given = tuple(cases)
        self.cases = list(cases)
        self.ablation = ablation
        self.on_step = on_step
        self.check = check
        self.steps = steps
        self.points, self.weights = _gauss(steps) if steps is not None else _between(_FIRST, 1)
        self.constant = constant
        self.total = total or len(cases)
        self.pool = sharing.pool_of(model, metric=cases[0].scorer.metric)
        self.shards = 0
        self.done = torch.zeros(len(cases), dtype=torch.bool)
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
            steps=steps or len(self.points),
        )
        self.asked = Estimate(
            model,
            network.read(model, half=True),
            constant=None,
            integral=steps != 1,
            positions=positions,
            shape=shape,
            below=exists.sum(0).tolist(),
        )

    def prepare(self) -> None:
        """Make what is there before any gradient."""
        self.cases = ready(self.model, self.model, self.given)
        if self.ablation != "corrupted":
            constant = self.constant or written(self.model, self.asked.network, self.given, self.ablation)
            self.asked = replace(self.asked, constant=constant)

    def run(self) -> EdgeScores:
        """Estimate every edge."""
        self.prepare()
        answer = self.answer
        if self.ablation != "corrupted":
            answer.source = corrupted(self.model, self.asked.network, self.cases)
        try:
            self.add(list(range(len(self.cases))))
            if self.steps is None:
                self._refine()
        except KeyboardInterrupt as interrupt:
            answer.interrupt = interrupt
            answer.stopped = f"interrupted after {int(self.done.sum())}/{len(self.cases)} pairs"
            answer.per_pair[~self.done] = float("nan")
            if answer.by_position is not None:  # a mean over pairs, of which there are fewer now
                answer.by_position *= len(self.cases) / max(1, int(self.done.sum()))
        answer.per_pair[:, ~answer.exists] = float("nan")
        if answer.by_position is not None:
            answer.by_position[~answer.exists] = float("nan")
        if self.pool is not None:
            answer.path += sharing.said(self.shards, self.pool)
        return answer

    def _refine(self) -> None:
        """Halve the distance of the points of each pair's integral until its scores have settled."""
        answer, count, total = self.answer, _FIRST, len(self.cases)
        close, most = (_CLOSE, MOST) if self.asked.network.unembed.weight.element_size() > 2 else (_ROUGH, _FEW)
        change = torch.full((total,), float("inf"), dtype=torch.float64)  # the largest of a pair's, at its last halving
        error = change.clone()  # that there may still be
        unsettled, largest = list(range(total)), 0.0
        while unsettled and 2 * count <= most:
            count *= 2
            before = answer.per_pair[unsettled]
            whole = answer.by_position
            answer.per_pair[unsettled] /= 2
            answer.by_position = None if whole is None else whole / 2
            self.points, self.weights = _between(count)
            reached = self.done.clone()
            self.done[unsettled] = False
            try:
                self.add(unsettled)
            except KeyboardInterrupt:  # what is half done is left as it was before
                again = [n for n, row in enumerate(unsettled) if not self.done[row]]
                answer.per_pair[[unsettled[n] for n in again]] = before[again]
                answer.by_position, self.done = whole, reached
                raise
            now = (answer.per_pair[unsettled] - before).abs().amax((1, 2)).double()
            # The changes of an integrand without kinks shrink faster and faster: by as much again, at the least.
            shrinks = (now / change[unsettled]).clamp(max=1.0)
            error[unsettled] = torch.where(change[unsettled].isinf(), now, now * shrinks)
            change[unsettled] = now
            known = answer.per_pair[answer.per_pair.isfinite().all(2).all(1)]
            largest = float(known.double().mean(0).abs().max()) if len(known) else 0.0
            unsettled = [row for row in unsettled if error[row] > max(close * largest, _ROUNDING * change[row])]
            if unsettled and whole is not None:  # whose parts are summed over pairs
                unsettled = list(range(total))
        answer.steps = count - 1
        if unsettled and (off := float(error.nan_to_num(0.0).mean()) / (largest or 1.0)) > close:
            answer.notes.append(
                f"EAP-IG's integral has not converged after {count - 1} gradients: scores may be off by {off:.1%} of "
                f"the largest, most of all in {len(unsettled)} of {total} pairs"
            )

    def add(self, rows: Sequence[int]) -> None:
        """Add what the pairs `rows` get from the points as they are now."""
        longest = max(rows, key=lambda row: len(self.cases[row].base))

        def step(done: int, _: int) -> None:
            if self.done[longest]:  # as soon as it says enough: a stop does not wait for it then
                self.check()
            self.on_step(len(self.cases) - len(rows) + done if self.steps is not None else settled, len(self.cases))

        settled = len(self.cases) - len(rows)
        if self.pool is not None:
            pooled.add(self, self.pool, rows, step)
            return
        net, element = self.asked.network, self.asked.network.unembed.weight.element_size()
        over_cases(
            self.model,
            [self.cases[row] for row in rows],
            lambda piece: self._piece(piece, [rows[number] for number in piece.cases]),
            last=len(self.points),
            closed=False,
            limit=rows_that_fit(self.model, net.d_mlp, element, len(self.answer.writers), self.cases),
            on_step=step,
        )

    def _piece(self, piece: Stretch, rows: list[int]) -> None:
        """Add what the pairs of `piece`, which are `rows`, get from its points."""
        cases = [self.cases[row] for row in rows]
        points, weights = (
            each[piece.first : piece.last].to(self.asked.network.unembed.weight) for each in (self.points, self.weights)
        )
        shared = self.asked.constant is None and cases[0].aligned is None
        start = min(min(case.start, case.position) for case in cases) if shared else 0
        found = EdgeProducts(self.asked, cases, start, weights)
        found.run(points)
        # Only now, all at once: memory may have run out on the way, and the piece is then done again.
        answer = self.answer
        answer.per_pair[rows] += found.values.cpu()
        if answer.by_position is not None and found.by_position is not None:
            answer.by_position[..., start:] += found.by_position.cpu() / self.total
        answer.clean[rows], answer.ablated[rows] = found.clean.cpu(), found.ablated.cpu()
        self.done[rows] = piece.last == len(self.points)


def _gauss(steps: int) -> tuple[Tensor, Tensor]:
    """Return points and weights of a fixed number of gradients: the clean end alone for one, else Gauss-Legendre's."""
    if steps == 1:
        return torch.ones(1), torch.ones(1)
    at, weight = np.polynomial.legendre.leggauss(steps)
    return torch.tensor((at + 1) / 2), torch.tensor(weight / 2)


def _between(count: int, every: int = 2) -> tuple[Tensor, Tensor]:
    """Return the points that `count` equal steps of s have and half as many have not, and their weights.

    `every` 1 gives all that `count` steps have.
    """
    s = torch.arange(1, count, every, dtype=torch.float64) / count
    turn = 2 * torch.pi * s
    return s - turn.sin() / (2 * torch.pi), (1 - turn.cos()) / count


def _missed(job: EdgeGradients, found: EdgeScores) -> list[str]:
    """Say how far the scores of as many gradients as were asked for are from the integral, by that of a few pairs."""
    assert job.steps is not None
    rows = job.done.nonzero()[:JUDGED, 0].tolist()
    if found.stopped or not rows:
        return []
    some = [job.given[row] for row in rows]
    true = EdgeGradients(job.model, some, job.ablation, None, False, silent, constant=job.asked.constant)
    whole = true.run()
    if whole.interrupt is not None:
        found.interrupt = whole.interrupt
        return []
    expected = whole.scores.nan_to_num()
    off = float((found.per_pair[rows].double().mean(0).nan_to_num() - expected).abs().max())
    share = off / (float(expected.abs().max()) or 1.0)
    if not share > _SAID:
        return []
    measured = "" if len(rows) == len(job.given) else f", on {len(rows)} of {len(job.given)} pairs"
    return [
        f"EAP-IG's integral has not converged with {job.steps} gradients: scores are off by up to {share:.1%} of the "
        f"largest{measured}; leave --steps out, and as many are taken as it needs"
    ]
