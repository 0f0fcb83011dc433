"""The exact forward from any layer and position on, for many interventions at once, without hooks.

An intervention changes the residual stream at one place: before a layer (``pre``) or between its attention and its MLP
(``mid``), at one position or from one position on. Everything above and to the right of that place is computed anew;
everything else is the base run's. All interventions travel up through the layers together, so that each layer's weights
are read once, and its matrix products have many rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.transformer.network import Layer, Network, Norm, chunked, rotate


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
        ``[layer, position, head · d_head]``.
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
    """

    ids: Tensor
    like: Base | int | None = None
    start: int = 0


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


def runs(network: Network, asked: Sequence[Asked]) -> list[Base]:
    """Run prompts together, so that each layer's weights are read once, and keep what a replay needs."""
    made = [_empty(network, one.ids) for one in asked]
    likes = [made[one.like] if isinstance(one.like, int) else one.like for one in asked]
    tables = {
        length: network.rotary(length) if network.rotary is not None else None
        for length in {len(one.ids) for one in asked}
    }
    counts = [len(one.ids) - one.start for one in asked]
    x = torch.cat([network.embed(one.ids)[one.start :] for one in asked])
    for index, layer in enumerate(network.layers):
        normed = layer.norm1(x)
        projected = [rows.split(counts) for rows in layer.projected(normed)]
        for one, run, like, *heads in zip(asked, made, likes, *projected, strict=True):
            _attended(network, layer, index, tables[len(run)], one.start, run, like, heads)
        middle = x + layer.o(torch.cat([run.z[index, one.start :] for one, run in zip(asked, made, strict=True)]))
        after = middle + chunked(
            lambda rows, layer=layer: layer.mlp(layer.norm2(rows)), x if network.parallel else middle
        )
        for one, run, before, between in zip(asked, made, x.split(counts), middle.split(counts), strict=True):
            run.resid[index, one.start :] = before
            run.mid[index, one.start :] = between
        x = after
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
        z=new(depth, length, heads * width),
    )


def _attended(
    network: Network,
    layer: Layer,
    index: int,
    tables: tuple[Tensor, Tensor] | None,
    start: int,
    run: Base,
    like: Base | None,
    projected: Sequence[Tensor],
) -> None:
    """Write a run's q, k, v and z of one layer, from `start` on, of their projections ``[row, head · d_head]``."""
    q, k, v = (rows.view(len(rows), -1, network.d_head) for rows in projected)
    places = slice(start, len(run))
    run.q[index, start:] = q = _turn(layer.q_norm, q, tables, places)
    run.k[index, start:] = _turn(layer.k_norm, k, tables, places)
    run.v[index, start:] = v
    if like is None:
        run.z[index] = attend(q[None], run.k[index][None], v[None], layer.scale, 0)[0]
        return
    run.k[index, :start], run.v[index, :start] = like.k[index, :start], like.v[index, :start]
    run.z[index, start:] = attend(q[None], run.k[index][None], run.v[index][None], layer.scale, start)[0]


def _turn(norm: Norm | None, x: Tensor, tables: tuple[Tensor, Tensor] | None, places: slice | Tensor) -> Tensor:
    """Return queries or keys, ``[row, head, d_head]``, as attention uses them: normed per head, then rotated."""
    if norm is not None:
        x = norm(x)
    return x if tables is None else rotate(x, tables[0][places], tables[1][places])


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, offset: int) -> Tensor:
    """Return causal attention's z, ``[n, query, head · d_head]``.

    Parameters
    ----------
    q
        ``[n, query, head, d_head]``; query ``i`` stands at position ``offset + i``.
    k, v
        ``[n or 1, position, KV head, d_head]``; query head ``h`` reads KV head ``h // (heads // KV heads)``.
    """
    (n, queries), length = q.shape[:2], k.shape[1]
    q, k, v = (tensor.expand(n, -1, -1, -1).transpose(1, 2) for tensor in (q, k, v))
    whole = queries == length  # then nothing of the size of the pattern is ever in memory
    seen = None if whole or length == offset + 1 else ~_hidden(queries, length, offset, q.device)
    z = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=whole, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return z.transpose(1, 2).reshape(n, queries, -1)


def _hidden(queries: int, keys: int, offset: int, device: torch.device) -> Tensor:
    """Return which keys come after each query, ``bool [query, key]``."""
    return torch.arange(keys, device=device) > (torch.arange(queries, device=device) + offset)[:, None]


def weights(q: Tensor, k: Tensor, scale: float, offset: int) -> Tensor:
    """Return the attention weights, ``[n, KV head, group, query, key]``."""
    n, queries, heads, width = q.shape
    shared = k.shape[2]
    grouped = q.view(n, queries, shared, heads // shared, width).permute(0, 2, 3, 1, 4)
    scores = torch.matmul(grouped.reshape(n, shared, -1, width), k.permute(0, 2, 3, 1) * scale).view(
        n, shared, heads // shared, queries, k.shape[1]
    )
    if queries > 1 or k.shape[1] > offset + 1:
        scores = scores.masked_fill_(_hidden(queries, k.shape[1], offset, q.device), float("-inf"))
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


# After the attention an intervention has its rows in the middle of the block and, for a parallel block, the changed
# rows that its MLP reads, [n, position, d_model] from the start on: None where it reads nothing that is changed.
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
    if wanted is None:
        queries, keys, values = (rows.split(counts) for rows in layer.projected(normed))
    else:  # at the last layer only the wanted position asks
        keys, values = layer.k(normed).split(counts), layer.v(normed).split(counts)
        asked = [
            _asking(joined, rows, wanted[joined.base])
            for joined, rows in zip(active, normed.split(counts), strict=True)
        ]
        queries = layer.q(torch.cat(asked)).split([len(rows) for rows in asked])
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
        read = joined.rows[:, None] if joined.single else joined.rows
        if wanted is None:
            before = joined.rows
            if joined.single:
                before = base[joined.start :].expand(n, -1, -1).clone()
                before[:, 0] = joined.rows
            middle = before + rows.view(n, -1, width)
            out.append((Joining(joined.base, joined.start, joined.cells, middle, single=False), read))
            continue
        position = wanted[joined.base]
        at = position - joined.start
        read = read[:, at : at + 1]
        before = read[:, 0] if read.shape[1] else base[position].expand(n, -1)
        out.append((Joining(joined.base, position, joined.cells, before + rows, single=True), read))
    return out


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
        return attend(q, keys, values, layer.scale, position)
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
    """Take the middle of a block through its MLP; interventions on the same rows of one base go on as one."""
    if not middle:
        return []
    middle = sorted(middle, key=lambda pair: _place(pair[0]))
    width = layer.o.weight.shape[0]
    rows = torch.cat([joined.rows.reshape(-1, width) for joined, _ in middle])
    if not network.parallel:
        rows = rows + chunked(lambda part: layer.mlp(layer.norm2(part)), rows)
    else:
        rows += _beside(layer, index, bases, middle, width)
    out: list[Joining] = []
    first = 0
    for place, together in itertools.groupby((joined for joined, _ in middle), _place):
        base, start, single = place
        cells = torch.cat([joined.cells for joined in together])
        span = 1 if single else len(bases[base]) - start
        own = rows[first : first + len(cells) * span]
        first += len(own)
        out.append(Joining(base, start, cells, own if single else own.view(len(cells), span, width), single))
    return out


def _place(joined: Joining) -> tuple[int, int, bool]:
    return joined.base, joined.start, joined.single


def _beside(layer: Layer, index: int, bases: Sequence[Base], middle: Sequence[Middle], width: int) -> Tensor:
    """Return what the MLP of a parallel block adds, ``[row, d_model]``: it reads what is before the attention."""
    read = [rows.reshape(-1, width) for _, rows in middle if rows is not None]
    fresh = chunked(lambda rows: layer.mlp(layer.norm2(rows)), torch.cat(read)) if read else bases[0].mid[index, :0]
    added: list[Tensor] = []
    taken = 0
    for joined, rows in middle:
        base, count = bases[joined.base], len(joined.cells)
        changed = 0 if rows is None else rows.shape[1]
        stop = joined.start + 1 if joined.single else len(base)
        rest = slice(joined.start + changed, stop)
        unchanged = (base.resid[index + 1, rest] - base.mid[index, rest]).expand(count, -1, -1)
        own = fresh[taken : taken + count * changed].view(count, changed, width)
        taken += count * changed
        added.append(torch.cat([own, unchanged], dim=1).view(-1, width))
    return torch.cat(added)
