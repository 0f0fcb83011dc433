"""One prompt's run with what is not linear held: attention patterns, norms' denominators, and what the MLPs write.

The residual stream is then linear in its sources: the embedding, what each MLP writes, and biases (Ameisen et al. 2025,
"Circuit Tracing"). `back` carries readings of the stream down to where sources write, `forward` carries what sources
write up to where it is read; both are linear maps, each other's transposes.

What an MLP writes is itself features (of a dictionary for its layer) and an error, and for a skip transcoder a linear
map of what it reads, which is part of the way through the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from interp.engine.features.dictionary import Dictionary
from interp.engine.model.hooks import stoppable
from interp.engine.transformer.block import Block
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Norm, Rotation
from interp.sites import MLP_INPUTS

_NORMED = ("mlp_normed", "mlp_unit")  # of the places where an MLP's input is read; elsewhere it is the stream itself


@dataclass(frozen=True)
class Held:
    """A norm of which the denominators are held, as a linear map of rows.

    Attributes
    ----------
    gain
        ``[d_model]``.
    size
        ``[position, 1]``.
    """

    gain: Tensor
    size: Tensor
    centred: bool

    @classmethod
    def of(cls, norm: Norm, x: Tensor) -> Held:
        """Return `norm` at `x`, ``[position, d_model]``."""
        return cls(norm.weight, norm.size(x)[..., None], not norm.rms)

    def __call__(self, x: Tensor, at: Tensor | slice = slice(None)) -> Tensor:
        """Return the map of ``[…, position, d_model]``, without the norm's bias."""
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return x / self.size[at] * self.gain

    def back(self, slope: Tensor, at: Tensor | slice = slice(None)) -> Tensor:
        """Return its transpose."""
        slope = slope * self.gain / self.size[at]
        return slope - slope.mean(-1, keepdim=True) if self.centred else slope


@dataclass(frozen=True)
class Layer:
    """What of a layer is held.

    Attributes
    ----------
    network, index
        Where its weights are, and its number.
    attention_norm, mlp_norm
        Before its halves.
    output_norm
        What the attention adds to the stream goes through, where there is one.
    pattern
        ``[head, query, key]``.
    attended
        ``[position, d_model]``: what attention adds that no source does, by its biases.
    before
        The stream before the layer, ``[position, d_model]``.
    read
        The stream that the MLP reads, ``[position, d_model]``.
    written
        What the MLP adds to the stream, ``[position, d_model]``.
    """

    network: Network
    index: int
    attention_norm: Held
    mlp_norm: Held
    output_norm: Held | None
    pattern: Tensor
    attended: Tensor
    before: Tensor
    read: Tensor
    written: Tensor

    @property
    def block(self) -> Block:
        """Its weights; where they stay in files or on another device, they are here now."""
        return self.network.at(self.index)

    def values(self, x: Tensor) -> Tensor:
        """Return z, ``[…, position, head, d_head]``, of a part of the stream, ``[…, position, d_model]``."""
        block = self.block
        v = (self.attention_norm(x) @ block.v.weight.T).unflatten(-1, (-1, block.d_head))
        return block.mix(self.pattern, v)

    def attend(self, x: Tensor) -> Tensor:
        """Return what attention adds for a part of the stream, without biases; both ``[…, position, d_model]``."""
        return self.out(self.values(x).flatten(-2))

    def out(self, z: Tensor) -> Tensor:
        """Return what is added to the stream for z, ``[…, position, head · d_head]``."""
        out = z @ self.block.o.weight.T
        out = out if self.output_norm is None else self.output_norm(out)
        return out * self.block.o.scale

    def into_heads(self, slope: Tensor, at: Tensor | slice = slice(None)) -> Tensor:
        """Return readings of what attention adds, ``[…, position, d_model]``, as ones of z, split into heads."""
        slope = slope if self.output_norm is None else self.output_norm.back(slope, at)
        return (slope * self.block.o.scale @ self.block.o.weight).unflatten(-1, (-1, self.block.d_head))

    def through_heads(self, z: Tensor) -> Tensor:
        """Return readings of z, ``[…, position, head, d_head]``, as ones of the stream before the layer."""
        block = self.block
        heads, shared = z.shape[-2], block.n_kv_heads
        # pattern[h, q, k] · z[q, h] → of the values at k, summed over the heads that share them.
        v = torch.einsum("hqk,...qhd->...khd", self.pattern, z)
        v = v.unflatten(-2, (shared, heads // shared)).sum(-2)
        return self.attention_norm.back(v.flatten(-2) @ block.v.weight)

    def attend_back(self, slope: Tensor) -> Tensor:
        """Return the transpose of `attend`."""
        return self.through_heads(self.into_heads(slope))


class Frozen:
    """A prompt's run, held.

    Parameters
    ----------
    network
        The model.
    ids
        The prompt.
    dictionaries
        Layer → what its MLP is written as; only what skips through them is used here.
    on_layer
        Told which layer is done.
    known
        The run's `streams` and `patterns`, where it was run before: what is held of each layer follows from them.

    Attributes
    ----------
    start
        ``[position, d_model]``: the embeddings.
    end
        ``[position, d_model]``: the stream after the last layer.
    """

    def __init__(
        self,
        network: Network,
        ids: Sequence[int],
        dictionaries: Mapping[int, Dictionary] | None = None,
        on_layer: Callable[[int], object] | None = None,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.network = network
        self.ids = tuple(ids)
        self.dictionaries = dict(dictionaries or {})
        with torch.no_grad():
            self.start = network.begin([ids])[0]
            self.layers: list[Layer] = []
            x = self.start
            for index in range(len(network.layers)):
                pattern = None if known is None else known[1][index]
                layer, after = _held(network, index, x, lambda index=index: self.turns[index], pattern)
                x = after if known is None else known[0][index + 1]
                self.layers.append(layer)
                stoppable(x)
                if on_layer is not None:
                    on_layer(index)
            self.end = x
            self.final = Held.of(network.final, x)

    def __len__(self) -> int:
        return len(self.layers)

    @cached_property
    def turns(self) -> Sequence[Rotation | None]:
        """What turns each layer's queries and keys."""
        return self.network.rotations(len(self.ids))

    @property
    def patterns(self) -> Tensor:
        """What the heads attend to, ``[layer, head, query, key]``."""
        return torch.stack([layer.pattern for layer in self.layers])

    @property
    def streams(self) -> Tensor:
        """The stream before each layer and at the end, ``[layer + 1, position, d_model]``."""
        return torch.stack([*(layer.before for layer in self.layers), self.end])

    # -- what a dictionary reads ---------------------------------------------------------------------------------------

    def shown(self, layer: int, point: str) -> Tensor:
        """Return what a dictionary of an MLP's input reads, ``[position, d_in]``."""
        held = self.layers[layer]
        bias = held.block.norm2.bias
        linear = self.reading(layer, point)(held.read)
        return linear + bias if point == "mlp_normed" and bias is not None else linear

    def reading(self, layer: int, point: str) -> Callable[[Tensor], Tensor]:
        """Return the linear map from the stream that an MLP reads to what a dictionary reads, without biases."""
        norm = self.layers[layer].mlp_norm
        if point not in _NORMED:
            return lambda x: x
        return norm if point == "mlp_normed" else _unit(norm)

    def reading_back(self, layer: int, point: str) -> Callable[[Tensor, Tensor | slice], Tensor]:
        """Return the transpose of `reading`, of readings of some positions."""
        norm = self.layers[layer].mlp_norm
        if point not in _NORMED:
            return lambda slope, at: slope  # noqa: ARG005
        return norm.back if point == "mlp_normed" else _unit(norm).back

    def taken_back(self, dictionary: Dictionary, slope: Tensor, at: Tensor | slice) -> Tensor:
        """Return readings of a dictionary's input once made ready, ``[…, d_in]``, as ones of the MLP's stream."""
        taken, point, layer = dictionary.taken, dictionary.reads.point, dictionary.layer
        slope = slope * taken.scale
        if taken.normed:
            slope = slope / sizes(dictionary, self.shown(layer, point))[at]
        if taken.centre or taken.normed == "layer":
            slope = slope - slope.mean(-1, keepdim=True)
        return self.reading_back(layer, point)(slope, at)

    def skipped(self, layer: int, x: Tensor) -> Tensor | None:
        """Return what a skip transcoder adds for a part of the MLP's stream; ``None`` where nothing skips."""
        own = self.dictionaries.get(layer)
        if own is None or own.skip is None:
            return None
        shown = self.shown(layer, own.reads.point)
        x = self.reading(layer, own.reads.point)(x)
        if own.taken.centre or own.taken.normed == "layer":
            x = x - x.mean(-1, keepdim=True)
        if own.taken.normed:
            x = x / sizes(own, shown)
        return x * own.taken.scale @ own.skip * own.taken.factor(shown)

    def skipped_back(self, layer: int, slope: Tensor, at: Tensor | slice = slice(None)) -> Tensor | None:
        """Return the transpose of `skipped`, of readings of some positions."""
        own = self.dictionaries.get(layer)
        if own is None or own.skip is None:
            return None
        factor = own.taken.factor(self.shown(layer, own.reads.point)[at])
        return self.taken_back(own, slope * factor @ own.skip.T, at)

    # -- the two linear maps -------------------------------------------------------------------------------------------

    def back(
        self,
        slope: Tensor,
        top: int,
        at_mlp: Callable[[int, Tensor], Tensor | None],
        at_attention: Callable[[int, Tensor], object] | None = None,
    ) -> Tensor:
        """Carry readings of the stream down to the embeddings.

        Parameters
        ----------
        slope
            ``[reading, position, d_model]``, of the stream before layer `top`.
        at_mlp
            Given a layer and the readings of the stream after it, which are those of what its MLP writes; returns
            readings to add of the stream that the MLP reads, or ``None``.
        at_attention
            Given a layer and the readings of what its attention adds.

        Returns
        -------
        Tensor
            ``[reading, position, d_model]``: readings of the embeddings.
        """
        for index in range(top - 1, -1, -1):
            layer, parallel = self.layers[index], self.network.parallel
            more = at_mlp(index, slope)
            skip = self.skipped_back(index, slope)
            if skip is not None:
                more = skip if more is None else more + skip
            middle = slope if more is None or parallel else slope + more
            if at_attention is not None:
                at_attention(index, middle)
            slope = middle + layer.attend_back(middle)
            if more is not None and parallel:
                slope = slope + more
            stoppable(slope)
        return slope

    def forward(
        self,
        x: Tensor,
        at_attention: Callable[[int, Tensor], object],
        written: Callable[[int], tuple[Tensor, Tensor] | None],
        top: int | None = None,
    ) -> Tensor:
        """Carry what sources write up, each alone.

        Parameters
        ----------
        x
            ``[source, position, d_model]``: what they write into the embeddings.
        at_attention
            Given a layer and the sources' share of the stream before it.
        written
            Layer → the numbers of the sources that its MLP is, and what they write, ``[own, position, d_model]``.

        Returns
        -------
        Tensor
            Their share of the stream before layer `top`, or at the end.
        """
        for index in range(len(self.layers) if top is None else top):
            layer = self.layers[index]
            at_attention(index, x)
            middle = x + layer.attend(x)
            skip = self.skipped(index, x if self.network.parallel else middle)
            x = middle if skip is None else middle + skip
            found = written(index)
            if found is not None:
                x = x.index_add(0, *found)
            stoppable(x)
        return x


def _held(
    network: Network, index: int, x: Tensor, turn: Callable[[], Rotation | None], pattern: Tensor | None
) -> tuple[Layer, Tensor]:
    """Run a layer, with a pattern that is known or its own; return what is held of it, and the stream after it."""
    block = network.at(index)
    q, k, v = block.project(x)
    if pattern is None:
        pattern = block.pattern(block.scores(block.turn_queries(q, turn()), block.turn_keys(k, turn())))
    z = block.mix(pattern, v)
    raw = block.o.linear(z.flatten(-2))
    middle = block.middle(x, block.o.settled(raw))
    read = block.mlp_reads(x, middle)
    written = block.mlp(read)
    layer = Layer(
        network=network,
        index=index,
        attention_norm=Held.of(block.norm1, x),
        mlp_norm=Held.of(block.norm2, read),
        output_norm=None if block.o.norm is None else Held.of(block.o.norm, raw),
        pattern=pattern,
        attended=torch.empty(0),
        before=x,
        read=read,
        written=written,
    )
    return _with_biases(layer), block.after(middle, written)


def _with_biases(layer: Layer) -> Layer:
    """Return a layer knowing what its attention adds whatever it reads."""
    block = layer.block
    bias = block.o.weight.new_zeros(block.v.weight.shape[0])
    if block.norm1.bias is not None:
        bias = bias + block.v.weight @ block.norm1.bias
    if block.v.bias is not None:
        bias = bias + block.v.bias
    positions = layer.pattern.shape[-1]
    v = bias.view(-1, block.d_head).expand(positions, -1, -1)
    raw = block.mix(layer.pattern, v).flatten(-2) @ block.o.weight.T
    raw = raw if block.o.bias is None else raw + block.o.bias
    if layer.output_norm is not None:
        assert block.o.norm is not None
        raw = layer.output_norm(raw)
        raw = raw if block.o.norm.bias is None else raw + block.o.norm.bias
    return replace(layer, attended=raw * block.o.scale)


def _unit(norm: Held) -> Held:
    """Return a held norm without its gain."""
    return Held(torch.ones_like(norm.gain), norm.size, norm.centred)


def sizes(dictionary: Dictionary, shown: Tensor) -> Tensor:
    """Return what a dictionary's input is divided by as it is made ready, ``[position, 1]``."""
    size = dictionary.taken.sizes(shown)[1]
    assert isinstance(size, Tensor)
    return size


def stands(dictionary: Dictionary, *, parallel: bool) -> bool:
    """Return whether a dictionary reads an MLP's input, or the site that this is made of, and writes its output."""
    read = (*MLP_INPUTS, "resid_pre" if parallel else "resid_mid")
    return dictionary.reads.point in read and all(to.point == "mlp_out" for to in dictionary.writes)
