"""The transformer block, written once: every forward, sweep, circuit, path and role computes with it.

For a residual stream x before a layer, with positions p, heads h (and KV heads g(h) = h // (heads / KV heads)):

1. n = norm1(x); q, k, v = n W_Q + b_Q, n W_K + b_K, n W_V + b_V, split into heads (`project`);
2. q and k: the per-head norm where there is one, then the rotary turn by their positions (`turn_queries`, `turn_keys`;
   Su et al. 2021, "RoFormer");
3. scores[h, i, j] = scale · q[h, i] · k[g(h), j], softly capped where there is a cap (Gemma 2), plus slope[h] · (j − i)
   where distance counts (ALiBi; Press et al. 2021); −∞ where j comes after i, or a window's width or more before it
   (`scores`), unless attention looks both ways (BERT);
4. z[h, i] = Σⱼ softmax(scores)[h, i, j] v[g(h), j], with one more score per head that no value belongs to where there
   is an attention sink (`pattern`, `mix`; `attend` does 3 and 4, in one fused call where that can be);
5. m = x + scale' · norm1'(z W_O + b_O), where there is a norm after the attention, or a factor (`write`): the middle of
   the block, normed itself where the stream is (BERT; `middle`);
6. r = x for a parallel block (GPT-NeoX), else m (`mlp_reads`);
7. a = act(norm2(r) W_up + b_up), times act-gated where there is a gate (Shazeer 2020): `neurons`;
8. the stream after the layer is m + scale' · norm2'(a W_down + b_down) (`write_neurons`; `mlp` does 7 and 8), normed
   where the stream is (`after`). Routed experts are one function of norm2(r), the model's own: they have no neurons.

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

from interp.engine.exactness import Unreadable
from interp.engine.transformer.linear import Activation, Linear, Pack, X
from interp.engine.transformer.parts import Norm, Output, Rotation, capped


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
        Before rotary: per head, or over all heads together (`together`).
    qkv
        The three projections as one, where their weights lie side by side in memory.
    window
        How many tokens back attention reaches, the query's own among them; ``None``: all.
    cap
        What scores are softly held within.
    slopes
        ``[head]``: what is added to a score for each token of distance.
    sinks
        ``[head]``: a score that takes attention away and gives nothing.
    experts
        Routed experts, ``[row, d_model]`` → ``[row, d_model]``; then `up`, `down` and `gate` have no neurons.
    middle_norm, after_norm
        Of the residual stream itself, after what each half adds to it.
    both_ways
        Whether a query sees the keys after it too.
    """

    norm1: Norm
    norm2: Norm
    q: Linear
    k: Linear
    v: Linear
    o: Output
    gate: Linear | None
    up: Linear
    down: Output
    act: Activation
    scale: float
    d_head: int
    parallel: bool = False
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    qkv: Linear | None = None
    window: int | None = None
    cap: float | None = None
    slopes: Tensor | None = None
    sinks: Tensor | None = None
    experts: Callable[[Tensor], Tensor] | None = None
    middle_norm: Norm | None = None
    after_norm: Norm | None = None
    both_ways: bool = False

    @property
    def together(self) -> bool:
        """Whether a head's queries and keys depend on those of the others, by a norm over all of them."""
        return self.q_norm is not None and len(self.q_norm.weight) != self.d_head

    @property
    def mlp_bias(self) -> Tensor | None:
        """What an MLP adds to the stream that no neuron of it does, ``[d_model]``."""
        return None if self.down.bias is None else self.down.settled(self.down.bias)

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
        q = self._normed(q, self.q_norm)
        return q if at is None else at(q)

    def turn_keys(self, k: X, at: Callable[[X], X] | None) -> X:
        """Return projected keys as attention uses them."""
        k = self._normed(k, self.k_norm)
        return k if at is None else at(k)

    def _normed(self, x: X, norm: Norm | None) -> X:
        if norm is None:
            return x
        return norm(x) if not self.together else self.heads(norm(_flat(x)))

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

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: int = 0, heads: Sequence[int] | None = None) -> Tensor:
        """Return attention's z, ``[n, query, head, d_head]``; the pattern is in memory only where it must be.

        Parameters
        ----------
        q
            ``[n, query, head, d_head]``; query ``i`` stands at position ``first + i``.
        k, v
            ``[n or 1, position, KV head, d_head]``.
        heads
            Which query heads these are, if not all.
        """
        (n, queries), length = q.shape[:2], k.shape[1]
        if not queries:
            return q
        if self.cap is not None or self.sinks is not None:
            k, v = (tensor.expand(n, -1, -1, -1) for tensor in (k, v))
            return self.mix(self.pattern(self.scores(q, k, first, heads), heads), v)
        q, k, v = (tensor.expand(n, -1, -1, -1).transpose(1, 2) for tensor in (q, k, v))
        whole = queries == length and not self._short(length) and self.slopes is None and not self.both_ways
        z = functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if whole else self._mask(q, length, first, heads),
            is_causal=whole,
            scale=self.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return z.transpose(1, 2)

    def _mask(self, q: Tensor, length: int, first: int, heads: Sequence[int] | None) -> Tensor | None:
        """Return what is added to scores, or which keys are seen; `q` is ``[n, head, query, d_head]``."""
        hidden = self._hidden(q.shape[-2], length, first, q.device)
        if self.slopes is None:
            return None if hidden is None else ~hidden
        distance = self._distance(q.shape[-2], length, first, heads).to(q.dtype)
        return distance if hidden is None else distance.masked_fill(hidden, float("-inf"))

    def _short(self, length: int) -> bool:
        return self.window is not None and self.window < length

    def _hidden(self, queries: int, keys: int, first: int, device: torch.device) -> Tensor | None:
        """Return which keys each query does not see, ``bool [query, key]``; ``None`` where it sees all."""
        if self.both_ways:
            return None
        short = self._short(keys)
        if queries == 1 and keys == first + 1 and not short:
            return None
        later = _ahead(queries, keys, first, device)
        return (later > 0) | (later <= -(self.window or 0)) if short else later > 0

    def _distance(self, queries: int, keys: int, first: int, heads: Sequence[int] | None) -> Tensor:
        assert self.slopes is not None
        slopes = self.slopes if heads is None else self.slopes[list(heads)]
        return slopes[:, None, None] * _ahead(queries, keys, first, slopes.device)

    def scores(self, q: Tensor, k: Tensor, first: int = 0, heads: Sequence[int] | None = None) -> Tensor:
        """Return what the softmax is taken of, ``[…, head, query, key]``: −∞ for keys that are not seen.

        Parameters
        ----------
        q, k
            ``[…, query, head, d_head]`` and ``[…, key, KV head, d_head]``, with the same axes before.
        first
            The position of the first query.
        heads
            Which query heads these are, if not all.
        """
        queries, count, shared = q.shape[-3], q.shape[-2], k.shape[-2]
        group = count // shared
        # Query heads that share a key head are rows of one product.
        rows = q.unflatten(-2, (shared, group)).movedim(-4, -2).flatten(-3, -2)
        scores = (rows @ k.movedim(-3, -1) * self.scale).unflatten(-2, (group, queries)).flatten(-4, -3)
        scores = capped(scores, self.cap)
        if self.slopes is not None:
            scores = scores + self._distance(queries, k.shape[-3], first, heads).to(scores.dtype)
        hidden = self._hidden(queries, k.shape[-3], first, q.device)
        return scores if hidden is None else scores.masked_fill(hidden, float("-inf"))

    def pattern(self, scores: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """Return the attention weights, ``[…, head, query, key]``, of scores."""
        if self.sinks is None:
            return scores.softmax(-1)
        sinks = self.sinks if heads is None else self.sinks[list(heads)]
        column = sinks[:, None, None].to(scores.dtype).expand(*scores.shape[:-1], 1)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1]

    def mix(self, pattern: Tensor, v: Tensor) -> Tensor:
        """Return z, ``[…, query, head, d_head]``, of a pattern ``[…, head, query, key]``."""
        heads, queries, shared = pattern.shape[-3], pattern.shape[-2], v.shape[-2]
        group = heads // shared
        rows = pattern.unflatten(-3, (shared, group)).flatten(-3, -2)
        return (rows @ v.movedim(-3, -2)).unflatten(-2, (group, queries)).flatten(-4, -3).movedim(-3, -2)

    # -- what is written -----------------------------------------------------------------------------------------------

    def write(self, z: X) -> X:
        """Return what the heads together add to the residual stream, ``[…, d_model]``, of z ``[…, head, d_head]``."""
        return self.o(_flat(z))

    def rewritten(self, z: Tensor, raw: Tensor) -> Tensor:
        """Return by how much the heads add something else where what W_O makes of `z` becomes `raw` more.

        Parameters
        ----------
        z
            ``[position, head, d_head]``: of the run that is changed.
        raw
            ``[…, position, d_model]``: a change of z, times `head_weights`.
        """
        return self.o.change(lambda: z.flatten(-2), raw)

    def head_weights(self, heads: slice | Sequence[int] = slice(None)) -> Tensor:
        """Return W_O of some heads, ``[d_model, head, d_head]``: what they write before a norm or a factor."""
        return self.o.weight.unflatten(1, (-1, self.d_head))[:, heads if isinstance(heads, slice) else list(heads)]

    def middle(self, before: X, written: X) -> X:
        """Return the residual stream after the attention, of that before the layer and what the heads add to it."""
        return _joined(before, written, self.middle_norm)

    def after(self, middle: X, made: X) -> X:
        """Return the residual stream after the layer, of that after the attention and what the MLP adds to it."""
        return _joined(middle, made, self.after_norm)

    def mlp_reads(self, before: X, middle: X) -> X:
        """Return the residual stream that the MLP reads, of those before and after the attention."""
        return before if self.parallel else middle

    def neurons(self, read: X) -> X:
        """Return the MLP's post-activation values, ``[…, neuron]``, of the residual stream that it reads.

        Raises
        ------
        Unreadable
            It has none: its experts are routed.
        """
        if self.experts is not None:
            raise Unreadable("routed experts have no neurons")
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
        if self.experts is None:
            return self.write_neurons(self.neurons(read))
        normed = self.norm2(read)
        return self.down.settled(normed.each(self.experts) if isinstance(normed, Pack) else self.experts(normed))


def _joined(stream: X, added: X, norm: Norm | None) -> X:
    total = stream + added
    return total if norm is None else norm(total)


def _flat(x: X) -> X:
    """Return ``[…, head, d_head]`` as ``[…, head · d_head]``."""
    return x.each(lambda rows: rows.flatten(-2)) if isinstance(x, Pack) else x.flatten(-2)


def _ahead(queries: int, keys: int, first: int, device: torch.device) -> Tensor:
    """Return how far each key stands after each query, ``int64 [query, key]``: negative before it."""
    return torch.arange(keys, device=device) - (torch.arange(queries, device=device) + first)[:, None]
