"""Encoders: attention looks both ways, the stream is normed after each half block, and a head reads words off it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.engine.transformer.block import Block
from interp.engine.transformer.families._family import LearnedPositions, linear_of, plain
from interp.engine.transformer.parts import Embedding, Transform


class Encoder(LearnedPositions):
    """A masked language model built as BERT is."""

    normed = frozenset({"attn_out", "resid_mid"})

    def unlike(self, config: Any) -> str:
        """Return which setting makes a model's weights other than `Block`'s; an empty string where none does."""
        if getattr(config, "add_cross_attention", False):
            return "its layers attend to another model's"
        return "its attention looks back alone, as a decoder's" if getattr(config, "is_decoder", False) else ""

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return d_head**-0.5

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        words, types = super().embedding(bridge, config), getattr(bridge, "token_type_embed", None)
        return replace(
            words,
            types=None if types is None else types.original_component.weight.detach(),
            after=self.norm(bridge.embed_ln, words.weight),
        )

    def act(self, model: Any) -> Any:
        """Return the activation function of the prediction head of a model of Hugging Face's."""
        raise NotImplementedError

    def head(self, bridge: Any, config: Any) -> Transform:
        """Return what is done to the stream before its final norm."""
        return Transform(linear_of(bridge.mlm_head), plain(self.act(bridge.original_model)))

    def block(self, block: Any, index: int, d_head: int, config: Any) -> Block:
        """Return the weights of a bridge's block, number `index`: its norms stand after the sums."""
        found = super().block(block, index, d_head, config)
        none = self.norm_of(block, "", found.q.weight)
        return replace(found, norm1=none, norm2=none, middle_norm=found.norm1, after_norm=found.norm2, both_ways=True)
