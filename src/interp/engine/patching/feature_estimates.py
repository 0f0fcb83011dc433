"""Attribution patching of features: from gradients at each place that dictionaries write, all features at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import sites_of
from interp.engine.features.places import flat
from interp.engine.forecast.work import NOTHING, Work
from interp.engine.metrics import upcast
from interp.engine.patching.attribution import Job
from interp.engine.patching.cases import Case
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.feature_plan import Difference, Features
from interp.engine.patching.recorded import Recorded
from interp.errors import InputError
from interp.sites import FEATURES

if TYPE_CHECKING:
    from interp.engine.memory import Stretch
    from interp.engine.model.loaded import LoadedModel

_ENTRIES = 4096  # whose decoders are looked up together


class FeatureJob(Job):
    """An estimate of the effects of features under way; its `nodes` are ``{"features": [*shape]}`` for each case.

    A feature's activation a becomes a' in the source run; its effect is about (a' − a) · decoder · ∂m/∂x, of the
    gradients of the base run's metric by what its dictionary writes. Features write linearly there, so this is first
    order in what follows alone (Nanda 2023; Marks et al. 2024, "Sparse Feature Circuits", without their error nodes).

    With more steps it is ∫ decoder · ∂m/∂x da along the way that `attribution.attribute` goes, by the trapezoidal rule:
    features are read anew at each of its points. (Marks et al. go from a to a' themselves, in a run of their own for
    each place; over the embeddings all places have the same few runs.) A feature that is active on the way alone is
    counted where all features of a layer are, but is no cell of its own: patching it changes nothing.

    Parameters
    ----------
    features, by
        As for `features.sweep_features`; the others are those of `attribution.attribute`.
    """

    def __init__(
        self,
        features: Features,
        cases: Sequence[Case],
        by: str,
        source_model: LoadedModel,
        steps: int = 1,
        on_step: OnStep = silent,
    ) -> None:
        places = [site for one in features.dictionaries for site in sites_of(one)]
        super().__init__(features.model, cases, steps, False, places[0].name, source_model, on_step)
        self.features = features
        self.by = by
        wanted = {"resid_pre", *(site.name for site in places)}  # the runs begin before layer 0
        if "resid_mid" in wanted:  # it is put together of resid_pre and this
            wanted.add("attn_out")
        self.sites = [site for site in self.model.sites if site in wanted]
        if steps > 1:
            self.reads = tuple(dict.fromkeys(one.reads for one in features.dictionaries))

    def asks(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Return what makes an estimate of some of the pairs in another process."""
        return {**super().asks(numbers), "features": self.features.part(numbers), "by": self.by}

    def beside(self, rows: int) -> Work:
        """Return the work of reading the features of `rows` positions on the way anew."""
        if self.steps == 1:
            return NOTHING
        shapes = [one.encoder.shape for one in self.features.dictionaries]
        size = max(width for width, _ in shapes) * rows * self.features.dictionaries[0].encoder.element_size()
        return Work(flops=2.0 * rows * sum(width * d_in for width, d_in in shapes), calls=20 * len(shapes), peak=size)

    def _nodes(self, found: Recorded, piece: Stretch) -> tuple[dict[str, Tensor], Tensor | None]:
        lacking = next(
            (s.name for one in self.features.dictionaries for s in sites_of(one) if s.name not in found.graph), ""
        )
        if lacking and found.ends is not None:
            raise exactness.Unreadable(f"gradients without hooks do not know {lacking}")
        if lacking:
            raise InputError(f"{lacking} does not fire in {self.model.name}; use --method exact")
        places = list(dict.fromkeys(place for one in self.features.dictionaries for place in one.writes))
        graph = [found.graph[place.point][place.layer] for place in places]
        gradients = torch.autograd.grad(found.scores.sum(), graph, allow_unused=True, materialize_grads=True)
        points = 1 if self.steps == 1 else len(found.scores)
        slopes = {
            place: flat(place, upcast(gradient.view_as(found.values[place.point][place.layer][:points])))
            for place, gradient in zip(places, gradients, strict=True)
        }  # [point, case, position from start, d_out]
        rows: list[Tensor] = []
        for row, index in enumerate(piece.cases):
            shape = self.features.shape(self.by, len(self.cases[index].base))
            sums = torch.zeros(shape, dtype=torch.float64).view(shape[0], -1)
            for number, one in enumerate(self.features.dictionaries):
                difference = self.features.differences[index][number]
                for point, (change, unit) in enumerate(self._moved(one, difference, found, row)):
                    effects = change.values.new_zeros(len(change.values), dtype=torch.float64)
                    for to, place in enumerate(one.writes):
                        effects += self._effects(one.decoders[to], change, unit, slopes[place][point, row])
                    self._divide(sums, number, change, effects, found.start)
            rows.append(sums.view(shape))
        return {FEATURES.name: torch.stack(rows)}, None

    def _moved(
        self, one: Dictionary, difference: Difference, found: Recorded, row: int
    ) -> Iterator[tuple[Codes, Tensor]]:
        """Yield by how much features move at each point of one pair's way, from `start` on, and what a unit is there.

        What stands before that is the same in both runs. Of several points it is half of the steps before and after.
        """
        if self.steps == 1:
            change, unit = difference.change, difference.unit.expand(len(difference.change), 1)
            yield change.cut(found.start, len(change)), unit[found.start :]
            return
        read = found.read[one.reads][:, row]  # [point, position from start, d_in]
        count, length = read.shape[:2]
        every, x = one.encode(read.flatten(0, 1)), read.to(one.encoder.dtype)
        codes = [every.cut(point * length, (point + 1) * length) for point in range(count)]
        for point in range(count):
            moved = codes[min(point + 1, count - 1)].minus(codes[max(point - 1, 0)])
            unit = torch.as_tensor(one.taken.factor(x[point])).to(moved.values).expand(length, 1)
            yield moved.with_values(moved.values / 2), unit

    def _effects(self, table: Tensor, change: Codes, unit: Tensor, slope: Tensor) -> Tensor:
        """Return what each entry of the change does at one place, ``float64 [entry]``."""
        found: list[Tensor] = []
        for at in range(0, len(change.values), _ENTRIES):
            some = slice(at, at + _ENTRIES)
            rows, features = change.rows[some], change.features[some]
            atoms = table[features.to(table.device)].to(slope)
            along = (atoms * slope[rows]).sum(-1)
            found.append((change.values[some] * unit[rows, 0]).double() * along.double())
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64, device=slope.device)

    def _divide(self, sums: Tensor, number: int, change: Codes, effects: Tensor, start: int) -> None:
        """Add what the entries of one dictionary's change do to the cells, ``float64 [feature or layer, position]``."""
        first, at = torch.full_like(change.features, number), change.rows + start
        if "feature" in self.by:
            active = self.features.active[number]
            place = torch.searchsorted(active, change.features)
            there = active[place.clamp(max=len(active) - 1)] == change.features if len(active) else place < 0
            first, at, effects = (place + self.features.offsets[number])[there], at[there], effects[there]
        if "position" not in self.by:
            at = torch.zeros_like(at)
        sums.index_put_((first.cpu(), at.cpu()), effects.cpu(), accumulate=True)
