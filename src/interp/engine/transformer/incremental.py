"""The exact forward from any layer and position on, for many interventions at once, without hooks.

An intervention changes the residual stream at one place: before a layer (``pre``) or between its attention and its MLP
(``mid``), at one position or from one position on. Everything above and to the right of that place is computed anew;
everything else is the base run's. For the layers l = first … L − 1, with the interventions that are under way:

1. those that enter before layer l join (`Joins`, ``pre``); one row each where a single position is changed so far;
2. of all their rows at once: n = norm1(x); q, k, v of n. Before the last layer the queries of the changed positions,
   and the base run's for later ones of an intervention that has changed one position only; at the last layer the
   queries of the position that is asked about alone;
3. keys and values are the base run's before the start, the rows' own from it on; z is attention over both, and what it
   writes is added to the stream: from here on every position from the start on is changed, and where attention looks
   both ways every position;
4. those that enter in the middle of layer l join (``mid``);
5. of all rows at once: the MLP. In a parallel block it reads the stream of step 1, and rows that step 3 has changed for
   the first time get what the base run's MLP wrote there;
6. interventions on the same rows of the same base go on as one tensor.

After the last layer the row of the position that is asked about is handed over (`finish`). A layer's weights are read
once for all interventions, and its matrix products have as many rows as all of them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.engine.transformer.base_runs import Base, chunked
from interp.engine.transformer.block import Block
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Rotation


@dataclass
class ChangedRows:
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


Joins = Callable[[int, str], Iterable[ChangedRows]]


def replay(
    network: Network,
    bases: Sequence[Base],
    joins: Joins,
    positions: Sequence[int],
    finish: Callable[[int, Tensor, Tensor], None],
    first: int = 0,
    counts: Sequence[int] | None = None,
    before: Callable[[int], None] = lambda layer: None,  # noqa: ARG005
    later: Callable[[int, ChangedRows], None] = lambda layer, joined: None,  # noqa: ARG005
) -> None:
    """Send interventions up through the layers and hand their final residual streams to `finish`.

    Parameters
    ----------
    bases
        The unchanged runs.
    joins
        ``(layer, stage) → ChangedRows …`` for stage ``"pre"`` and ``"mid"``; ``(number of layers, "pre")`` is after the
        last layer.
    positions
        For each base, the one position whose final residual stream is wanted, or the last of them.
    finish
        Called with the base's index, cells ``[n]`` and final residual streams ``[n, d_model]``, of several positions
        ``[n, position, d_model]``. Interventions that start after the wanted position are not handed over: they change
        nothing there.
    first
        The first layer that anything joins at.
    counts
        For each base, how many positions are wanted; one when not given.
    before
        Called with each layer before anything of it is needed, so that the unchanged runs can be made on the way.
    later
        Called with each layer, and with the number of layers at the end, and what is under way before it, whose rows
        it may add to: what one intervention writes in several layers.
    """
    active: list[ChangedRows] = []
    depth = len(network.layers)
    turns = [network.rotations(len(base)) for base in bases]
    for index in range(first, depth):
        before(index)
        for joined in active:
            later(index, joined)
        active += joins(index, "pre")
        last = index == depth - 1
        own = [each[index] for each in turns]
        wanted = positions if last and counts is None else None
        active = _step(network.at(index), index, bases, own, active, joins, wanted)
    before(depth - 1)
    for joined in active:
        later(depth, joined)
    if counts is not None:
        for joined in [*active, *joins(depth, "pre")]:
            stop = positions[joined.base] + 1
            rows = _between(bases[joined.base], joined, stop - counts[joined.base], stop)
            if rows is not None:
                finish(joined.base, joined.cells, rows)
        return
    active += [
        _at(joined, positions[joined.base])
        for joined in joins(depth, "pre")
        if _reaches(joined, positions[joined.base])
    ]
    for joined in active:
        finish(joined.base, joined.cells, joined.rows)


def _between(base: Base, joined: ChangedRows, first: int, stop: int) -> Tensor | None:
    """Return the final streams of positions from one to another, ``[n, position, d_model]``; ``None`` if unchanged."""
    own = joined.rows[:, None] if joined.single else joined.rows
    if joined.start >= stop or joined.start + own.shape[1] <= first:
        return None
    return _placed(base.resid[-1], own, joined.start, stop)[:, first:]


def _reaches(joined: ChangedRows, position: int) -> bool:
    return joined.start == position if joined.single else joined.start <= position


def _at(joined: ChangedRows, position: int) -> ChangedRows:
    """Return `joined` with its row at `position` alone."""
    rows = joined.rows if joined.single else joined.rows[:, position - joined.start]
    return ChangedRows(joined.base, position, joined.cells, rows, single=True)


def _step(
    block: Block,
    index: int,
    bases: Sequence[Base],
    turns: Sequence[Rotation | None],
    active: list[ChangedRows],
    joins: Joins,
    wanted: Sequence[int] | None,
) -> list[ChangedRows]:
    """Take every active intervention through layer `index`; with `wanted`, only that position's row comes out."""
    if wanted is not None:
        active = [joined for joined in active if block.both_ways or joined.start <= wanted[joined.base]]
    middle = _attention(block, index, bases, turns, active, wanted) if active else []
    for joined in joins(index, "mid"):
        if wanted is None:
            middle.append((joined, None))
        elif _reaches(joined, wanted[joined.base]):
            middle.append((_at(joined, wanted[joined.base]), None))
    return _mlp(block, index, bases, middle)


# After the attention an intervention has its rows in the middle of the block and, for a parallel block, the changed
# rows that its MLP reads, [n, position, d_model] from the start on: None where it reads nothing that is changed.
Middle = tuple[ChangedRows, Tensor | None]


def _attention(
    block: Block,
    index: int,
    bases: Sequence[Base],
    turns: Sequence[Rotation | None],
    active: Sequence[ChangedRows],
    wanted: Sequence[int] | None,
) -> list[Middle]:
    width = active[0].rows.shape[-1]
    flat = torch.cat([joined.rows.reshape(-1, width) for joined in active])
    counts = [joined.rows.numel() // width for joined in active]
    if wanted is None:
        queries, keys, values = (rows.split(counts) for rows in block.project(flat))
    else:  # at the last layer only the wanted position asks
        normed = block.norm1(flat)
        keys, values = (block.heads(linear(normed)).split(counts) for linear in (block.k, block.v))
        asked = [
            _asking(joined, rows, wanted[joined.base])
            for joined, rows in zip(active, normed.split(counts), strict=True)
        ]
        queries = block.heads(block.q(torch.cat(asked))).split([len(rows) for rows in asked])
    mixed: list[Tensor] = []
    for joined, *projected in zip(active, queries, keys, values, strict=True):
        position = None if wanted is None else wanted[joined.base]
        mixed.append(_mixed(block, index, bases[joined.base], turns[joined.base], joined, projected, position))
    written = block.write(torch.cat([z.flatten(0, 1) for z in mixed])).split([z.shape[0] * z.shape[1] for z in mixed])
    out: list[Middle] = []
    for joined, rows in zip(active, written, strict=True):
        n = len(joined.cells)
        base = bases[joined.base].resid[index]
        read = joined.rows[:, None] if joined.single else joined.rows
        if wanted is None:
            start = _first_asking(block, joined)
            before = _over(base[start:], read, joined.start - start)
            middle = block.middle(before, rows.view(n, -1, width))
            out.append((ChangedRows(joined.base, start, joined.cells, middle, single=False), read))
            continue
        position = wanted[joined.base]
        at = position - joined.start
        read = read[:, at : at + 1] if at >= 0 else read[:, :0]
        before = read[:, 0] if read.shape[1] else base[position].expand(n, -1)
        middle = block.middle(before, rows)
        out.append((ChangedRows(joined.base, position, joined.cells, middle, single=True), read))
    return out


def _first_asking(block: Block, joined: ChangedRows) -> int:
    """Return the first position whose query sees what is changed."""
    return 0 if block.both_ways else joined.start


def _asking(joined: ChangedRows, normed: Tensor, position: int) -> Tensor:
    """Return the normed rows that ask at `position`: none where a single changed token stands before it."""
    if joined.single:
        return normed if joined.start == position else normed[:0]
    return normed.view(len(joined.cells), -1, normed.shape[-1])[:, position - joined.start]


def _mixed(
    block: Block,
    index: int,
    base: Base,
    turns: Rotation | None,
    joined: ChangedRows,
    projected: Sequence[Tensor],
    position: int | None,
) -> Tensor:
    """Return z, ``[n, query, head, d_head]``: of all positions from the start on, or of `position` alone."""
    n, start, length = len(joined.cells), joined.start, len(base)
    span = 1 if joined.single else length - start
    q, k, v = projected
    places = torch.arange(start, start + span, device=joined.rows.device).repeat(n)
    asked = places if position is None else torch.full((len(q),), position, device=places.device)
    q = block.turn_queries(q, None if turns is None else turns.at(asked))
    k = block.turn_keys(k, None if turns is None else turns.at(places)).unflatten(0, (n, span))
    v = v.unflatten(0, (n, span))
    stop = length if position is None or block.both_ways else position + 1
    keys = _placed(base.k[index], k, start, stop)
    values = _placed(base.v[index], v, start, stop)
    if position is not None:
        q = q[:, None] if len(q) else base.q[index][position].expand(n, 1, -1, -1)
        return block.attend(q, keys, values, position)
    first = _first_asking(block, joined)
    q = _over(base.q[index][first:], q.unflatten(0, (n, span)), start - first)
    return block.attend(q, keys, values, first)


def _over(base: Tensor, own: Tensor, start: int) -> Tensor:
    """Return ``[n, position, …]``: the base's, with `own` from `start` on."""
    return own if own.shape[1] == len(base) else _placed(base, own, start, len(base))


def _placed(base: Tensor, own: Tensor, start: int, stop: int) -> Tensor:
    """Return ``[n, stop, …]``: the base's, with `own` from `start` on."""
    n, span = own.shape[:2]
    span = min(span, stop - start)
    placed = base.new_empty(n, stop, *base.shape[1:])
    placed[:, :start] = base[:start]
    placed[:, start : start + span] = own[:, :span]
    placed[:, start + span :] = base[start + span : stop]
    return placed


def _mlp(block: Block, index: int, bases: Sequence[Base], middle: Sequence[Middle]) -> list[ChangedRows]:
    """Take the middle of a block through its MLP; interventions on the same rows of one base go on as one."""
    if not middle:
        return []
    middle = sorted(middle, key=lambda pair: _place(pair[0]))
    width = middle[0][0].rows.shape[-1]
    rows = torch.cat([joined.rows.reshape(-1, width) for joined, _ in middle])
    made = _written_before(block, index, bases, middle) if block.parallel else chunked(block.mlp, rows)
    rows = block.after(rows, made)
    out: list[ChangedRows] = []
    first = 0
    for place, together in itertools.groupby((joined for joined, _ in middle), _place):
        base, start, single = place
        cells = torch.cat([joined.cells for joined in together])
        span = 1 if single else len(bases[base]) - start
        own = rows[first : first + len(cells) * span]
        first += len(own)
        out.append(ChangedRows(base, start, cells, own if single else own.view(len(cells), span, width), single))
    return out


def _place(joined: ChangedRows) -> tuple[int, int, bool]:
    return joined.base, joined.start, joined.single


def _written_before(block: Block, index: int, bases: Sequence[Base], middle: Sequence[Middle]) -> Tensor:
    """Return what the MLP of a parallel block adds, ``[row, d_model]``: it reads what is before the attention."""
    width = middle[0][0].rows.shape[-1]
    read = [rows.reshape(-1, width) for _, rows in middle if rows is not None]
    fresh = chunked(block.mlp, torch.cat(read)) if read else bases[0].mid[index, :0]
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
