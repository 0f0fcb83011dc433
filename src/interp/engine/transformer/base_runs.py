"""Prompts run together, layer by layer, with all that a later forward may leave as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
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
        The number of a prompt earlier in the list that agrees before `start`: those positions are taken from its run.
    types
        The tokens' types.
    """

    ids: Tensor
    like: int | None = None
    start: int = 0
    types: Sequence[int] = ()


class Running:
    """Prompts under way together, a layer at a time, so that each layer's weights are read once for all of them.

    Parameters
    ----------
    asked
        The prompts.
    alive
        Called after each layer with the number of those that are done.

    Attributes
    ----------
    runs
        What there is of each prompt's run: all that belongs to the layers that are done, and the stream after them.
    done
        How many layers are done.
    """

    def __init__(
        self,
        network: Network,
        asked: Sequence[Asked],
        alive: Callable[[int], None] = lambda layers: None,  # noqa: ARG005
    ) -> None:
        self.runs = [_empty(network, one.ids) for one in asked]
        self.done = 0
        self._network = network
        self._alive = alive
        self._likes = [None if one.like is None else self.runs[one.like] for one in asked]
        self._starts = [one.start for one in asked]
        self._turns = {length: network.rotations(length) for length in {len(one.ids) for one in asked}}
        for one, run, like in zip(asked, self.runs, self._likes, strict=True):
            run.resid[0, one.start :] = network.embed(one.ids, one.types)[one.start :]
            _take(run, like, one.start, {"resid": 0})

    def through(self, layer: int) -> None:
        """Run all layers up to and including that one that are not done."""
        while self.done <= layer:
            self._step(self.done)

    def only(self, chosen: Sequence[int]) -> Running:
        """Return the rest of the way for neighbours among the prompts; those that others are like have to go first."""
        part, own = copy.copy(self), slice(chosen[0], chosen[-1] + 1)
        part.runs, part._likes, part._starts = self.runs[own], self._likes[own], self._starts[own]
        return part

    def _step(self, index: int) -> None:
        """Run one layer; where that is interrupted it can be run again."""
        block, runs, starts = self._network.at(index), self.runs, self._starts
        counts = [len(run) - start for run, start in zip(runs, starts, strict=True)]
        x = torch.cat([run.resid[index, start:] for run, start in zip(runs, starts, strict=True)])
        projected = [rows.split(counts) for rows in block.project(x)]
        for run, like, start, *heads in zip(runs, self._likes, starts, *projected, strict=True):
            _attend(block, index, self._turns[len(run)][index], start, run, like, heads)
        z = torch.cat([run.z[index, start:] for run, start in zip(runs, starts, strict=True)])
        middle = block.middle(x, block.write(z))
        after = block.after(middle, chunked(block.mlp, block.mlp_reads(x, middle)))
        ends = zip(runs, self._likes, starts, middle.split(counts), after.split(counts), strict=True)
        for run, like, start, between, end in ends:
            run.mid[index, start:], run.resid[index + 1, start:] = between, end
            _take(run, like, start, {"mid": index, "q": index, "z": index, "resid": index + 1})
        self.done = index + 1
        self._alive(self.done)


def _take(run: Base, like: Base | None, start: int, parts: Mapping[str, int]) -> None:
    """Take what stands before `start` from the run that is the same there: of each part, that of one layer."""
    if like is not None:
        for part, layer in parts.items():
            getattr(run, part)[layer, :start] = getattr(like, part)[layer, :start]


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
