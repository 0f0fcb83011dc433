"""GPT-Neo: GPT-2 whose scores are not scaled, and whose layers look at all tokens and at a window in turns."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import LearnedPositions


class GPTNeo(LearnedPositions):
    """Black et al. (2021), "GPT-Neo: Large Scale Autoregressive Language Modeling with Mesh-Tensorflow"."""

    names = ("gpt_neo",)

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return 1.0

    def window(self, attention: Any, config: Any, index: int) -> int | None:
        """Return how many tokens back the attention of layer `index` reaches; ``None``: all."""
        return config.window_size if attention.attention_type == "local" else None


FAMILY = GPTNeo()
