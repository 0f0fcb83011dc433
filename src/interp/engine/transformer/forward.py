"""A batch's forward as plain functions, where any activation can be read, changed or differentiated; no hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.transformer.network import Layer, Network, Norm, rotate

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
    length = resid.shape[1]
    tables = network.rotary(length) if network.rotary is not None else None
    hidden = torch.ones(length, length, dtype=torch.bool, device=resid.device).triu(1)
    found = edits or {}

    def edited(site: str, index: int, tensor: Tensor) -> Tensor:
        changed = found[site](index, tensor) if site in found else None
        return tensor if changed is None else changed

    for index in range(first, len(network.layers) if stop is None else stop):
        layer = network.layers[index]
        before = edited("resid_pre", index, resid)
        normed = layer.norm1(before)
        q = edited("q", index, _heads(layer.q(normed), network.n_heads))
        k = edited("k", index, _heads(layer.k(normed), network.n_kv_heads))
        v = edited("v", index, _heads(layer.v(normed), network.n_kv_heads))
        q, k = turned(layer.q_norm, q, tables), turned(layer.k_norm, k, tables)
        if "scores" in found or "pattern" in found:
            scores = edited("scores", index, _scores(q, k, layer.scale).masked_fill(hidden, float("-inf")))
            z = _mixed(edited("pattern", index, scores.softmax(-1)), v)
        else:
            z = _fused(q, k, v, layer)
        z = edited("z", index, z)
        middle = edited("resid_mid", index, before + edited("attn_out", index, layer.o(z.flatten(2))))
        read = edited("mlp_in", index, before if network.parallel else middle)
        neurons = edited("neuron", index, layer.neurons(layer.norm2(read)))
        resid = edited("resid_post", index, middle + edited("mlp_out", index, layer.down(neurons)))
    return resid


def _heads(projected: Tensor, heads: int) -> Tensor:
    return projected.view(*projected.shape[:2], heads, -1)


def turned(norm: Norm | None, x: Tensor, tables: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return queries or keys, ``[…, position, head, d_head]``, as scores are made of them: normed and rotated."""
    if norm is not None:
        x = norm(x)
    return x if tables is None else rotate(x, *tables)


def _fused(q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    z = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=layer.scale, enable_gqa=True)
    return z.transpose(1, 2)


def _scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return ``[n, head, query, key]``; query head ``h`` reads KV head ``h // (heads // KV heads)``."""
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    return torch.einsum("nqhd,nkhd->nhqk", q, k) * scale


def _mixed(pattern: Tensor, v: Tensor) -> Tensor:
    v = v.repeat_interleave(pattern.shape[1] // v.shape[2], dim=2)
    return torch.einsum("nhqk,nkhd->nqhd", pattern, v)
