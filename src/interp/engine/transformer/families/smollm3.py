"""SmolLM3: Llama with layers in between that know no positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.engine.transformer.families._family import Family, turns
from interp.engine.transformer.parts import Rotation


class SmolLM3(Family):
    """Hugging Face (2025), "SmolLM3: smol, multilingual, long-context reasoner"; Yang et al. (2025), "Rope to Nope"."""

    names = ("smollm3",)

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]]:
        """Return the function of a length that gives each layer's turns."""
        module = bridge.rotary_emb.original_component
        turned = [bool(block.attn.original_component.use_rope) for block in bridge.blocks]

        def tables(length: int) -> list[Rotation | None]:
            table = turns(bridge, module, length)
            return [table if one else None for one in turned]

        return tables


FAMILY = SmolLM3()
