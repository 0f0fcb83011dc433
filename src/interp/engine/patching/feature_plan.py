"""Where features of dictionaries that differ between two runs enter the wave, and what they change there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine.features.coded import coded
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import sites_of
from interp.engine.features.places import Place
from interp.engine.patching.cases import Case
from interp.engine.patching.plan import PatchGroup, Plan
from interp.engine.transformer.base_runs import Base
from interp.engine.transformer.incremental import ChangedRows
from interp.engine.transformer.network import Network
from interp.sites import FEATURES, SITES

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


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

    def to(self, device: torch.device) -> Difference:
        """Return it there."""
        base, source, change = (one.to(device) for one in (self.base, self.source, self.change))
        return Difference(base, source, change, self.unit.to(device))


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
    known
        What `part` gave of these pairs, in another process: nothing is run then.

    Attributes
    ----------
    differences
        ``[case][dictionary]``.
    """

    def __init__(
        self,
        model: LoadedModel,
        source_model: LoadedModel,
        cases: Sequence[Case],
        dictionaries: Sequence[Dictionary],
        known: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.dictionaries = tuple(dictionaries)
        for one in self.dictionaries:
            sites_of(one)
        self._runs = [(case.base, case.source) for case in cases]
        if known is not None:
            self.differences: list[list[Difference]] = [
                [one.to(model.device) for one in own] for own in known["differences"]
            ]
            self.active = [own.to(model.device) for own in known["active"]]
            return
        self.differences = [
            [
                Difference(base.codes, source.codes, source.codes.minus(base.codes), base.unit)
                for base, source in zip(
                    coded(model, case.base, dictionaries), coded(source_model, case.source, dictionaries), strict=True
                )
            ]
            for case in cases
        ]

    def part(self, cases: Sequence[int]) -> dict[str, Any]:
        """Return what is known of some pairs, for the processes that sweep these: the features are the same there."""
        return {
            "dictionaries": self.dictionaries,
            "differences": [self.differences[number] for number in cases],
            "active": self.active,
        }

    def of(self, case: Case) -> list[Difference]:
        """Return a pair's differences; its metric may know more by now than when they were taken."""
        return self.differences[self._runs.index((case.base, case.source))]

    @cached_property
    def active(self) -> list[Tensor]:
        """For each dictionary, the features that are active in any run, ascending, ``int64 [feature]``."""
        by_dictionary = zip(*self.differences, strict=True)
        return [torch.cat([run.features for d in own for run in (d.base, d.source)]).unique() for own in by_dictionary]

    @cached_property
    def moving(self) -> list[Tensor]:
        """For each dictionary, those of them whose activation differs between the runs of any pair."""
        by_dictionary = zip(*self.differences, strict=True)
        return [torch.cat([difference.change.features for difference in own]).unique() for own in by_dictionary]

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


def entering(place: Place) -> tuple[int, str]:
    """Return the layer and stage at which what a dictionary writes at a place enters."""
    stage = SITES[place.point].stage
    return (place.layer + 1, "pre") if stage == "post" else (place.layer, stage)


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
        return entering(self.features.dictionaries[layer].writes[0])

    def moves(self, patch: PatchGroup) -> bool:  # noqa: ARG002
        """Whether the two runs differ there: others are no patches."""
        return True

    def changed_rows(self, patch: PatchGroup) -> ChangedRows:
        """Return the patch's rows of the residual stream."""
        stop = patch.start + 1 if patch.single else len(self.base)
        place = self.features.dictionaries[patch.layer].writes[0]
        rows = self.entered(place, slice(patch.start, stop), self._written(patch, stop))
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

    # -- dictionaries that write in several layers --------------------------------------------------------------------

    def later(self, layer: int, joined: ChangedRows) -> None:
        """Add what features that entered below write at the output of the MLP before `layer`."""
        for number, one in enumerate(self.features.dictionaries):
            for to, place in enumerate(one.writes[1:], 1):
                if place.layer + 1 == layer:
                    self._add(number, to, joined)

    def _add(self, number: int, to: int, joined: ChangedRows) -> None:
        one, difference, length = self.features.dictionaries[number], self.differences[number], len(self.base)
        cells = joined.cells.to(joined.rows.device)
        first, at = (cells // length, cells % length) if "position" in self.by else (cells, None)
        offsets = torch.tensor(self.features.offsets, device=cells.device)
        of = torch.searchsorted(offsets[1:], first, right=True) if "feature" in self.by else first
        own = (of == number).nonzero()[:, 0]
        if not len(own):
            return
        stop = joined.start + 1 if joined.single else length
        change = difference.change.cut(joined.start, stop)
        unit = difference.unit if len(difference.unit) == 1 else difference.unit[joined.start : stop]
        if "feature" in self.by:
            kinds, which = self.features.active[number][first[own] - offsets[number]].unique(return_inverse=True)
            entries = change.where(torch.isin(change.features, kinds))
            values = entries.values.new_zeros(len(kinds), len(change))
            values[torch.searchsorted(kinds, entries.features), entries.rows] = entries.values
            more = values[which][..., None] * unit * one.atoms(kinds, to)[which][:, None]
        else:
            more = (one.written(change, to) * unit).expand(len(own), -1, -1)
        if at is not None:  # what is patched is one position alone
            there = torch.arange(joined.start, stop, device=cells.device) == at[own][:, None]
            more = torch.where(there[..., None], more, 0.0)
        joined.rows[own] += (more[:, 0] if joined.single else more).to(joined.rows)
