"""StableLM: Llama with LayerNorm and a part of each head turned."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import Family


class StableLM(Family):
    """Bellagente et al. (2024), "Stable LM 2 1.6B Technical Report"."""

    names = ("stablelm",)

    def unlike(self, config: Any) -> str:
        """Return which setting makes a model's weights other than `Block`'s; an empty string where none does."""
        return "each head's queries and keys have a norm of its own" if config.qk_layernorm else ""

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return bool(config.use_parallel_residual)


FAMILY = StableLM()
