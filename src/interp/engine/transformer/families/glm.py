"""GLM 4 and ERNIE 4.5: Llama whose neighbouring dims turn together; GLM 4's newer ones have norms after each half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.engine.transformer.families._family import Family, turns
from interp.engine.transformer.parts import Rotation


class GLM(Family):
    """GLM Team (2024), "ChatGLM: A Family of Large Language Models"; Baidu (2025), "ERNIE 4.5 Technical Report"."""

    names = ("glm", "glm4", "ernie4_5")

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]]:
        """Return the function of a length that gives each layer's turns: the tables' first half, each angle twice."""
        module, layers = bridge.rotary_emb.original_component, len(bridge.blocks)

        def tables(length: int) -> list[Rotation | None]:
            table = turns(bridge, module, length)
            cos, sin = (part[:, : part.shape[-1] // 2].repeat_interleave(2, -1) for part in (table.cos, table.sin))
            return [Rotation(cos, sin, pairs=True)] * layers

        return tables


FAMILY = GLM()
