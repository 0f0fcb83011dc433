"""Sweeps over features of dictionaries: what a run's features are becomes what the other run's are.

Of a pair, a layer's features are a in the base run and a' in the source run; both are sparse. Patching some of them, at
some positions, changes what their dictionary writes by (a' − a) · decoder, and leaves what it does not explain. Below
the place where it writes nothing is changed, so this change of the base run is all that enters the wave.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import hooks_of, sites_of
from interp.engine.forecast.work import one_batch
from interp.engine.metrics import upcast
from interp.engine.model.interventions import composed
from interp.engine.patching.cases import Case
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.feature_plan import FeaturePlan, Features
from interp.engine.patching.plan import Plan
from interp.engine.patching.waves import Sweep, Swept, unfinished
from interp.engine.transformer import network
from interp.engine.transformer.base_runs import Base
from interp.engine.transformer.network import Network
from interp.sites import FEATURES, Site

if TYPE_CHECKING:
    from interp.engine.forecast.work import Stored, Work
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel


# The number of a dictionary, a feature of it, a position; ``None`` is all of them.
Place = tuple[int, int | None, int | None]


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
        Cells(features, by),
        swept,
        step,
        source_model=source_model,
        cells=cells,
        on_begin=lambda: on_partial(swept),
    )


class Cells:
    """The cells of a sweep over features."""

    rides = True
    refusal: exactness.Refusal | None = None

    def __init__(self, features: Features, by: str) -> None:
        self.features = features
        self.by = by
        digests = tuple(one.digest for one in features.dictionaries)
        self.key: exactness.Key = ("features", by, digests)
        self.kept: tuple[Hashable, ...] | None = ("features", by, digests)
        self.travels: Mapping[str, Any] | None = {"kind": "features", "by": by}
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
        # What it adds in a later layer is no sum there where a norm stands behind the MLP.
        behind = several and _normed(self.features.model, self.encoders)
        return [Site(FEATURES.name, one.layer) for one in several] if behind else self._places()

    def foreseen(self, case: Case, cells: Sequence[int], stored: Stored, there: Stored) -> Work:  # noqa: ARG002
        """Return the work of `hooked`; the prompts' features are known."""
        return one_batch(self.features.model, len(cells) * len(case.base), len(cells))

    def hooked(self, case: Case, cells: Sequence[int]) -> Tensor:
        """Return the metric of the cells of one pair, ``[cell]``, each in its own row of one batch."""
        sources = [difference.source for difference in self.features.of(case)]
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


def _normed(model: LoadedModel, encoders: tuple[str, ...] | None) -> bool:
    """Return whether what MLPs add goes through a norm, of a model that is known."""
    try:
        net = network.read(model, half=True, encoders=encoders)
    except exactness.Unreadable:
        return False
    return any(layer.after_norm is not None for layer in net.layers)


def patched_logits(
    model: LoadedModel,
    dictionaries: Sequence[Dictionary],
    sources: Sequence[Codes],
    case: Case,
    places: Sequence[Place],
) -> Tensor:
    """Return the logits where the case is measured with each place patched by itself, ``[place, …, d_vocab]``.

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
    logits = model.forward([case.base] * len(places), together, last_only=case.last)
    return upcast(logits[:, -1] if case.last else case.scorer.measured(logits, case.position))


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
