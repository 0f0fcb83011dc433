"""Phi 1 and 2: attention and MLP side by side behind one norm, a part of each head turned."""

from __future__ import annotations

from typing import Any

from interp.engine.transformer.families._family import Family


class Phi(Family):
    """Gunasekar et al. (2023), "Textbooks Are All You Need"; Microsoft (2023), Phi-2."""

    names = ("phi",)

    def unlike(self, config: Any) -> str:
        """Return which setting makes a model's weights other than `Block`'s; an empty string where none does."""
        return "queries and keys have norms" if config.qk_layernorm else ""

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return True


FAMILY = Phi()
