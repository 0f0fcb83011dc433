"""Cohere's Command models: both halves of a block read one norm, neighbouring dims turn together, logits are scaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from interp.engine.transformer.families._family import Family, linear_of, turns
from interp.engine.transformer.parts import Norm, Rotation, Unembed


class Cohere(Family):
    """Cohere (2024), Command R; Cohere (2024), Command R7B, whose layers without a window turn nothing."""

    names = ("cohere", "cohere2")

    def unlike(self, config: Any) -> str:
        """Return which setting makes a model's weights other than `Block`'s; an empty string where none does."""
        return "each head's queries and keys have a norm with a gain of its own" if _normed(config) else ""

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return True

    def norm(self, component: Any, like: Tensor) -> Norm:
        """Return a norm: a LayerNorm, of a class of their own."""
        module = component.original_component
        return Norm(module.weight.detach(), None, eps=float(module.variance_epsilon), rms=False, wide=True)

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]]:
        """Return the function of a length that gives each layer's turns."""
        module = bridge.rotary_emb.original_component
        turned = [_turned(block.attn.original_component) for block in bridge.blocks]

        def tables(length: int) -> list[Rotation | None]:
            table = replace(turns(bridge, module, length), pairs=True)
            return [table if one else None for one in turned]

        return tables

    def unembed(self, bridge: Any, config: Any) -> Unembed:
        """Return what makes logits of the normed stream."""
        return Unembed(linear_of(bridge.unembed), scale=float(config.logit_scale))


def _normed(config: Any) -> bool:
    return bool(getattr(config, "use_qk_norm", False))


def _turned(attention: Any) -> bool:
    """Whether a layer has positions: of Command R7B's those with a window alone."""
    return not hasattr(attention, "sliding_window") or attention.sliding_window is not None


FAMILY = Cohere()
