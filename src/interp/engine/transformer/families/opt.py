"""OPT: GPT-2 with ReLU, and positions that are counted from 2 on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from interp.engine.transformer.families._family import Family, LearnedPositions


class OPT(LearnedPositions):
    """Zhang et al. (2022), "OPT: Open Pre-trained Transformer Language Models"."""

    names = ("opt",)

    def differs(self, config: Any) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does."""
        if not config.do_layer_norm_before:
            return "its norms come after each half block's sum"
        if config.word_embed_proj_dim != config.hidden_size:
            return "its embeddings have another width than its residual stream"
        return "it has no final norm" if config._remove_final_layer_norm else ""

    def embedding(self, bridge: Any, config: Any) -> Callable[[Tensor], Tensor]:
        """Return the function of token ids ``[position]`` that gives the residual stream before layer 0."""
        words, module = Family.embedding(self, bridge, config), bridge.pos_embed.original_component
        positions = module.weight.detach()[module.offset :]
        return lambda ids: words(ids) + positions[: len(ids)]


FAMILY = OPT()
