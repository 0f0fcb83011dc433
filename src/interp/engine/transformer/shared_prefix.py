"""Runs that share a prefix, side by side: what they share is run once, and only some of them are differentiated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.transformer import linear
from interp.engine.transformer.network import Layer, Linear, Network, Norm, rotate

# (site, layer, the frozen runs' activation ``[run, n, position, …]``, the graded runs' as the graph has it: the same
# with the first three axes as one, but for patterns, ``[run, n, head, query, key]``).
Keep = Callable[[str, int, Tensor, Tensor], None]


@dataclass
class Pack:
    """Rows of the residual stream, or of what is made of each of them alone.

    Attributes
    ----------
    frozen
        ``[row, …]``: the shared prefix, then the runs that are not differentiated.
    graded
        ``[row, …]``: the runs that are.
    """

    frozen: Tensor
    graded: Tensor

    def each(self, function: Callable[[Tensor], Tensor]) -> Pack:
        """Return `function` of the frozen rows and of the graded rows."""
        return Pack(function(self.frozen), function(self.graded))

    def __add__(self, other: Pack) -> Pack:
        return Pack(self.frozen + other.frozen, self.graded + other.graded)

    def __mul__(self, other: Pack) -> Pack:
        return Pack(self.frozen * other.frozen, self.graded * other.graded)

    def through(self, linear: Linear) -> Pack:
        """Return a linear layer's output: one product for all rows, and its gradient for the graded ones alone."""
        return Pack(*_Product.apply(self.frozen, self.graded, linear.weight, linear.bias))  # pyright: ignore


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frozen: Tensor, graded: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:  # pyright: ignore
        ctx.weight = weight
        still, moving = linear.linear(torch.cat([frozen, graded]), weight, bias).split([len(frozen), len(graded)])
        ctx.mark_non_differentiable(still)
        return still, moving

    @staticmethod
    def backward(ctx: Any, _: Tensor, gradient: Tensor) -> tuple[None, Tensor, None, None]:  # pyright: ignore
        return None, linear.linear(gradient, ctx.weight.T, None), None, None


def paired(network: Network, prefix: Tensor, frozen: Tensor, graded: Tensor, keep: Keep) -> tuple[Tensor, Tensor]:
    """Run what comes after a prefix in several ways at once.

    A causal model's runs are the same as far as their tokens are, and nothing later changes them: the prefix needs
    neither a second run nor a gradient.

    Parameters
    ----------
    prefix
        ``[n, start, d_model]``: the residual stream before layer 0 where the runs agree; `start` may be 0.
    frozen, graded
        ``[run, n, position, d_model]``: the same after the prefix, of the runs without and with a gradient; the axis of
        runs may be empty. Mark `graded` with ``requires_grad_()``.
    keep
        Called for every site of `spec.SITES`, at every layer, and for ``mlp_in``: the stream that the MLP alone reads.

    Returns
    -------
    tuple
        The residual streams after the last layer, without the final norm, shaped as `frozen` and as `graded`.
    """
    n, start, width = prefix.shape
    length = graded.shape[2]
    shared = n * start

    def shaped(rows: Tensor, runs: Tensor) -> Tensor:
        return rows.view(*runs.shape[:3], *rows.shape[1:])

    def told(site: str, index: int, pack: Pack) -> Pack:
        keep(site, index, shaped(pack.frozen[shared:], frozen), pack.graded)
        return pack

    def heads(rows: Tensor) -> Tensor:
        return rows.view(len(rows), rows.shape[-1] // network.d_head, network.d_head)

    tables = network.rotary(start + length) if network.rotary is not None else None
    places = torch.arange(start + length, device=prefix.device)
    later = places[start:]
    at = Pack(
        torch.cat([places[:start].repeat(n), later.repeat(len(frozen) * n)]),
        later.repeat(len(graded) * n),
    )
    hidden = places > later[:, None]
    x = Pack(torch.cat([prefix.reshape(-1, width), frozen.reshape(-1, width)]), graded.reshape(-1, width))
    for index, layer in enumerate(network.layers):
        before = told("resid_pre", index, x)
        normed = before.each(layer.norm1)
        q, k, v = (
            told(site, index, pack.each(heads)) for site, pack in zip("qkv", _projected(layer, normed), strict=True)
        )
        q, k = _turned(layer.q_norm, q, tables, at), _turned(layer.k_norm, k, tables, at)
        patterns: list[Tensor] = []
        mixed: list[Tensor] = []
        first = [pack.frozen[:shared].unflatten(0, (n, start)) for pack in (q, k, v)]
        for runs, part in ((frozen, "frozen"), (graded, "graded")):
            own = [shaped(getattr(pack, part)[shared * (part == "frozen") :], runs) for pack in (q, k, v)]
            pattern, z = _attended(own, first, layer, hidden)
            patterns.append(pattern)
            mixed.append(z.flatten(0, 2))
        keep("pattern", index, *patterns)
        z = Pack(torch.cat([_first(first, layer).flatten(0, 1), mixed[0]]), mixed[1])
        written = told("z", index, z).each(lambda rows: rows.flatten(1)).through(layer.o)
        middle = told("resid_mid", index, before + told("attn_out", index, written))
        # A view of its own: its gradient is that of what the MLP reads, not of all that the stream goes to.
        read = told("mlp_in", index, (before if network.parallel else middle).each(lambda rows: rows.view_as(rows)))
        neurons = told("neuron", index, _neurons(layer, read.each(layer.norm2)))
        x = told("resid_post", index, middle + told("mlp_out", index, neurons.through(layer.down)))
    return shaped(x.frozen[shared:], frozen), shaped(x.graded, graded)


def _projected(layer: Layer, normed: Pack) -> list[Pack]:
    """Return queries, keys and values."""
    parts = (layer.q, layer.k, layer.v)
    if layer.qkv is None:
        return [normed.through(part) for part in parts]
    joined, sizes = normed.through(layer.qkv), [len(part.weight) for part in parts]
    both = zip(joined.frozen.split(sizes, -1), joined.graded.split(sizes, -1), strict=True)
    return [Pack(frozen, graded) for frozen, graded in both]


def _turned(norm: Norm | None, x: Pack, tables: tuple[Tensor, Tensor] | None, at: Pack) -> Pack:
    if norm is not None:
        x = x.each(norm)
    if tables is None:
        return x
    cos, sin = tables
    return Pack(rotate(x.frozen, cos[at.frozen], sin[at.frozen]), rotate(x.graded, cos[at.graded], sin[at.graded]))


def _first(projected: list[Tensor], layer: Layer) -> Tensor:
    """Return the prefix's own z, ``[n, position, head, d_head]``."""
    q, k, v = (tensor.transpose(1, 2) for tensor in projected)
    if not q.shape[2]:
        return q.transpose(1, 2)
    z = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=layer.scale, enable_gqa=True)
    return z.transpose(1, 2)


def _attended(own: list[Tensor], first: list[Tensor], layer: Layer, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pattern, ``[run, n, head, query, key]``, and z, ``[run, n, position, head, d_head]``, of runs.

    Query head ``h`` reads KV head ``h // (heads // KV heads)``.
    """
    q, k, v = own
    runs, group = len(q), q.shape[-2] // k.shape[-2]
    before_k, before_v = (tensor.expand(runs, *tensor.shape) for tensor in first[1:])
    k, v = torch.cat([before_k, k], 2), torch.cat([before_v, v], 2)
    if group > 1:
        k, v = k.repeat_interleave(group, 3), v.repeat_interleave(group, 3)
    q, k, v = (tensor.transpose(2, 3) for tensor in (q, k, v))
    pattern = (q @ k.transpose(-1, -2) * layer.scale).masked_fill(hidden, float("-inf")).softmax(-1)
    return pattern, (pattern @ v).transpose(2, 3)


def _neurons(layer: Layer, normed: Pack) -> Pack:
    up = normed.through(layer.up)
    return up.each(layer.act) if layer.gate is None else normed.through(layer.gate).each(layer.act) * up
