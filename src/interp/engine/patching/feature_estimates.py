"""Attribution patching of features: from one gradient at each place that dictionaries write, all features at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.features.edits import sites_of
from interp.engine.features.places import flat
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
        on_step: OnStep = silent,
    ) -> None:
        places = [site for one in features.dictionaries for site in sites_of(one)]
        super().__init__(features.model, cases, 1, False, places[0].name, source_model, on_step)
        self.features = features
        self.by = by
        wanted = {site.name for site in places}
        if "resid_mid" in wanted:  # it is put together of these
            wanted |= {"resid_pre", "attn_out"}
        self.sites = [site for site in self.model.sites if site in wanted]

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
        slopes = {
            place: flat(place, upcast(gradient.view_as(found.values[place.point][place.layer][:1])[0]))
            for place, gradient in zip(places, gradients, strict=True)
        }  # [case, position from start, d_out]
        rows: list[Tensor] = []
        for row, index in enumerate(piece.cases):
            parts: list[Tensor] = []
            for one, difference in zip(self.features.dictionaries, self.features.differences[index], strict=True):
                effects = difference.change.values.new_zeros(len(difference.change.values), dtype=torch.float64)
                for to, place in enumerate(one.writes):
                    effects += self._effects(one.decoders[to], difference, slopes[place][row], found.start)
                parts.append(effects)
            rows.append(self._divided(parts, self.features.differences[index], len(self.cases[index].base)))
        return {FEATURES.name: torch.stack(rows)}, None

    def _effects(self, table: Tensor, difference: Difference, slope: Tensor, start: int) -> Tensor:
        """Return what each entry of the change does at one place, ``float64 [entry]``."""
        change, unit = difference.change, difference.unit
        found: list[Tensor] = []
        for at in range(0, len(change.values), _ENTRIES):
            some = slice(at, at + _ENTRIES)
            rows, features = change.rows[some], change.features[some]
            atoms = table[features.to(table.device)].to(slope)
            # What stands before the first difference is the same in both runs: it has no entries.
            along = (atoms * slope[rows - start]).sum(-1)
            own = unit.expand(len(change), 1)[rows, 0]
            found.append((change.values[some] * own).double() * along.double())
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64, device=slope.device)

    def _divided(self, parts: Sequence[Tensor], differences: Sequence[Difference], length: int) -> Tensor:
        """Return the sums over cells, ``float64 [*shape]``, of what each dictionary's entries do."""
        shape = self.features.shape(self.by, length)
        sums = torch.zeros(shape, dtype=torch.float64).view(shape[0], -1)
        for number, (effects, difference) in enumerate(zip(parts, differences, strict=True)):
            change = difference.change
            first = torch.full_like(change.features, number)
            if "feature" in self.by:
                active = self.features.active[number]
                first = torch.searchsorted(active, change.features) + self.features.offsets[number]
            at = change.rows if "position" in self.by else torch.zeros_like(first)
            sums.index_put_((first.cpu(), at.cpu()), effects.cpu(), accumulate=True)
        return sums.view(shape)
