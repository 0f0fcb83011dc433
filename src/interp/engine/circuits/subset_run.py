"""Runs of one batch of subsets of a model's edges, layer by layer: see `subgraph`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.engine.transformer.network import Network


@dataclass(frozen=True)
class Batch:
    """Pairs whose prompts have one length, and what they carry where edges are ablated.

    Attributes
    ----------
    numbers
        Of the pairs.
    embed, resid, mid
        ``[pair, position, d_model]``, ``[pair, layer + 1, position, d_model]`` and ``[pair, layer, …]``: the ablated
        embedding, and what a reader reads before a layer and in its middle where every edge is ablated.
    z, mlp
        ``[pair, layer, position, head, d_head]`` and ``[pair, layer, position, d_model]``: ablated values.
    written
        ``[pair, position, d_model]``: the clean prompt's embedding.
    """

    numbers: list[int]
    embed: Tensor
    resid: Tensor
    mid: Tensor
    z: Tensor
    mlp: Tensor
    written: Tensor


class Run:
    """Runs under way: what every writer below has written, less its ablated value.

    Parameters
    ----------
    keep
        ``[run or 1, reader, live writer]``: 1 where an edge is kept.
    of
        ``int64 [run]``: the pair of each.
    count
        How many live writers there are.
    """

    def __init__(self, net: Network, batch: Batch, keep: Tensor, of: Tensor, count: int) -> None:
        self.net = net
        self.batch = batch
        self.keep = keep
        self.of = of
        length, width = batch.written.shape[1:]
        self.changes = batch.written.new_empty(len(of), count, length, width)
        self.below = 0  # writers that have written
        self.turns = net.rotations(length)
        self.normed: list[tuple[int, slice]] = []  # layers whose heads' sum goes through a norm, and these writers

    def spread(self, keep: Tensor, of: Tensor, back: Tensor) -> Run:
        """Return the same with a row for each run instead of each pair; row ``back[run]`` is what it continues."""
        each = Run(self.net, self.batch, keep, of, 0)
        each.below, each.normed = self.below, list(self.normed)
        each.changes = self.changes.new_empty(len(of), *self.changes.shape[1:])
        each.changes[:, : self.below] = self.changes[:, : self.below][back]
        return each

    def write(self, changes: Tensor) -> None:
        """Add the next writers' ``[run, writer, position, d_model]``."""
        self.changes[:, self.below : self.below + changes.shape[1]] = changes
        self.below += changes.shape[1]

    def layer(self, index: int, heads: Sequence[int], *, mlp: bool) -> None:
        """Run those heads of a layer that are read anywhere, and its MLP if it is."""
        net, block = self.net, self.net.layers[index]
        first = index * (net.n_heads + 2 * net.n_kv_heads + 1)
        last = [first + net.n_heads + 2 * net.n_kv_heads]
        # A parallel block's MLP reads before the block's heads have written.
        before = self._read(last, self.batch.resid[self.of, index]) if mlp and block.parallel else None
        if heads:
            self._attend(index, first, heads)
        if mlp:
            read = self._read(last, self.batch.mid[self.of, index]) if before is None else before
            made = block.mlp(read[:, 0]) - self.batch.mlp[self.of, index]
            self.write(made[:, None])

    def _attend(self, index: int, first: int, heads: Sequence[int]) -> None:
        net, block = self.net, self.net.layers[index]
        group = net.n_heads // net.n_kv_heads
        # A norm over all heads together asks for those too whose output nothing reads.
        run = list(range(net.n_heads)) if block.together else list(heads)
        shared = sorted({head // group for head in run})
        keys = [first + net.n_heads + head for head in shared]
        readers = [*(first + head for head in run), *keys, *(reader + net.n_kv_heads for reader in keys)]
        read = self._read(readers, self.batch.resid[self.of, index]).split([len(run), len(shared), len(shared)], 1)
        numbers = {"q": run, "k": shared, "v": shared}
        q, k, v = (block.project_each(kind, rows, numbers[kind]) for kind, rows in zip("qkv", read, strict=True))
        own = [shared.index(head // group) for head in run]
        q, k = block.turn_queries(q, self.turns[index]), block.turn_keys(k, self.turns[index])
        z = block.attend(q, k[:, :, own], v[:, :, own], heads=run)[:, :, [run.index(head) for head in heads]]
        change = z - self.batch.z[self.of, index][:, :, list(heads)]
        raw = torch.einsum("rphk,mhk->rhpm", change, block.head_weights(heads))
        if block.o.norm is None:
            raw = block.o.settled(raw)
        else:
            self.normed.append((index, slice(self.below, self.below + raw.shape[1])))
        self.write(raw)

    def _read(self, readers: Sequence[int], ablated: Tensor) -> Tensor:
        """Return what inputs read, ``[run, reader, position, d_model]``."""
        kept = self.keep[:, list(readers), : self.below]
        return self._added(kept, self.changes[:, : self.below]) + ablated[:, None]

    def _added(self, kept: Tensor, changes: Tensor, at: Tensor | None = None) -> Tensor:
        """Return what writers add to inputs, ``[run, reader, position, d_model]``.

        A norm after the attention belongs to what reads: it is of the heads that an input keeps, and of the others'
        ablated values.

        Parameters
        ----------
        kept
            ``[run, reader, writer]``.
        changes
            ``[run, writer, position, d_model]``.
        at
            The one position of each run that `changes` are of; all when not given.
        """
        shape = changes.shape[2:]
        plain = kept
        if self.normed:
            plain = kept.clone()
            for _, writers in self.normed:
                plain[..., writers] = 0
        added = (plain @ changes.flatten(2)).unflatten(2, shape)
        for index, writers in self.normed:
            raw = (kept[..., writers] @ changes[:, writers].flatten(2)).unflatten(2, shape)
            z = self.batch.z[self.of, index]
            z = z if at is None else z[torch.arange(len(at), device=at.device), at][:, None]
            added = added + self.net.layers[index].rewritten(z[:, None], raw)
        return added

    def end(self, positions: Tensor) -> Tensor:
        """Return what the logits read at one position of each run, ``[run, d_model]``."""
        rows = torch.arange(len(self.of), device=positions.device)
        written = self.changes[rows, : self.below, positions]
        added = self._added(self.keep[:, -1:, : self.below], written[:, :, None], positions)
        return added[:, 0, 0] + self.batch.resid[self.of, -1, positions]
