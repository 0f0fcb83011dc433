"""What edges get from gradients: what each writer changes, times the slope of the metric at each reader's input.

1. Δ[w] = what writer w writes in the clean run less its ablated value, ``[pair, position, d_model]``: a head's from
   (z − z′) through its columns of W_O, and where a norm comes after, through that, to first order at the clean run;
2. g[r] = ∂m/∂(input of r), averaged over the points of an integral: of queries, keys and values by autograd, then back
   through each head's own rows of W_Q, W_K, W_V and through the norm, so that no copy of the stream is made per head;
3. score[w, r] = Σ over positions and d_model of Δ[w] · g[r], one product for all writers below a reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.circuits.edges import Written, left, written_by
from interp.engine.patching.aligned import aligned_to
from interp.engine.patching.cases import Case
from interp.engine.patching.gradients import require_slope
from interp.engine.patching.runs import keep_end
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.linear import Linear
from interp.engine.transformer.network import Network
from interp.engine.transformer.shared_prefix import paired

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True)
class Estimate:
    """What is asked of all pairs.

    Attributes
    ----------
    constant
        What ablated writers write, where that is no run's; ``None`` where it is the corrupted run's own.
    integral
        Whether gradients are taken at several points.
    positions
        Whether the parts of the scores at each position are wanted.
    shape
        How many writers and readers there are.
    below
        Of each reader, how many writers are below it: they are the first ones.
    """

    model: LoadedModel
    network: Network
    constant: Written | None
    integral: bool
    positions: bool
    shape: tuple[int, int]
    below: list[int]

    @property
    def staged(self) -> bool:
        """Whether one half block after the other moves from its ablated to its clean values."""
        return self.integral and self.constant is not None


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


class EdgeProducts:
    """The scores of some pairs of one length, from some points of the integral: writers' changes times slopes.

    Attributes
    ----------
    values
        ``float32 [pair, writer, reader]``.
    by_position
        ``float32 [writer, reader, position from start]``, summed over pairs; ``None`` where it was not asked for.
    clean, ablated
        ``float64 [pair]``.
    """

    def __init__(self, asked: Estimate, cases: Sequence[Case], start: int, weights: Tensor) -> None:
        self.asked = asked
        self.net = asked.network
        self.cases = cases
        self.start = start
        self.weights = weights
        self.source: tuple[Written, Tensor] | None = None  # what aligned corrupted runs write, and how they end
        self.values = weights.new_zeros(len(cases), *asked.shape)
        self.by_position = weights.new_zeros(*asked.shape, len(cases[0].base) - start) if asked.positions else None

    def run(self, points: Tensor) -> None:
        """Run the pairs at `points` of the integral, and fill what is found."""
        start, weights = self.start, self.weights
        both = ([case.base for case in self.cases], [case.source for case in self.cases])
        with torch.no_grad():
            prompts = [torch.tensor(run, device=weights.device) for run in both]
            clean, corrupted = (torch.stack([self.net.embed(prompt) for prompt in run]) for run in prompts)
        if self.cases[0].aligned is not None:
            if self.asked.constant is None:
                self.source = written_by(self.asked.model, self.net, both[1])
            corrupted = aligned_to(clean, corrupted, self.cases)
        prefix, clean, corrupted = clean[:, :start], clean[:, start:], corrupted[:, start:]
        self.changes = clean.new_empty(
            self.asked.shape[0], *clean.shape
        )  # of each writer, [writer, pair, position, d_model]
        if self.asked.staged:
            self._by_stages(prefix, clean, points)
        else:
            self._at_once(prefix, clean, corrupted, points)

    # -- the two kinds of runs ---------------------------------------------------------------------------------------

    def _at_once(self, prefix: Tensor, clean: Tensor, corrupted: Tensor, points: Tensor) -> None:
        """Take every reader's gradient in the same runs: the clean one, or those between the prompts' embeddings."""
        constant, along = self.asked.constant, self.asked.integral
        graded = corrupted + points.view(-1, 1, 1, 1) * (clean - corrupted) if along else clean[None]
        apart = constant is not None or self.source is not None  # what is ablated is no run beside these
        quiet = ([] if apart else [corrupted]) + ([clean] if along else [])
        graph = _Graph(len(graded))

        def keep(site: str, layer: int, frozen: Tensor, moving: Tensor) -> None:
            graph.keep(site, layer, moving)
            if site in {"z", "mlp_out"} or (site == "resid_pre" and layer == 0):
                own = frozen[-1] if along else moving.detach().view(*clean.shape[:2], *moving.shape[1:])
                self._note(site, layer, own, None if apart else frozen[0])

        frozen = torch.stack(quiet) if quiet else graded[:0]
        ends = paired(self.net, prefix, frozen, graded.detach().requires_grad_(), keep)
        self.asked.model.count((len(frozen) + len(graded)) * len(self.cases))
        self._measure((ends[0][-1] if along else ends[1][0]).detach(), None if apart else ends[0][0])
        self._contract(graph, ends[1], slice(None))

    def _by_stages(self, prefix: Tensor, clean: Tensor, points: Tensor) -> None:
        """Move the writers of one half block after the other, and take the gradients of what reads above it."""
        constant = self.asked.constant
        assert constant is not None
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
        self.asked.model.count(len(self.cases))
        self._measure(end[0], None)
        before.append(end[0])
        away = (1 - points).view(-1, 1, 1, 1)
        heads = self.net.n_heads
        self._stage(slice(0, 1), 0, before[0] - away * self.changes[0])
        for layer in range(len(self.net.layers)):
            first = 1 + layer * (heads + 1)
            own = slice(first, first + heads)
            moved = z[layer] - away[..., None] * (z[layer] - constant.z[layer])
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
        self.asked.model.count(len(start))
        self._contract(graph, end.view_as(resid), writers)

    # -- what the writers change -------------------------------------------------------------------------------------

    def _note(self, site: str, layer: int, own: Tensor, other: Tensor | None) -> None:
        """Write down by how much writers differ: the clean run's value, and the ablated one if it is a run's."""
        if other is None and self.source is not None:
            other = aligned_to(own, self.source[0].of(site, layer), self.cases)
        elif other is None:
            assert self.asked.constant is not None
            other = self.asked.constant.of(site, layer)
        change = own - other
        heads = self.net.n_heads
        if site == "resid_pre":
            self.changes[0] = change
        elif site == "mlp_out":
            self.changes[(layer + 1) * (heads + 1)] = change
        else:
            weight = self.net.layers[layer].head_weights().permute(1, 2, 0)
            first = 1 + layer * (heads + 1)
            rows = change.flatten(0, 1).transpose(0, 1)  # [head, pair · position, d_head]
            raw = torch.bmm(rows, weight).view(heads, *change.shape[:2], -1)
            self.changes[first : first + heads] = self.net.layers[layer].o.slope(own.flatten(-2), raw)

    def _measure(self, end: Tensor, corrupted: Tensor | None) -> None:
        """Take the metric of the whole model, and with every writer ablated, of those runs' ends."""
        ablated = corrupted
        if ablated is None and self.source is not None:
            ablated = aligned_to(end, self.source[1], self.cases)
        elif ablated is None:
            assert self.asked.constant is not None
            ablated = left(self.net, self.asked.constant, end.shape[1]).expand_as(end)
        places = [case.position - self.start for case in self.cases]
        for n, (case, place) in enumerate(zip(self.cases, places, strict=True)):
            if case.position == len(case.base) - 1:
                keep_end(self.asked.model, case.base, end[n, place])
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
        require_slope(scores, self.cases)
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
                    self._add(layer.norm1.back(graph.before[index], slope), graph.points, column, writers)
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
        below = self.asked.below[column]
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
