"""OLMo 1, 2 and 3: norms without a gain (1), or after each half block and over all queries and keys together (2, 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from interp.engine.transformer.families._family import Family, by_kind
from interp.engine.transformer.parts import Norm, Rotation


class Olmo(Family):
    """Groeneveld et al. (2024), "OLMo"; OLMo Team (2025), "2 OLMo 2 Furious"; (2025), "OLMo 3"."""

    names = ("olmo", "olmo2", "olmo3", "olmoe")

    def differs(self, config: Any) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does."""
        return "queries, keys and values are clipped" if getattr(config, "clip_qkv", None) is not None else ""

    def norm(self, component: Any, like: Tensor) -> Norm:
        """Return a norm; OLMo 1's has no gain."""
        module = component.original_component
        if getattr(module, "weight", None) is not None:
            return replace(super().norm(component, like), wide=True)
        return Norm(like.new_ones(like.shape[-1]), None, eps=1e-5, rms=False, wide=True)

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]] | None:
        """Return the function of a length that gives each layer's turns: OLMo 3's kinds of layers each have theirs."""
        if type(bridge.rotary_emb.original_component).__name__ != "Olmo3RotaryEmbedding":
            return super().rotary(bridge)
        return by_kind(bridge, [block.attn.original_component.attention_type for block in bridge.blocks])


FAMILY = Olmo()
