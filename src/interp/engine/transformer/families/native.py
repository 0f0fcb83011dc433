"""What `TransformerBridge.boot_native` makes: transformer-lens' own model, which has no Hugging Face configuration."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import LearnedPositions


class Native(LearnedPositions):
    """Learned positions, LayerNorm, RMSNorm or no norm at all."""

    names = ("native",)

    def config(self, model: Any) -> Any:
        """Return the configuration of what the bridge wraps."""
        return model.cfg

    def differs(self, config: Any) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does."""
        if (config.positional_embedding_type or "standard").lower() != "standard":
            return "its rotary positions turn neighbouring dims, not halves"
        if config.attention_dir != "causal":
            return "attention looks both ways"
        if max(config.attn_scores_soft_cap, config.output_logits_soft_cap) > 0:
            return "scores or logits are capped"
        if (config.act_fn or "").lower() == "solu_ln":
            return "its MLPs have a norm inside"
        if (config.normalization_type or "").upper() in {"LNPRE", "RMSPRE"}:
            return "its norms have no gain"
        return ""

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return 1 / float(attention.scale)


FAMILY = Native()
