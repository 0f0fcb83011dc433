"""The transformer block, written once: every forward, sweep, circuit, path and role computes with it.

For a residual stream x before a layer, with positions p, heads h (and KV heads g(h) = h // (heads / KV heads)):

1. n = norm1(x); q, k, v = n W_Q + b_Q, n W_K + b_K, n W_V + b_V, split into heads (`project`);
2. q and k: the per-head norm where there is one, then the rotary turn by their positions (`turn_queries`, `turn_keys`;
   Su et al. 2021, "RoFormer");
3. scores[h, i, j] = scale · q[h, i] · k[g(h), j], −∞ where j comes after i (`scores`);
4. z[h, i] = Σⱼ softmax(scores)[h, i, j] v[g(h), j] (`pattern`, `mix`; `attend` does 3 and 4 in one fused call);
5. m = x + z W_O + b_O (`write`): the middle of the block;
6. r = x for a parallel block (GPT-NeoX), else m (`mlp_reads`);
7. a = act(norm2(r) W_up + b_up), times act-gated where there is a gate (Shazeer 2020): `neurons`;
8. the stream after the layer is m + a W_down + b_down (`write_neurons`; `mlp` does 7 and 8).

What differs between its users is which rows there are, which positions they have and whose q, k, v, z or patterns are
taken. Steps that act on single rows take `Pack` rows too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.transformer.linear import Activation, Linear, Pack, X


@dataclass(frozen=True)
class Norm:
    """LayerNorm (`rms` false) or RMSNorm over the last axis."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    rms: bool

    def __call__(self, x: X) -> X:
        return x.each(self._of) if isinstance(x, Pack) else self._of(x)

    def _of(self, x: Tensor) -> Tensor:
        if self.rms:
            return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Identity(Norm):
    """No norm at all; `weight` is ones, so that what folds a gain folds none."""

    def _of(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Rotation:
    """The turn of some positions' queries and keys; `cos` and `sin` are ``[position, rotated dims]``."""

    cos: Tensor
    sin: Tensor

    def at(self, places: slice | Tensor) -> Rotation:
        """Return the turn of those positions alone, in that order."""
        return Rotation(self.cos[places], self.sin[places])

    def __call__(self, x: Tensor) -> Tensor:
        """Turn the first dims of each head of ``[…, position, head, d_head]``, in halves, as Llama and NeoX do."""
        width = self.cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        half = width // 2
        swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        rotated = turned * self.cos[:, None] + swapped * self.sin[:, None]
        return rotated if rest.shape[-1] == 0 else torch.cat([rotated, rest], dim=-1)


@dataclass(frozen=True)
class Block:
    """One layer: attention and MLP, one after the other or side by side.

    Attributes
    ----------
    gate
        ``None`` for an MLP without a gate.
    scale
        What scores are multiplied by.
    parallel
        Whether the MLP reads the residual stream before the attention.
    q_norm, k_norm
        Per head, before rotary.
    qkv
        The three projections as one, where their weights lie side by side in memory.
    """

    norm1: Norm
    norm2: Norm
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    gate: Linear | None
    up: Linear
    down: Linear
    act: Activation
    scale: float
    d_head: int
    parallel: bool = False
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    qkv: Linear | None = None

    @property
    def n_heads(self) -> int:
        """How many query heads there are."""
        return self.q.weight.shape[0] // self.d_head

    @property
    def n_kv_heads(self) -> int:
        """How many heads of keys and values there are."""
        return self.k.weight.shape[0] // self.d_head

    # -- attention, row by row -----------------------------------------------------------------------------------------

    def heads(self, rows: X) -> X:
        """Return ``[…, head · d_head]`` as ``[…, head, d_head]``."""
        return rows.each(self._split) if isinstance(rows, Pack) else self._split(rows)

    def _split(self, rows: Tensor) -> Tensor:
        # Not −1 heads: there may be no rows.
        return rows.view(*rows.shape[:-1], rows.shape[-1] // self.d_head, self.d_head)

    def project(self, x: X) -> tuple[X, X, X]:
        """Return queries, keys and values of the residual stream, as projected: before per-head norms and rotary."""
        normed = self.norm1(x)
        if self.qkv is None:
            q, k, v = self.q(normed), self.k(normed), self.v(normed)
        else:
            joined, widths = self.qkv(normed), [len(part.weight) for part in (self.q, self.k, self.v)]
            q, k, v = cast("Sequence[X]", joined.split(widths, -1))
        return self.heads(q), self.heads(k), self.heads(v)

    def turn_queries(self, q: X, at: Callable[[X], X] | None) -> X:
        """Return projected queries as attention uses them; `at` turns their positions, ``None`` where nothing does."""
        q = q if self.q_norm is None else self.q_norm(q)
        return q if at is None else at(q)

    def turn_keys(self, k: X, at: Callable[[X], X] | None) -> X:
        """Return projected keys as attention uses them."""
        k = k if self.k_norm is None else self.k_norm(k)
        return k if at is None else at(k)

    def queries(self, x: Tensor, at: Rotation | None) -> Tensor:
        """Return the queries of the residual stream as attention uses them, ``[…, head, d_head]``."""
        return self.turn_queries(self.heads(self.q(self.norm1(x))), at)

    def keys(self, x: Tensor, at: Rotation | None) -> Tensor:
        """Return the keys of the residual stream as attention uses them, ``[…, KV head, d_head]``."""
        return self.turn_keys(self.heads(self.k(self.norm1(x))), at)

    def values(self, x: Tensor) -> Tensor:
        """Return the values of the residual stream, ``[…, KV head, d_head]``."""
        return self.heads(self.v(self.norm1(x)))

    def project_each(self, kind: str, x: Tensor, heads: Sequence[int]) -> Tensor:
        """Return projected queries, keys or values (`kind`) of heads that each read a residual stream of their own.

        Parameters
        ----------
        x
            ``[run, head, position, d_model]``, one for each of `heads`.

        Returns
        -------
        Tensor
            ``[run, position, head, d_head]``.
        """
        linear: Linear = {"q": self.q, "k": self.k, "v": self.v}[kind]
        split = linear.weight.unflatten(0, (-1, self.d_head))[list(heads)]
        out = torch.einsum("rhpd,hkd->rphk", self.norm1(x), split)
        return out if linear.bias is None else out + linear.bias.unflatten(0, (-1, self.d_head))[list(heads)]

    # -- attention, between rows ---------------------------------------------------------------------------------------

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: int = 0) -> Tensor:
        """Return causal attention's z, ``[n, query, head, d_head]``; the pattern is never in memory as a whole.

        Parameters
        ----------
        q
            ``[n, query, head, d_head]``; query ``i`` stands at position ``first + i``.
        k, v
            ``[n or 1, position, KV head, d_head]``.
        """
        (n, queries), length = q.shape[:2], k.shape[1]
        if not queries:
            return q
        q, k, v = (tensor.expand(n, -1, -1, -1).transpose(1, 2) for tensor in (q, k, v))
        whole = queries == length
        seen = None if whole or length == first + 1 else ~_later(queries, length, first, q.device)
        z = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=whole, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return z.transpose(1, 2)

    def scores(self, q: Tensor, k: Tensor, first: int = 0) -> Tensor:
        """Return what the softmax is taken of, ``[…, head, query, key]``: −∞ for keys after the query.

        Parameters
        ----------
        q, k
            ``[…, query, head, d_head]`` and ``[…, key, KV head, d_head]``, with the same axes before.
        """
        queries, heads, shared = q.shape[-3], q.shape[-2], k.shape[-2]
        group = heads // shared
        # Query heads that share a key head are rows of one product.
        rows = q.unflatten(-2, (shared, group)).movedim(-4, -2).flatten(-3, -2)
        scores = (rows @ k.movedim(-3, -1) * self.scale).unflatten(-2, (group, queries)).flatten(-4, -3)
        if queries > 1 or k.shape[-3] > first + 1:
            scores = scores.masked_fill(_later(queries, k.shape[-3], first, q.device), float("-inf"))
        return scores

    def pattern(self, scores: Tensor) -> Tensor:
        """Return the attention weights, ``[…, head, query, key]``, of scores."""
        return scores.softmax(-1)

    def mix(self, pattern: Tensor, v: Tensor) -> Tensor:
        """Return z, ``[…, query, head, d_head]``, of a pattern ``[…, head, query, key]``."""
        heads, queries, shared = pattern.shape[-3], pattern.shape[-2], v.shape[-2]
        group = heads // shared
        rows = pattern.unflatten(-3, (shared, group)).flatten(-3, -2)
        return (rows @ v.movedim(-3, -2)).unflatten(-2, (group, queries)).flatten(-4, -3).movedim(-3, -2)

    # -- what is written -----------------------------------------------------------------------------------------------

    def write(self, z: X) -> X:
        """Return what the heads together add to the residual stream, ``[…, d_model]``, of z ``[…, head, d_head]``."""
        return self.o(z.each(lambda rows: rows.flatten(-2)) if isinstance(z, Pack) else z.flatten(-2))

    def head_weights(self, heads: slice | Sequence[int] = slice(None)) -> Tensor:
        """Return W_O of some heads, ``[d_model, head, d_head]``."""
        return self.o.weight.unflatten(1, (-1, self.d_head))[:, heads if isinstance(heads, slice) else list(heads)]

    def mlp_reads(self, before: X, middle: X) -> X:
        """Return the residual stream that the MLP reads, of those before and after the attention."""
        return before if self.parallel else middle

    def neurons(self, read: X) -> X:
        """Return the MLP's post-activation values, ``[…, neuron]``, of the residual stream that it reads."""
        normed = self.norm2(read)
        if self.gate is None:
            return self.up(normed, self.act)
        gated, up = self.gate(normed, self.act), self.up(normed)
        if isinstance(gated, Pack) or isinstance(up, Pack) or gated.requires_grad:
            # Not in place under autograd: some activation functions keep their output for the backward pass.
            return gated * up
        return gated.mul_(up)

    def write_neurons(self, neurons: X) -> X:
        """Return what the MLP adds to the residual stream, ``[…, d_model]``, of its neurons."""
        return self.down(neurons)

    def mlp(self, read: X) -> X:
        """Return what the MLP adds to the residual stream, of the stream that it reads."""
        return self.write_neurons(self.neurons(read))


def _later(queries: int, keys: int, first: int, device: torch.device) -> Tensor:
    """Return which keys come after each query, ``bool [query, key]``."""
    return torch.arange(keys, device=device) > (torch.arange(queries, device=device) + first)[:, None]
