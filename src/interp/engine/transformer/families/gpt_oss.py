"""gpt-oss: experts, windows in every other layer, and a sink in every head's softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.engine.transformer.families._family import Family, turns
from interp.engine.transformer.parts import Norm, Rotation


class GptOss(Family):
    """OpenAI (2025), "gpt-oss-120b & gpt-oss-20b Model Card"; Xiao et al. (2023), "Attention Sinks"."""

    names = ("gpt_oss",)

    def norm(self, component: Any, like: Tensor) -> Norm:
        """Return a norm."""
        return replace(super().norm(component, like), wide=True)

    def sinks(self, attention: Any) -> Tensor | None:
        """Return a score for each head that takes attention and gives nothing."""
        return attention.sinks.detach()

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]]:
        """Return the function of a length that gives each layer's turns: its tables hold one half of the dims."""
        module, layers = bridge.rotary_emb.original_component, len(bridge.blocks)

        def tables(length: int) -> list[Rotation | None]:
            half = turns(bridge, module, length)
            return [Rotation(torch.cat([half.cos] * 2, -1), torch.cat([half.sin] * 2, -1))] * layers

        return tables


FAMILY = GptOss()
