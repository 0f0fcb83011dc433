"""A batch's forward as plain functions, where any activation can be read, changed or differentiated; no hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from interp.engine.model.hooks import stoppable
from interp.engine.transformer.network import Network

# (layer, activation) → what it becomes; None leaves it.
Edit = Callable[[int, Tensor], Tensor | None]


def forward(
    network: Network,
    ids: Tensor | None = None,
    edits: Mapping[str, Edit] | None = None,
    *,
    resid: Tensor | None = None,
    first: int = 0,
    stop: int | None = None,
) -> Tensor:
    """Run prompts of one length and return the residual stream at the end.

    Nothing is computed under ``no_grad`` here, and the network's weights are detached: gradients are those with respect
    to what an edit marks with ``requires_grad_()``.

    Parameters
    ----------
    ids
        ``int64 [n, position]``; not needed where `resid` is given.
    edits
        Site → function. The sites are those of `spec.SITES`: ``resid_pre``, ``resid_mid``, ``resid_post``,
        ``attn_out`` and ``mlp_out`` are ``[n, position, d_model]``; ``q``, ``k``, ``v`` (before per-head norms and
        rotary) and ``z`` ``[n, position, head, d_head]``, keys and values with KV heads; ``pattern``
        ``[n, head, query, key]``; ``neuron`` ``[n, position, neuron]``. Beyond them ``scores``,
        ``[n, head, query, key]``: the pattern before its softmax; and ``mlp_in``: the stream that the MLP alone reads.
    resid, first
        The residual stream before layer `first`, ``[n, position, d_model]``, to start from.
    stop
        The layer to stop before; the end when not given.

    Returns
    -------
    Tensor
        ``[n, position, d_model]``: before layer `stop`, or after the last layer, without the final norm.
    """
    if resid is None:
        assert ids is not None
        resid = torch.stack([network.embed(prompt) for prompt in ids])
    turns = network.rotations(resid.shape[1])
    found = edits or {}

    def edited(site: str, index: int, tensor: Tensor) -> Tensor:
        changed = found[site](index, tensor) if site in found else None
        return tensor if changed is None else changed

    for index in range(first, len(network.layers) if stop is None else stop):
        block, at = network.at(index), turns[index]
        before = edited("resid_pre", index, resid)
        q, k, v = (edited(site, index, x) for site, x in zip("qkv", block.project(before), strict=True))
        q, k = block.turn_queries(q, at), block.turn_keys(k, at)
        if "scores" in found or "pattern" in found:
            scores = edited("scores", index, block.scores(q, k))
            z = block.mix(edited("pattern", index, block.pattern(scores)), v)
        else:
            z = block.attend(q, k, v)
        z = edited("z", index, z)
        middle = edited("resid_mid", index, block.middle(before, edited("attn_out", index, block.write(z))))
        read = edited("mlp_in", index, block.mlp_reads(before, middle))
        if block.experts is None:
            made = block.write_neurons(edited("neuron", index, block.neurons(read)))
        else:
            made = block.mlp(read)
        resid = stoppable(edited("resid_post", index, block.after(middle, edited("mlp_out", index, made))))
    return resid
