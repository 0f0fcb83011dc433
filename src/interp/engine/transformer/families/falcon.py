"""Falcon: attention and MLP side by side behind one norm or two, with rotary positions or ALiBi."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.engine.transformer.families._family import Family
from interp.engine.transformer.families.bloom import alibi
from interp.engine.transformer.parts import Rotation


class Falcon(Family):
    """Almazrouei et al. (2023), "The Falcon Series of Open Language Models"."""

    names = ("falcon",)

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return bool(config.parallel_attn or config.new_decoder_architecture)

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return float(attention.inv_norm_factor)

    def slopes(self, config: Any) -> Tensor | None:
        """Return what is added to a score for each token of distance, ``[head]``: scaled as the scores are."""
        if not config.alibi:
            return None
        scale = (config.hidden_size // config.num_attention_heads) ** -0.5
        return torch.tensor(alibi(config.num_attention_heads)) * scale

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]] | None:
        """Return the function of a length that gives each layer's turns; ``None`` with ALiBi."""
        return super().rotary(bridge) if hasattr(bridge, "rotary_emb") else None


FAMILY = Falcon()
