"""One model's components in another of its shape: each alone, and several together.

A component is a function of the residual stream. A head of a layer, with the norm, queries, keys and values that it
reads through, writes W_O[h] z[h](x); its attention's bias and the norm behind it are a component of their own, and so
are the MLP with its norms, the embedding, and the final norm with the unembedding. Together they are the whole model:
with all of them put in, the one has become the other.

With `weights` the functions are the other model's, on what reaches them here. Without, the values are: what the heads'
z, the MLPs and the embedding were in the other model's own run, as activation patching puts them in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.patching.ablation import Sample
from interp.engine.transformer.block import Block
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Rotation


@dataclass(frozen=True)
class Component:
    """What is put in.

    Attributes
    ----------
    kind
        ``embed``, ``head``, ``attn`` (an attention's bias and the norm behind it), ``mlp`` or ``unembed``.
    layer, head
        Where; −1 where there is none.
    """

    kind: str
    layer: int = -1
    head: int = -1

    @property
    def name(self) -> str:
        """As results have it.

        Examples
        --------
        >>> Component("head", 2, 0).name, Component("mlp", 3).name, Component("embed").name
        ('2.0', '3.mlp', 'embed')
        """
        if self.kind == "head":
            return f"{self.layer}.{self.head}"
        return self.kind if self.layer < 0 else f"{self.layer}.{self.kind}"


def components(network: Network, *, weights: bool) -> list[Component]:
    """Return all that can be put in, from the embedding up."""
    found = [Component("embed")]
    for layer in range(len(network.layers)):
        found += [Component("head", layer, head) for head in range(network.n_heads)]
        found += [Component("attn", layer)] * weights
        found.append(Component("mlp", layer))
    return found + [Component("unembed")] * weights


class Swap:
    """Prompts of one length, as a model runs them with components of another one.

    Parameters
    ----------
    into, other
        The model that is changed, and the one whose components are put in.
    samples
        Prompts of one length, with what is measured.
    weights
        Whether components are the other model's functions, or their values in its own run.

    Attributes
    ----------
    plain, others
        ``float64 [prompt]``: what is measured of the two models as they are.
    """

    def __init__(self, into: Network, other: Network, samples: Sequence[Sample], *, weights: bool) -> None:
        self.into, self.other, self.samples, self.weights = into, other, list(samples), weights
        prompts = [one.ids for one in samples]
        self.turns = into.rotations(len(prompts[0])), other.rotations(len(prompts[0]))
        self.begin = into.begin(prompts), other.begin(prompts)
        self.before: list[Tensor] = []  # layer → the stream of the model that is changed
        self.z: list[Tensor] = []  # layer → the other model's own
        self.made: list[Tensor] = []

        def keep(held: list[Tensor]) -> Edit:
            return lambda layer, tensor: held.append(tensor)  # noqa: ARG005

        end = forward(into, edits={"resid_pre": keep(self.before)}, resid=self.begin[0])
        sites = {} if weights else {"z": keep(self.z), "mlp_out": keep(self.made)}
        there = forward(other, edits=sites, resid=self.begin[1])
        self._know(there)
        self.plain, self.others = self._measured(into, end), self._measured(other, there)
        self._end = end

    def alone(self, layer: int) -> Iterator[tuple[Component, Tensor]]:
        """Yield each component of a layer (−1: the embedding and the unembedding) and what is measured with it alone.

        A component that writes what the model's own does changes nothing, to the last bit.
        """
        if layer < 0:
            if torch.equal(*self.begin):
                yield Component("embed"), self.plain
            else:
                yield Component("embed"), self._measured(self.into, forward(self.into, resid=self.begin[1]))
            if self.weights:
                yield Component("unembed"), self._measured(self.other, self._end)
            return
        ours, theirs = self.into.at(layer), self.other.at(layer)
        x = self.before[layer]
        z = _attended(ours, self.turns[0][layer], x)
        written = ours.o.linear(z.flatten(-2))
        middle = ours.middle(x, ours.o.settled(written))
        reads = ours.mlp_reads(x, middle)
        made = ours.mlp(reads)
        given = self._heads(layer, theirs, x)

        def through(attended: Tensor) -> Tensor:
            moved = ours.middle(x, attended)
            return ours.after(moved, ours.mlp(ours.mlp_reads(x, moved)))

        entering: list[tuple[Component, Tensor | None]] = []
        for head in range(self.into.n_heads):
            change = self._change(ours, theirs, z, given, head)
            moved = through(ours.o.settled(written + change)) if bool(change.any()) else None
            entering.append((Component("head", layer, head), moved))
        if self.weights:
            settled = theirs.o.settled(_rebiased(ours, theirs, written))
            moved = None if torch.equal(settled, ours.o.settled(written)) else through(settled)
            entering.append((Component("attn", layer), moved))
        mlp = theirs.mlp(reads) if self.weights else self.made[layer]
        entering.append((Component("mlp", layer), None if torch.equal(mlp, made) else ours.after(middle, mlp)))
        yield from self._ended(layer, entering)

    def _ended(
        self, layer: int, entering: Sequence[tuple[Component, Tensor | None]]
    ) -> Iterator[tuple[Component, Tensor]]:
        """Yield what is measured of streams after a layer; ``None`` is the stream of the model as it is."""
        yield from ((one, self.plain) for one, rows in entering if rows is None)
        moved = [(one, rows) for one, rows in entering if rows is not None]
        size = max(1, memory.WAVE_ROWS // self.begin[0].shape[:2].numel())
        for first in range(0, len(moved), size):
            some = moved[first : first + size]
            rows = torch.cat([rows for _, rows in some])
            ends = forward(self.into, resid=rows, first=layer + 1).split(len(self.samples))
            yield from ((one, self._measured(self.into, end)) for (one, _), end in zip(some, ends, strict=True))

    def together(self, chosen: Collection[Component]) -> Tensor:
        """Return what is measured with all of them put in, ``float64 [prompt]``."""
        x = self.begin[Component("embed") in chosen]
        for layer in range(len(self.into.layers)):
            heads = [head for head in range(self.into.n_heads) if Component("head", layer, head) in chosen]
            attention, mlp = (Component(kind, layer) in chosen for kind in ("attn", "mlp"))
            ours, theirs = self.into.at(layer), self.other.at(layer)
            z = _attended(ours, self.turns[0][layer], x)
            written = ours.o.linear(z.flatten(-2))
            given = self._heads(layer, theirs, x) if heads else z
            for head in heads:
                written = written + self._change(ours, theirs, z, given, head)
            settled = theirs.o.settled(_rebiased(ours, theirs, written)) if attention else ours.o.settled(written)
            middle = ours.middle(x, settled)
            if mlp and not self.weights:
                made = self.made[layer]
            else:
                made = (theirs if mlp else ours).mlp(ours.mlp_reads(x, middle))
            x = ours.after(middle, made)
        return self._measured(self.other if Component("unembed") in chosen else self.into, x)

    def _heads(self, layer: int, theirs: Block, x: Tensor) -> Tensor:
        """Return the other model's z, ``[prompt, position, head, d_head]``: on this stream, or in its own run."""
        return _attended(theirs, self.turns[1][layer], x) if self.weights else self.z[layer]

    def _change(self, ours: Block, theirs: Block, z: Tensor, given: Tensor, head: int) -> Tensor:
        """Return what W_O makes of one head's change, ``[prompt, position, d_model]``."""
        here, there = (block.head_weights([head])[:, 0] for block in (ours, theirs if self.weights else ours))
        return given[:, :, head] @ there.T - z[:, :, head] @ here.T

    # -- what is measured ----------------------------------------------------------------------------------------------

    def _know(self, end: Tensor) -> None:
        """Give a metric that asks for a distribution that of the other model."""
        for n, (one, rows) in enumerate(zip(self.samples, end, strict=True)):
            if one.scorer.metric.needs_clean:
                logits = self.other.unembed(self.other.ending(rows[one.position][None]))
                self.samples[n] = replace(one, scorer=one.scorer.with_clean(logits[0]))

    def _measured(self, network: Network, end: Tensor) -> Tensor:
        """Return what is measured of streams after the last layer, ``[prompt, position, d_model]``."""
        found = [_of_one(network, one, rows) for one, rows in zip(self.samples, end, strict=True)]
        return torch.stack(found).double().cpu()


def _of_one(network: Network, sample: Sample, end: Tensor) -> Tensor:
    return sample.scorer.of_residual(network, sample.scorer.measured(end[None], sample.position))[0]


def _attended(block: Block, at: Rotation | None, x: Tensor) -> Tensor:
    """Return z of a residual stream, ``[prompt, position, head, d_head]``."""
    q, k, v = block.project(x)
    return block.attend(block.turn_queries(q, at), block.turn_keys(k, at), v)


def _rebiased(ours: Block, theirs: Block, written: Tensor) -> Tensor:
    """Return what the heads write, with the other model's bias for the model's own."""
    biases = [written.new_zeros(()) if block.o.bias is None else block.o.bias for block in (ours, theirs)]
    return written if torch.equal(*biases) else written + (biases[1] - biases[0])


# -- weights -----------------------------------------------------------------------------------------------------------


def weight_change(ours: Network, theirs: Network, one: Component) -> float:
    """Return by how much a component's weights differ: ‖W' − W‖ / ‖W‖, over all of its tensors (Frobenius norms).

    NaN for routed experts, which are known as a function alone.
    """
    if one.kind == "mlp" and ours.at(one.layer).experts is not None:
        return float("nan")
    pairs = list(zip(_weights(ours, one), _weights(theirs, one), strict=True))
    change = sum(float((there.double() - here.double()).square().sum()) for here, there in pairs)
    size = sum(float(here.double().square().sum()) for here, _ in pairs)
    return (change / size) ** 0.5 if size else float(change > 0)


def _weights(network: Network, one: Component) -> list[Tensor]:
    """Return the tensors that a component is made of; a head's keys and values are those of its group."""
    if one.kind == "embed":
        found = [network.embed.weight, network.embed.positions]
    elif one.kind == "unembed":
        found = [network.final.weight, network.final.bias, network.unembed.weight, network.unembed.bias]
    else:
        block = network.at(one.layer)
        if one.kind == "head":
            group = block.n_heads // block.n_kv_heads
            norms = (block.norm1, block.q_norm, block.k_norm)
            found = [block.head_weights([one.head]), *(norm.weight for norm in norms if norm is not None)]
            for linear, head in ((block.q, one.head), (block.k, one.head // group), (block.v, one.head // group)):
                rows = slice(head * block.d_head, (head + 1) * block.d_head)
                found += [linear.weight[rows], None if linear.bias is None else linear.bias[rows]]
        elif one.kind == "attn":
            norm = block.o.norm
            found = [block.o.bias, *([] if norm is None else [norm.weight, norm.bias])]
        else:
            norms = [block.norm2, *([] if block.down.norm is None else [block.down.norm])]
            linears = [block.up, block.down, *([] if block.gate is None else [block.gate])]
            found = [tensor for part in (*norms, *linears) for tensor in (part.weight, part.bias)]
    return [tensor for tensor in found if tensor is not None]
