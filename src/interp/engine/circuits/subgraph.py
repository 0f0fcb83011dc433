"""Runs of circuits: the exact forward of many subsets of a model's edges at once, without hooks.

With writers w (embedding, heads, MLPs) in order, their ablated values a[w], and a mask keep[reader, w] per run:

1. every half block's stream is computed once with all writers ablated: resid∅;
2. an input reads x[reader] = resid∅ + Σ_w keep[reader, w] · c[w], where c[w] is what writer w writes in this very run
   less a[w]; queries, keys and values of a head are three inputs, those of KV heads shared as in the model;
3. a head's c is (z − z∅) W_O of its own slice, an MLP's c its output less the ablated one;
4. the logits read as any input does.

Runs of one pair are one run up to the first layer in which their masks differ; writers that no run reads are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.circuits import pooled
from interp.engine.circuits.edges import ABLATIONS, Written, ends, key_of, require_one_length, written_by, zeros
from interp.engine.circuits.edges import written as constants
from interp.engine.circuits.subset_run import Batch, Run
from interp.engine.model import hooks
from interp.engine.patching.aligned import aligned_to
from interp.engine.patching.cases import Case, by_shape, ready, unpatched_differ
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.noise import measured_noise
from interp.engine.patching.path import reaching
from interp.engine.pool import sharing
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.network import Network

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

BYTES = 2**29  # that the outputs of all writers may take in one batch


class Subset:
    """A model and its pairs, ready to run with any of its edges.

    Parameters
    ----------
    model
        The model; the caller holds its lock.
    cases
        Pairs; the base is the clean prompt, the source the corrupted one.
    ablation
        What an edge that is not kept carries: its writer's value in the ``corrupted`` run, the ``mean`` of that over
        the pairs at each position, or ``zero``. Biases are never ablated: a head writes ``z @ W_O`` without the bias,
        and an MLP's output bias stays. Where the prompts of a pair have two lengths (`Case.aligned`), the corrupted run
        aligned to the clean one takes the corrupted run's place. As with a mean, what a head makes of ablated inputs
        alone is then not what it writes where it is ablated; with every edge ablated it is the corrupted run at the
        position asked about, which is given that run's own.

    carried
        The mean that ablated edges carry, where that is over more pairs than these.

    Attributes
    ----------
    writers, readers
        The ends of edges, bottom to top.
    exists
        ``bool [writer, reader]``: which edges there are.
    given, cases
        The pairs; with their metrics ready.
    forwards
        Runs so far, one for each mask and pair.

    Raises
    ------
    InputError
        The replay does not know this model, or means of prompts of several lengths.
    """

    def __init__(
        self, model: LoadedModel, cases: Sequence[Case], ablation: str = "corrupted", carried: Written | None = None
    ) -> None:
        self.model = model
        self.ablation = ablation
        self.writers, self.readers = ends(model)
        self.exists = reaching(model, self.writers, self.readers)
        self.forwards = 0
        require_one_length(cases, ablation, positions=False)
        self.given = tuple(cases)
        self.cases = list(cases)
        self.carried = carried
        self.shards = 0
        self._batches: list[Batch] = []
        self._pool = sharing.pool_of(model, metric=self.given[0].scorer.metric)
        key = key_of(model, cases, ablation)
        self.net: Network = exactness.run(
            model,
            key if self._pool is None else (*key, self._pool.name),
            lean=self._prepared,
            hooked=exactness.Refusal("circuits are run", "use a model that %interp load says to run without hooks"),
            sample=self._sample,
            length=max(len(case.base) for case in cases),
            noise=lambda: measured_noise(model, model, cases).relative,
        ).answer

    @property
    def path(self) -> str:
        """How it ran, for a provenance."""
        return "replay" if self._pool is None else "replay" + sharing.said(self.shards, self._pool)

    @property
    def whole(self) -> Tensor:
        """The mask of all edges, ``bool [writer, reader]``."""
        return self.exists.clone()

    @property
    def nothing(self) -> Tensor:
        """The mask of no edge, ``bool [writer, reader]``."""
        return torch.zeros_like(self.exists)

    def run(
        self,
        masks: Tensor,
        which: Sequence[int] | None = None,
        on_step: OnStep = silent,
        into: Tensor | None = None,
    ) -> Tensor:
        """Return the metric of every subset on every pair, ``float64 [mask, pair]``.

        Parameters
        ----------
        masks
            ``bool [mask, writer, reader]``: which edges are kept. Masks that differ in high layers alone share the
            runs of those below: put those next to each other that do.
        which
            Numbers of the pairs; all when not given.
        on_step
            Called with runs done and runs in all.
        into
            ``float64 [mask, pair]`` that is filled, batch by batch, and returned: what an interrupt leaves.
        """
        masks = torch.as_tensor(masks, dtype=torch.bool) & self.exists
        chosen = list(range(len(self.cases))) if which is None else list(which)
        found = torch.full((len(masks), len(chosen)), float("nan"), dtype=torch.float64) if into is None else into
        if self._pool is not None:
            pooled.run(self, self._pool, masks, chosen, found, on_step)
            return found
        column = {number: n for n, number in enumerate(chosen)}
        done = 0

        def waves(batch: Batch) -> None:
            places = [n for n, number in enumerate(batch.numbers) if number in column]
            asked = [(mask, place) for mask in range(len(masks)) for place in places]

            def some(rows: Sequence[tuple[int, int]]) -> None:
                nonlocal done
                at, of = (torch.tensor(numbers) for numbers in zip(*rows, strict=True))
                values = self._values(batch, masks, at, of)
                found[at, [column[batch.numbers[place]] for place in of.tolist()]] = values
                done += len(rows)
                self.forwards += len(rows)
                self.model.count(len(rows))
                on_step(done, len(masks) * len(chosen))

            memory.halving(asked, self._together(batch, masks), some, self.model.device)

        for batch in self._batches:
            hooks.guarded(functools.partial(waves, batch))  # without gradients, whenever it is interrupted
        return found

    def nodes(
        self,
        on_step: OnStep = silent,
    ) -> Tensor:
        """Return what the metric loses when all that a writer writes is ablated, ``float64 [pair, writer]``."""
        masks = self.exists.repeat(1 + len(self.writers), 1, 1)
        # From the top down: neighbours that differ in high layers alone share the runs of those below.
        order = range(len(self.writers))[::-1]
        masks[range(1, len(masks)), order] = False
        found = self.run(masks, on_step=on_step)
        return (found[0] - found[1:].flip(0)).T

    # -- what there is before any run --------------------------------------------------------------------------------

    def _prepared(self, check: exactness.Check) -> Network:  # noqa: ARG002
        self.net = network.read(self.model, half=True)
        hooks.guarded(self._prepare)
        return self.net

    def _prepare(self) -> None:
        self.cases = ready(self.model, self.model, self.cases)
        if self.carried is None and self.ablation == "mean":
            self.carried = constants(self.model, self.net, self.cases, self.ablation)
        if self._pool is None:
            self._batches = [self._batch(numbers) for numbers in by_shape(self.cases)]

    def _batch(self, numbers: list[int]) -> Batch:
        clean = torch.tensor([self.cases[n].base for n in numbers], device=self.model.device)
        written = torch.stack([self.net.embed(ids) for ids in clean])
        if self.ablation != "corrupted":
            return self._carrying(numbers, written, zeros(self.net) if self.carried is None else self.carried)
        if self.cases[numbers[0]].aligned is not None:
            return self._carrying(numbers, written, self._aligned(numbers))
        held = self._source(torch.tensor([self.cases[n].source for n in numbers], device=self.model.device))
        return Batch(numbers, embed=held["resid"][:, 0], written=written, **held)

    def _source(self, ids: Tensor) -> dict[str, Tensor]:
        """Return what the corrupted prompts carry, stacked over layers."""
        sites = {"resid_pre": "resid", "resid_mid": "mid", "z": "z", "mlp_out": "mlp"}
        found: list[dict[str, Tensor]] = []
        for part in ids.split(max(1, memory.WAVE_ROWS // ids.shape[1])):
            held: dict[str, list[Tensor]] = {name: [] for name in sites.values()}

            def keeping(kept: list[Tensor]) -> Edit:
                return lambda layer, tensor: kept.append(tensor)  # noqa: ARG005

            end = forward(self.net, part, {site: keeping(held[name]) for site, name in sites.items()})
            held["resid"].append(end)
            self.model.count(len(part))
            found.append({name: torch.stack(tensors, 1) for name, tensors in held.items()})
        return {name: torch.cat([held[name] for held in found]) for name in sites.values()}

    def _aligned(self, numbers: Sequence[int]) -> Written:
        """Return what corrupted runs of another length write, aligned to the clean ones, ``[pair, position, …]``."""
        cases = [self.cases[n] for n in numbers]
        own, given = (
            written_by(self.model, self.net, ids)[0]
            for ids in ([case.base for case in cases], [case.source for case in cases])
        )
        z, mlp = (
            [aligned_to(*both, cases) for both in zip(*layers, strict=True)]
            for layers in ((own.z, given.z), (own.mlp, given.mlp))
        )
        return Written(aligned_to(own.embed, given.embed, cases), z, mlp)

    def _carrying(self, numbers: list[int], written: Tensor, constant: Written) -> Batch:
        """Return a batch whose ablated edges carry what is no run's, and the stream that it all makes.

        Parameters
        ----------
        constant
            What is carried: the same in all pairs, or with an axis of pairs.
        """
        net, shape = self.net, written.shape
        each = constant.embed.dim() == len(shape)
        total, resid, mid = constant.embed, list[Tensor](), list[Tensor]()
        for layer, z, mlp in zip(net.layers, constant.z, constant.mlp, strict=True):
            resid.append(total)
            # Of the ablated z, not a mean of what it was in each run: a norm after the attention is not linear.
            mid.append(total + layer.o(z.flatten(-2)))
            total = mid[-1] + mlp
        resid.append(total)

        def spread(rows: list[Tensor]) -> Tensor:
            if each:
                return torch.stack(rows, 1)
            same = torch.stack([row.expand(shape[1], *row.shape[1:]) for row in rows])
            return same.expand(shape[0], *same.shape)

        embed = constant.embed.expand(shape)
        return Batch(numbers, embed, spread(resid), spread(mid), spread(constant.z), spread(constant.mlp), written)

    def _sample(self) -> Iterator[float]:
        """Yield how far the whole model, and with corrupted prompts nothing of it, are from the model's own runs."""
        some = list(range(min(exactness.sample_of(self.model), len(self.given))))
        whole, nothing = self.run(torch.stack([self.exists, self.nothing]), some)
        yield from unpatched_differ(
            self.model, self.model, self.given, whole, nothing if self.ablation == "corrupted" else None
        )

    # -- one batch of runs -------------------------------------------------------------------------------------------

    def _together(self, batch: Batch, masks: Tensor) -> int:
        """Return how many runs go together."""
        net, length = self.net, batch.written.shape[1]
        live = int(masks.any(0).any(1).sum())
        inputs = 3 * (net.n_heads + 2 * net.n_kv_heads)
        width = batch.written.shape[2]
        bytes_each = batch.written.element_size() * (length * width * (live + inputs) + self.exists.numel())
        room = min(BYTES, memory.free_bytes(self.model.device) // 4)
        return max(1, min(memory.WAVE_ROWS // length, room // bytes_each))

    def _values(self, batch: Batch, masks: Tensor, at: Tensor, of: Tensor) -> Tensor:
        """Return the metric of runs, ``float64 [run]``: of mask ``at[run]`` on the pair at ``of[run]`` of the batch."""
        net, device = self.net, batch.written.device
        chosen = masks[at]
        live = chosen.any(0).any(1)  # what no run reads need not be computed
        split = self._first_difference(chosen)
        keep = chosen[:, live].transpose(1, 2).to(device, batch.written.dtype)  # [run, reader, live writer]
        # Below the layer where the masks differ there is one run for each pair.
        pairs, back = of.unique(return_inverse=True)
        run = Run(net, batch, keep[:1], pairs.to(device), int(live.sum()))
        if live[0]:
            run.write((batch.written - batch.embed)[run.of][:, None])
        width = net.n_heads + 1
        for index in range(len(net.layers)):
            if index == split:
                run = run.spread(keep, of.to(device), back.to(device))
            there = live[1 + index * width : 1 + (index + 1) * width].tolist()
            heads = [head for head in range(net.n_heads) if there[head]]
            run.layer(index, heads, mlp=there[-1])
        if split >= len(net.layers):
            run = run.spread(keep, of.to(device), back.to(device))
        positions = torch.tensor([self.cases[batch.numbers[place]].position for place in of.tolist()], device=device)
        ends = run.end(positions)
        values = torch.empty(len(at), dtype=torch.float64)
        for place in pairs.tolist():
            rows = of == place
            scorer = self.cases[batch.numbers[place]].scorer
            values[rows] = scorer.of_residual(net, ends[rows.to(device)]).double().cpu()
        return values

    def _first_difference(self, chosen: Tensor) -> int:
        """Return the first layer in which the inputs of `chosen`, ``[run, writer, reader]``, keep different edges."""
        differs = (chosen != chosen[:1]).any(0).any(0)[:-1].view(len(self.net.layers), -1).any(1)
        return int(differs.nonzero()[0]) if differs.any() else len(self.net.layers)


__all__ = ["ABLATIONS", "Subset"]
