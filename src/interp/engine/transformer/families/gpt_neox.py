"""GPT-NeoX and Pythia: attention and MLP side by side, unless they are set one after the other."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import Family


class GPTNeoX(Family):
    """Black et al. (2022), "GPT-NeoX-20B: An Open-Source Autoregressive Language Model"."""

    names = ("gpt_neox",)

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return bool(config.use_parallel_residual)


FAMILY = GPTNeoX()
