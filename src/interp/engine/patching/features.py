"""Sweeps over features of dictionaries: what a run's features are becomes what the other run's are.

Of a pair, a layer's features are a in the base run and a' in the source run; both are sparse. Patching some of them, at
some positions, changes what their dictionary writes by (a' − a) · decoder, and leaves what it does not explain. Below
the place where it writes nothing is changed, so this change of the base run is all that enters the wave.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.features.coded import coded
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import hooks_of, sites_of
from interp.engine.forecast.work import one_batch
from interp.engine.metrics import upcast
from interp.engine.model.interventions import composed
from interp.engine.patching.cases import Case
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.plan import PatchGroup, Plan
from interp.engine.patching.waves import Sweep, Swept, unfinished
from interp.engine.transformer.base_runs import Base
from interp.engine.transformer.incremental import ChangedRows
from interp.engine.transformer.network import Network
from interp.sites import FEATURES, SITES, Site

if TYPE_CHECKING:
    from interp.engine.forecast.work import Stored, Work
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel


# The number of a dictionary, a feature of it, a position; ``None`` is all of them.
Place = tuple[int, int | None, int | None]


@dataclass(frozen=True, eq=False)
class Difference:
    """What tells two runs' features of one layer apart.

    Attributes
    ----------
    base, source
        The runs' activations, a row for each position.
    change
        The source's less the base's.
    unit
        ``[position, 1]`` or ``[1, 1]``: what one unit that is written is in the base run's activation.
    """

    base: Codes
    source: Codes
    change: Codes
    unit: Tensor


class Features:
    """The features of some layers in pairs of runs.

    Parameters
    ----------
    model, source_model
        The one that is changed, and the one whose features are put in.
    cases
        The pairs; all their prompts are run.
    dictionaries
        For each layer, in order.

    Attributes
    ----------
    differences
        ``[case][dictionary]``.
    """

    def __init__(
        self, model: LoadedModel, source_model: LoadedModel, cases: Sequence[Case], dictionaries: Sequence[Dictionary]
    ) -> None:
        self.model = model
        self.dictionaries = tuple(dictionaries)
        for one in self.dictionaries:
            sites_of(one)
        self.differences = [
            [
                Difference(base.codes, source.codes, source.codes.minus(base.codes), base.unit)
                for base, source in zip(
                    coded(model, case.base, dictionaries), coded(source_model, case.source, dictionaries), strict=True
                )
            ]
            for case in cases
        ]

    @cached_property
    def active(self) -> list[Tensor]:
        """For each dictionary, the features that are active in any run, ascending, ``int64 [feature]``."""
        by_dictionary = zip(*self.differences, strict=True)
        return [torch.cat([run.features for d in own for run in (d.base, d.source)]).unique() for own in by_dictionary]

    @cached_property
    def offsets(self) -> list[int]:
        """For each dictionary, how many active features those before it have; at the end, how many there are."""
        counts = torch.tensor([0, *map(len, self.active)])
        return counts.cumsum(0).tolist()

    @property
    def names(self) -> tuple[str, ...]:
        """What the active features are called, such as ``2.417``, in the order of cells."""
        both = zip(self.dictionaries, self.active, strict=True)
        return tuple(f"{one.layer}.{feature}" for one, active in both for feature in active.tolist())

    def shape(self, by: str, length: int) -> tuple[int, ...]:
        """Return the shape of a sweep's answer over one pair of prompts of `length` tokens."""
        first = self.offsets[-1] if "feature" in by else len(self.dictionaries)
        return (first, length) if "position" in by else (first,)


def sweep_features(
    features: Features,
    cases: Sequence[Case],
    *,
    by: str,
    source_model: LoadedModel | None = None,
    cells: Sequence[int] | None = None,
    on_step: OnStep = silent,
    on_partial: Callable[[Swept], None] = lambda swept: None,  # noqa: ARG005
) -> Sweep:
    """Return what gives the base run the source run's features, those of one cell at a time.

    Its answer is over features or layers and, by position, positions; a feature is a cell if it is active in any run.

    Parameters
    ----------
    by
        ``"layer"`` (all features of a layer), ``"position"`` (those at one position), ``"feature"`` (one, everywhere)
        or ``"feature-position"``.
    cells, on_step, on_partial
        As for `sweep.sweep`.
    """
    swept = unfinished(len(cases), features.shape(by, len(cases[0].base)))

    def step(done: int, total: int) -> None:
        if done < total:
            on_partial(swept)
        on_step(done, total)

    return Sweep(
        features.model,
        cases,
        _Cells(features, cases, by),
        swept,
        step,
        source_model=source_model,
        cells=cells,
        on_begin=lambda: on_partial(swept),
    )


class _Cells:
    """The cells of a sweep over features."""

    rides = True
    refusal: exactness.Refusal | None = None

    def __init__(self, features: Features, cases: Sequence[Case], by: str) -> None:
        self.features = features
        self.cases = list(cases)
        self.by = by
        digests = tuple(one.digest for one in features.dictionaries)
        self.key: exactness.Key = ("features", by, digests)
        self.kept: tuple[Hashable, ...] | None = ("features", by, digests)
        self.encoders: tuple[str, ...] | None = tuple({site.name for site in self._places()})

    def _places(self) -> list[Site]:
        return [site for one in self.features.dictionaries for site in sites_of(one)]

    def plan(self, net: Network, base: Base, source: Base, case: Case, number: int, start: int) -> Plan:
        """Return the cells of one pair."""
        return FeaturePlan(
            net, base, source, features=self.features, by=self.by, case=number, start=start, stop=case.position
        )

    def written(self) -> list[Site]:
        """Return the activations that the hooked forward writes to."""
        several = [one for one in self.features.dictionaries if len(one.writes) > 1]
        # One that writes in several layers has no single place at which it enters.
        return [Site(FEATURES.name, one.layer) for one in several] or self._places()

    def foreseen(self, case: Case, cells: Sequence[int], stored: Stored, there: Stored) -> Work:  # noqa: ARG002
        """Return the work of `hooked`; the prompts' features are known."""
        return one_batch(self.features.model, len(cells) * len(case.base), len(cells))

    def hooked(self, case: Case, cells: Sequence[int]) -> Tensor:
        """Return the metric of the cells of one pair, ``[cell]``, each in its own row of one batch."""
        # A case's metric may know more by now than when the sweep was asked for.
        number = next(n for n, one in enumerate(self.cases) if (one.base, one.source) == (case.base, case.source))
        sources = [difference.source for difference in self.features.differences[number]]
        places = [self._place(cell, len(case.base)) for cell in cells]
        return case.scorer.of_logits(
            patched_logits(self.features.model, self.features.dictionaries, sources, case, places)
        )

    def _place(self, cell: int, length: int) -> Place:
        first, at = divmod(cell, length) if "position" in self.by else (cell, None)
        if "feature" not in self.by:
            return first, None, at
        offsets = self.features.offsets
        number = next(n for n, stop in enumerate(offsets[1:]) if first < stop)
        return number, int(self.features.active[number][first - offsets[number]]), at


def patched_logits(
    model: LoadedModel,
    dictionaries: Sequence[Dictionary],
    sources: Sequence[Codes],
    case: Case,
    places: Sequence[Place],
) -> Tensor:
    """Return the logits at the case's position with each place patched by itself, ``[place, d_vocab]``.

    Parameters
    ----------
    sources
        For each dictionary, the activations that are put in.
    """
    functions: dict[str, list[Hook]] = {}
    for number in sorted({number for number, _, _ in places}):
        own = [(feature, at) if of == number else None for of, feature, at in places]
        for name, function in hooks_of(model, dictionaries[number], _putting(sources[number], own)):
            functions.setdefault(name, []).append(function)
    together = {name: composed(some) for name, some in functions.items()}
    last = case.position == len(case.base) - 1
    logits = model.forward([case.base] * len(places), together, last_only=last)
    return upcast(logits[:, -1 if last else case.position])


def _putting(
    source: Codes, asked: Sequence[tuple[int | None, int | None] | None]
) -> Callable[[Codes, int, int], Codes]:
    """Return what gives each prompt of a batch the source's feature at a position; to a prompt of ``None`` nothing."""

    def change(now: Codes, prompts: int, positions: int) -> Codes:
        parts: list[Codes] = []
        for row in range(prompts):
            own, wanted = now.cut(row * positions, (row + 1) * positions), asked[row]
            parts.append(
                own.where(torch.zeros_like(own.features, dtype=torch.bool))
                if wanted is None
                else _only(source, *wanted).minus(_only(own, *wanted))
            )
        return Codes.stacked(parts)

    return change


def _only(codes: Codes, feature: int | None, position: int | None) -> Codes:
    kept = torch.ones_like(codes.features, dtype=torch.bool)
    if feature is not None:
        kept &= codes.features == feature
    if position is not None:
        kept &= codes.rows == position
    return codes.where(kept)


class FeaturePlan(Plan):
    """The features of one pair; a patch's `layer` is the number of its dictionary, its parts are features that differ.

    Parameters
    ----------
    features, by
        As for `sweep_features`; the others are those of `Plan`.
    """

    def __init__(
        self,
        network: Network,
        base: Base,
        source: Base,
        *,
        features: Features,
        by: str,
        case: int,
        start: int,
        stop: int,
    ) -> None:
        super().__init__(network, base, source, site=FEATURES.name, by=by, layers=(), case=case, start=start, stop=stop)
        self.features = features
        self.differences = features.differences[case]
        self._moved: dict[tuple[int, int | None], Tensor] = {}

    def patches(self) -> Iterator[PatchGroup]:
        """Yield every intervention that can have an effect, layer by layer."""
        length = len(self.base)
        positions = range(self.start, length if self.network.both_ways else self.stop + 1)
        for number in range(len(self.differences)):
            there = positions if "position" in self.by else [None]
            for at in there:
                moved = len(self._moving(number, at)) if positions else 0
                if moved:
                    start = self.start if at is None else at
                    parts = range(moved if "feature" in self.by else 1)
                    yield PatchGroup(self.case, number, start, at is not None, parts, length - start)

    def _moving(self, number: int, position: int | None) -> Tensor:
        """Return the features of a dictionary that the runs differ in, ascending."""
        if (number, position) not in self._moved:
            change = self.differences[number].change
            own = change if position is None else change.cut(position, position + 1)
            self._moved[number, position] = own.features.unique()
        return self._moved[number, position]

    def cells(self, patch: PatchGroup) -> Tensor:
        """Return where the patch's interventions go in the flattened answer, ``int64 [part]``."""
        if "feature" in self.by:
            moving = self._moving(patch.layer, patch.start if patch.single else None)
            moving = moving[patch.parts.start : patch.parts.stop]
            first = torch.searchsorted(self.features.active[patch.layer], moving).cpu()
            first += self.features.offsets[patch.layer]
        else:
            first = torch.tensor([patch.layer])
        return first * len(self.base) + patch.start if patch.single else first

    def stage(self, layer: int) -> tuple[int, str]:
        """Return the layer and stage at which what a dictionary writes enters."""
        (place,) = self.features.dictionaries[layer].writes
        stage = SITES[place.point].stage
        return (place.layer + 1, "pre") if stage == "post" else (place.layer, stage)

    def moves(self, patch: PatchGroup) -> bool:  # noqa: ARG002
        """Whether the two runs differ there: others are no patches."""
        return True

    def changed_rows(self, patch: PatchGroup) -> ChangedRows:
        """Return the patch's rows of the residual stream."""
        stop = patch.start + 1 if patch.single else len(self.base)
        rows = self._entered(patch.layer, slice(patch.start, stop), self._written(patch, stop))
        return ChangedRows(
            base=self.case,
            start=patch.start,
            cells=self.cells(patch),
            rows=rows[:, 0] if patch.single else rows,
            single=patch.single,
        )

    def _written(self, patch: PatchGroup, stop: int) -> Tensor:
        """Return by how much what is written changes, ``[part, position, d_out]``."""
        one, difference = self.features.dictionaries[patch.layer], self.differences[patch.layer]
        change = difference.change.cut(patch.start, stop)
        unit = difference.unit if len(difference.unit) == 1 else difference.unit[patch.start : stop]
        if "feature" not in self.by:
            return (one.written(change) * unit)[None]
        moving = self._moving(patch.layer, patch.start if patch.single else None)
        moving = moving[patch.parts.start : patch.parts.stop]
        own = change.where(torch.isin(change.features, moving))
        values = own.values.new_zeros(len(moving), len(own))
        values[torch.searchsorted(moving, own.features), own.rows] = own.values
        return values[..., None] * unit * one.atoms(moving)[:, None]

    def _entered(self, number: int, positions: slice, change: Tensor) -> Tensor:
        """Return the base run's stream where what a dictionary writes is `change` more."""
        (place,) = self.features.dictionaries[number].writes
        base, index, block = self.base, place.layer, self.network.layers[place.layer]
        change = change.to(base.resid)
        if place.point in {"resid_pre", "resid_post"}:
            return base.resid[index + (place.point == "resid_post")][positions] + change
        if place.point == "resid_mid":
            return base.mid[index][positions] + change
        if place.point == "attn_out":
            return self._middle(index, positions, change)
        if place.point == "mlp_out":
            return self._after(index, positions, change)
        if place.point == "neuron":
            raw = change @ block.down.weight.T
            more = block.down.change(lambda: self._activated(base, index)[positions], raw)
            return self._after(index, positions, more)
        raw = torch.einsum("nphd,mhd->npm", change.unflatten(-1, (self.network.n_heads, -1)), block.head_weights())
        return self._middle(index, positions, block.rewritten(base.z[index][positions], raw))
