"""A transformer as plain functions over its own weights: what every forward without hooks computes with.

The weights are the bridge's, read anew for every use; nothing is folded, copied or converted.

Most of what is computed with it counts on two things: the residual stream is the sum of what the components write, and
what comes later changes nothing before it. Of an encoder (BERT) neither holds: its stream is normed after each half
block, and its attention looks both ways. So whoever can do with one says so, and names the sites that are asked for
(``encoders=…``): sweeps of patches, ablations, estimates by gradients, read-outs of plain runs. Edges, paths and what
is read off the weights cannot. A site that hooks show as the normed stream is for hooks alone (`Network.normed`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from interp.engine.exactness import Unreadable
from interp.engine.model.carried import Carried
from interp.engine.transformer.block import Block
from interp.engine.transformer.families import FAMILIES
from interp.engine.transformer.families._family import Constant, Family
from interp.engine.transformer.parts import HALF, Embedding, Norm, Rotation, Transform, Unembed
from interp.ids import types_of

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.streamed import Streamed

_ENCODER = "an encoder's stream is no sum of what is written to it, and what comes later changes what comes before"


class Layers(Sequence[Block]):
    """Layers whose weights are elsewhere than the rows; each is given with copies of them (`carried`).

    Attributes
    ----------
    stored
        The layers with the weights themselves.
    """

    def __init__(self, stored: Sequence[Block], weights: Carried) -> None:
        self.stored = stored
        self._weights = weights

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return self._weights.made_of(range(len(self.stored))[index], self.stored[index], moved)


def moved(part: Any, to: Callable[[Tensor], Tensor]) -> Any:
    """Return a part of a network with every tensor in it as `to` gives it."""
    if isinstance(part, Tensor):
        return to(part)
    if isinstance(part, Constant):
        return part.moved(to)
    if is_dataclass(part) and not isinstance(part, type):
        return type(part)(**{one.name: moved(getattr(part, one.name), to) for one in fields(part) if one.init})
    return part


class _Single(Sequence[Block]):
    """Layers of half precision, each given in single precision; of a few, copies are kept."""

    def __init__(self, network: Network) -> None:
        def made(index: int) -> Block:
            return moved(network.at(index), _wide)

        self._network = network
        self._made = functools.lru_cache(4)(made)

    def __len__(self) -> int:
        return len(self._network.layers)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        numbers = range(len(self))[index]
        return [self._made(number) for number in numbers] if isinstance(numbers, range) else self._made(numbers)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALF else tensor


def single(network: Network) -> Network:
    """Return a network that computes in single precision, with weights of half precision as they are."""
    if network.embed.weight.dtype not in HALF:
        return network
    parts = {name: moved(getattr(network, name), _wide) for name in ("final", "unembed", "embed")}
    return replace(network, layers=_Single(network), streamed=None, **parts)


@dataclass(frozen=True)
class Network:
    """The whole model.

    Attributes
    ----------
    rotary
        Length → its positions' turns, for each layer: ``None`` for one that turns nothing; ``None`` where none does.
    head
        What an encoder does to its stream before the final norm.
    normed
        Sites of which the bridge's hooks show something else than what `forward` has there: the stream, normed.
    streamed
        What has the weights read as layers come, where they stay in their files or on other devices.
    """

    layers: Sequence[Block]
    final: Norm
    unembed: Unembed
    embed: Embedding
    rotary: Callable[[int], Sequence[Rotation | None]] | None
    head: Transform | None = None
    normed: frozenset[str] = frozenset()
    streamed: Streamed | Carried | None = None

    @property
    def stored(self) -> Sequence[Block]:
        """The layers with their weights where these are: for what asks for shapes alone."""
        return self.layers.stored if isinstance(self.layers, Layers) else self.layers

    def at(self, index: int) -> Block:
        """Return a layer that a forward has come to: its weights are in memory now, and where the rows are."""
        if self.streamed is not None:
            self.streamed.use(index)
        return self.layers[index]

    @property
    def both_ways(self) -> bool:
        """Whether a token changes what comes before it too."""
        return self.stored[0].both_ways

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder: its attention looks both ways, or its stream is normed after each half block."""
        layer = self.stored[0]
        return layer.both_ways or layer.middle_norm is not None or layer.after_norm is not None

    @property
    def n_heads(self) -> int:
        """How many query heads a layer has."""
        return self.stored[0].n_heads

    @property
    def n_kv_heads(self) -> int:
        """How many heads of keys and values a layer has."""
        return self.stored[0].n_kv_heads

    @property
    def d_head(self) -> int:
        """The width of a head."""
        return self.stored[0].d_head

    @property
    def parallel(self) -> bool:
        """Whether a block's MLP reads the residual stream before its attention."""
        return self.stored[0].parallel

    @property
    def d_mlp(self) -> int:
        """How wide the widest MLP is; for routed experts a guess at what one row needs."""
        return max(4 * len(layer.norm2.weight) if layer.experts else len(layer.up.weight) for layer in self.stored)

    def rotations(self, length: int) -> Sequence[Rotation | None]:
        """Return each layer's turns of the first `length` positions; ``None`` for a layer that turns nothing."""
        return [None] * len(self.layers) if self.rotary is None else self.rotary(length)

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the stream before layer 0, ``[n, position, d_model]``, of prompts of one length, with their types."""
        device = self.embed.weight.device
        return torch.stack([self.embed(torch.tensor(ids, device=device), types_of(ids)) for ids in prompts])

    def ending(self, end: Tensor) -> Tensor:
        """Return what the unembedding reads, ``[…, d_model]``, of the stream after the last layer."""
        return self.final(end if self.head is None else self.head(end))


def read(model: LoadedModel, *, half: bool = False, encoders: Collection[str] | None = None) -> Network:
    """Return `model` as a `Network` of its own weights.

    Parameters
    ----------
    half
        Whether half precision will do, in which a run's values depend on what runs beside it: for what is compared
        by the noise that this makes.
    encoders
        Where an encoder will do: the sites that are read or changed, see above.

    Raises
    ------
    Unreadable
        It is of another family, or a setting, a dtype or a hook makes its forward something else.
    """
    hf: Any = model.hf_model
    family = _family(model)
    if why := model.altered():
        raise Unreadable(why)
    if not half and next(hf.parameters()).dtype not in {torch.float32, torch.float64}:
        raise Unreadable(f"{model.dtype} rounds differently from one batch to the next")
    if torch.is_autocast_enabled(model.device.type):
        raise Unreadable("autocast rounds differently from one batch to the next")
    if hf.training:
        raise Unreadable("the model is in training mode")
    if reason := family.differs(family.config(hf)):
        raise Unreadable(reason)
    net = _weights(model, family)
    if len({layer.o.weight.device for layer in net.stored} | {model.device}) > 1 and net.stored is net.layers:
        raise Unreadable("its layers were put on several devices after it was loaded")
    if net.encodes and encoders is None:
        raise Unreadable(_ENCODER)
    if other := sorted(net.normed.intersection(encoders or ())):
        raise Unreadable(f"its hooks show {other[0]} normed, as part of the stream")
    return net


def weights(model: LoadedModel) -> Network:
    """Return `model`'s weights, whatever its dtype, its mode and its hooks: for what needs no forward.

    Raises
    ------
    Unreadable
        It is of another family, or a setting gives it other weights, or it is an encoder.
    """
    net = _weights(model, _family(model))
    if net.encodes:
        raise Unreadable(_ENCODER)
    return net


def _weights(model: LoadedModel, family: Family) -> Network:
    """Return the network of a model; in a command, in which nothing of it changes, the one that has been read."""
    operation = model.operation
    if operation is None:
        return _read(model, family)
    if operation.network is None:
        operation.network = _read(model, family)
    return operation.network


def _read(model: LoadedModel, family: Family) -> Network:
    config = family.config(model.hf_model)
    if reason := family.unlike(config):
        raise Unreadable(reason)
    bridge: Any = model.bridge
    d_head = model.geometry.d_head
    unembed = family.unembed(bridge, config)
    layers = tuple(family.block(block, index, d_head, config) for index, block in enumerate(bridge.blocks))
    home = model.device

    def here(part: Any) -> Any:
        return moved(part, lambda tensor: tensor.to(home))

    return Network(
        layers=Layers(layers, model.streamed) if isinstance(model.streamed, Carried) else layers,
        final=here(family.norm_of(bridge, "ln_final", unembed.weight)),
        unembed=here(unembed),
        embed=here(family.embedding(bridge, config)),
        rotary=family.rotary(bridge),
        head=here(family.head(bridge, config)),
        normed=family.normed,
        streamed=model.streamed,
    )


def _family(model: LoadedModel) -> Family:
    family = FAMILIES.get(model.family)
    if family is None:
        raise Unreadable(f"the replay does not know {model.family or type(model.hf_model).__name__}")
    return family
