"""What `generate --trace` asks of the runs that write a text, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared import directions
from interp.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.features.held import FeatureSet
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.text_trace import TextTrace


@dataclass(frozen=True)
class Watched:
    """A trace under way, and what names the things in it.

    Attributes
    ----------
    source, notes
        Where the direction comes from, and lines for the result's notes.
    """

    model: LoadedModel
    trace: TextTrace
    features: FeatureSet | None
    source: str
    notes: tuple[str, ...]

    def found(self, ids: Sequence[int]) -> dict[str, Any]:
        """Return the fields of a `GenerateTraceResult` that a `GenerateResult` has not."""
        traced = self.trace.finished(ids)
        tokens, numbers, features, values = traced.active
        dictionaries = () if self.features is None else self.features.dictionaries
        layers = np.array([one.layer for one in dictionaries], np.int32)[numbers]
        names = {f"{layer}.{feature}" for layer, feature in zip(layers.tolist(), features.tolist(), strict=True)}
        labels = {} if self.features is None else self.features.labels
        return {
            "layers": self.trace.layers,
            "lens_ids": traced.lens_ids,
            "lens_probabilities": traced.lens_probabilities,
            "lens_names": {int(n): self.model.tokens.string(int(n)) for n in np.unique(traced.lens_ids)},
            "written_logprobs": traced.written_logprobs,
            "attention_layers": traced.attention_layers,
            "attended": traced.attended,
            "attended_weights": traced.weights,
            "attention": traced.attention,
            "features": "" if self.features is None else self.features.name,
            "active_tokens": tokens,
            "active_layers": layers,
            "active_features": features,
            "active_values": values,
            "labels": {name: said.brief or said.text for name in sorted(names) if (said := labels.get(name))},
            "direction": self.source,
            "projection_site": next((site.name for site in self.trace.directions), ""),
            "projection_layers": tuple(site.layer for site in self.trace.directions),
            "projection": traced.projections,
        }


def watched(model: LoadedModel, features: FeatureSet | None, direction: Any) -> Watched:
    """Return a trace that is to be made.

    Raises
    ------
    InputError
        A model whose logits are not read off its residual stream, or a direction that cannot be used.
    """
    from interp.engine.readouts.text_trace import TextTrace

    along, source, notes = ({}, "", []) if direction is None else _along(model, direction)
    dictionaries = () if features is None else features.dictionaries
    return Watched(model, TextTrace(model, dictionaries, along), features, source, tuple(dict.fromkeys(notes)))


def _along(model: LoadedModel, value: Any) -> tuple[dict[Site, Tensor], str, list[str]]:
    """Return the direction in every layer that it is of, where it comes from, and notes on it."""
    name, at = directions.place_of(model, value)
    every = range(model.geometry.n_layers)
    if (
        directions.is_feature(value) and at is not None
    ):  # what a feature writes is one vector, wherever it is looked for
        vector, source, notes = directions.given(model, Site(name, at), value)
        found = dict.fromkeys((Site(name, layer) for layer in every), vector)
    else:
        own: Any = getattr(value, "layers", None) if callable(getattr(value, "direction", None)) else None
        places = [Site(name, layer) for layer in every if own is None or layer in own]
        each = {place: directions.given(model, place, value) for place in places}
        source, notes = next(iter(each.values()))[1], [note for _, _, own in each.values() for note in own]
        found = {place: vector for place, (vector, _, _) in each.items()}
    model.require_site(name, [place.layer for place in found])
    return found, source, notes
