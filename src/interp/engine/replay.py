"""The exact forward from any layer and position on, for many interventions at once, without hooks.

An intervention changes the residual stream at one place: before a layer (``pre``) or between its attention and its MLP
(``mid``), at one position or from one position on. Everything above and to the right of that place is computed anew;
everything else is the base run's. All interventions travel up through the layers together, so that each layer's weights
are read once, and its matrix products have many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.network import Layer, Network, Norm, chunked, rotate


@dataclass
class Base:
    """One prompt's own run, layer by layer; what a replay leaves unchanged it reads from here.

    Attributes
    ----------
    resid
        ``[layer + 1, position, d_model]``: before each layer, and after the last.
    mid
        ``[layer, position, d_model]``: between attention and MLP (for a parallel block: resid + attention).
    q, k, v
        ``[layer, position, head, d_head]`` as attention uses them: after per-head norms and rotary, which act on each
        position alone, so that taking one from another run is the same before and after them.
    z
        ``[layer, position, head · d_head]``.
    """

    ids: Tensor
    resid: list[Tensor] = field(default_factory=list[Tensor])
    mid: list[Tensor] = field(default_factory=list[Tensor])

    q: list[Tensor] = field(default_factory=list[Tensor])
    k: list[Tensor] = field(default_factory=list[Tensor])
    v: list[Tensor] = field(default_factory=list[Tensor])
    z: list[Tensor] = field(default_factory=list[Tensor])

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Joining:
    """Interventions that enter the wave together.

    Attributes
    ----------
    base
        Which base run they change.
    start
        The first position that they change.
    cells
        ``int64 [n]``: where their values go in the answer.
    rows
        ``[n, d_model]``: the residual stream at `start` alone (`single`), or ``[n, length − start, d_model]``.
    single
        Whether only `start` is changed so far.
    """

    base: int
    start: int
    cells: Tensor
    rows: Tensor
    single: bool


Joins = Callable[[int, str], Iterable[Joining]]


def run(network: Network, ids: Tensor, base: Base | None = None, start: int = 0) -> Base:
    """Run one prompt and keep what a replay needs.

    Parameters
    ----------
    ids
        ``int64 [position]``.
    base, start
        Another prompt's run of the same length that agrees before `start`: those positions are taken from it.
    """
    made = Base(ids)
    x = network.embed(ids)
    if base is not None:
        x = x[start:]
    tables = network.rotary(len(ids)) if network.rotary is not None else None
    for index, layer in enumerate(network.layers):
        q, k, v = _project(network, layer, layer.norm1(x), tables, slice(len(ids) - len(x), len(ids)))
        keys = k if base is None else torch.cat([base.k[index][:start], k])
        values = v if base is None else torch.cat([base.v[index][:start], v])
        if base is None:
            z = _attend_fused(q, k, v, layer.scale)
        else:
            z = attend(q[None], keys[None], values[None], layer.scale, len(ids) - len(x))[0]
        middle = x + layer.o(z)
        after = middle + layer.mlp(layer.norm2(x if network.parallel else middle))
        for name, tensor in {"resid": x, "mid": middle, "q": q, "k": keys, "v": values, "z": z}.items():
            if base is not None and len(tensor) < len(ids):
                tensor = torch.cat([getattr(base, name)[index][:start], tensor])
            getattr(made, name).append(tensor)
        x = after
    made.resid.append(torch.cat([base.resid[-1][:start], x]) if base is not None else x)
    return made


def _project(
    network: Network, layer: Layer, normed: Tensor, tables: tuple[Tensor, Tensor] | None, positions: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k, v, ``[row, head, d_head]``, of normed rows ``[row, d_model]`` that stand at `positions`."""
    q = layer.q(normed).view(-1, network.n_heads, network.d_head)
    k = layer.k(normed).view(-1, network.n_kv_heads, network.d_head)
    v = layer.v(normed).view(-1, network.n_kv_heads, network.d_head)
    return _turn(layer.q_norm, q, tables, positions), _turn(layer.k_norm, k, tables, positions), v


def _turn(norm: Norm | None, x: Tensor, tables: tuple[Tensor, Tensor] | None, places: slice | Tensor) -> Tensor:
    """Return queries or keys, ``[row, head, d_head]``, as attention uses them: normed per head, then rotated."""
    if norm is not None:
        x = norm(x)
    return x if tables is None else rotate(x, tables[0][places], tables[1][places])


def _attend_fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return a whole prompt's z, ``[position, head · d_head]``, without its pattern ever being in memory."""
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
    z = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    return z[0].transpose(0, 1).reshape(z.shape[2], -1)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, offset: int) -> Tensor:
    """Return causal attention's z, ``[n, query, head · d_head]``.

    Parameters
    ----------
    q
        ``[n, query, head, d_head]``; query ``i`` stands at position ``offset + i``.
    k, v
        ``[n or 1, position, KV head, d_head]``; query head ``h`` reads KV head ``h // (heads // KV heads)``.
    """
    pattern = weights(q, k, scale, offset)
    return mix(pattern, v)


def weights(q: Tensor, k: Tensor, scale: float, offset: int) -> Tensor:
    """Return the attention weights, ``[n, KV head, group, query, key]``."""
    n, queries, heads, width = q.shape
    shared = k.shape[2]
    grouped = q.view(n, queries, shared, heads // shared, width).permute(0, 2, 3, 1, 4)
    scores = torch.matmul(grouped.reshape(n, shared, -1, width), k.permute(0, 2, 3, 1) * scale).view(
        n, shared, heads // shared, queries, k.shape[1]
    )
    if queries > 1 or k.shape[1] > offset + 1:
        places = torch.arange(k.shape[1], device=q.device)
        hidden = places > (torch.arange(queries, device=q.device) + offset)[:, None]
        scores = scores.masked_fill_(hidden, float("-inf"))
    return scores.softmax(-1)


def mix(pattern: Tensor, v: Tensor) -> Tensor:
    """Return z, ``[n, query, head · d_head]``, of weights ``[n, KV head, group, query, key]``."""
    n, shared, group, queries, keys = pattern.shape
    z = torch.matmul(pattern.view(n, shared, group * queries, keys), v.permute(0, 2, 1, 3))
    return z.view(n, shared, group, queries, -1).permute(0, 3, 1, 2, 4).reshape(n, queries, -1)


def replay(
    network: Network,
    bases: Sequence[Base],
    joins: Joins,
    positions: Sequence[int],
    finish: Callable[[int, Tensor, Tensor], None],
    first: int = 0,
) -> None:
    """Send interventions up through the layers and hand their final residual streams to `finish`.

    Parameters
    ----------
    bases
        The unchanged runs.
    joins
        ``(layer, stage) → Joining …`` for stage ``"pre"`` and ``"mid"``; ``(number of layers, "pre")`` is after the
        last layer.
    positions
        For each base, the one position whose final residual stream is wanted.
    finish
        Called with the base's index, cells ``[n]`` and final residual streams ``[n, d_model]``. Interventions that
        start after the wanted position are not handed over: they change nothing there.
    first
        The first layer that anything joins at.
    """
    active: list[Joining] = []
    depth = len(network.layers)
    tables = [network.rotary(len(base)) if network.rotary is not None else None for base in bases]
    for index in range(first, depth):
        active += joins(index, "pre")
        last = index == depth - 1
        active = _step(network, index, bases, tables, active, joins, positions if last else None)
    active += [
        _at(joined, positions[joined.base])
        for joined in joins(depth, "pre")
        if _reaches(joined, positions[joined.base])
    ]
    for joined in active:
        finish(joined.base, joined.cells, joined.rows)


def _reaches(joined: Joining, position: int) -> bool:
    return joined.start == position if joined.single else joined.start <= position


def _at(joined: Joining, position: int) -> Joining:
    """Return `joined` with its row at `position` alone."""
    rows = joined.rows if joined.single else joined.rows[:, position - joined.start]
    return Joining(joined.base, position, joined.cells, rows, single=True)


def _step(
    network: Network,
    index: int,
    bases: Sequence[Base],
    tables: Sequence[tuple[Tensor, Tensor] | None],
    active: list[Joining],
    joins: Joins,
    wanted: Sequence[int] | None,
) -> list[Joining]:
    """Take every active intervention through layer `index`; with `wanted`, only that position's row comes out."""
    layer = network.layers[index]
    if wanted is not None:
        active = [joined for joined in active if joined.start <= wanted[joined.base]]
    middle = _attention(network, layer, index, bases, tables, active, wanted) if active else []
    for joined in joins(index, "mid"):
        if wanted is None:
            middle.append((joined, None))
        elif _reaches(joined, wanted[joined.base]):
            middle.append((_at(joined, wanted[joined.base]), None))
    return _mlp(network, layer, index, bases, middle)


# After the attention an intervention has its rows in the middle of the block and, for a parallel block, the rows that
# its MLP reads: None where the MLP's input is unchanged.
Middle = tuple[Joining, Tensor | None]


def _attention(
    network: Network,
    layer: Layer,
    index: int,
    bases: Sequence[Base],
    tables: Sequence[tuple[Tensor, Tensor] | None],
    active: Sequence[Joining],
    wanted: Sequence[int] | None,
) -> list[Middle]:
    width = network.layers[0].o.weight.shape[0]
    flat = torch.cat([joined.rows.reshape(-1, width) for joined in active])
    normed = layer.norm1(flat)
    counts = [joined.rows.numel() // width for joined in active]
    keys = layer.k(normed).split(counts)
    values = layer.v(normed).split(counts)
    # At the last layer only the wanted position asks.
    asked = (
        normed
        if wanted is None
        else torch.cat(
            [
                _asking(joined, rows, wanted[joined.base])
                for joined, rows in zip(active, normed.split(counts), strict=True)
            ]
        )
    )
    asking = counts if wanted is None else [_asks(joined, wanted[joined.base]) for joined in active]
    queries = layer.q(asked).split(asking)
    mixed: list[Tensor] = []
    for joined, q, k, v in zip(active, queries, keys, values, strict=True):
        position = None if wanted is None else wanted[joined.base]
        mixed.append(
            _mixed(network, layer, index, bases[joined.base], tables[joined.base], joined, (q, k, v), position)
        )
    written = layer.o(torch.cat([z.reshape(-1, z.shape[-1]) for z in mixed])).split(
        [z.shape[0] * z.shape[1] for z in mixed]
    )
    out: list[Middle] = []
    for joined, rows in zip(active, written, strict=True):
        n = len(joined.cells)
        base = bases[joined.base].resid[index]
        if wanted is None:
            before = joined.rows
            if joined.single:
                before = base[joined.start :].expand(n, -1, -1).clone()
                before[:, 0] = joined.rows
            middle = before + rows.view(n, -1, width)
            out.append((Joining(joined.base, joined.start, joined.cells, middle, single=False), before))
            continue
        position = wanted[joined.base]
        if joined.single:
            before = joined.rows if joined.start == position else base[position].expand(n, -1)
        else:
            before = joined.rows[:, position - joined.start]
        out.append((Joining(joined.base, position, joined.cells, before + rows, single=True), before))
    return out


def _asks(joined: Joining, position: int) -> int:
    return 0 if joined.single and joined.start != position else len(joined.cells)


def _asking(joined: Joining, normed: Tensor, position: int) -> Tensor:
    """Return the normed rows that ask at `position`: none where a single changed token stands before it."""
    if joined.single:
        return normed if joined.start == position else normed[:0]
    return normed.view(len(joined.cells), -1, normed.shape[-1])[:, position - joined.start]


def _mixed(
    network: Network,
    layer: Layer,
    index: int,
    base: Base,
    tables: tuple[Tensor, Tensor] | None,
    joined: Joining,
    projected: tuple[Tensor, Tensor, Tensor],
    position: int | None,
) -> Tensor:
    """Return z, ``[n, query, head · d_head]``: of all positions from the start on, or of `position` alone."""
    n, start, length = len(joined.cells), joined.start, len(base)
    span = 1 if joined.single else length - start
    places = torch.arange(start, start + span, device=joined.rows.device).repeat(n)
    q, k, v = projected
    k = k.view(-1, network.n_kv_heads, network.d_head)
    v = v.view(-1, network.n_kv_heads, network.d_head)
    q = q.view(-1, network.n_heads, network.d_head)
    k = _turn(layer.k_norm, k, tables, places).view(n, span, network.n_kv_heads, -1)
    v = v.view(n, span, network.n_kv_heads, -1)
    asked = places if position is None else torch.full((len(q),), position, device=places.device)
    q = _turn(layer.q_norm, q, tables, asked)
    stop = length if position is None else position + 1
    keys = _placed(base.k[index], k, start, stop)
    values = _placed(base.v[index], v, start, stop)
    if position is not None:
        q = q.view(n, 1, network.n_heads, -1) if len(q) else base.q[index][position].expand(n, 1, -1, -1)
        return attend(q.contiguous(), keys, values, layer.scale, position)
    q = q.view(n, span, network.n_heads, -1)
    if joined.single:
        q = torch.cat([q, base.q[index][start + 1 :].expand(n, -1, -1, -1)], dim=1)
    return attend(q, keys, values, layer.scale, start)


def _placed(base: Tensor, own: Tensor, start: int, stop: int) -> Tensor:
    """Return ``[n, stop, KV head, d_head]``: the base's, with `own` from `start` on."""
    n, span = own.shape[:2]
    span = min(span, stop - start)
    placed = base.new_empty(n, stop, *base.shape[1:])
    placed[:, :start] = base[:start]
    placed[:, start : start + span] = own[:, :span]
    placed[:, start + span :] = base[start + span : stop]
    return placed


def _mlp(network: Network, layer: Layer, index: int, bases: Sequence[Base], middle: Sequence[Middle]) -> list[Joining]:
    width = layer.o.weight.shape[0]
    if not middle:
        return []
    if not network.parallel:
        rows = torch.cat([joined.rows.reshape(-1, width) for joined, _ in middle])
        rows = rows + chunked(lambda part: layer.mlp(layer.norm2(part)), rows)
        parts = rows.split([joined.rows.numel() // width for joined, _ in middle])
        return [
            Joining(j.base, j.start, j.cells, part.view(j.rows.shape), j.single)
            for (j, _), part in zip(middle, parts, strict=True)
        ]
    read = [before.reshape(-1, width) for _, before in middle if before is not None]
    parts = iter(
        chunked(lambda part: layer.mlp(layer.norm2(part)), torch.cat(read)).split([len(rows) for rows in read])
        if read
        else []
    )
    out: list[Joining] = []
    for joined, before in middle:
        base = bases[joined.base]
        if before is not None:
            rows = joined.rows + next(parts).view(joined.rows.shape)
        else:  # the block's MLP reads what is before the attention: unchanged
            unchanged = base.resid[index + 1] - base.mid[index]
            rows = joined.rows + (unchanged[joined.start] if joined.single else unchanged[joined.start :])
        out.append(Joining(joined.base, joined.start, joined.cells, rows, joined.single))
    return out
