"""Through which head an edge comes: the last one that it passes, or none (Kamath et al. 2025, for attention).

Of an edge s → t, head h of layer l has the share of what s writes that, however it came to be in the stream before that
layer, the head carries to where t reads and nothing but the residual stream carries on from there. What is in no head's
share has stayed at its own position. The shares of all heads and that one sum to the edge.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interp.engine.features.attribution import Traced, Tracer

_SOURCES = 64  # of which what they write is carried up together


def head_loadings(
    traced: Traced,
    rows: Tensor,
    entries: Tensor,
    *,
    on_step: Callable[[int, int], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the heads' shares of edges.

    Parameters
    ----------
    rows, entries
        ``int64 [edge]``: which row of `traced` each edge leads to, and which source it comes from.
    on_step
        Told how many sources are done, and of how many.

    Returns
    -------
    tuple
        ``[edge, layer, head]``, and ``[edge]``: through no head.
    """
    with torch.no_grad():
        return _head_loadings(traced, rows, entries, on_step)


def _head_loadings(
    traced: Traced, rows: Tensor, entries: Tensor, on_step: Callable[[int, int], object] | None
) -> tuple[Tensor, Tensor]:
    held = traced.sources
    frozen = held.frozen
    wanted, row_of = rows.unique(return_inverse=True)
    chosen, source_of = entries.unique(return_inverse=True)
    positions, at_attention, at_mlp, at_start = _straight(traced, wanted)
    heads = frozen.network.n_heads
    loadings = frozen.start.new_zeros(len(rows), len(frozen), heads)
    direct = frozen.start.new_zeros(len(rows))
    for number in range(0, len(chosen), _SOURCES):
        some = chosen[number : number + _SOURCES]
        mine = ((source_of >= number) & (source_of < number + len(some))).nonzero()[:, 0]
        own, target = source_of[mine] - number, row_of[mine]
        start, written = _writes(traced, some)

        def at(layer: int, x: Tensor, mine: Tensor = mine, own: Tensor = own, target: Tensor = target) -> None:
            into = frozen.layers[layer].into_heads(at_attention[layer], positions)
            z = frozen.layers[layer].values(x)
            loadings[mine, layer] = (z[own, positions[target]] * into[target]).sum(-1)

        def by_mlp(layer: int, written: list[Tensor] = written) -> tuple[Tensor, Tensor] | None:
            every = written[layer].flatten(1).any(1).nonzero()[:, 0]
            return (every, written[layer][every]) if len(every) else None

        frozen.forward(start, at, by_mlp)
        direct[mine] = (start[own, positions[target]] * at_start[target]).sum(-1)
        for layer in range(len(frozen)):
            direct[mine] += (written[layer][own, positions[target]] * at_mlp[layer][target]).sum(-1)
        if on_step is not None:
            on_step(min(number + _SOURCES, len(chosen)), len(chosen))
    return loadings, direct


def _writes(traced: Traced, entries: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return what sources write into the embeddings and into each layer's MLP, ``[source, position, d_model]`` each."""
    held = traced.sources
    frozen, count = held.frozen, held.n_positions
    numbers = torch.arange(len(entries), device=entries.device)
    start = frozen.start.new_zeros(len(entries), *frozen.start.shape)
    of_tokens = entries >= held.first_embedding
    positions = entries[of_tokens] - held.first_embedding
    start[numbers[of_tokens], positions] = frozen.start[positions]
    features, errors = entries < held.n_features, (entries >= held.first_error) & ~of_tokens
    written: list[Tensor] = []
    for layer in range(len(frozen)):
        out = torch.zeros_like(start)
        mine = entries[features]
        out[numbers[features], held.positions[mine]] = held.written(mine, layer)
        wrong = errors & ((entries - held.first_error) // count == layer)
        positions = (entries[wrong] - held.first_error) % count
        out[numbers[wrong], positions] = held.errors[layer, positions]
        written.append(out)
    return start, written


def _straight(traced: Traced, rows: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Return rows' positions, and how they read, by the residual stream alone, what each layer's halves write there.

    Returns
    -------
    tuple
        ``int64 [row]``; for each layer ``[row, d_model]``, of what attention adds; the same of what the MLP adds; and
        of the embeddings.
    """
    held, tracer = traced.sources, Tracer(traced.sources)
    frozen, count = held.frozen, len(traced.targets)
    positions = torch.empty_like(rows)
    slope = frozen.start.new_zeros(len(rows), frozen.start.shape[-1])
    read: dict[int, list[tuple[int, Tensor]]] = {}
    for number, row in enumerate(rows.tolist()):
        if row >= count:
            one = traced.readings[row - count]
            positions[number] = one.position
            slope[number] = frozen.final.back(one.direction[None], torch.tensor([one.position]))[0]
        else:
            entry = traced.targets[row : row + 1]
            positions[number] = held.positions[entry]
            reads = tracer.reads(int(held.layers[entry]), held.features[entry], held.positions[entry])[0]
            read.setdefault(int(held.layers[entry]), []).append((number, reads[0]))
    at_attention, at_mlp = [slope] * len(frozen), [slope] * len(frozen)
    for layer in range(len(frozen) - 1, -1, -1):
        at_mlp[layer] = slope
        more = torch.zeros_like(slope)
        skip = frozen.skipped_back(layer, slope, positions)
        more = more if skip is None else more + skip
        for number, reads in read.get(layer, ()):
            more[number] += reads
        at_attention[layer] = slope if frozen.network.parallel else slope + more
        slope = slope + more
    return positions, at_attention, at_mlp, slope
