"""Mistral, Mixtral and what is built like them: Llama with attention that slides over a window."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import Family


class Mistral(Family):
    """Jiang et al. (2023), "Mistral 7B"; Jiang et al. (2024), "Mixtral of Experts"."""

    names = ("mistral", "mixtral", "starcoder2", "phi3")

    def window(self, attention: Any, config: Any, index: int) -> int | None:
        """Return how many tokens back the attention of layer `index` reaches; ``None``: all."""
        return config.sliding_window


FAMILY = Mistral()
