"""Prompts run together, layer by layer, with all that a later forward may leave as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.engine.transformer.block import Block
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Rotation


@dataclass(frozen=True)
class Base:
    """One prompt's own run, layer by layer; what a replay leaves unchanged it reads from here.

    Attributes
    ----------
    ids
        ``int64 [position]``.
    resid
        ``[layer + 1, position, d_model]``: before each layer, and after the last.
    mid
        ``[layer, position, d_model]``: between attention and MLP (for a parallel block: resid + attention).
    q, k, v
        ``[layer, position, head, d_head]`` as attention uses them: after per-head norms and rotary, which act on each
        position alone, so that taking one from another run is the same before and after them.
    z
        ``[layer, position, head, d_head]``.
    """

    ids: Tensor
    resid: Tensor
    mid: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    z: Tensor

    def __len__(self) -> int:
        return len(self.ids)


PARTS = ("resid", "mid", "q", "k", "v", "z")  # of a Base, each a tensor


@dataclass(frozen=True)
class Asked:
    """A prompt to run.

    Attributes
    ----------
    ids
        ``int64 [position]``.
    like, start
        The run of a prompt of the same length that agrees before `start`, or the number of one earlier in the same
        list: those positions are taken from it.
    types
        The tokens' types.
    """

    ids: Tensor
    like: Base | int | None = None
    start: int = 0
    types: Sequence[int] = ()


def run(
    network: Network,
    asked: Sequence[Asked],
    alive: Callable[[int], None] = lambda layers: None,  # noqa: ARG005
) -> list[Base]:
    """Run prompts together, so that each layer's weights are read once, and keep what a replay needs.

    After each layer `alive` is called with the number of those that are done.
    """
    made = [_empty(network, one.ids) for one in asked]
    likes = [made[one.like] if isinstance(one.like, int) else one.like for one in asked]
    turns = {length: network.rotations(length) for length in {len(one.ids) for one in asked}}
    counts = [len(one.ids) - one.start for one in asked]
    x = torch.cat([network.embed(one.ids, one.types)[one.start :] for one in asked])
    for index, block in enumerate(network.layers):
        projected = [rows.split(counts) for rows in block.project(x)]
        for one, run, like, *heads in zip(asked, made, likes, *projected, strict=True):
            _attend(block, index, turns[len(run)][index], one.start, run, like, heads)
        z = torch.cat([run.z[index, one.start :] for one, run in zip(asked, made, strict=True)])
        middle = block.middle(x, block.write(z))
        after = block.after(middle, chunked(block.mlp, block.mlp_reads(x, middle)))
        for one, run, before, between in zip(asked, made, x.split(counts), middle.split(counts), strict=True):
            run.resid[index, one.start :] = before
            run.mid[index, one.start :] = between
        x = after
        alive(index + 1)
    for one, run, like, end in zip(asked, made, likes, x.split(counts), strict=True):
        run.resid[-1, one.start :] = end
        if like is not None:
            for part in ("resid", "mid", "q", "z"):
                getattr(run, part)[:, : one.start] = getattr(like, part)[:, : one.start]
    return made


def _empty(network: Network, ids: Tensor) -> Base:
    depth, length, width = len(network.layers), len(ids), network.d_head
    heads, shared = network.n_heads, network.n_kv_heads
    new = network.unembed.weight.new_empty
    return Base(
        ids,
        resid=new(depth + 1, length, network.unembed.weight.shape[1]),
        mid=new(depth, length, network.unembed.weight.shape[1]),
        q=new(depth, length, heads, width),
        k=new(depth, length, shared, width),
        v=new(depth, length, shared, width),
        z=new(depth, length, heads, width),
    )


def _attend(
    block: Block,
    index: int,
    turns: Rotation | None,
    start: int,
    run: Base,
    like: Base | None,
    projected: Sequence[Tensor],
) -> None:
    """Write a run's q, k, v and z of one layer, from `start` on, of its projected queries, keys and values."""
    at = None if turns is None else turns.at(slice(start, len(run)))
    run.q[index, start:] = block.turn_queries(projected[0], at)
    run.k[index, start:] = block.turn_keys(projected[1], at)
    run.v[index, start:] = projected[2]
    if like is not None:
        run.k[index, :start], run.v[index, :start] = like.k[index, :start], like.v[index, :start]
    q, k, v = run.q[index, start:], run.k[index], run.v[index]
    run.z[index, start:] = block.attend(q[None], k[None], v[None], start)[0]


def chunked(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = 2048) -> Tensor:
    """Apply `function` to `rows`, ``[row, d_model]``, in chunks that keep its wide intermediate values in cache."""
    if len(rows) <= size:
        return function(rows)
    parts: Sequence[Tensor] = [function(part) for part in rows.split(size)]
    return torch.cat(list(parts))
