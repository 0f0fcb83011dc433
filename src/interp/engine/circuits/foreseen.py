"""What circuits will take: estimates of edges, exact sweeps of them, and runs of subgraphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.engine import exactness, memory
from interp.engine.circuits import eap, exact
from interp.engine.circuits.edges import ends, key_of
from interp.engine.circuits.subgraph import BYTES
from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.work import NOTHING, Stored, Through, Work
from interp.engine.memory import Stretch
from interp.engine.patching.cases import Case, by_length, by_shape, plain_ends, ready_work
from interp.engine.patching.driver import silent
from interp.engine.patching.foreseen import of_noise, of_sweep
from interp.engine.patching.gradients import first_done, over_cases
from interp.engine.patching.path import reaching

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_CALLS = 150  # small operations for a layer's readers
_FEWER = ("fewer pairs (--n)", "a shorter prompt")
_HALVINGS = ((3, 4), (4, 8), (8, 16))  # points of an integral that converges as most do, after each halving


def of_estimate(
    model: LoadedModel,
    cases: Sequence[Case],
    ablation: str,
    steps: int | None,
    stored: Stored,
    *,
    positions: bool = False,
) -> tuple[Foresight, Work]:
    """Return the work of `eap.attribute_edges`; of an integral that goes on until it has settled, what most take."""
    sight = Foresight(model)
    work = of_noise(model, cases)
    if sight.net is None:
        return sight, work
    work = work + ready_work(stored, stored, cases) + _integral(sight, cases, ablation, steps, positions)
    if steps is not None and steps > 1:
        work = work + _integral(sight, cases[: eap.JUDGED], ablation, None, positions=False, constant=True)
    points = _HALVINGS[0][0] if steps is None else steps
    some = first_done(cases, _pieces(sight, cases, points), points)
    if exactness.trusted(model, eap.key_of(model, cases, ablation, steps), max(len(case.base) for case in cases)):
        return sight, work
    return sight, work + _compared(model, some, stored)


def of_exact(
    model: LoadedModel, cases: Sequence[Case], ablation: str, stored: Stored, *, nodes: bool
) -> tuple[Foresight, Work]:
    """Return the work of `exact.exact_edges`, and before it of ablating each node where `nodes` are asked for."""
    work = NOTHING
    if nodes:
        work = of_subset(model, cases, ablation, stored, 1 + len(ends(model)[0]), layered=True)[1]
    sight, swept = of_sweep(exact.planned(model, cases, ablation), stored=stored)
    if ablation != "corrupted" and sight.net is not None:
        few = cases[: exactness.sample_of(model)]
        work = work + _written(sight, cases, ablation)
        if not exactness.trusted(model, exact.key_of(model, cases), max(len(case.base) for case in few)):
            work = work + _plain(sight, [case.source for case in few]) + _compared(model, few, stored)
    return sight, work + swept


def of_subset(
    model: LoadedModel,
    cases: Sequence[Case],
    ablation: str,
    stored: Stored,
    masks: int,
    *,
    layered: bool = False,
    thin: float = 1.0,
) -> tuple[Foresight, Work]:
    """Return the work of making a `Subset` and running `masks` of it on every pair.

    Parameters
    ----------
    layered
        Whether neighbouring masks differ in high layers alone.
    thin
        What part of a mask's writers and layers is run, as a rule.
    """
    sight = Foresight(model)
    work = of_noise(model, cases)
    if sight.net is None:
        return sight, work
    work = work + ready_work(stored, stored, cases) + _carried(sight, cases, ablation)
    key = key_of(model, cases, ablation)
    if not exactness.trusted(model, key, max(len(case.base) for case in cases)):
        few = cases[: exactness.sample_of(model)]
        work = work + _masks(sight, few, 2, layered=False) + _compared(model, few, stored)
    return sight, work + _masks(sight, cases, masks, layered=layered, thin=thin)


def _compared(model: LoadedModel, cases: Sequence[Case], stored: Stored) -> Work:
    """Return the work of comparing the unpatched runs of a few pairs."""
    return plain_ends(stored, stored, cases[: exactness.sample_of(model)])


# -- estimates ---------------------------------------------------------------------------------------------------------


def _integral(
    sight: Foresight,
    cases: Sequence[Case],
    ablation: str,
    steps: int | None,
    positions: bool,
    *,
    constant: bool = False,
) -> Work:
    """Return the work of the gradients; `constant` says that what ablated writers write is there already."""
    model = sight.model
    writers, readers = ends(model)
    below = reaching(model, writers, readers).sum(0).tolist()
    kept = 4 * len(cases) * len(writers) * len(readers)
    work = Work(held=kept, peak=kept)
    if ablation != "corrupted" and not constant:
        work = work + _written(sight, cases, ablation) + _plain(sight, [case.source for case in cases])
    for points, _ in _HALVINGS if steps is None else ((steps, 0),):
        for piece in _pieces(sight, cases, points):
            some = [cases[n] for n in piece.cases]
            work = work + _gradients(sight, some, piece, ablation, steps != 1, len(writers), below, positions)
        work = work + Work(moved=3.0 * kept, peak=2 * kept if steps is None else 0)
    return work


def _pieces(sight: Foresight, cases: Sequence[Case], points: int) -> list[Stretch]:
    """Return what is differentiated together, in order."""
    model, sizes, pieces = sight.model, sight.sizes, list[Stretch]()
    limit = eap.rows_that_fit(model, sizes.d_mlp, sizes.element, len(ends(model)[0]), cases)
    over_cases(model, cases, pieces.append, last=points, closed=False, limit=limit, on_step=silent)
    return pieces


def _gradients(
    sight: Foresight,
    cases: Sequence[Case],
    piece: Stretch,
    ablation: str,
    integral: bool,
    writers: int,
    below: Sequence[int],
    positions: bool,
) -> Work:
    """Return the work of pairs that are differentiated together, and of the products with what writers change."""
    sizes = sight.sizes
    n, points = len(cases), piece.last - piece.first
    corrupted = ablation == "corrupted"
    apart = corrupted and cases[0].aligned is not None  # the corrupted run by itself
    start = min(min(case.start, case.position) for case in cases) if corrupted and not apart else 0
    length, whole = len(cases[0].base) - start, len(cases[0].base)
    own, inputs = n * length, sizes.heads + 2 * sizes.kv_heads
    product = 2.0 * own * sizes.width * sum(below)
    changes = 2.0 * own * sizes.depth * sizes.heads * sizes.d_head * sizes.width
    per_row = 2.0 * sizes.depth * inputs * sizes.d_head * sizes.width
    kept = sizes.element * own * writers * sizes.width
    layer = 8 * sizes.width + 2 * (sizes.heads + sizes.kv_heads) * sizes.d_head + 3 * sizes.d_mlp
    layer += 3 * sizes.heads * whole
    beside = Work(calls=_CALLS * sizes.depth + 120 * n, advice=_FEWER)
    if apart:
        source = sizes.element * n * len(cases[0].source) * sizes.depth * (sizes.width + sizes.heads * sizes.d_head)
        kept += source
        beside = beside + _plain(sight, [case.source for case in cases])
        beside = beside + Work(calls=8 * sizes.depth * n, moved=3.0 * source)
    if integral and not corrupted:
        graded = points * own
        stages = [(layer_, part) for layer_ in range(sizes.depth) for part in (0, 1)]
        through = [Through(own, sizes.depth, scores=own * whole)]
        through += [
            Through(graded, sizes.depth - first, graded=graded, scores=graded * whole) for first, _ in [(0, 0), *stages]
        ]
        done = sum(one.layers for one in through[1:]) / sizes.depth
        slopes = 3 * inputs * graded * sizes.width
        peak = kept + sizes.element * (graded * sizes.depth * layer + slopes)
        flops = product + changes + done * per_row * graded
        return beside + Work(
            forwards=n * (1 + points * (1 + 2 * sizes.depth)),
            through=tuple(through),
            flops=flops,
            calls=_CALLS * sum(one.layers for one in through),
            peak=int(peak),
        )
    frozen = ((corrupted and not apart) + integral) * own
    graded = (points if integral else 1) * own
    rows = n * start + frozen + graded
    scores = n * start * start + (frozen + graded) * whole
    slopes = 3 * inputs * graded * sizes.width
    graph = sizes.depth * graded * layer
    by_position = 4 * writers * len(below) * length * (1 + n) if positions else 0
    return beside + Work(
        forwards=(frozen + graded) // length,
        through=(Through(rows, sizes.depth, graded=graded, scores=scores, groups=3),),
        flops=product + changes + per_row * graded,
        moved=2.0 * kept + 4.0 * sizes.element * slopes * sizes.depth,
        peak=kept + sizes.element * (graph + slopes) + by_position,
    )


def _plain(sight: Foresight, prompts: Sequence[tuple[int, ...]]) -> Work:
    """Return the work of plain runs by the lean forward, those of one length together."""
    work, sizes = NOTHING, sight.sizes
    for length, those in by_length(prompts).items():
        size = max(1, memory.ROWS // length)
        for at in range(0, len(those), size):
            rows = len(those[at : at + size]) * length
            through = Through(rows, sizes.depth, scores=rows * length)
            work = work + Work(rows // length, (through,), peak=sizes.element * rows * sizes.hidden, calls=20)
    return work


def _written(sight: Foresight, cases: Sequence[Case], ablation: str) -> Work:
    """Return the work of `edges.written`: the mean over corrupted prompts; zeros take none."""
    return _plain(sight, [case.source for case in cases]) if ablation == "mean" else NOTHING


# -- runs of subgraphs -------------------------------------------------------------------------------------------------


def _carried(sight: Foresight, cases: Sequence[Case], ablation: str) -> Work:
    """Return the work of what every pair's ablated edges carry."""
    sizes = sight.sizes
    rows = sum(len(case.base) for case in cases)
    width = (sizes.depth + 2) * sizes.width + sizes.depth * (2 * sizes.width + sizes.heads * sizes.d_head)
    kept = sizes.element * rows * width
    if ablation != "corrupted":
        work = NOTHING
        for _ in by_shape(cases):
            work = work + _written(sight, cases, ablation)
        return work + Work(held=sizes.element * rows * sizes.width, peak=kept // max(1, len(cases)))
    aligned = [case.base for case in cases if case.aligned is not None]  # which carry some of the clean run's own
    return _plain(sight, [*(case.source for case in cases), *aligned]) + Work(
        held=kept, peak=2 * kept, moved=4.0 * kept, calls=6 * sizes.depth * len(aligned)
    )


def _masks(sight: Foresight, cases: Sequence[Case], masks: int, *, layered: bool, thin: float = 1.0) -> Work:
    """Return the work of running masks of edges."""
    model, sizes, work = sight.model, sight.sizes, NOTHING
    writers, readers = ends(model)
    inputs = sizes.heads + 2 * sizes.kv_heads
    for those in by_shape(cases):
        length = len(cases[those[0]].base)
        live = int(len(writers) * thin)
        each = sizes.element * (length * sizes.width * (live + 3 * inputs) + len(writers) * len(readers))
        room = min(BYTES, memory.free_bytes(model.device) // 4)
        together = max(1, min(memory.WAVE_ROWS // length, room // each))
        runs = masks * len(those)
        batches = -(-runs // together)
        batch = min(together, runs)
        rows = batch * length
        # Masks that differ from one layer on alone share what is below: half of the layers, on the average.
        share = (0.5 if layered and len(those) < together else 1.0) * thin
        layers = max(1, round(sizes.depth * share))
        read = 2.0 * rows * sizes.width * sum(range(live)) * (inputs + 1) / max(1, sizes.heads + 1) * share
        split = 2.0 * rows * sizes.width * sizes.d_head * inputs * layers
        numbers = rows * sizes.width * (live + 2 * inputs)
        work = work + Work(
            forwards=runs,
            through=(Through(rows, layers, passes=batches, scores=rows * length),),
            flops=batches * (read + split),
            moved=4.0 * sizes.element * batches * layers * rows * sizes.width * inputs,
            calls=batches * (_CALLS * layers + 60 * min(batch, len(those))),
            peak=int(sizes.element * (numbers + rows * sizes.hidden)),
            advice=_FEWER,
        )
    return work


def of_acdc(
    model: LoadedModel, cases: Sequence[Case], ablation: str, stored: Stored, edges: int, thresholds: int, part: float
) -> tuple[Foresight, Work]:
    """Return the work of ACDC: a run for a `part` of the edges at each threshold, as a rule, and the two ends."""
    runs = max(1, round(edges * thresholds * part))
    sight, work = of_subset(model, cases, ablation, stored, 2)
    return sight, work + (_masks(sight, cases, runs, layered=True, thin=0.5) if sight.net is not None else NOTHING)
