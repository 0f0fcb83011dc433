"""OPT: GPT-2 with ReLU, and positions that are counted from 2 on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.engine.transformer.families._family import LearnedPositions
from interp.engine.transformer.parts import Embedding


class OPT(LearnedPositions):
    """Zhang et al. (2022), "OPT: Open Pre-trained Transformer Language Models"."""

    names = ("opt",)

    def unlike(self, config: Any) -> str:
        """Return which setting makes a model's weights other than `Block`'s; an empty string where none does."""
        if not config.do_layer_norm_before:
            return "its norms come after each half block's sum"
        if config.word_embed_proj_dim != config.hidden_size:
            return "its embeddings have another width than its residual stream"
        return "it has no final norm" if config._remove_final_layer_norm else ""

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        all_of_them, first = super().embedding(bridge, config), bridge.pos_embed.original_component.offset
        assert all_of_them.positions is not None
        return replace(all_of_them, positions=all_of_them.positions[first:])


FAMILY = OPT()
