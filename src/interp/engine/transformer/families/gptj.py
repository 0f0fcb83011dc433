"""GPT-J and CodeGen: attention and MLP side by side behind one norm; neighbouring dims turn together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.engine.transformer.families._family import Family
from interp.engine.transformer.parts import Rotation


class GPTJ(Family):
    """Wang & Komatsuzaki (2021), "GPT-J-6B: A 6 Billion Parameter Autoregressive Language Model"."""

    names = ("gptj", "codegen")

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return True

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return 1 / float(attention.scale_attn)

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]]:
        """Return the function of a length that gives each layer's turns: each keeps its own table, all the same."""
        table, layers = bridge.blocks[0].attn.original_component.embed_positions, len(bridge.blocks)

        def tables(length: int) -> list[Rotation | None]:
            weight = bridge.embed.original_component.weight
            sin, cos = table[:length].to(weight).repeat_interleave(2, -1).chunk(2, -1)
            return [Rotation(cos, sin, pairs=True)] * layers

        return tables


FAMILY = GPTJ()
