"""What a sweep will take: its waves, cut as they will be, without anything run.

The base runs are not there yet, so plans get the tokens alone in their place. That below the first attention few
positions of two runs differ is not seen from those: one layer's patches are counted that will change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from interp.engine import exactness, memory
from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.work import NOTHING, Hooked, Sizes, Stored, Through, Work, passing, putting, total
from interp.engine.patching import noise
from interp.engine.patching.cases import Case, Ids, plain_ends
from interp.engine.patching.runs import NAMES
from interp.engine.patching.waves import Sweep, sampled, waves_of
from interp.engine.transformer.base_runs import PARTS, Base
from interp.engine.transformer.parts import HALF

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.plan import PatchGroup, Plan
    from interp.engine.transformer.network import Network

_FEWER = ("fewer pairs (--n)", "some layers (--layer)")


def of_sweep(sweep: Sweep, sight: Foresight | None = None, stored: Stored | None = None) -> tuple[Foresight, Work]:
    """Return how a sweep will be computed, and its work.

    Parameters
    ----------
    stored
        The store as what comes before will leave it.
    """
    model = sweep.model
    sight = sight or Foresight(model, *(site.name for site in sweep.planner.written()))
    stored = stored or Stored(model)
    beside = of_noise(model, sweep.given)
    if sight.net is None:
        return sight, beside + _by_hooks(sweep, stored) + _answer(sweep)
    net, sizes = sight.net, sight.sizes
    plans = [_plan(sweep, net, case, number) for number, case in enumerate(sweep.given)]
    groups = [one for plan in plans for patch in plan.patches() for one in plan.only(patch, sweep.chosen)]
    waves = list(waves_of(groups, sweep.rows_that_fit(net, len(plans[0].base))))
    first = _base_runs(net, sizes, sweep)
    going = [_wave(sizes, plans, wave, net) for wave in waves]
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
    own = sweep.source_model is sweep.model and not net.both_ways
    base, source = _standing(case.base), _standing(case.source)
    return sweep.planner.plan(net, base, source, case, number, case.start if own else 0)


def _standing(ids: Ids) -> Base:
    """Return what stands for a run: its tokens, and none of its activations."""
    there = torch.tensor(ids)
    return Base(there, *(there.new_empty(0) for _ in PARTS))


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
    for case in sweep.given:
        plain_ends(stored, there, [case])
    batch, cells = sweep.together(), sweep.chosen.tolist()
    for at in range(0, len(cells), batch):
        for case in sweep.given:
            runs = runs + sweep.planner.foreseen(case, cells[at : at + batch], stored, there)
    return stored.work.less(before) + (NOTHING if there is stored else there.work) + runs


def _answer(sweep: Sweep) -> Work:
    cells = sweep.swept.values.numel()
    return Work(held=9 * cells, peak=60 * cells)
