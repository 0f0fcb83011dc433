"""A text that the model wrote, with what every token of it was written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.methods._shared.generate_result import GenerateResult
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GenerateTraceResult(GenerateResult):
    """A text with the inner state that every new token was written from: that of the position before it.

    Attributes
    ----------
    layers
        Of the axis of layers of the lens: all; of models with more than 16 every second, third … one up to the last.
    lens_ids, lens_probabilities
        ``int64 [layer, new token]`` and ``float32 [layer, new token]``: the likeliest token after each layer, read
        through the final norm and unembedding, and its probability.
    lens_names
        Token id → string, of every id in `lens_ids`.
    written_logprobs
        ``float64 [layer, new token]``: the log-probability there of the token that was written, in nats.
    attention_layers
        The layers that have attention, of the axis of layers of what heads look at.
    attended, attended_weights
        ``int32 [layer, head, new token, rank]`` and ``float32`` alike: the positions that each head looks at most, the
        most first, and its attention there; −1 and NaN where it looks at fewer.
    attention
        ``float32 [new token, position]``: the mean attention of all heads; NaN at what was not written yet.
    features
        The name of the set of features; empty without one.
    active_tokens, active_layers, active_features, active_values
        ``[active]`` each, ``int32`` and ``float32``: which new token, the feature's layer and number, its activation;
        every feature that is active, ordered by token and the strongest first.
    labels
        Labels of features among them, by names such as ``"2.417"``.
    direction, projection_site, projection_layers
        Where the direction comes from, and where it is projected on; empty without one.
    projection
        ``float64 [layer, new token]``: how far the stream goes along the direction, whose length does not count.
    """

    layers: tuple[int, ...]
    lens_ids: NDArray[np.int64]
    lens_probabilities: NDArray[np.float32]
    lens_names: Mapping[int, str]
    written_logprobs: Float
    attention_layers: tuple[int, ...]
    attended: NDArray[np.int32]
    attended_weights: NDArray[np.float32]
    attention: NDArray[np.float32]
    features: str = ""
    active_tokens: NDArray[np.int32]
    active_layers: NDArray[np.int32]
    active_features: NDArray[np.int32]
    active_values: NDArray[np.float32]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    direction: str = ""
    projection_site: str = ""
    projection_layers: tuple[int, ...] = ()
    projection: Float

    _html: ClassVar[str] = "interp.views.generate_trace:html"
    _svg: ClassVar[str | None] = "interp.views.generate:svg"

    @property
    def settled(self) -> NDArray[np.int64]:
        """``int64 [new token]``: the first of `layers` from which on the lens reads the written token; else −1."""
        there = self.lens_ids == self.ids
        after = np.logical_and.accumulate(there[::-1])[::-1]
        return np.where(after.any(0), np.array(self.layers, np.int64)[after.argmax(0)], -1)

    def looked_at(self, token: int, top: int = 5) -> list[tuple[int, float, str, float]]:
        """Return what all heads look at most before a new token was written, the most first.

        Returns
        -------
        list
            Position, mean attention over all heads, the head that looks there most such as ``L3H1``, its attention;
            an empty name where it is among no head's strongest.

        Examples
        --------
        >>> [place for place, *_ in result.looked_at(0, top=2)]
        [4, 3]
        """
        mean = np.nan_to_num(self.attention[token]) if len(self.attention) else np.zeros(0)
        places, weights = self.attended[:, :, token], np.nan_to_num(self.attended_weights[:, :, token])
        found: list[tuple[int, float, str, float]] = []
        for place in np.argsort(-mean, kind="stable")[:top].tolist():
            there = np.where(places == place, weights, 0.0).max(-1)
            if mean[place] <= 0:
                break
            layer, head = (int(n) for n in np.unravel_index(int(there.argmax()), there.shape))
            name = f"L{self.attention_layers[layer]}H{head}" if there.max() else ""
            found.append((place, float(mean[place]), name, float(there.max())))
        return found

    def features_of(self, token: int) -> list[tuple[str, float]]:
        """Return the features that were active when a new token was written, the strongest first: name, activation."""
        rows = np.flatnonzero(self.active_tokens == token)
        return [(f"{self.active_layers[n]}.{self.active_features[n]}", float(self.active_values[n])) for n in rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per new token: as without a trace, where the lens settles, what was looked at, and features.

        `looked at` is the position that has the most attention of all heads; the first token, where many rest, counts.
        """
        rows = range(len(self.ids))
        looks = [self.looked_at(n, 1) for n in rows]
        strongest = [self.features_of(n)[:1] for n in rows]
        columns = {
            **super().to_frame().to_dict("list"),
            "settled": self.settled,
            "looked at": [look[0][0] if look else -1 for look in looks],
            "attention": [look[0][1] if look else np.nan for look in looks],
        }
        if self.features:
            columns |= {
                "active": np.bincount(self.active_tokens, minlength=len(self.ids)),
                "strongest feature": [found[0][0] if found else "" for found in strongest],
            }
        columns |= {
            f"projection {layer}": row for layer, row in zip(self.projection_layers, self.projection, strict=True)
        }
        return frame_of(columns)
