"""Qwen 2 and 3: Llama with biases on queries, keys and values (2), or with norms per head (3); experts in the MoEs."""

from __future__ import annotations

from interp.engine.transformer.families._family import Family


class Qwen(Family):
    """Yang et al. (2024), "Qwen2 Technical Report"; Yang et al. (2025), "Qwen3 Technical Report"."""

    names = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")


FAMILY = Qwen()
