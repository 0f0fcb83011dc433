"""The sets of features that are loaded for the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.interface.registry import technique
from interp.methods._shared.features_result import FeaturesResult

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


@technique(body=None)
def features(model: LoadedModel) -> FeaturesResult:
    """The features that are loaded for the model: each dictionary, what it is worth here, and what its files declare.

    Examples
    --------
    >>> interp.features()
    FeaturesResult(...)
    """
    from interp.engine.features import held

    sets = list(held.sets_of(model).values())
    doubts = tuple(f"{one.name}: {doubt}" for one in sets for doubt in one.doubts)
    return FeaturesResult.of(sets, sets[-1].name if sets else "", doubts)
