"""Mistral: Llama with attention that slides over a window."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import Family


class Mistral(Family):
    """Jiang et al. (2023), "Mistral 7B"."""

    names = ("mistral",)

    def window(self, config: Any) -> int | None:
        """Return over how many tokens attention slides."""
        return config.sliding_window


FAMILY = Mistral()
