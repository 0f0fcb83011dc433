"""Runs of circuits: the exact forward of many subsets of a model's edges at once, without hooks.

What an input reads is what stands there with every edge ablated, and on top of it, of each edge that is kept, how far
what its writer writes in this very run is from its ablated value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine import memory
from interp.engine.circuits.edges import ABLATIONS, ends, require_one_length
from interp.engine.model import hooks
from interp.engine.patching import sweep
from interp.engine.patching.path import reaching
from interp.engine.patching.sweep import CHECKED, WAVE_ROWS, Case, OnStep
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward, turned
from interp.engine.transformer.network import Linear, Network
from interp.errors import InputError
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

TOLERANCE = 1e-3  # of the metric's scale: what is written is summed writer by writer, which rounds otherwise
_BYTES = 2**29  # that the outputs of all writers may take in one batch
_SMALLEST, _MASKS = 4, 2**27  # runs of a chain of removals, and bytes that its masks may take


@dataclass(frozen=True)
class _Batch:
    """Pairs whose prompts have one length, and what they carry where edges are ablated.

    Attributes
    ----------
    numbers
        Of the pairs.
    embed, resid, mid
        ``[pair, position, d_model]``, ``[pair, layer + 1, position, d_model]`` and ``[pair, layer, …]``: the ablated
        embedding, and what a reader reads before a layer and in its middle where every edge is ablated.
    z, mlp
        ``[pair, layer, position, head, d_head]`` and ``[pair, layer, position, d_model]``: ablated values.
    written
        ``[pair, position, d_model]``: the clean prompt's embedding.
    """

    numbers: list[int]
    embed: Tensor
    resid: Tensor
    mid: Tensor
    z: Tensor
    mlp: Tensor
    written: Tensor


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
        and an MLP's output bias stays.

    Attributes
    ----------
    writers, readers
        The ends of edges, bottom to top.
    exists
        ``bool [writer, reader]``: which edges there are.
    cases
        The pairs, their metrics ready.
    forwards
        Runs so far, one for each mask and pair.

    Raises
    ------
    InputError
        The replay does not know this model, or means of prompts of several lengths.
    """

    def __init__(self, model: LoadedModel, cases: Sequence[Case], ablation: str = "corrupted") -> None:
        self.model = model
        self.ablation = ablation
        self.writers, self.readers = ends(model)
        self.exists = reaching(model, self.writers, self.readers)
        self.forwards = 0
        try:
            self.net: Network = network.read(model)
        except network.Unreadable as reason:
            raise InputError(
                f"circuits are run without hooks, which this model does not allow ({reason}); use a float32 model of a "
                f"known family: {', '.join(sorted(network.FAMILIES))}"
            ) from None
        require_one_length(cases, ablation, positions=False)
        lengths = sorted({len(case.base) for case in cases})
        self.cases = list(cases)
        self._batches: list[_Batch] = []
        hooks.run_hooked([], functools.partial(self._prepare, lengths))
        self._check()

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
        on_step: OnStep = lambda done, total: None,  # noqa: ARG005
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
        column = {number: n for n, number in enumerate(chosen)}
        done = 0

        def waves(batch: _Batch) -> None:
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
            hooks.run_hooked([], functools.partial(waves, batch))  # without gradients, whenever it is interrupted
        return found

    def nodes(
        self,
        on_step: OnStep = lambda done, total: None,  # noqa: ARG005
    ) -> Tensor:
        """Return what the metric loses when all that a writer writes is ablated, ``float64 [pair, writer]``."""
        masks = self.exists.repeat(1 + len(self.writers), 1, 1)
        # From the top down: neighbours that differ in high layers alone share the runs of those below.
        order = range(len(self.writers))[::-1]
        masks[range(1, len(masks)), order] = False
        found = self.run(masks, on_step=on_step)
        return (found[0] - found[1:].flip(0)).T

    # -- what there is before any run --------------------------------------------------------------------------------

    def _prepare(self, lengths: Sequence[int]) -> None:
        self.cases = [self._ready(case) for case in self.cases]
        for length in lengths:
            self._batches.append(self._batch([n for n, case in enumerate(self.cases) if len(case.base) == length]))

    def _ready(self, case: Case) -> Case:
        """Return `case` with the clean run's distribution, where its metric asks for that."""
        if case.scorer.metric.name != "kl" or case.scorer.metric.function is not None:
            return case
        end = forward(self.net, torch.tensor([case.base], device=self.model.device))[0, case.position]
        logits = self.net.unembed(self.net.final(end[None]))[0]
        self.model.count(1)
        return replace(case, scorer=replace(case.scorer, clean=sweep.wide(logits).log_softmax(-1)))

    def _batch(self, numbers: list[int]) -> _Batch:
        clean = torch.tensor([self.cases[n].base for n in numbers], device=self.model.device)
        written = torch.stack([self.net.embed(ids) for ids in clean])
        if self.ablation == "zero":
            return self._zeros(numbers, written)
        held = self._source(torch.tensor([self.cases[n].source for n in numbers], device=self.model.device))
        if self.ablation == "mean":
            held = {name: part.mean(0, keepdim=True).expand_as(part) for name, part in held.items()}
        return _Batch(numbers, embed=held["resid"][:, 0], written=written, **held)

    def _source(self, ids: Tensor) -> dict[str, Tensor]:
        """Return what the corrupted prompts carry, stacked over layers."""
        sites = {"resid_pre": "resid", "resid_mid": "mid", "z": "z", "mlp_out": "mlp"}
        found: list[dict[str, Tensor]] = []
        for part in ids.split(max(1, WAVE_ROWS // ids.shape[1])):
            held: dict[str, list[Tensor]] = {name: [] for name in sites.values()}

            def keeping(kept: list[Tensor]) -> Edit:
                return lambda layer, tensor: kept.append(tensor)  # noqa: ARG005

            end = forward(self.net, part, {site: keeping(held[name]) for site, name in sites.items()})
            held["resid"].append(end)
            self.model.count(len(part))
            found.append({name: torch.stack(tensors, 1) for name, tensors in held.items()})
        return {name: torch.cat([held[name] for held in found]) for name in sites.values()}

    def _zeros(self, numbers: list[int], written: Tensor) -> _Batch:
        """Return what is left where every edge carries nothing: biases."""
        net, shape = self.net, written.shape
        total, resid, mid, mlp = torch.zeros_like(written[0, 0]), list[Tensor](), list[Tensor](), list[Tensor]()
        for layer in net.layers:
            resid.append(total)
            mid.append(total if layer.o.bias is None else total + layer.o.bias)
            mlp.append(torch.zeros_like(total) if layer.down.bias is None else layer.down.bias)
            total = mid[-1] + mlp[-1]
        resid.append(total)

        def spread(rows: list[Tensor]) -> Tensor:
            return torch.stack(rows)[None, :, None].expand(shape[0], -1, shape[1], -1)

        z = written.new_zeros(()).expand(shape[0], len(net.layers), shape[1], net.n_heads, net.d_head)
        return _Batch(numbers, torch.zeros_like(written), spread(resid), spread(mid), z, spread(mlp), written)

    def _check(self) -> None:
        """Compare the runs of the whole model, and of nothing of it, with the model's own, once for a state of it."""
        if self.model.trusted("circuit"):
            return
        some = list(range(min(CHECKED, len(self.cases))))
        whole, nothing = self.run(torch.stack([self.exists, self.nothing]), some)
        for n in some:
            _, *ends = sweep.unpatched(self.model, self.model, self.cases[n])
            found = [whole[n], nothing[n]] if self.ablation == "corrupted" else [whole[n]]
            for value, expected in zip(found, ends, strict=False):
                off = sweep.apart(float(value), float(expected))
                if off > TOLERANCE:
                    raise InputError(
                        f"circuits are run without hooks, and on {self.model.name} that gives {float(value):.4g} where "
                        f"its own forward gives {float(expected):.4g}; load it in float32 without patches of your own"
                    )
        self.model.trust("circuit")

    # -- one batch of runs -------------------------------------------------------------------------------------------

    def _together(self, batch: _Batch, masks: Tensor) -> int:
        """Return how many runs go together."""
        net, length = self.net, batch.written.shape[1]
        live = int(masks.any(0).any(1).sum())
        inputs = 3 * (net.n_heads + 2 * net.n_kv_heads)
        width = batch.written.shape[2]
        bytes_each = batch.written.element_size() * (length * width * (live + inputs) + self.exists.numel())
        room = min(_BYTES, memory.free_bytes(self.model.device) // 4)
        return max(1, min(WAVE_ROWS // length, room // bytes_each))

    def _values(self, batch: _Batch, masks: Tensor, at: Tensor, of: Tensor) -> Tensor:
        """Return the metric of runs, ``float64 [run]``: of mask ``at[run]`` on the pair at ``of[run]`` of the batch."""
        net, device = self.net, batch.written.device
        chosen = masks[at]
        live = chosen.any(0).any(1)  # what no run reads need not be computed
        apart = self._apart(chosen)
        keep = chosen[:, live].transpose(1, 2).to(device, batch.written.dtype)  # [run, reader, live writer]
        # Below the layer where the masks differ there is one run for each pair.
        pairs, back = of.unique(return_inverse=True)
        run = _Run(net, batch, keep[:1], pairs.to(device), int(live.sum()))
        if live[0]:
            run.write((batch.written - batch.embed)[run.of][:, None])
        width = net.n_heads + 1
        for index in range(len(net.layers)):
            if index == apart:
                run = run.spread(keep, of.to(device), back.to(device))
            there = live[1 + index * width : 1 + (index + 1) * width].tolist()
            heads = [head for head in range(net.n_heads) if there[head]]
            run.layer(index, heads, mlp=there[-1])
        if apart >= len(net.layers):
            run = run.spread(keep, of.to(device), back.to(device))
        positions = torch.tensor([self.cases[batch.numbers[place]].position for place in of.tolist()], device=device)
        ends = run.end(positions)
        values = torch.empty(len(at), dtype=torch.float64)
        for place in pairs.tolist():
            rows = of == place
            scorer = self.cases[batch.numbers[place]].scorer
            values[rows] = scorer.of_residual(net, ends[rows.to(device)]).double().cpu()
        return values

    def _apart(self, chosen: Tensor) -> int:
        """Return the first layer in which the inputs of `chosen`, ``[run, writer, reader]``, keep different edges."""
        differs = (chosen != chosen[:1]).any(0).any(0)[:-1].view(len(self.net.layers), -1).any(1)
        return int(differs.nonzero()[0]) if differs.any() else len(self.net.layers)


class _Run:
    """Runs under way: what every writer below has written, less its ablated value.

    Parameters
    ----------
    keep
        ``[run or 1, reader, live writer]``: 1 where an edge is kept.
    of
        ``int64 [run]``: the pair of each.
    count
        How many live writers there are.
    """

    def __init__(self, net: Network, batch: _Batch, keep: Tensor, of: Tensor, count: int) -> None:
        self.net = net
        self.batch = batch
        self.keep = keep
        self.of = of
        length, width = batch.written.shape[1:]
        self.changes = batch.written.new_empty(len(of), count, length, width)
        self.below = 0  # writers that have written
        self.tables = net.rotary(length) if net.rotary is not None else None

    def spread(self, keep: Tensor, of: Tensor, back: Tensor) -> _Run:
        """Return the same with a row for each run instead of each pair; row ``back[run]`` is what it continues."""
        wide = _Run(self.net, self.batch, keep, of, 0)
        wide.below = self.below
        wide.changes = self.changes.new_empty(len(of), *self.changes.shape[1:])
        wide.changes[:, : self.below] = self.changes[:, : self.below][back]
        return wide

    def write(self, changes: Tensor) -> None:
        """Add the next writers' ``[run, writer, position, d_model]``."""
        self.changes[:, self.below : self.below + changes.shape[1]] = changes
        self.below += changes.shape[1]

    def layer(self, index: int, heads: Sequence[int], *, mlp: bool) -> None:
        """Run those heads of a layer that are read anywhere, and its MLP if it is."""
        net, layer = self.net, self.net.layers[index]
        first = index * (net.n_heads + 2 * net.n_kv_heads + 1)
        last = [first + net.n_heads + 2 * net.n_kv_heads]
        beside = self._read(last, self.batch.resid[self.of, index]) if mlp and net.parallel else None
        if heads:
            self._attend(index, first, heads)
        if mlp:
            read = self._read(last, self.batch.mid[self.of, index]) if beside is None else beside
            made = layer.mlp(layer.norm2(read[:, 0])) - self.batch.mlp[self.of, index]
            self.write(made[:, None])

    def _attend(self, index: int, first: int, heads: Sequence[int]) -> None:
        net, layer = self.net, self.net.layers[index]
        group = net.n_heads // net.n_kv_heads
        shared = sorted({head // group for head in heads})
        keys = [first + net.n_heads + head for head in shared]
        readers = [*(first + head for head in heads), *keys, *(reader + net.n_kv_heads for reader in keys)]
        normed = layer.norm1(self._read(readers, self.batch.resid[self.of, index]))
        read = normed.split([len(heads), len(shared), len(shared)], 1)
        q, k, v = (
            _projected(rows, linear, numbers, net.d_head)
            for rows, linear, numbers in zip(read, (layer.q, layer.k, layer.v), (heads, shared, shared), strict=True)
        )
        q, k = turned(layer.q_norm, q, self.tables), turned(layer.k_norm, k, self.tables)
        own = [shared.index(head // group) for head in heads]
        z = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k[:, :, own].transpose(1, 2), v[:, :, own].transpose(1, 2), is_causal=True,
            scale=layer.scale,
        )  # fmt: skip
        change = z - self.batch.z[self.of, index].transpose(1, 2)[:, list(heads)]
        weight = layer.o.weight.unflatten(1, (net.n_heads, net.d_head))[:, list(heads)]
        self.write(torch.einsum("rhpk,mhk->rhpm", change, weight))

    def _read(self, readers: Sequence[int], ablated: Tensor) -> Tensor:
        """Return what inputs read, ``[run, reader, position, d_model]``."""
        kept = self.keep[:, list(readers), : self.below]
        length, width = ablated.shape[1:]
        added = kept @ self.changes[:, : self.below].flatten(2)
        return added.unflatten(2, (length, width)) + ablated[:, None]

    def end(self, positions: Tensor) -> Tensor:
        """Return what the logits read at one position of each run, ``[run, d_model]``."""
        rows = torch.arange(len(self.of), device=positions.device)
        written = self.changes[rows, : self.below, positions]
        return (self.keep[:, -1:, : self.below] @ written)[:, 0] + self.batch.resid[self.of, -1, positions]


def _projected(rows: Tensor, linear: Linear, heads: Sequence[int], width: int) -> Tensor:
    """Return each head's own projection of its own input, ``[run, position, head, d_head]``."""
    out = torch.einsum("rhpd,hkd->rphk", rows, linear.weight.unflatten(0, (-1, width))[list(heads)])
    return out if linear.bias is None else out + linear.bias.unflatten(0, (-1, width))[list(heads)]


# -- automated circuit discovery ---------------------------------------------------------------------------------------


def acdc(
    subset: Subset,
    thresholds: Sequence[float],
    on_step: OnStep = lambda done, total: None,  # noqa: ARG005
    into: MutableMapping[int, Tensor] | None = None,
    among: Tensor | None = None,
) -> Tensor:
    """Remove edges one by one, from the logits down, each for good if the metric hardly notices.

    An edge goes if without it the metric's mean over the pairs changes, either way, by less than the threshold, in the
    model that is left by then: Conmy et al. (2023), "Towards Automated Circuit Discovery for Mechanistic
    Interpretability", algorithm 1, with any metric in place of their KL divergence. Inputs of what nothing reads any
    more go without a run. The answer is that of the one-by-one algorithm; runs that would follow if the next edges are
    decided as they were at the next larger threshold are made together, and thrown away from where that is not so.

    Parameters
    ----------
    thresholds
        In units of the metric.
    on_step
        Called with edges decided and edges to decide, over all thresholds.
    into
        Number of a threshold → its ``bool [writer, reader]``, filled one by one, the largest threshold first: what an
        interrupt leaves.
    among
        ``bool [writer, reader]``: the edges to begin with, all others ablated; all when not given.

    Returns
    -------
    Tensor
        ``bool [threshold, writer, reader]``: the edges that are left.
    """
    kept: MutableMapping[int, Tensor] = {} if into is None else into
    begin = subset.whole if among is None else among & subset.exists
    order = _downward(begin)
    guess, total = subset.nothing, len(thresholds) * len(order)
    sizes = sorted(range(len(thresholds)), key=lambda n: -thresholds[n])
    start = float(subset.run(begin[None]).mean())
    for turn, number in enumerate(sizes):
        before = turn * len(order)

        def step(done: int, before: int = before) -> None:
            on_step(before + done, total)

        guess = _Removal(subset, order, thresholds[number], guess, begin, start).run(step)
        kept[number] = guess
    return torch.stack([kept[number] for number in range(len(thresholds))])


def survived(kept: Tensor, thresholds: Sequence[float], exists: Tensor) -> Tensor:
    """Return the largest threshold that each edge survives, ``float64 [writer, reader]``: 0 for none, NaN for no edge.

    Examples
    --------
    >>> survived(torch.tensor([[[True]], [[False]]]), [0.1, 1.0], torch.tensor([[True]]))
    tensor([[0.1000]], dtype=torch.float64)
    """
    sizes = torch.tensor(list(thresholds), dtype=torch.float64)[:, None, None]
    best = (kept.double() * sizes).amax(0)
    return torch.where(exists, best, torch.full_like(best, float("nan")))


def _downward(edges: Tensor) -> list[tuple[int, int]]:
    """Return edges ``[writer, reader]`` as (writer, reader), from the logits down, readers' highest writers first."""
    return sorted(
        ((writer, reader) for writer, reader in edges.nonzero().tolist()), key=lambda edge: (-edge[1], -edge[0])
    )


class _Removal:
    """ACDC at one threshold under way."""

    def __init__(
        self,
        subset: Subset,
        order: Sequence[tuple[int, int]],
        threshold: float,
        guess: Tensor,
        begin: Tensor,
        start: float,
    ) -> None:
        self.subset = subset
        self.order = order
        self.threshold = threshold
        self.guess = guess
        self.kept = begin.clone()
        self.value = start
        place = {node.name: n for n, node in enumerate(subset.writers)}
        group = subset.net.n_heads // subset.net.n_kv_heads
        self.of = [[place[name] for name in _reading(node, group)] for node in subset.readers]
        self.size = _SMALLEST

    def run(self, on_step: Callable[[int], None]) -> Tensor:
        """Return the edges that are left, ``bool [writer, reader]``."""
        at = 0
        while at < len(self.order):
            at = self._chain(at)
            on_step(at)
        return self.kept

    def _chain(self, at: int) -> int:
        """Decide the next edges as far as they come out as guessed, and the first that does not; return the next."""
        asked = list(self._ahead(at))
        masks = [mask for _, mask, _ in asked if mask is not None]
        values = iter(self.subset.run(torch.stack(masks)).mean(1).tolist() if masks else [])
        for number, (edge, mask, guessed) in enumerate(asked):
            if mask is None:
                self.kept[edge] = False
                continue
            value = next(values)
            stays = not abs(value - self.value) < self.threshold
            if not stays:
                self.kept[edge], self.value = False, value
            if stays != guessed:
                self.size = max(_SMALLEST, number // 2)
                return at + number + 1
        self.size = min(2 * self.size, max(_SMALLEST, _MASKS // self.kept.numel()))
        return at + len(asked)

    def _ahead(self, at: int) -> Iterator[tuple[tuple[int, int], Tensor | None, bool]]:
        """Yield the next edges, the mask to run (``None`` where nothing reads what it feeds), and the guess."""
        kept, runs = self.kept.clone(), 0
        for edge in self.order[at:]:
            nodes = self.of[edge[1]]
            if nodes and not kept[nodes].any():
                kept[edge] = False
                yield edge, None, False
                continue
            if runs == self.size:
                return
            runs += 1
            without = kept.clone()
            without[edge] = False
            guess = bool(self.guess[edge])
            yield edge, without, guess
            if not guess:
                kept = without


def _reading(node: Node, group: int) -> list[str]:
    """Return the names of the writers that an input belongs to: none for the logits."""
    if node.kind in {"k", "v"}:
        return [Node("head", node.layer, node.head * group + n).name for n in range(group)]
    if node.kind == "q":
        return [Node("head", node.layer, node.head).name]
    return [node.name] if node.kind == "mlp" else []


__all__ = ["ABLATIONS", "Subset", "acdc", "survived"]
