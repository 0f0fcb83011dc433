"""What makes an attention score: for one head, query and key, which pairs of sources (Kamath et al. 2025).

With the norms' denominators held, a query is linear in what the stream at its position is the sum of, a key in that at
its own; their product is a sum over pairs of sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from interp.engine.features.attribution import Tracer
from interp.engine.features.frozen import Frozen, Held
from interp.engine.transformer.block import Block
from interp.engine.transformer.parts import Norm, Rotation

_MOST = 4000  # sources on each side of which pairs are told apart; others are summed


class _Carried(Protocol):
    """``[row, d_model]`` → ``[row, d_head]``: a head's query or key of rows of the stream."""

    def __call__(self, x: Tensor, *, biases: bool) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ScorePairs:
    """One attention score as a sum over pairs.

    Attributes
    ----------
    score
        What the softmax is taken of, before a soft cap and before what is added for distance.
    queries, keys
        ``int64``: which sources the rows and the columns are; behind them come all others together, and the biases.
    pairs
        ``float32 [query source + 2, key source + 2]``.
    """

    score: float
    queries: Tensor
    keys: Tensor
    pairs: Tensor


def score_pairs(tracer: Tracer, layer: int, head: int, query: int, key: int) -> ScorePairs:
    """Return what makes a head's score of a key for a query.

    Parameters
    ----------
    tracer
        Of a run held with the dictionaries that stand for its MLPs.
    query, key
        Positions; the key is not after the query.
    """
    with torch.no_grad():
        block = tracer.frozen.layers[layer].block
        shared = head // (block.n_heads // block.n_kv_heads)
        q, own_q, full_q = _parts(tracer, layer, "q", head, query)
        k, own_k, full_k = _parts(tracer, layer, "k", shared, key)
        (queries, rows), (keys, columns) = _largest(q, own_q), _largest(k, own_k)
        pairs = rows.double() @ columns.double().T * block.scale
        return ScorePairs(float(full_q.double() @ full_k.double() * block.scale), queries, keys, pairs.float())


def _parts(tracer: Tracer, layer: int, kind: str, head: int, at: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return each source's share of a query or a key, ``[source, d_head]``, that of biases, and the whole."""
    frozen = tracer.frozen
    carried = _carried(frozen, layer, kind, head, at)
    width = frozen.start.shape[-1]
    zero = frozen.start.new_zeros(1, width)
    const = carried(zero, biases=True)[0]
    reads = carried(torch.eye(width, dtype=zero.dtype, device=zero.device), biases=False).T  # [d_head, d_model]
    slope = frozen.start.new_zeros(len(reads), *frozen.start.shape)
    slope[:, at] = reads
    biases = torch.zeros(len(reads), dtype=torch.float64, device=slope.device)
    edges = tracer.down(slope, layer, lambda index: None, biases)  # noqa: ARG005
    whole = carried(_stream(frozen, layer)[at : at + 1], biases=True)[0]
    return edges.T, biases.to(const) + const, whole


def _stream(frozen: Frozen, layer: int) -> Tensor:
    """Return the stream before a layer, ``[position, d_model]``."""
    return frozen.layers[layer].before


def _carried(frozen: Frozen, layer: int, kind: str, head: int, at: int) -> _Carried:
    """Return what makes a head's query or key of rows of the stream, all norms held at this run's values."""
    held = frozen.layers[layer]
    block: Block = held.block
    linear, norm = (block.q, block.q_norm) if kind == "q" else (block.k, block.k_norm)
    turn = frozen.turns[layer]
    place = torch.tensor([at], device=held.before.device)
    per_head = None if norm is None else _of_heads(norm, block, linear(block.norm1(held.before[place])))

    def carried(x: Tensor, *, biases: bool) -> Tensor:
        n = held.attention_norm(x, place)
        if biases and block.norm1.bias is not None:
            n = n + block.norm1.bias
        made = n @ linear.weight.T
        made = made + linear.bias if biases and linear.bias is not None else made
        if per_head is not None:
            assert norm is not None
            split = made if block.together else made.unflatten(-1, (-1, block.d_head))
            split = per_head(split)
            made = (split + norm.bias if biases and norm.bias is not None else split).flatten(1)
        one = made.unflatten(-1, (-1, block.d_head))[:, head]
        return one if turn is None else _turned(turn, place, one)

    return carried


def _of_heads(norm: Norm, block: Block, made: Tensor) -> Held:
    """Return a norm of queries or keys, held: of each head's, or of all together; `made` is ``[1, head · d_head]``."""
    return Held.of(norm, made if block.together else made.unflatten(-1, (-1, block.d_head)))


def _turned(turn: Rotation, place: Tensor, rows: Tensor) -> Tensor:
    return turn.at(place)(rows[:, None, None])[:, 0, 0]


def _largest(parts: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sources that are told apart, and their parts; the others' sum and the biases come behind."""
    there = parts.norm(dim=-1)
    count = min(_MOST, int((there > 0).sum()))
    chosen = there.topk(count).indices.sort().values
    rest = parts.sum(0) - parts[chosen].sum(0)
    return chosen, torch.cat([parts[chosen], rest[None], own[None]])
