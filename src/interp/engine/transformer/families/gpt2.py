"""GPT-2: learned positions, LayerNorm, and three settings of how scores are scaled."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import LearnedPositions


class GPT2(LearnedPositions):
    """Radford et al. (2019), "Language Models are Unsupervised Multitask Learners"."""

    names = ("gpt2",)

    def differs(self, config: Any) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does."""
        return "attention is upcast" if config.reorder_and_upcast_attn else ""

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        scale = d_head**-0.5 if attention.scale_attn_weights else 1.0
        return scale / (index + 1) if attention.scale_attn_by_inverse_layer_idx else scale


FAMILY = GPT2()
