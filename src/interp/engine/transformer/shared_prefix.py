"""Runs that share a prefix, side by side: what they share is run once, and only some of them are differentiated.

1. The rows of a layer are the shared prefix's, the frozen runs' and the graded runs', of which the last alone are in
   autograd's graph (`Pack`): every linear layer is one product over all of them, with a gradient for the graded rows.
2. The prefix attends to itself. A run attends to the prefix's keys and values, with no gradient, and to its own.
3. After each step `keep` is given what the frozen and the graded runs have there, to record or to differentiate by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from interp.engine.model.hooks import stoppable
from interp.engine.transformer.block import Block
from interp.engine.transformer.linear import Pack
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Rotation

# (site, layer, the frozen runs' activation ``[run, n, position, …]``, the graded runs' as the graph has it: the same
# with the first three axes as one, but for patterns, ``[run, n, head, query, key]``).
Keep = Callable[[str, int, Tensor, Tensor], None]


def paired(network: Network, prefix: Tensor, frozen: Tensor, graded: Tensor, keep: Keep) -> tuple[Tensor, Tensor]:
    """Run what comes after a prefix in several ways at once.

    A causal model's runs are the same as far as their tokens are, and nothing later changes them: the prefix needs
    neither a second run nor a gradient.

    Parameters
    ----------
    prefix
        ``[n, start, d_model]``: the residual stream before layer 0 where the runs agree; `start` may be 0, and is
        where attention looks both ways.
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

    def kept(site: str, index: int, pack: Pack) -> Pack:
        keep(site, index, shaped(pack.frozen[shared:], frozen), pack.graded)
        return pack

    turns = _turns(network, n, start, start + length, len(frozen), len(graded))
    x = Pack(torch.cat([prefix.reshape(-1, width), frozen.reshape(-1, width)]), graded.reshape(-1, width))
    for index, at in enumerate(turns):
        block = network.at(index)
        before = kept("resid_pre", index, x)
        q, k, v = (kept(site, index, pack) for site, pack in zip("qkv", block.project(before), strict=True))
        q, k = block.turn_queries(q, at), block.turn_keys(k, at)
        first = [pack.frozen[:shared].unflatten(0, (n, start)) for pack in (q, k, v)]
        quiet = [shaped(pack.frozen[shared:], frozen) for pack in (q, k, v)]
        moving = [shaped(pack.graded, graded) for pack in (q, k, v)]
        (pattern, mixed), (graded_pattern, graded_mixed) = (_attended(block, own, first) for own in (quiet, moving))
        keep("pattern", index, pattern, graded_pattern)
        own = torch.cat([block.attend(first[0], first[1], first[2]).flatten(0, 1), mixed.flatten(0, 2)])
        written = block.write(kept("z", index, Pack(own, graded_mixed.flatten(0, 2))))
        middle = kept("resid_mid", index, block.middle(before, kept("attn_out", index, written)))
        # A view of its own: its gradient is that of what the MLP reads, not of all that the stream goes to.
        read = kept("mlp_in", index, block.mlp_reads(before, middle).each(lambda rows: rows.view_as(rows)))
        if block.experts is None:
            made = block.write_neurons(kept("neuron", index, block.neurons(read)))
        else:
            made = block.mlp(read)
        x = kept("resid_post", index, block.after(middle, kept("mlp_out", index, made)))
        stoppable(x.graded)
    return shaped(x.frozen[shared:], frozen), shaped(x.graded, graded)


def _turns(
    network: Network, n: int, start: int, length: int, frozen: int, graded: int
) -> list[Callable[[Pack], Pack] | None]:
    """Return what turns the queries and keys of all rows: the prefix's, then those of `frozen` and of `graded` runs."""
    made: dict[int, Callable[[Pack], Pack]] = {}  # layers mostly share one table

    def packed(rotation: Rotation) -> Callable[[Pack], Pack]:
        places = torch.arange(length, device=rotation.cos.device)
        before, later = places[:start].repeat(n), places[start:]
        of_frozen = rotation.at(torch.cat([before, later.repeat(frozen * n)]))
        of_graded = rotation.at(later.repeat(graded * n))
        return lambda rows: Pack(of_frozen(rows.frozen), of_graded(rows.graded))

    rotations = network.rotations(length)
    for rotation in rotations:
        if rotation is not None and id(rotation) not in made:
            made[id(rotation)] = packed(rotation)
    return [None if rotation is None else made[id(rotation)] for rotation in rotations]


def _attended(block: Block, own: Sequence[Tensor], first: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the pattern, ``[run, n, head, query, key]``, and z, ``[run, n, position, head, d_head]``, of runs."""
    q, k, v = own
    before_k, before_v = (tensor.expand(len(q), *tensor.shape) for tensor in first[1:])
    pattern = block.pattern(block.scores(q, torch.cat([before_k, k], 2), first[0].shape[1]))
    return pattern, block.mix(pattern, torch.cat([before_v, v], 2))
