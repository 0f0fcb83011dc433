"""Llama, and what is built like it (SmolLM2 is one): RMSNorm, rotary positions, gated MLPs, grouped queries."""

from __future__ import annotations

from interp.engine.transformer.families._family import Family


class Llama(Family):
    """Touvron et al. (2023), "LLaMA: Open and Efficient Foundation Language Models"."""

    names = ("llama", "seed_oss", "arcee", "apertus")


FAMILY = Llama()
