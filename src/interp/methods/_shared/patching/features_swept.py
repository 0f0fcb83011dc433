"""Features as what `interp.patch` sweeps: which dictionaries, exactly and by estimates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.methods._shared.features import features_of
from interp.methods._shared.patching.estimate import Estimate
from interp.sites import FEATURES
from interp.spec import Indices, resolve_indices

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.attribution import Attributed
    from interp.engine.patching.cases import Case
    from interp.engine.patching.driver import OnStep
    from interp.engine.patching.feature_estimates import FeatureJob
    from interp.engine.patching.feature_plan import Features
    from interp.engine.patching.waves import Sweep


def dictionaries_of(model: LoadedModel, name: str | None, layer: Indices) -> list[Dictionary]:
    """Return the dictionaries of some layers of a loaded set; of all that it has when no layer is given.

    Raises
    ------
    InputError
        There is no such set, it has nothing of a layer, or several dictionaries.
    """
    given = features_of(model, name)
    layers = given.layers if layer is None else resolve_indices(layer, model.geometry.n_layers, "layer")
    return [given.at(index) for index in sorted(layers)]


@dataclass(frozen=True)
class Asked:
    """A sweep over features.

    Attributes
    ----------
    model, source_model
        The one that runs, and the one whose features are put in.
    by
        As in `interp.patch`.
    """

    model: LoadedModel
    source_model: LoadedModel
    cases: Sequence[Case]
    dictionaries: Sequence[Dictionary]
    by: str

    @cached_property
    def features(self) -> Features:
        """The features of the pairs' runs; they are run for it once.

        Raises
        ------
        InputError
            None is active in any run.
        """
        from interp.engine.patching.feature_plan import Features

        found = Features(self.model, self.source_model, self.cases, self.dictionaries)
        if not found.offsets[-1]:
            raise InputError("no feature of these layers is active in any of the prompts; name others with --layer")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """What the cells of a sweep over single features are called."""
        return self.features.names

    def sweep(self, **more: Any) -> Sweep:
        """Return the exact sweep."""
        from interp.engine.patching.features import sweep_features

        return sweep_features(self.features, self.cases, by=self.by, source_model=self.source_model, **more)

    def estimate(self, steps: int, on_step: OnStep) -> FeatureJob:
        """Return the estimate of it."""
        from interp.engine.patching.feature_estimates import FeatureJob

        return FeatureJob(self.features, self.cases, self.by, self.source_model, steps, on_step)

    def estimated(
        self, steps: int, on_step: OnStep, merged: Callable[[Attributed], Attributed], length: int | None
    ) -> Estimate:
        """Return what the estimate gives; see `estimate.estimate`."""
        found = merged(self.estimate(steps, on_step).run())
        asked = np.mean([nodes[FEATURES.name].numpy()[..., :length] for nodes in found.nodes], axis=0)
        return Estimate(asked, {}, np.zeros(0), found)
