"""Scores of all edges at once, estimated from gradients: edge attribution patching, with and without an integral."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.circuits.edges import ROWS, EdgeScores, Written, corrupted, ends, left, require_one_length, written
from interp.engine.metrics import MetricFailed
from interp.engine.model import hooks
from interp.engine.patching import sweep
from interp.engine.patching.path import reaching
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.network import Identity, Linear, Norm
from interp.engine.transformer.shared_prefix import paired
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.sweep import Case, OnStep

CHECKED = 2  # pairs that the plain hooked forward runs too, at the first estimate on a state of a model


def attribute_edges(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    ablation: str = "corrupted",
    steps: int = 1,
    positions: bool = False,
    on_step: OnStep = lambda done, total: None,  # noqa: ARG005
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
    if torch.is_inference_mode_enabled():
        raise InputError("there are no gradients inside torch.inference_mode; use torch.no_grad there, or exact")
    require_one_length(cases, ablation, positions)
    job = _Job(model, cases, ablation, steps, positions, on_step)
    try:
        return hooks.run_hooked([], job.run, gradients=True)
    except MetricFailed as error:
        reason = f"the metric {cases[0].scorer.metric.name} failed on the way: {error}"
    except network.Unreadable as error:
        reason = f"edges are estimated without hooks, and here they cannot be: {error}; use --method exact"
    raise InputError(reason)


@dataclass(frozen=True)
class _Piece:
    """Pairs that are run together, and the points of the integral, the last not included."""

    cases: tuple[int, ...]
    first: int
    stop: int

    def halves(self) -> tuple[_Piece, ...]:
        """Return two pieces, of half the pairs, or of half the points; none where there is nothing to halve."""
        if len(self.cases) > 1:
            half = len(self.cases) // 2
            return replace(self, cases=self.cases[:half]), replace(self, cases=self.cases[half:])
        if self.stop - self.first > 1:
            half = (self.first + self.stop) // 2
            return replace(self, stop=half), replace(self, first=half)
        return ()


@dataclass
class _Graph:
    """What a run's metric is differentiated by.

    Attributes
    ----------
    points
        How many points of the integral there are; a tensor's rows are points × pairs × positions.
    read
        (site, layer) → what is read there: ``q``, ``k``, ``v`` ``[…, head, d_head]`` and ``mlp_in`` ``[…, d_model]``.
    before
        Layer → the stream that its attention reads, ``[row, d_model]``.
    """

    points: int
    read: dict[tuple[str, int], Tensor] = field(default_factory=dict[tuple[str, int], Tensor])
    before: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def keep(self, site: str, layer: int, tensor: Tensor) -> None:
        """Hold a site's tensor, if the metric can be differentiated by it."""
        if site == "resid_pre":
            self.before[layer] = tensor.detach()
        elif site in {"q", "k", "v", "mlp_in"} and tensor.requires_grad:
            self.read[site, layer] = tensor


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
        self.positions = positions
        self.on_step = on_step
        self.network = network.read(model)
        if steps == 1:
            self.points, self.weights = torch.ones(1), torch.ones(1)
        else:
            at, weight = np.polynomial.legendre.leggauss(steps)
            self.points, self.weights = torch.tensor((at + 1) / 2), torch.tensor(weight / 2)
        self.staged = steps > 1 and ablation != "corrupted"
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
        self.below = exists.sum(0).tolist()  # of each reader: the writers below it are the first ones
        self.still: Written | None = None

    def run(self) -> EdgeScores:
        """Estimate every edge.

        Raises
        ------
        Unreadable
            The metric is another than that of the hooked forward.
        """
        for index, case in enumerate(self.given):
            if case.scorer.metric.name == "kl" and case.scorer.metric.function is None:
                self.cases[index] = sweep.unpatched(self.model, self.model, case)[0]
        if self.ablation != "corrupted":
            self.still = written(self.model, self.network, self.given, self.ablation)
            self.answer.source = corrupted(self.model, self.network, self.cases)
        self._all()
        self._compare()
        answer = self.answer
        answer.per_pair[:, ~answer.exists] = float("nan")
        if answer.by_position is not None:
            answer.by_position[~answer.exists] = float("nan")
        return answer

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _all(self) -> None:
        done = 0

        def run(piece: _Piece) -> None:
            nonlocal done
            self._piece(piece)
            if piece.stop == len(self.points):
                done += len(piece.cases)
                self.on_step(done, len(self.cases))

        memory.halving_pieces(self._pieces(), self._rows_that_fit(), self._rows, run, self.model.device)

    def _pieces(self) -> Iterator[_Piece]:
        by_length: dict[int, list[int]] = {}
        for index, case in enumerate(self.cases):
            by_length.setdefault(len(case.base), []).append(index)
        for length, indices in by_length.items():
            indices.sort(key=lambda index: self.cases[index].start)  # a batch shares its shortest prefix
            size = max(1, ROWS // (length * len(self.points)))
            for at in range(0, len(indices), size):
                yield _Piece(tuple(indices[at : at + size]), 0, len(self.points))

    def _rows(self, piece: _Piece) -> int:
        return len(piece.cases) * (piece.stop - piece.first) * len(self.cases[piece.cases[0]].base)

    def _rows_that_fit(self) -> int:
        """Return how many positions' activations, gradients and writers' differences fit into half of what is free."""
        shape = self.model.geometry
        length = max(len(case.base) for case in self.cases)
        run = 16 * shape.d_model + 6 * shape.n_heads * length + 6 * self.network.layers[0].up.weight.shape[0]
        own = (len(self.answer.writers) + 3 * shape.n_heads) * shape.d_model
        element = self.network.unembed.weight.element_size()
        return max(1, memory.free_bytes(self.model.device) // 2 // (element * (shape.n_layers * run + own)))

    def _piece(self, piece: _Piece) -> None:
        """Add what the pairs of `piece` get from its points."""
        cases, rows = [self.cases[index] for index in piece.cases], list(piece.cases)
        points, weights = (
            each[piece.first : piece.stop].to(self.network.unembed.weight) for each in (self.points, self.weights)
        )
        start = min(min(case.start, case.position) for case in cases) if self.still is None else 0
        found = _Found(self, cases, start, points, weights)
        # Only now, all at once: memory may have run out on the way, and the piece is then done again.
        answer = self.answer
        answer.per_pair[rows] += found.values.cpu()
        if answer.by_position is not None and found.by_position is not None:
            answer.by_position[..., start:] += found.by_position.cpu() / len(self.cases)
        answer.clean[rows], answer.ablated[rows] = found.clean.cpu(), found.ablated.cpu()

    def _compare(self) -> None:
        """Compare the metric of a few runs with the plain hooked forward's.

        Raises
        ------
        Unreadable
            They differ: the network is not what was read.
        """
        if self.model.trusted("edges"):
            return
        worst = 0.0
        for index, case in enumerate(self.given[:CHECKED]):
            ends = sweep.unpatched(self.model, self.model, case)[1:]
            # With every edge ablated by the corrupted run, it is the corrupted run.
            found = (self.answer.clean[index], self.answer.ablated[index])[: 2 if self.still is None else 1]
            both = zip(found, ends, strict=False)
            worst = max(worst, *(sweep.apart(float(value), float(expected)) for value, expected in both))
        if worst > sweep.TOLERANCE:
            raise network.Unreadable(f"the forward without hooks differed by {worst:.1g} from the hooked one")
        self.model.trust("edges")


class _Found:
    """The scores of some pairs of one length, from some points of the integral.

    Attributes
    ----------
    values
        ``float32 [pair, writer, reader]``.
    by_position
        ``float32 [writer, reader, position from start]``, summed over pairs; ``None`` where it was not asked for.
    clean, ablated
        ``float64 [pair]``.
    """

    def __init__(self, job: _Job, cases: Sequence[Case], start: int, points: Tensor, weights: Tensor) -> None:
        self.job = job
        self.net = job.network
        self.cases = cases
        self.start = start
        self.weights = weights
        shape = (len(job.answer.writers), len(job.answer.readers))
        self.values = weights.new_zeros(len(cases), *shape)
        self.by_position = weights.new_zeros(*shape, len(cases[0].base) - start) if job.positions else None
        ids = torch.tensor([[case.base, case.source] for case in cases], device=weights.device)
        with torch.no_grad():
            clean, corrupted = (torch.stack([self.net.embed(prompt) for prompt in ids[:, run]]) for run in (0, 1))
        prefix, clean, corrupted = clean[:, :start], clean[:, start:], corrupted[:, start:]
        self.changes = clean.new_empty(shape[0], *clean.shape)  # of each writer, [writer, pair, position, d_model]
        if job.staged:
            self._by_stages(prefix, clean, points)
        else:
            self._at_once(prefix, clean, corrupted, points)

    # -- the two kinds of runs ---------------------------------------------------------------------------------------

    def _at_once(self, prefix: Tensor, clean: Tensor, corrupted: Tensor, points: Tensor) -> None:
        """Take every reader's gradient in the same runs: the clean one, or those between the prompts' embeddings."""
        still, along = self.job.still, len(self.job.points) > 1
        graded = corrupted + points.view(-1, 1, 1, 1) * (clean - corrupted) if along else clean[None]
        quiet = ([corrupted] if still is None else []) + ([clean] if along else [])
        graph = _Graph(len(graded))

        def keep(site: str, layer: int, frozen: Tensor, moving: Tensor) -> None:
            graph.keep(site, layer, moving)
            if site in {"z", "mlp_out"} or (site == "resid_pre" and layer == 0):
                own = frozen[1] if along else moving.detach().view(*clean.shape[:2], *moving.shape[1:])
                self._note(site, layer, own, frozen[0] if still is None else None)

        frozen = torch.stack(quiet) if quiet else graded[:0]
        ends = paired(self.net, prefix, frozen, graded.detach().requires_grad_(), keep)
        self.job.model.count((len(frozen) + len(graded)) * len(self.cases))
        self._measure((ends[0][1] if along else ends[1][0]).detach())
        self._contract(graph, ends[1], slice(None))

    def _by_stages(self, prefix: Tensor, clean: Tensor, points: Tensor) -> None:
        """Move the writers of one half block after the other, and take the gradients of what reads above it."""
        still = self.job.still
        assert still is not None
        before: list[Tensor] = []
        z: list[Tensor] = []

        def keep(site: str, layer: int, frozen: Tensor, moving: Tensor) -> None:  # noqa: ARG001
            if site in {"resid_pre", "z", "mlp_out"}:
                own = moving.view(*clean.shape[:2], *moving.shape[1:])
                if site == "resid_pre":
                    before.append(own)
                elif site == "z":
                    z.append(own)
                if site != "resid_pre" or layer == 0:
                    self._note(site, layer, own, None)

        with torch.no_grad():
            _, end = paired(self.net, prefix, clean[None][:0], clean[None], keep)
        self.job.model.count(len(self.cases))
        self._measure(end[0])
        before.append(end[0])
        away = (1 - points).view(-1, 1, 1, 1)
        heads = self.net.n_heads
        self._stage(slice(0, 1), 0, before[0] - away * self.changes[0])
        for layer in range(len(self.net.layers)):
            first = 1 + layer * (heads + 1)
            own = slice(first, first + heads)
            moved = z[layer] - away[..., None] * (z[layer] - still.z[layer])
            self._stage(own, layer, before[layer].expand(len(points), *clean.shape), moved)
            last = first + heads
            self._stage(slice(last, last + 1), layer + 1, before[layer + 1] - away * self.changes[last])

    def _stage(self, writers: slice, first: int, resid: Tensor, z: Tensor | None = None) -> None:
        """Run from layer `first` on, with the stream before it, or with z in it, ``[point, pair, …]``, as given."""
        graph = _Graph(len(resid))
        start = resid.flatten(0, 1).detach()
        if z is None:
            start.requires_grad_()

        def keep(site: str) -> Edit:
            def read(layer: int, tensor: Tensor) -> Tensor | None:
                if site == "z":
                    return z.flatten(0, 1).detach().requires_grad_() if z is not None and layer == first else None
                if site == "mlp_in":
                    tensor = tensor.view_as(tensor)  # its gradient is of what the MLP reads alone
                graph.keep(site, layer, tensor.flatten(0, 1) if site == "resid_pre" else tensor)
                return tensor

            return read

        edits = {site: keep(site) for site in ("resid_pre", "q", "k", "v", "z", "mlp_in")}
        end = forward(self.net, edits=edits, resid=start, first=first)
        self.job.model.count(len(start))
        self._contract(graph, end.view_as(resid), writers)

    # -- what the writers change -------------------------------------------------------------------------------------

    def _note(self, site: str, layer: int, own: Tensor, other: Tensor | None) -> None:
        """Write down by how much writers differ: the clean run's value, and the ablated one if it is a run's."""
        if other is None:
            assert self.job.still is not None
            other = self.job.still.of(site, layer)
        change = own - other
        heads = self.net.n_heads
        if site == "resid_pre":
            self.changes[0] = change
        elif site == "mlp_out":
            self.changes[(layer + 1) * (heads + 1)] = change
        else:
            weight = self.net.layers[layer].o.weight.view(-1, heads, self.net.d_head).permute(1, 2, 0)
            first = 1 + layer * (heads + 1)
            rows = change.flatten(0, 1).transpose(0, 1)  # [head, pair · position, d_head]
            self.changes[first : first + heads] = torch.bmm(rows, weight).view(heads, *change.shape[:2], -1)

    def _measure(self, end: Tensor) -> None:
        """Take the metric of the whole model, and with every writer ablated, of the clean run's end."""
        still = self.job.still
        # What is left of a run by adding all changes to its end may be rounding alone, which a norm would blow up.
        ablated = end - self.changes.sum(0) if still is None else left(self.net, still, end.shape[1]).expand_as(end)
        places = [case.position - self.start for case in self.cases]
        with torch.no_grad():
            self.clean, self.ablated = (
                torch.cat(
                    [
                        case.scorer.of_residual(self.net, run[n, place][None])
                        for n, (case, place) in enumerate(zip(self.cases, places, strict=True))
                    ]
                ).double()
                for run in (end, ablated)
            )

    # -- what the readers' gradients make of it ----------------------------------------------------------------------

    def _contract(self, graph: _Graph, end: Tensor, writers: slice) -> None:
        """Add the products of writers' changes with every reader's gradient, of runs that end in `end`."""
        scores = torch.stack(
            [
                case.scorer.of_residual(self.net, end[:, n, case.position - self.start])
                for n, case in enumerate(self.cases)
            ],
            1,
        )
        if not scores.requires_grad:
            name = self.cases[0].scorer.metric.name
            raise InputError(f"the metric {name} has no gradient here; use --method exact")
        weighted = (scores * self.weights[:, None]).sum()
        asked = [*graph.read.values(), end]
        slopes = torch.autograd.grad(weighted, asked, allow_unused=True, materialize_grads=True)
        found = dict(zip(graph.read, slopes, strict=False))
        net, layers = self.net, self.net.layers
        width = net.n_heads + 2 * net.n_kv_heads + 1
        with torch.no_grad():
            for index, layer in enumerate(layers):
                column = index * width
                if ("q", index) in found:
                    through = [(layer.q, found["q", index]), (layer.k, found["k", index]), (layer.v, found["v", index])]
                    slope = torch.cat([self._through(linear, part) for linear, part in through])
                    self._add(_back(layer.norm1, graph.before[index], slope), graph.points, column, writers)
                if ("mlp_in", index) in found:
                    part = found["mlp_in", index].reshape(1, -1, end.shape[-1])
                    self._add(part, graph.points, column + width - 1, writers)
            self._add(slopes[-1].reshape(1, -1, end.shape[-1]), graph.points, len(layers) * width, writers)

    def _through(self, linear: Linear, slope: Tensor) -> Tensor:
        """Return the gradient of what a projection reads, head by head, ``[head, row, d_model]``."""
        slope = slope.reshape(-1, *slope.shape[-2:]).transpose(0, 1)
        return torch.bmm(slope, linear.weight.view(len(slope), self.net.d_head, -1))

    def _add(self, slope: Tensor, points: int, column: int, writers: slice) -> None:
        """Add the scores into readers from `column` on, whose gradients are ``[reader, point · pair · row, d_model]``.

        Readers come with those of one place: all have the same writers below them.
        """
        count = len(slope)
        slope = slope.view(count, points, len(self.cases), -1, slope.shape[-1])
        slope = slope.sum(1) if points > 1 else slope[:, 0]
        below = self.job.below[column]
        changes = self.changes[:below][writers]
        rows = slice(0, below) if writers == slice(None) else writers
        columns = slice(column, column + count)
        if self.by_position is None:
            # [pair, writer, position · d_model] times [pair, position · d_model, reader]
            product = torch.bmm(changes.flatten(2).transpose(0, 1), slope.flatten(2).permute(1, 2, 0))
            self.values[:, rows, columns] += product
            return
        product = torch.matmul(changes.permute(1, 2, 0, 3), slope.permute(1, 2, 3, 0))
        self.values[:, rows, columns] += product.sum(1)
        self.by_position[rows, columns] += product.sum(0).permute(1, 2, 0)


def _back(norm: Norm, x: Tensor, slope: Tensor) -> Tensor:
    """Return gradients before a norm of `x`, ``[row, d_model]``, of those after it, ``[reader, row, d_model]``."""
    if isinstance(norm, Identity):
        return slope
    centred = x if norm.rms else x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + norm.eps)
    unit = centred * scale
    slope = slope.mul_(norm.weight)
    if not norm.rms:
        slope = slope.sub_(slope.mean(-1, keepdim=True))
    along = torch.einsum("rnd,nd->rn", slope, unit) / x.shape[-1]
    return slope.sub_(along[..., None] * unit).mul_(scale)
