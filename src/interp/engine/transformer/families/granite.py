"""Granite: Llama with factors on embeddings, scores, half blocks and logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from interp.engine.transformer.families._family import Family, linear_of
from interp.engine.transformer.parts import Unembed


class Granite(Family):
    """IBM Research (2024), "Granite 3.0 Language Models"."""

    names = ("granite", "granitemoe")

    def residual(self, config: Any) -> float:
        """Return what a half block's output is multiplied by before it is added to the stream."""
        return float(config.residual_multiplier)

    def embedding(self, bridge: Any, config: Any) -> Callable[[Tensor], Tensor]:
        """Return the function of token ids ``[position]`` that gives the residual stream before layer 0."""
        words, scale = super().embedding(bridge, config), float(config.embedding_multiplier)
        return lambda ids: words(ids) * scale

    def unembed(self, bridge: Any, config: Any) -> Unembed:
        """Return what makes logits of the normed stream."""
        return Unembed(linear_of(bridge.unembed), scale=1 / float(config.logits_scaling))


FAMILY = Granite()
