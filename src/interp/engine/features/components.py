"""An attribution graph's edges by component: all features of an MLP together, all heads' shares, at all positions.

The gradient of what is read off the end is carried down through heads and through active features; an edge from what
writes (the embedding, a head, an MLP) to what reads (a head's values, an MLP, the end) is what the one writes, times
the gradient that the other has of the stream there and passes on. Queries and keys have no edges: patterns are held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp.engine.features.attribution import Reading, Tracer
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.places import Place
from interp.engine.transformer.network import Network
from interp.errors import InputError

# (writer, reader), named as `spec.Node` names them → what the one adds to what is read off the end through the other.
ComponentEdges = dict[tuple[str, str], float]


def component_edges(tracer: Tracer, reading: Reading) -> ComponentEdges:
    """Return the edges between components, of one thing that is read off the end."""
    with torch.no_grad():
        return _component_edges(tracer, reading)


def _component_edges(tracer: Tracer, reading: Reading) -> ComponentEdges:
    held, frozen = tracer.sources, tracer.frozen
    found: ComponentEdges = {}
    writes = _writes(tracer)

    def read(reader: str, slope: Tensor, layer: int, *, attention: bool) -> None:
        """Note what reads the stream before a layer's MLP, or before its attention."""
        for (place, name), written in writes.items():
            if place < 2 * layer + (0 if attention else 1):
                found[name, reader] = float((written.double() * slope.double()).sum())

    def at_mlp(layer: int, slope: Tensor) -> Tensor | None:
        one = frozen.dictionaries.get(layer)
        if one is None:
            return None
        own = (held.layers == layer).nonzero()[:, 0]
        features, positions = held.features[own], held.positions[own]
        amount = (one.atoms(features) * slope[0, positions]).sum(-1, keepdim=True)
        more = torch.zeros_like(slope)
        more[0].index_add_(0, positions, amount * tracer.reads(layer, features, positions)[0])
        read(f"{layer}.mlp", more[0], layer, attention=frozen.network.parallel)
        return more

    def at_attention(layer: int, slope: Tensor) -> None:
        of = frozen.layers[layer]
        z = of.into_heads(slope[0])
        group = z.shape[-2] // of.block.n_kv_heads
        for shared in range(of.block.n_kv_heads):
            alone = torch.zeros_like(z)
            alone[:, shared * group : (shared + 1) * group] = z[:, shared * group : (shared + 1) * group]
            read(f"{layer}.{shared}.v", of.through_heads(alone), layer, attention=True)

    top = len(frozen)
    slope = torch.zeros_like(frozen.start)[None]
    at = torch.tensor([reading.position], device=slope.device)
    slope[0, reading.position] = frozen.final.back(reading.direction[None], at)[0]
    read("logits", slope[0], top, attention=True)
    frozen.back(slope, top, at_mlp, at_attention)
    return found


def _writes(tracer: Tracer) -> dict[tuple[int, str], Tensor]:
    """Return (where in the stream, component) → what it writes, ``[position, d_model]``: 2 · layer, + 1 for an MLP."""
    frozen = tracer.frozen
    found = {(-1, "embed"): frozen.start}
    for index, layer in enumerate(frozen.layers):
        z = layer.values(layer.before)
        for head in range(z.shape[-2]):
            alone = torch.zeros_like(z)
            alone[:, head] = z[:, head]
            found[2 * index, f"{index}.{head}"] = layer.out(alone.flatten(-2))
        found[2 * index + 1, f"{index}.mlp"] = layer.written
    return found


def neurons(network: Network, layer: int) -> Dictionary:
    """Return the transcoder of an MLP that is its own neurons: exact, where its activation function is a ReLU.

    Raises
    ------
    InputError
        It is another one, or the MLP has a gate or a norm behind it.
    """
    block = network.at(layer)
    plain = block.gate is None and block.down.norm is None and block.experts is None
    if not plain or block.act not in {torch.nn.functional.relu, torch.relu}:
        raise InputError(f"the MLP of layer {layer} is not one layer of ReLUs: its neurons are no transcoder of it")
    up, down = block.up, block.down
    return Dictionary(
        "transcoder",
        Place(layer, "mlp_normed"),
        (Place(layer, "mlp_out"),),
        up.weight,
        up.weight.new_zeros(len(up.weight)) if up.bias is None else up.bias,
        ((down.weight.T * down.scale).contiguous(),),
        (None if down.bias is None else down.bias * down.scale,),
        Act("relu"),
    )
