"""Gemma 1, 2 and 3: embeddings scaled, norms that count from 1, and in 2 and 3 norms on both sides of each half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from interp.engine.transformer.families._family import Family, by_kind, linear_of
from interp.engine.transformer.parts import HALF, Embedding, Norm, Rotation, Unembed


class Gemma(Family):
    """Gemma Team (2024), "Gemma: Open Models Based on Gemini Research and Technology"; "Gemma 2"; (2025), "Gemma 3"."""

    names = ("gemma", "gemma2", "gemma3_text")

    def norm(self, component: Any, like: Tensor) -> Norm:
        """Return a norm; its weight is what its gain differs from 1 by."""
        module = component.original_component
        weight = module.weight.detach()
        # In single precision: 1 + w has no room in a half.
        gain = 1.0 + (weight.float() if weight.dtype in HALF else weight)
        return Norm(gain, None, eps=float(module.eps), rms=True, wide=True)

    def cap(self, config: Any) -> float | None:
        """Return what attention's scores are softly held within: Gemma 2's."""
        return getattr(config, "attn_logit_softcapping", None)

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        words = super().embedding(bridge, config)
        return replace(words, scale=bridge.embed.original_component.embed_scale.to(words.weight.dtype))

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]] | None:
        """Return the function of a length that gives each layer's turns: Gemma 3's windows have a base of their own."""
        if type(bridge.rotary_emb.original_component).__name__ != "Gemma3RotaryEmbedding":
            return super().rotary(bridge)
        return by_kind(bridge, [block.attn.original_component.layer_type for block in bridge.blocks])

    def unembed(self, bridge: Any, config: Any) -> Unembed:
        """Return what makes logits of the normed stream: Gemma 2's are capped."""
        return Unembed(linear_of(bridge.unembed), cap=getattr(config, "final_logit_softcapping", None))


FAMILY = Gemma()
