"""The edges of a model: what writes to the residual stream and what reads it, what is written, scores of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import xxhash
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.patching.cases import Case, by_length, measured
from interp.engine.patching.path import ordered
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.network import Network
from interp.errors import InputError
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

ABLATIONS = ("corrupted", "mean", "zero")


@dataclass
class EdgeScores:
    """What the metric loses when an edge alone is ablated.

    Attributes
    ----------
    writers, readers
        What the axes are, from the model's bottom to its top.
    exists
        ``bool [writer, reader]``: whether the writer writes below where the reader reads.
    per_pair
        ``float32 [pair, writer, reader]``: metric of the clean run less that with the edge ablated; NaN where there is
        no edge, and where an exact sweep did not get to.
    by_position
        ``float32 [writer, reader, position]``: the scores' parts at each position of the reader, mean over pairs;
        ``None`` where they were not asked for.
    clean, ablated, source
        ``float64 [pair]``: the metric of the whole model, with every edge ablated, and of the corrupted prompt.
    steps
        At how many points of an integral gradients were taken; of the pair that needed most.
    path
        How: ``"gradients"``, ``"replay"``, or ``"hooked: why"``.
    notes
        What is worth knowing.
    stopped, interrupt
        Why it ended early, or an empty string, and the interrupt that ended it.
    whole
        Scores of all pairs together, ``float64 [writer, reader]``, where there are none of single pairs.
    """

    writers: list[Node]
    readers: list[Node]
    exists: Tensor
    per_pair: Tensor
    by_position: Tensor | None
    clean: Tensor
    ablated: Tensor
    source: Tensor
    steps: int = 1
    path: str = "gradients"
    notes: list[str] = field(default_factory=list[str])
    stopped: str = ""
    interrupt: BaseException | None = None
    whole: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """The mean over pairs, ``float64 [writer, reader]``; NaN where there is no edge.

        Where it ended early: over the pairs that are done, or over what there is of each edge where no pair is.
        """
        if self.whole is not None:
            return self.whole
        some: Tensor = self.per_pair[self.finished] if self.stopped else self.per_pair
        count: Tensor | int = len(some)
        if self.stopped and not count:
            known = ~self.per_pair.isnan()
            some, count = self.per_pair.where(known, 0), known.sum(0)
        # By numpy, which makes no copy of all pairs' scores in float64 first.
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(some.numpy().sum(0, dtype=np.float64)) / count

    @property
    def finished(self) -> Tensor:
        """``bool [pair]``: which pairs have a score of every edge."""
        return ~(self.per_pair.isnan() & self.exists).flatten(1).any(1)


def ends(model: LoadedModel) -> tuple[list[Node], list[Node]]:
    """Return all that writes to the residual stream and all that reads it, from the bottom to the top."""
    shape = model.geometry
    layers, heads, shared = range(shape.n_layers), range(shape.n_heads), range(shape.n_kv_heads)
    mlps = [Node("mlp", layer) for layer in layers]
    writers = [Node("embed"), *(Node("head", layer, head) for layer in layers for head in heads), *mlps]
    readers = [
        *(Node("q", layer, head) for layer in layers for head in heads),
        *(Node(kind, layer, head) for kind in ("k", "v") for layer in layers for head in shared),
        *mlps,
        Node("logits"),
    ]
    return ordered(model, writers, readers)


def require_one_length(cases: Sequence[Case], ablation: str, positions: bool) -> None:
    """Refuse prompts of several lengths where positions are averaged over prompts or kept apart.

    Raises
    ------
    InputError
        They have several lengths.
    """
    lengths = {len(case.base) for case in cases}
    if ablation == "mean":
        lengths |= {len(case.source) for case in cases}
    if len(lengths) > 1 and (positions or ablation == "mean"):
        what, instead = "--ablation mean", "corrupted and zero take any"
        if positions:
            what, instead = "--positions", "the scores without it take any"
        raise InputError(
            f"the pairs have {min(lengths)} to {max(lengths)} tokens; with {what} they must have one length, {instead}"
        )


@dataclass(frozen=True)
class Written:
    """What the writers write, biases apart from an MLP's.

    Attributes
    ----------
    embed
        ``[…, position, d_model]``.
    z
        By layer, ``[…, position, head, d_head]``: before W_O.
    mlp
        By layer, ``[…, position, d_model]``.
    """

    embed: Tensor
    z: list[Tensor]
    mlp: list[Tensor]

    @cached_property
    def digest(self) -> str:
        """By what workers know it."""
        made = xxhash.xxh3_128()
        for tensor in (self.embed, *self.z, *self.mlp):
            held = tensor.detach().cpu().contiguous()
            made.update(f"{held.dtype} {list(held.shape)}".encode())
            made.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
        return made.hexdigest()

    def to(self, device: torch.device) -> Written:
        """Return the same on a device."""
        z, mlp = ([tensor.to(device) for tensor in tensors] for tensors in (self.z, self.mlp))
        return Written(self.embed.to(device), z, mlp)

    def of(self, site: str, layer: int) -> Tensor:
        """Return what is written at ``resid_pre`` (of layer 0), ``z`` or ``mlp_out``."""
        return self.embed if site == "resid_pre" else (self.z if site == "z" else self.mlp)[layer]


def written_by(model: LoadedModel, net: Network, prompts: Sequence[Sequence[int]]) -> tuple[Written, Tensor]:
    """Return what writers write in plain runs of prompts of one length, and how these end.

    Returns
    -------
    tuple
        What is written, ``[prompt, position, …]``; the stream after the last layer, ``[prompt, position, d_model]``.
    """
    depth = len(net.layers)
    held: dict[str, list[list[Tensor]]] = {site: [[] for _ in range(depth)] for site in ("resid_pre", "z", "mlp_out")}
    ends: list[Tensor] = []

    def keep(site: str) -> Edit:
        return lambda index, tensor: held[site][index].append(tensor) if index == 0 or site != "resid_pre" else None

    with torch.no_grad():
        for part in torch.tensor(prompts, device=model.device).split(max(1, memory.WAVE_ROWS // len(prompts[0]))):
            ends.append(forward(net, part, {site: keep(site) for site in held}))
            model.count(len(part))
    z, mlp = ([torch.cat(parts) for parts in held[site]] for site in ("z", "mlp_out"))
    return Written(torch.cat(held["resid_pre"][0]), z, mlp), torch.cat(ends)


def key_of(model: LoadedModel, cases: Sequence[Case], ablation: str) -> exactness.Key:
    """Return what runs of circuits are compared by with the hooked forward, once."""
    return ("circuit", ablation, *measured(cases, model, model))


def zeros(net: Network) -> Written:
    """Return what writers write under zero ablation: nothing but an MLP's bias. Positions broadcast."""
    width = net.unembed.weight.shape[1]
    none = net.unembed.weight.new_zeros(1, width)
    heads = net.unembed.weight.new_zeros(1, net.n_heads, net.d_head)
    biases = [none if layer.mlp_bias is None else layer.mlp_bias[None] for layer in net.layers]
    return Written(none, [heads] * len(net.layers), biases)


def means(model: LoadedModel, net: Network, cases: Sequence[Case]) -> Written:
    """Return the mean of what writers write on the cases' corrupted prompts, at each position."""
    depth, length = len(net.layers), len(cases[0].source)
    width = net.unembed.weight.shape[1]
    new = net.unembed.weight.new_zeros
    total = Written(
        new(length, width),
        [new(length, net.n_heads, net.d_head) for _ in range(depth)],
        [new(length, width) for _ in range(depth)],
    )

    def add(some: Sequence[Case]) -> None:
        held: list[tuple[Tensor, Tensor]] = []

        def keep(into: Callable[[int], Tensor | None]) -> Edit:
            def read(index: int, tensor: Tensor) -> None:
                sums = into(index)
                if sums is not None:
                    held.append((sums, tensor.sum(0)))

            return read

        ids = torch.tensor([case.source for case in some], device=model.device)
        with torch.no_grad():
            edits = {
                "resid_pre": keep(lambda index: None if index else total.embed),
                "z": keep(lambda index: total.z[index]),
                "mlp_out": keep(lambda index: total.mlp[index]),
            }
            forward(net, ids, edits)
        for sums, part in held:  # only now: memory may have run out on the way, and these prompts are then run again
            sums += part / len(cases)
        model.count(len(some))

    memory.halving(cases, max(1, memory.ROWS // length), add, model.device)
    return total


def written(model: LoadedModel, net: Network, cases: Sequence[Case], ablation: str) -> Written:
    """Return what ablated writers write, for ``mean`` or ``zero``; for ``corrupted`` it is each pair's own run's."""
    return zeros(net) if ablation == "zero" else means(model, net, cases)


def corrupted(model: LoadedModel, net: Network, cases: Sequence[Case]) -> Tensor:
    """Return the metric of the cases' corrupted prompts, ``float64 [case]``."""
    found = torch.full((len(cases),), float("nan"), dtype=torch.float64)

    def some(numbers: Sequence[int]) -> None:
        ids = torch.tensor([cases[n].source for n in numbers], device=model.device)
        with torch.no_grad():
            ends = forward(net, ids)
            for end, n in zip(ends, numbers, strict=True):
                found[n] = cases[n].scorer.of_residual(net, end[cases[n].source_position][None])[0]
        model.count(len(numbers))

    for length, those in by_length([case.source for case in cases]).items():
        memory.halving(those, max(1, memory.ROWS // length), some, model.device)
    return found


def left(net: Network, constant: Written, length: int) -> Tensor:
    """Return the stream after the last layer where all that writers write is ablated, ``[position, d_model]``."""
    parts = [constant.embed]
    for layer, z, mlp in zip(net.layers, constant.z, constant.mlp, strict=True):
        parts += [layer.o(z.flatten(1)), mlp]
    return torch.stack([part.expand(length, -1) for part in parts]).sum(0)
