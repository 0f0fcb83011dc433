"""Heads as their weights alone: OV and QK circuits as products of two thin matrices, the norms' gains folded in.

A circuit over the vocabulary has vocab² entries and a rank of d_head: it is kept as its two factors, and whatever is
asked of it is computed from them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from interp.engine import linalg
from interp.engine.exactness import Unreadable
from interp.engine.transformer.block import Block
from interp.engine.transformer.linear import Linear
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Norm, Rotation

_ENTRIES = 2**24  # of a circuit that are held at once


@contextlib.contextmanager
def unmixed(device: torch.device) -> Generator[None]:
    """Compute with the weights as they are: the user's autocast is for the model's forward."""
    with torch.autocast(device.type, enabled=False):
        yield


@dataclass(frozen=True)
class Heads:
    """One layer's heads: the directions that they read and write, ``[head, d_head, d_model]`` each.

    `q`, `k` and `v` have the gain of the norm before them folded in, and of per-head norms, and a LayerNorm's
    centring: ``x @ q[h].T`` is the query of a residual stream of size 1, but for biases. Keys and values have KV heads.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor

    def shared(self, head: int) -> int:
        """Return the KV head that query head `head` reads."""
        return head // (len(self.q) // len(self.k))


def heads(net: Network, layer: Block) -> Heads:
    """Return a layer's heads with the norms folded in, in float32."""

    def read(linear: Linear, own: Norm | None) -> Tensor:
        split = folded(layer.norm1, linear.weight).view(-1, net.d_head, linear.weight.shape[1])
        return split if own is None else split * own.weight.float().view(-1, net.d_head, 1)

    written = layer.head_weights().float().permute(1, 2, 0)
    if layer.o.gain is not None:
        written = written * layer.o.gain.float()
    return Heads(read(layer.q, layer.q_norm), read(layer.k, layer.k_norm), read(layer.v, None), written)


def folded(norm: Norm, weight: Tensor) -> Tensor:
    """Return ``weight``, ``[…, d_model]``, times a norm's gain, and its centring where it has one, in float32.

    On a residual stream divided by its size it does what it did after the norm, but for biases.
    """
    gained = weight.float() * norm.weight.float()
    return gained if norm.rms else gained - gained.mean(-1, keepdim=True)


def unembedding(net: Network, ids: Tensor | None = None, *, centred: bool = True) -> Tensor:
    """Return W_U with the final norm folded in, ``float32 [vocab, d_model]``, centred over the vocabulary.

    What logits are multiplied by (Cohere, Granite) is in it; a soft cap (Gemma 2) is not. The same number more on every
    logit changes nothing; uncentred, it would outweigh what tells tokens apart.

    Parameters
    ----------
    ids
        The tokens whose rows are wanted, ``int64 […]``: the answer is then ``[…, d_model]``, and nothing of the
        vocabulary's size is made of float32 weights.
    centred
        Whether the vocabulary's mean is taken off.
    """
    weight = net.unembed.weight
    out = folded(net.final, weight if ids is None else weight[ids])
    if centred:
        out = out - (out.mean(0) if ids is None else folded(net.final, weight.mean(0, dtype=torch.float32)))
    return out if net.unembed.scale == 1.0 else out * net.unembed.scale


def embedding(net: Network) -> Tensor:
    """Return W_E as layer 0 gets it, scaled (Gemma) and normed (BLOOM): ``float32 [vocab, d_model]``, no positions."""
    return net.embed.words(net.embed.weight).float()


def along(net: Network, layer: Block, z: Tensor, directions: Tensor) -> Tensor:
    """Return how far each head writes along a direction, ``[…, head]``.

    Parameters
    ----------
    z
        ``[…, head, d_head]``.
    directions
        ``[…, d_model]``; with `unembedding`'s rows, over the final norm's `size`, these are frozen-norm direct effects
        on logits.
    """
    output = layer.o
    gained = directions if output.gain is None else directions * output.gain
    read = gained.to(z.dtype) @ output.weight.to(z.dtype)
    along = (z * read.unflatten(-1, (net.n_heads, net.d_head))).sum(-1)
    size = output.size(z.flatten(-2).to(output.weight.dtype))
    return along if size is None else along / size[..., None].to(z.dtype)


@dataclass(frozen=True)
class Circuit:
    """A matrix ``left @ right.T`` of low rank.

    Attributes
    ----------
    left, right
        ``float32 [row, d_head]`` and ``[column, d_head]``.
    name
        What it is called where it cannot be decomposed.
    """

    left: Tensor
    right: Tensor
    name: str = "the circuit's weights"

    def rows(self, ids: Tensor) -> Tensor:
        """Return some rows, ``[row, column]``."""
        return self.left[ids] @ self.right.T

    @property
    def square(self) -> bool:
        """Whether rows and columns are the same tokens, as the eigenvalues ask."""
        return len(self.left) == len(self.right)

    @cached_property
    def eigenvalues(self) -> Tensor:
        """The eigenvalues of a circuit that are not zero by its rank, ``complex128 [d_head]``; NaN unless `square`."""
        if not self.square:
            return torch.full((self.left.shape[1],), float("nan"), dtype=torch.complex128)
        return linalg.eigenvalues(self.right.T @ self.left, self.name)

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return left singular vectors ``[row, d_head]``, singular values ``[d_head]``, right ``[column, d_head]``.

        The sign of a pair is such that the largest entry of the left vector is positive.
        """
        (a, r), (b, s) = linalg.qr(self.left, self.name), linalg.qr(self.right, self.name)
        u, values, vh = linalg.svd(r @ s.T, self.name)
        left, right = a @ u, b @ vh.T
        peak = left.abs().argmax(0)
        sign = left.gather(0, peak[None]).sign()
        return left * sign, values, right * sign

    def spreads(self) -> Tensor:
        """Return the standard deviation of every row, ``float32 [row]``."""
        centred = self.right - self.right.mean(0)
        gram = centred.T @ centred / len(centred)
        return ((self.left @ gram) * self.left).sum(-1).clamp_min(0).sqrt()


def ov(net: Network, layer: int, head: int) -> Circuit:
    """Return W_E W_V W_O W_U of one head: what attending to a token adds to each token's logit.

    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits".
    """
    held = heads(net, net.layers[layer])
    left, right = embedding(net) @ held.v[held.shared(head)].T, unembedding(net) @ held.o[head].T
    return Circuit(left, right, f"the OV weights of head {layer}.{head}")


def qk(net: Network, layer: int, head: int, offset: int = 0) -> Circuit:
    """Return W_E W_Q W_Kᵀ W_Eᵀ of one head, a row per query token, a column per key token.

    With rotary positions the query stands `offset` tokens after the key. Per-head norms are applied to every token's
    query and key: what they divide by differs from token to token, and the order of keys with it.
    """
    at = net.layers[layer]
    held = heads(net, at)
    words = embedding(net)

    def read(folds: Tensor, linear: Linear, own: Norm | None, number: int) -> Tensor:
        if own is None:
            return words @ folds[number].T
        split = linear.weight.view(-1, net.d_head, linear.weight.shape[1])
        weight = split.flatten(0, 1) if at.together else split[number]
        mine = slice(number * net.d_head, (number + 1) * net.d_head) if at.together else slice(None)
        rows = words.split(max(1, _ENTRIES // words.shape[1]))
        return torch.cat([own(at.norm1(some.to(weight)) @ weight.T)[:, mine].float() for some in rows])

    queries = read(held.q, at.q, at.q_norm, head)
    keys = read(held.k, at.k, at.k_norm, held.shared(head))
    turns = net.rotations(offset + 1)[layer]
    if turns is not None:
        turns = Rotation(turns.cos.float(), turns.sin.float(), turns.pairs)
        queries = turns.at(slice(offset, None))(queries[:, None, None])[:, 0, 0]
        keys = turns.at(slice(1))(keys[:, None, None])[:, 0, 0]
    return Circuit(queries, keys, f"the QK weights of head {layer}.{head}")


def positivity(eigenvalues: Tensor) -> Tensor:
    """Return Σλ / Σ|λ|, ``float64 […]``, of eigenvalues ``[…, n]``: 1 where all are positive, −1 where negative."""
    total = eigenvalues.abs().sum(-1)
    return torch.where(total == 0, torch.zeros_like(total), eigenvalues.real.sum(-1) / total)


def copying(net: Network, shuffled: torch.Generator | None = None) -> Tensor:
    """Return the copying score of every head, ``float64 [layer, head]``: `positivity` of its OV circuit.

    The circuit's eigenvalues that are not zero are those of ``W_O (W_U W_E) W_V``, ``[d_head, d_head]``.

    Parameters
    ----------
    shuffled
        Where given, the tokens of W_U are put in a random order: what the score is where no output token has to do with
        the input token.

    Raises
    ------
    Unreadable
        Input and output tokens are not the same ones.
    """
    words, out = embedding(net), unembedding(net)
    if len(words) != len(out):
        raise Unreadable(f"it reads {len(words)} tokens and predicts {len(out)}, which need not be the same")
    if shuffled is not None:
        out = out[torch.randperm(len(out), generator=shuffled).to(out.device)]
    gram = out.T @ words
    scores: list[Tensor] = []
    for index, layer in enumerate(net.layers):
        held = heads(net, layer)
        values = held.v.repeat_interleave(net.n_heads // net.n_kv_heads, 0)
        scores.append(positivity(linalg.eigenvalues(held.o @ gram @ values.mT, f"the OV weights of layer {index}")))
    return torch.stack(scores)


KINDS = ("q", "k", "v")


def composition(net: Network, kinds: tuple[str, ...] = KINDS) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield, layer by layer from 1 on, how much each head reads of what each head of an earlier layer writes.

    It is ‖W_OV R‖ / (‖W_OV‖ ‖R‖) in Frobenius norms, where R is the reader's W_Q W_Kᵀ (q), W_K W_Qᵀ (k) or W_V W_O (v):
    Elhage et al. (2021). A product of the small parts of QR factorisations has the same norm, so that no matrix larger
    than ``[d_head, d_model]`` is made for a head, nor larger than ``[d_head, d_head]`` for a pair.

    Yields
    ------
    tuple
        The reader's layer, and kind → ``float32 [layer below, head, reader's head]``.
    """

    def triangle(side: Tensor) -> Tensor:
        return linalg.triangle(side.mT, f"the attention weights of layer {index}")

    def per_query_head(shared: Tensor) -> Tensor:
        return shared.repeat_interleave(net.n_heads // net.n_kv_heads, 0)

    senders: list[Tensor] = []
    for index, layer in enumerate(net.layers):
        held = heads(net, layer)
        if index:
            sent = torch.cat(senders)
            read = {
                "q": lambda: per_query_head(triangle(held.k)) @ held.q,  # noqa: B023  # called in this turn
                "k": lambda: triangle(held.q) @ per_query_head(held.k),  # noqa: B023
                "v": lambda: triangle(held.o) @ per_query_head(held.v),  # noqa: B023
            }
            yield index, {kind: _ratios(sent, read[kind]()).view(index, net.n_heads, -1) for kind in kinds}
        senders.append(_unit(per_query_head(triangle(held.v)) @ held.o))


def _unit(matrices: Tensor) -> Tensor:
    return matrices / torch.linalg.matrix_norm(matrices)[:, None, None]


def _ratios(sent: Tensor, read: Tensor) -> Tensor:
    """Return ‖A Bᵀ‖ of matrices of norm 1, ``[sender, reader]``."""
    a, b = sent, _unit(read)
    out = [
        (part.flatten(0, 1) @ b.flatten(0, 1).T)
        .view(len(part), a.shape[1], len(b), b.shape[1])
        .square_()
        .sum((1, 3))
        .sqrt()
        for part in a.split(max(1, _ENTRIES // (a.shape[1] * b.shape[0] * b.shape[1])))
    ]
    return torch.cat(out)
