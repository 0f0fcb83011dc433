"""Sweeps over pairs: interventions go up through the incremental forward in waves, or cell by cell with hooks.

What the interventions are, and where their results go, a `Planner` knows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.model.interventions import require_read
from interp.engine.patching import pooled
from interp.engine.patching.cases import Case, measured, unpatched
from interp.engine.patching.driver import Driver, OnStep, Outcome, nothing
from interp.engine.patching.ends import Ends
from interp.engine.patching.noise import Noise, measured_noise
from interp.engine.patching.plan import after, take
from interp.engine.patching.runs import PlainRuns
from interp.engine.pool import sharing
from interp.engine.transformer import incremental, network

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.plan import PatchGroup, Plan
    from interp.engine.patching.planner import Planner
    from interp.engine.patching.pooled import Shard
    from interp.engine.pool.protocol import Pool
    from interp.engine.transformer.base_runs import Base
    from interp.engine.transformer.incremental import ChangedRows
    from interp.engine.transformer.network import Network


@dataclass
class Swept(Outcome):
    """What a sweep has computed.

    Attributes
    ----------
    values, done
        ``[case, …axes]``: of every patched run.
    base, source
        ``float64 [case]``: the metric of the unpatched runs; NaN where they were not reached.
    noise
        In half precision: below what a difference of two runs is rounding alone, in the metric's units.
    """

    base: Tensor = field(kw_only=True)
    source: Tensor = field(kw_only=True)
    noise: float = field(default=0.0, kw_only=True)


def unfinished(count: int, shape: Sequence[int]) -> Swept:
    """Return a sweep over `count` pairs, each of `shape`, of which nothing is computed."""
    unpatched, _ = nothing(2, count)
    return Swept(*nothing(count, *shape), base=unpatched[0], source=unpatched[1])


@dataclass(frozen=True)
class _Under:
    """What the waves of a sweep stand on.

    Attributes
    ----------
    through
        Runs the unpatched prompts up to and including a layer, as far as they are not.
    settle
        Runs them to the end, and takes in what they give; nothing the second time.
    """

    net: Network
    plans: Sequence[Plan]
    through: Callable[[int], None]
    settle: Callable[[], None]


class Sweep:
    """One sweep under way.

    Parameters
    ----------
    model, source_model
        The model that runs, and the one whose activations are put in.
    swept
        Filled as cells finish.
    cells
        Which cells, as indices into one pair's flattened answer; all when not given.
    on_begin
        Called before anything is run: an interrupt there is one of the sweep's.
    """

    def __init__(
        self,
        model: LoadedModel,
        cases: Sequence[Case],
        planner: Planner,
        swept: Swept,
        on_step: OnStep,
        *,
        source_model: LoadedModel | None = None,
        cells: Sequence[int] | None = None,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.model = model
        self.source_model = source_model or model
        self.on_begin = on_begin
        self.given = tuple(cases)
        self.cases = list(cases)
        self.planner = planner
        self.swept = swept
        self.values = swept.values.view(len(cases), -1)
        self.done = swept.done.view(len(cases), -1)
        self.chosen = torch.arange(self.done.shape[1]) if cells is None else torch.tensor(sorted(set(cells)))
        self.reached = torch.zeros_like(self.done)  # cells that are more than the unpatched run
        self.settled = False  # whether the unpatched runs are taken in
        self.driver = Driver(model, swept, len(cases) * len(self.chosen), on_step)
        self.whole = len(self.chosen) == self.done.shape[1]
        kind = planner.kept if self.whole else None
        self.ends = Ends(model, self.source_model, self.given, kind, self.done.shape[1])
        self.pool: Pool | None = None
        self.compared: Shard | None = None  # the part of which a sample is taken
        self.where = ""  # what a provenance adds of shards

    def run(self) -> Swept:
        """Compute every cell, to the end or to where it had to stop; in the command's pool, where there is one."""
        if self.planner.travels is not None:
            metric = self.given[0].scorer.metric
            self.pool = sharing.pool_of(self.model, self.source_model, metric=metric)
        self.swept.noise = self._noise.floor
        self.driver.run(
            self.key if self.pool is None else (*self.key, self.pool.name),
            lean=self._incremental,
            hooked=self.planner.refusal or self._hooked,
            sample=self._sample,
            length=max(len(case.base) for case in self.cases),
            noise=lambda: self._noise.relative,
        )
        self.swept.path += self.where
        return self.swept

    def shard(self, way: exactness.Way) -> None:
        """Compute every cell one way, here, and compare nothing: whoever asked for this does that."""
        if way == "lean":
            self._incremental(exactness.unchecked)
        else:
            self._hooked()

    @property
    def key(self) -> exactness.Key:
        """What is compared with the hooked forward once."""
        return (*self.planner.key, *measured(self.given, self.model, self.source_model))

    @cached_property
    def _noise(self) -> Noise:
        return measured_noise(self.model, self.source_model, self.given)

    # -- without hooks ---------------------------------------------------------------------------------------------

    def _incremental(self, check: exactness.Check) -> None:
        exactness.require_known(*(site.name for site in self.planner.written()))
        self.on_begin()
        net = self._network(self.model)
        other = net if self.source_model is self.model else self._network(self.source_model)
        if self.pool is not None:
            pooled.run(self, self.pool, "lean", check)
            return
        ours = {case.base: (None, 0) for case in self.cases}
        theirs = {case.source: (None, 0) for case in self.cases}
        # What comes before the first difference is the same where nothing later is seen there.
        starts = [0 if other is not net or net.both_ways else case.start for case in self.cases]
        if other is net:
            every = zip(self.cases, starts, strict=True)
            likes = {case.source: (case.base, min(start, len(case.source) - 1)) for case, start in every}
            runs = (PlainRuns(self.model, net, {**likes, **ours}),)
        else:
            runs = (PlainRuns(self.model, net, ours), PlainRuns(self.source_model, other, theirs))

        def complete() -> None:
            for some in runs:
                some.complete()

        rides = self.planner.rides and all(some.light for some in runs)
        if not rides:
            complete()
        found = [(runs[0].found[case.base], runs[-1].found[case.source]) for case in self.cases]
        if (known := self.ends.recalled()) is not None:
            complete()
            for number, cells, _ in known:
                self.reached[number, cells] = True
            self._settle(net, other, found)
            self._scored(net, known)
            return
        plans: list[Plan] = []
        for index, (case, (base, source)) in enumerate(zip(self.cases, found, strict=True)):
            plans.append(self.planner.plan(net, base, source, case, index, starts[index]))
            for patch in plans[-1].patches():
                self.reached[index, plans[-1].cells(patch)] = True
        patches = self.asked(plans)

        def settle() -> None:
            if not self.settled:
                complete()
                self._settle(net, other, found)

        def through(layer: int) -> None:
            for some in runs:
                some.through(layer)

        if not (rides and patches):
            settle()
        self._waves(_Under(net, plans, through, settle), patches, check)

    def asked(self, plans: Sequence[Plan]) -> list[PatchGroup]:
        """Return the interventions of all pairs that are among the chosen cells."""
        every = ((plan, patch) for plan in plans for patch in plan.patches())
        if self.whole:
            return [patch for _, patch in every]
        return [part for plan, patch in every for part in plan.only(patch, self.chosen)]

    def _scored(self, net: Network, ends: Iterable[tuple[int, Tensor, Tensor]]) -> None:
        """Take in what is known of how interventions end."""
        for case, cells, rows in ends:
            self.values[case, cells] = self.cases[case].scorer.of_residual(net, rows).double().cpu()
            self.done[case, cells] = True
            self.driver.step()

    def _settle(self, net: Network, other: Network, runs: Sequence[tuple[Base, Base]]) -> None:
        """Take the unpatched runs in: their metrics, and the cells that are what the base run is."""
        for index, (case, (base, source)) in enumerate(zip(self.cases, runs, strict=True)):
            last, there = case.position, case.source_position
            measured = case.scorer.measured
            ends = [(net, measured(base.resid[-1][None], last)), (other, measured(source.resid[-1][None], there))]
            if case.scorer.metric.needs_clean:
                case = case.with_clean(*(of.unembed(of.ending(end)) for of, end in ends))
            self.cases[index] = case
            self.swept.base[index], self.swept.source[index] = (case.scorer.of_residual(of, end)[0] for of, end in ends)
            # A change before the prompts differ is none, and one after the position asked about is not seen there.
            self.values[index] = self.swept.base[index]
            # At once: an interrupt between two steps would leave cells that are marked as done and are not.
            self.done[index, self.chosen] = ~self.reached[index, self.chosen]
        self.settled = True

    def _network(self, model: LoadedModel) -> Network:
        return network.read(model, half=True, encoders=self.planner.encoders)

    def _waves(self, under: _Under, patches: list[PatchGroup], check: exactness.Check) -> None:
        limit = self.rows_that_fit(under.net, len(under.plans[0].base))
        # Pair after pair for the same cells, so that what an early end leaves is there for every pair.
        patches = [piece for patch in patches for piece in patch.pieces(limit)]
        patches.sort(key=lambda patch: (patch.layer, patch.parts.start, patch.case))
        first = min(limit, memory.FIRST_ROWS) if self.model.watched and under.net.streamed is None else limit
        while patches:
            wave = take(patches, first)
            # One cell cannot be halved; it is tried once more, with all that can be had.
            last = self.settled and len(wave) == 1 and len(wave[0].parts) == 1 and limit < wave[0].rows
            if not memory.attempt(lambda wave=wave: self._wave(under, wave), self.model.device, last=last):
                under.settle()
                first = limit = max(1, sum(patch.rows for patch in wave) // 2)
                continue
            first = limit
            finished = len(wave)
            rest = wave[-1] if wave[-1] != patches[finished - 1] else None
            if rest is not None:  # the last patch was split: what is left of it stays
                patches[finished - 1] = after(patches[finished - 1], rest)
                finished -= 1
            del patches[:finished]
            check()
            self.driver.step()
        self.ends.keep()

    def _wave(self, under: _Under, wave: Sequence[PatchGroup]) -> None:
        net, plans = under.net, under.plans
        running = {patch.case for patch in wave}
        entering: dict[tuple[int, str], list[PatchGroup]] = {}
        for plan in plans:
            if plan.case not in running:
                plan.forget()
        for patch in wave:
            entering.setdefault(plans[patch.case].stage(patch.layer), []).append(patch)

        def joins(layer: int, stage: str) -> list[ChangedRows]:
            moving = (patch for patch in entering.get((layer, stage), []) if plans[patch.case].moves(patch))
            return [plans[patch.case].changed_rows(patch) for patch in moving]

        arrived: dict[int, list[tuple[Tensor, Tensor]]] = {}
        several = self.given[0].scorer.metric.several

        def finish(case: int, cells: Tensor, rows: Tensor) -> None:
            arrived.setdefault(case, []).append((cells, rows))

        incremental.replay(
            net,
            [plan.base for plan in plans],
            joins,
            [plan.stop for plan in plans],
            finish,
            first=min(layer for layer, _ in entering),
            counts=[case.scorer.positions for case in self.cases] if several else None,
            before=under.through,
            later=lambda layer, joined: plans[joined.base].later(layer, joined),
        )
        under.settle()
        for case, parts in arrived.items():
            cells = torch.cat([cells for cells, _ in parts])
            scores = self.cases[case].scorer.of_residual(net, torch.cat([rows for _, rows in parts]))
            self.values[case, cells] = scores.double().cpu()
            self.ends.add(case, cells, torch.cat([rows for _, rows in parts]))
        # Only now: an interrupt before this leaves the wave's cells undone.
        for patch in wave:
            self.done[patch.case, plans[patch.case].cells(patch)] = True

    def rows_that_fit(self, net: Network, length: int) -> int:
        """Return how many rows go up together."""
        layer = net.stored[0]
        width = 4 * layer.o.weight.shape[0] + 2 * length * net.n_kv_heads * net.d_head + 2 * net.d_mlp
        element = layer.o.weight.element_size()
        fits = memory.free_bytes(self.model.device) // 4 // (width * element)
        if net.streamed is not None:  # each wave reads the files once more
            return max(1, fits)
        return max(1, min(memory.WAVE_ROWS, fits, memory.WATCHED_ROWS if self.model.watched else fits))

    def _sample(self) -> Iterator[float]:
        """Yield how far a few finished cells are from the plain hooked forward's, and the runs that they belong to."""
        there = self.done & self.reached
        if (part := self.compared) is not None:
            among = torch.zeros_like(there)
            among[torch.tensor(part.cases)[:, None], torch.tensor(part.cells)] = True
            there &= among
        for index, cell in sampled(there, exactness.sample_of(self.model)):
            case, base, source = self._unpatched(index)
            yield exactness.difference(self.swept.base[index], base)
            yield exactness.difference(self.swept.source[index], source)
            if cell is not None:
                patched = memory.retried(
                    lambda case=case, cell=cell: self.planner.hooked(case, [cell]), self.model.device
                )
                yield exactness.difference(self.values[index, cell], patched[0])

    # -- the hooked forward ----------------------------------------------------------------------------------------

    def _hooked(self) -> None:
        """Compute every cell by the model's own forward, a batch of cells at a time."""
        memory.retried(lambda: require_read(self.model, self.planner.written()), self.model.device)
        if self.pool is not None:
            pooled.run(self, self.pool, "hooked")
            return
        for index in range(len(self.cases)):
            self.cases[index], self.swept.base[index], self.swept.source[index] = self._unpatched(index)

        # Pair after pair for the same cells, as without hooks.
        def some(cells: Sequence[int]) -> None:
            for index, case in enumerate(self.cases):
                if not self.done[index, cells].all():  # else memory ran out at a later pair
                    self.values[index, cells] = self.planner.hooked(case, cells).double().cpu()
                    self.done[index, cells] = True
                    self.driver.step()

        memory.halving(self.chosen.tolist(), self.together(), some, self.model.device)

    def together(self) -> int:
        """Return how many cells the hooked forward runs in one batch."""
        geometry = self.model.geometry
        length = max(len(case.base) for case in self.cases)
        logits = geometry.d_vocab * max(case.scorer.positions for case in self.cases)
        per_run = 4 * length * (6 * geometry.d_model + 2 * geometry.n_heads * length) + 4 * logits
        return max(1, min(64, memory.free_bytes(self.model.device) // 4 // per_run))

    def _unpatched(self, index: int) -> tuple[Case, Tensor, Tensor]:
        # The case as it was given: what was found for it without hooks may be wrong.
        given = self.given[index]
        return memory.retried(lambda: unpatched(self.model, self.source_model, given), self.model.device)


def sampled(finished: Tensor, count: int) -> list[tuple[int, int | None]]:
    """Return `count` of finished cells, ``bool [case, cell]``, to be compared; without any, the first case's runs."""
    there = cast("list[tuple[int, int | None]]", finished.nonzero().tolist())
    return random.Random(0).sample(there, min(count, len(there))) or [(0, None)]
