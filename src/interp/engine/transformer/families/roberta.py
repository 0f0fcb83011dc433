"""RoBERTa: BERT whose positions are counted from the padding token's on, which has one of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers.activations import gelu

from interp.engine.transformer.families.bert import BERT
from interp.engine.transformer.parts import Embedding


class RoBERTa(BERT):
    """Liu et al. (2019), "RoBERTa: A Robustly Optimized BERT Pretraining Approach"."""

    names = ("roberta",)

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        found = super().embedding(bridge, config)
        padding = bridge.pos_embed.original_component.padding_idx
        assert found.positions is not None
        return replace(found, positions=found.positions[padding:], padding=padding)

    def act(self, model: Any) -> Any:
        """Return the activation function of the prediction head: the same whatever the layers' is."""
        return gelu


FAMILY = RoBERTa()
