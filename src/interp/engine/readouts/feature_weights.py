"""What a feature reads and writes by weights alone: tokens, heads, logits, and the features that write alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.exactness import Unreadable
from interp.engine.features.dictionary import Dictionary
from interp.engine.readouts.ov_qk import embedding, folded, heads, unembedding
from interp.engine.transformer import network
from interp.engine.transformer.network import Network

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_ROWS = 4096  # features whose decoders are compared at once
# Where the residual stream is read, or that after a norm → whether heads of the same layer have written to it.
_STREAM = {"resid_pre": False, "resid_mid": True, "resid_post": True, "mlp_in": True, "mlp_normed": True}
_STREAM["mlp_unit"] = True


@dataclass(frozen=True)
class Ranked:
    """Some of many things in the order of their values: ``int64`` and ``float32 [k]``."""

    which: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    values: Tensor = field(default_factory=lambda: torch.empty(0))

    def named(self, name: Callable[[Tensor], str]) -> tuple[tuple[str, float], ...]:
        """Return them with names and values."""
        return tuple((name(at), float(value)) for at, value in zip(self.which, self.values, strict=True))


@dataclass
class Weights:
    """What a feature's weights say; what they do not is empty, with the reason in `missing`.

    Attributes
    ----------
    promoted, suppressed
        Tokens whose logits its decoder raises and lowers most, through the final norm's gain: of logits centred over
        the vocabulary, for an activation of 1 and a residual stream of size 1.
    tokens
        Tokens by the cosine of their embedding with the encoder, through the gain of the norm before it.
    heads
        ``int64 [k, 2]`` and values: heads (layer, head) by ‖ê W_OV‖, how much of what a head moves comes to the
        encoder, of length 1.
    near
        Features of the same dictionary by the cosine of their decoders.
    direction
        ``float32 [d_model]``: what an activation of 1 adds to the stream in its own layer.
    """

    promoted: Ranked = field(default_factory=Ranked)
    suppressed: Ranked = field(default_factory=Ranked)
    tokens: Ranked = field(default_factory=Ranked)
    heads: Ranked = field(default_factory=Ranked)
    near: Ranked = field(default_factory=Ranked)
    direction: Tensor = field(default_factory=lambda: torch.empty(0))
    missing: list[str] = field(default_factory=list[str])


def weights(model: LoadedModel, dictionary: Dictionary, feature: int, top: int) -> Weights:
    """Return what a feature's weights read and write, the `top` strongest of each."""
    found = Weights()
    found.near = near(dictionary, feature, top)
    try:
        net = network.weights(model)
        _logits(net, dictionary, feature, top, found)
    except Unreadable as reason:
        found.missing.append(f"what it promotes and reads is left out: {reason}")
        return found
    _reads(net, dictionary, feature, top, found)
    return found


def near(dictionary: Dictionary, feature: int, top: int) -> Ranked:
    """Return the features whose decoders, at the first place that is written, point the same way."""
    own = torch.nn.functional.normalize(dictionary.atoms(torch.tensor([feature])).float(), dim=-1)
    every = torch.arange(dictionary.width)
    unit = torch.nn.functional.normalize
    parts = [unit(dictionary.atoms(some).float(), dim=-1) @ own[0] for some in every.split(_ROWS)]
    cosines = torch.cat(parts).cpu()
    cosines[feature] = float("-inf")
    return _top(cosines, min(top, dictionary.width - 1))


def _logits(net: Network, dictionary: Dictionary, feature: int, top: int, found: Weights) -> None:
    written = torch.zeros(net.unembed.weight.shape[1], device=net.unembed.weight.device)
    for to, place in enumerate(dictionary.writes):
        row = dictionary.atoms(torch.tensor([feature]), to)[0].float() / dictionary.taken.scale
        block = net.layers[place.layer]
        if place.point == "z":
            row = row @ block.o.weight.float().T
            row = row if block.o.gain is None else row * block.o.gain.float()
        elif place.point == "neuron":
            if block.experts is not None:
                raise Unreadable("its layer has routed experts")
            row = row @ block.down.weight.float().T
            row = row if block.down.gain is None else row * block.down.gain.float()
        elif place.point in {"mlp_in", "mlp_normed", "mlp_unit"}:
            found.missing.append("what it promotes is left out: it writes what the MLP reads")
            return
        if to == 0:
            found.direction = row.cpu()
        written = written + row
    logits = unembedding(net) @ written
    count = min(top, len(logits))
    found.promoted = _top(logits, count)
    low = logits.topk(count, largest=False)
    found.suppressed = Ranked(low.indices.cpu(), low.values.cpu())


def _reads(net: Network, dictionary: Dictionary, feature: int, top: int, found: Weights) -> None:
    layer, point = dictionary.reads.layer, dictionary.reads.point
    block, row = net.layers[layer], dictionary.encoder[feature].float()
    if dictionary.taken.centre:
        row = row - row.mean()
    if point == "z":
        loads = row.view(-1, net.d_head).norm(dim=-1)
        order = _top(loads, min(top, len(loads)))
        found.heads = Ranked(torch.stack([torch.full_like(order.which, layer), order.which], -1), order.values)
        found.missing.append("it reads heads' outputs: by heads stands how long its encoder is at each")
        return
    if point == "attn_out":
        found.heads = _heads(net, row, range(layer, layer + 1), top)
        return
    if point not in _STREAM:
        found.missing.append(f"what it reads is left out: {point} is no stream that tokens and heads write to")
        return
    if point == "mlp_normed":
        row = folded(block.norm2, row)
    elif point == "mlp_unit" and not block.norm2.rms:
        row = row - row.mean()
    words = embedding(net)
    if not block.norm2.rms:
        words = words - words.mean(-1, keepdim=True)
    cosines = torch.nn.functional.cosine_similarity(words, row[None], dim=-1)
    found.tokens = _top(cosines, min(top, len(cosines)))
    above = layer + int(_STREAM[point] and not (net.parallel and point != "resid_post"))
    if above:
        found.heads = _heads(net, row, range(above), top)


def _heads(net: Network, row: Tensor, layers: range, top: int) -> Ranked:
    unit = row / row.norm().clamp_min(1e-30)
    loads: list[Tensor] = []
    for layer in layers:
        held = heads(net, net.layers[layer])
        moved = torch.einsum("hkd,d->hk", held.o, unit)
        values = held.v.repeat_interleave(len(held.o) // len(held.v), 0)
        loads.append(torch.einsum("hk,hkd->hd", moved, values).norm(dim=-1))
    order = _top(torch.cat(loads), min(top, sum(map(len, loads))))
    return Ranked(torch.stack([order.which // net.n_heads + layers.start, order.which % net.n_heads], -1), order.values)


def _top(values: Tensor, count: int) -> Ranked:
    found = values.topk(count)
    return Ranked(found.indices.cpu(), found.values.float().cpu())
