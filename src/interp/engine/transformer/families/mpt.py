"""MPT: ALiBi with slopes in an order of its own, LayerNorm without biases."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.engine.transformer.families._family import Family
from interp.engine.transformer.families.bloom import alibi


class MPT(Family):
    """MosaicML (2023), "Introducing MPT-7B: A New Standard for Open-Source, Commercially Usable LLMs"."""

    names = ("mpt",)

    def differs(self, config: Any) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does."""
        return "queries, keys and values are clipped" if config.attn_config.clip_qkv else ""

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return float(attention.softmax_scale)

    def slopes(self, config: Any) -> Tensor | None:
        """Return what is added to a score for each token of distance, ``[head]``."""
        heads = config.n_heads
        more = alibi(1 << (heads - 1).bit_length())
        return torch.tensor(more if len(more) == heads else [*more[1::2], *more[::2]][:heads])

    def rotary(self, bridge: Any) -> None:
        """Return ``None``."""


FAMILY = MPT()
