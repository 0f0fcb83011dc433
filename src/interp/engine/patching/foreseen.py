"""What sweeps, ablations and estimates will take: cut as they will be, without anything run.

The base runs are not there yet, so plans get runs of the same length in their place. Which positions of an activation
differ between the two is then known from the tokens alone: below the first attention where the tokens differ, above it
from the first difference on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.work import (
    NOTHING,
    Hooked,
    Sizes,
    Stored,
    Through,
    Work,
    one_batch,
    passing,
    putting,
    total,
)
from interp.engine.memory import Stretch
from interp.engine.patching import ablation, attribution, noise
from interp.engine.patching.cases import Case, Ids, by_length, plain_ends, ready_work
from interp.engine.patching.driver import silent
from interp.engine.patching.gradients import first_done
from interp.engine.patching.plan import waves_of
from interp.engine.patching.runs import NAMES
from interp.engine.patching.waves import Sweep, sampled
from interp.engine.transformer.base_runs import PARTS, Base
from interp.engine.transformer.parts import HALF
from interp.sites import Site

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.plan import PatchGroup, Plan
    from interp.engine.transformer.network import Network

_CALLS = 200  # small operations for a layer's sites, where all are estimated
_FEWER = ("fewer pairs (--n)", "some layers (--layer)")


def of_sweep(sweep: Sweep, sight: Foresight | None = None, stored: Stored | None = None) -> tuple[Foresight, Work]:
    """Return how a sweep will be computed, and its work.

    Parameters
    ----------
    stored
        The store as what comes before will leave it.
    """
    model = sweep.model
    sites = (site.name for site in sweep.planner.written())
    sight = sight or Foresight(model, *sites, encoders=sweep.planner.encoders)
    stored = stored or Stored(model)
    beside = of_noise(model, sweep.given)
    if sight.net is None:
        return sight, beside + _by_hooks(sweep, stored) + _answer(sweep)
    net, sizes = sight.net, sight.sizes
    if sweep.ends.there and all(model.holds(case.base, NAMES) for case in sweep.given):
        return sight, beside + _answer(sweep)
    plans = [_plan(sweep, net, case, number) for number, case in enumerate(sweep.given)]
    groups = sweep.asked(plans)
    waves = list(waves_of(groups, sweep.rows_that_fit(net, len(plans[0].base))))
    first = _base_runs(net, sizes, sweep)
    moving = ([patch for patch in wave if plans[patch.case].moves(patch)] for wave in waves)
    going = [_wave(sizes, plans, wave, net) for wave in moving if wave]
    compared = NOTHING
    if not exactness.trusted(model, sweep.key, max(len(case.base) for case in sweep.given)):
        compared = _sample(sweep, plans, waves[0] if waves else [], stored)
    return sight, total([beside, first, *going[:1], compared, *going[1:], _answer(sweep)])


def of_noise(model: LoadedModel, cases: Sequence[Case]) -> Work:
    """Return the work of measuring what half precision makes of nothing."""
    if getattr(torch, model.dtype) not in HALF:
        return NOTHING
    looked = [ids for case in cases[: noise.PAIRS] for ids in (case.base, case.source)]
    places = 8 * model.geometry.n_layers
    runs = [Hooked(1, copies * len(ids), places=places) for ids in looked for copies in (1, noise.COPIES)]
    peak = passing(model, noise.COPIES * max(map(len, looked)))
    return Work(forwards=len(runs), hooked=tuple(runs), peak=peak)


def _plan(sweep: Sweep, net: Network, case: Case, number: int) -> Plan:
    own = sweep.source_model is sweep.model
    base, source = _standing(case.base, net), _standing(case.source, net, case.base if own else None)
    return sweep.planner.plan(net, base, source, case, number, case.start if own and not net.both_ways else 0)


def _standing(ids: Ids, net: Network, like: Ids | None = None) -> Base:
    """Return what stands for a run: zeros, or ones where it differs from that of `like`, ``[layer, position, 1]``."""
    there = torch.tensor(ids)
    if like is None:
        nothing = torch.zeros(2, len(ids), 1)
        return Base(there, *(_Layers(nothing) for _ in PARTS))  # pyright: ignore[reportArgumentType]
    shared = min(len(ids), len(like))  # what is longer differs
    tokens = torch.ones(len(ids), 1)
    tokens[:shared, 0] = (there[:shared] != torch.tensor(like[:shared])).float()
    later = tokens.max(0).values.expand_as(tokens) if net.both_ways else tokens.cummax(0).values
    first, above = _Layers(torch.stack([tokens, later])), _Layers(torch.stack([later, later]))
    return Base(there, first, above, first, first, first, above)  # pyright: ignore[reportArgumentType]


class _Layers:
    """A tensor by layer, all of which are alike but the first."""

    def __init__(self, both: Tensor) -> None:
        self._both = both

    def __getitem__(self, layer: int) -> Tensor:
        return self._both[min(layer, 1)]


def _base_runs(net: Network, sizes: Sizes, sweep: Sweep) -> Work:
    """Return the work of the plain runs: all of them, or none where the store has all."""
    works: list[Work] = []
    model, ours = sweep.model, {case.base: 0 for case in sweep.given}
    if sweep.source_model is model:
        later = {case.source: 0 if net.both_ways else case.start for case in sweep.given}
        asked = [(model, {**later, **ours})]
    else:
        asked = [(model, ours), (sweep.source_model, {case.source: 0 for case in sweep.given})]
    for of, wanted in asked:
        if all(of.holds(ids, NAMES) for ids in wanted):
            continue
        size = max(1, memory.WAVE_ROWS // max(map(len, wanted)))
        listed = sorted(wanted, key=lambda ids: wanted[ids] > 0)
        for at in range(0, len(listed), size):
            some = listed[at : at + size]
            rows = sum(len(ids) - wanted[ids] for ids in some)
            kept = sizes.kept * sum(map(len, some))
            passed = rows * sizes.hidden * sizes.element
            works.append(
                Work(
                    forwards=len(some),
                    through=(Through(rows, sizes.depth, scores=_scores(some, wanted), groups=len(some)),),
                    moved=2 * kept,
                    calls=len(some) * (40 * sizes.depth + putting(of, len(NAMES)) + len(NAMES) * 3 * len(listed)),
                    held=kept,
                    peak=kept + passed,
                    advice=_FEWER,
                )
            )
    return total(works)


def _scores(prompts: Sequence[Ids], starts: dict[Ids, int]) -> int:
    return sum((len(ids) - starts[ids]) * len(ids) for ids in prompts)


def _wave(sizes: Sizes, plans: Sequence[Plan], wave: Sequence[PatchGroup], net: Network) -> Work:
    """Return the work of one wave: from layer to layer, what has entered."""
    depth = len(net.layers)
    entering: dict[tuple[int, str], list[PatchGroup]] = {}
    for patch in wave:
        entering.setdefault(plans[patch.case].stage(patch.layer), []).append(patch)
    through: list[Through] = []
    active: dict[tuple[int, int], int] = {}  # (case, start) → interventions
    flops = moved = 0.0
    peak = 0

    def enter(layer: int, stage: str) -> int:
        rows = 0
        for patch in entering.get((layer, stage), []):
            place = patch.case, patch.start
            active[place] = active.get(place, 0) + len(patch.parts)
            rows += len(patch.parts) * (1 if patch.single else patch.span)
        return rows

    def rows_of() -> int:
        return sum(count * (len(plans[case].base) - start) for (case, start), count in active.items())

    for layer in range(min(layer for layer, _ in entering), depth):
        last = layer == depth - 1
        enter(layer, "pre")
        before = rows_of()
        scores = sum(
            count * (1 if last else len(plans[case].base) - start) * len(plans[case].base)
            for (case, start), count in active.items()
        )
        attended = len(active)
        joined = enter(layer, "mid")
        after = sum(active.values()) if last else rows_of()
        # Of the last layer only keys, values and one row are asked for.
        rows = (before + after) // 2 if last else max(before, after)
        if rows:
            through.append(Through(rows, 1, scores=scores, groups=max(1, attended)))
        flops += 2 * joined * sizes.width * sizes.d_head  # through a head's rows of W_O
        keys = sum(count * len(plans[case].base) for (case, _), count in active.items())
        moved += 3 * sizes.element * 2 * keys * sizes.kv_heads * sizes.d_head
        largest = max((count * len(plans[case].base) for (case, _), count in active.items()), default=0)
        both = 2 * largest * sizes.kv_heads * sizes.d_head
        peak = max(peak, sizes.element * (rows * sizes.hidden + both))
    calls = sum(plans[patch.case].calls for patch in wave) + 200 * len({patch.case for patch in wave})
    before = total(plans[case].foreseen(sizes) for case in {patch.case for patch in wave})
    whole = before + Work(through=tuple(through), flops=flops, moved=moved, calls=calls, peak=peak, advice=_FEWER)
    return replace(whole, held=0)


def _sample(sweep: Sweep, plans: Sequence[Plan], wave: Sequence[PatchGroup], stored: Stored) -> Work:
    """Return the work of comparing a few of the first wave's cells with the hooked forward."""
    finished = torch.zeros_like(sweep.done)
    for patch in wave:
        finished[patch.case, plans[patch.case].cells(patch)] = True
    there = Stored(sweep.source_model) if sweep.source_model is not sweep.model else stored
    before = stored.work
    runs = NOTHING
    for index, cell in sampled(finished, exactness.sample_of(sweep.model)):
        case = sweep.given[index]
        plain_ends(stored, there, [case])
        if cell is not None:
            runs = runs + sweep.planner.foreseen(case, [cell], stored, there)
    grown = stored.work.less(before)
    return grown + (NOTHING if there is stored else there.work) + runs


def _by_hooks(sweep: Sweep, stored: Stored) -> Work:
    """Return the work of a sweep by the hooked forward, cell by cell."""
    there = Stored(sweep.source_model) if sweep.source_model is not sweep.model else stored
    before, runs = stored.work, NOTHING
    plain_ends(stored, there, sweep.given)
    batch, cells = sweep.together(), sweep.chosen.tolist()
    for at in range(0, len(cells), batch):
        for case in sweep.given:
            runs = runs + sweep.planner.foreseen(case, cells[at : at + batch], stored, there)
    return stored.work.less(before) + (NOTHING if there is stored else there.work) + runs


def _answer(sweep: Sweep) -> Work:
    cells = sweep.swept.values.numel()
    return Work(held=9 * cells, peak=60 * cells)


# -- ablations ---------------------------------------------------------------------------------------------------------


def of_ablation(job: ablation.Job) -> tuple[Foresight, Work]:
    """Return how runs with parts taken away will be computed, and their work."""
    model, samples, parts, fillings = job.model, job.samples, job.parts, job.fillings
    wanted = [part for part in parts if part.site != "scores" and part.dictionary is None]
    read = {part.dictionary.reads.hook(model) for part in parts if part.dictionary is not None}
    sight = Foresight(
        model,
        *(part.site for part in parts if part.site != "scores"),
        half=False,
        encoders={part.site for part in parts},
    )
    depth, work, stored = sight.sizes.depth, NOTHING, Stored(model)
    references = [fillings.references[n] for n in fillings.needed]
    stop = max((part.layer for part in wanted), default=0) + 1
    for ids in references if read else ():
        stored.plain(ids, *read)
    for length, some in by_length(references).items():
        if not wanted:
            continue
        if sight.net is None:
            for n in some:
                stored.plain(references[n], *(Site(one.site, one.layer).hook_name for one in wanted))
        else:
            work = work + _together(sight, [length] * len(some), max(1, memory.WAVE_ROWS // length), stop)
    losses = samples[0].scorer.metric.several
    lowest = [min((parts[n].layer for n in chosen), default=0) for chosen in job.conditions]
    for condition, first in enumerate(lowest):
        for length, some in by_length([sample.ids for sample in samples]).items():
            size = job.together(length)
            if sight.net is None:
                batches = [len(some[at : at + size]) for at in range(0, len(some), size)]
                runs = (one_batch(model, count * length, len(parts), last_only=not losses) for count in batches)
                work = total([work, *runs])
                continue
            work = work + _together(sight, [length] * len(some), size, depth - first, edited=condition > 0)
            rows = len(some) * ((length - 1) if losses else 1)
            work = work + Work(logits=rows if losses else 0, calls=25 * len(some))
        if condition == 1 and sight.net is not None and not exactness.trusted(model, job.key, job.longest):
            compared = min(exactness.sample_of(model), 2 * len(samples))
            runs = (one_batch(model, job.longest, len(parts), last_only=not losses) for _ in range(compared))
            work = total([work, *runs])
    logits = 3 * sight.sizes.element * memory.LOGIT_ROWS * sight.sizes.vocabulary * losses
    return sight, stored.work + work + Work(peak=min(1, len(samples)) * logits)


def _together(sight: Foresight, lengths: Sequence[int], size: int, layers: int, *, edited: bool = False) -> Work:
    """Return the work of plain forwards through some layers, `size` prompts at a time."""
    sizes, work, length = sight.sizes, NOTHING, lengths[0]
    for at in range(0, len(lengths), size):
        rows = length * len(lengths[at : at + size])
        through = Through(rows, layers, scores=rows * length)
        peak = sizes.element * rows * (sizes.hidden + edited * sizes.heads * sizes.d_head)
        held = 0 if edited else sizes.element * rows * sizes.width
        calls = 12 * layers + 20 * len(lengths)
        work = work + Work(rows // length, (through,), calls=calls, held=held, peak=peak + held)
    return work


# -- estimates of nodes ------------------------------------------------------------------------------------------------


def of_estimate(job: attribution.Job, stored: Stored) -> tuple[Foresight, Work]:
    """Return how an estimate will be computed, and its work; `stored` is the store as what comes before leaves it."""
    model, cases, pieces = job.model, job.given, list[Stretch]()
    sight = Foresight(model, job.asked, encoders=())
    there = stored if job.source_model is model else Stored(job.source_model)
    work = ready_work(stored, there, cases)
    job.over(pieces.append, silent)
    for piece in pieces:
        some = [cases[n] for n in piece.cases]
        work = work + _of_piece(sight, some, piece, job.steps, foreign=there is not stored)
        work = work + job.beside(len(some) * (piece.last - piece.first + 1) * len(some[0].base))
    if sight.net is not None and not exactness.trusted(model, job.key, max(len(case.base) for case in cases)):
        some = first_done(cases, pieces, job.last)[: exactness.sample_of(model)]
        work = work + plain_ends(stored, there, some) + of_noise(model, cases)
    return sight, work + (there.work if there is not stored else NOTHING)


def _of_piece(sight: Foresight, cases: Sequence[Case], piece: Stretch, steps: int, *, foreign: bool) -> Work:
    """Return the work of pairs that are run and differentiated together."""
    sizes, net = sight.sizes, sight.net
    n, length, points = len(cases), len(cases[0].base), 1 if steps == 1 else piece.last - piece.first + 1
    aligned = cases[0].aligned is not None
    shared = net is not None and not foreign and not aligned
    start = min(case.first for case in cases) if shared else 0
    graded = n * points * (length - start)
    frozen = n * (length - start) if steps == 1 else 0
    if aligned:  # the source runs by themselves, and where the way ends
        frozen = n * (len(cases[0].source) + (steps > 1) * length)
    heads = (2 * sizes.heads + 2 * sizes.kv_heads) * sizes.d_head
    width = 5 * sizes.width + heads + sizes.d_mlp + sizes.heads * length  # of all sites
    saved = 2 * sizes.width + 2 * sizes.d_mlp + 2 * sizes.heads * length  # what autograd keeps beside them
    rows = n * start + frozen + graded  # whose products are one tensor: all of it stays where a part does
    peak = sizes.element * sizes.depth * (rows * width + graded * (2 * width + saved) + frozen * width)
    beside = Work(
        moved=3.0 * sizes.element * sizes.depth * width * (graded + frozen),
        calls=_CALLS * sizes.depth + 60 * n + 50 * sizes.depth * n * aligned,
        peak=peak,
        advice=("fewer pairs (--n)", "fewer --steps"),
    )
    if net is None:
        runs = 2 if steps == 1 else 3 + 2 * aligned
        own = Hooked(1, graded, graded=True, places=10 * sizes.depth)
        others = Hooked(runs - 1, n * length, places=10 * sizes.depth)
        return beside + Work(forwards=runs, hooked=(own, others))
    scores = n * start * start + (frozen + graded) * length
    return beside + Work(
        forwards=1 + (foreign or aligned) + (aligned and steps > 1),
        through=(Through(rows, sizes.depth, graded=graded, scores=scores, groups=3),),
    )
