"""Granite: Llama with factors on embeddings, scores, half blocks and logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.engine.transformer.families._family import Family, linear_of
from interp.engine.transformer.parts import Embedding, Unembed


class Granite(Family):
    """IBM Research (2024), "Granite 3.0 Language Models"."""

    names = ("granite", "granitemoe")

    def residual(self, config: Any) -> float:
        """Return what a half block's output is multiplied by before it is added to the stream."""
        return float(config.residual_multiplier)

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        return replace(super().embedding(bridge, config), scale=float(config.embedding_multiplier))

    def unembed(self, bridge: Any, config: Any) -> Unembed:
        """Return what makes logits of the normed stream."""
        return Unembed(linear_of(bridge.unembed), scale=1 / float(config.logits_scaling))


FAMILY = Granite()
