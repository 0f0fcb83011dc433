"""BLOOM, Falcon with ALiBi and MPT: scores fall with distance, and nothing is turned or added for positions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.engine.transformer.families._family import Family
from interp.engine.transformer.parts import Embedding


def alibi(heads: int) -> list[float]:
    """Return each head's slope: a falling geometric series, and what lies between for what is no power of two.

    Press et al. (2021), "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation".

    Examples
    --------
    >>> alibi(2), alibi(3)
    ([0.0625, 0.00390625], [0.0625, 0.00390625, 0.25])
    """
    whole = 2 ** math.floor(math.log2(heads))
    first = 2 ** (-8 / whole)
    own = [first ** (n + 1) for n in range(whole)]
    return own + alibi(2 * whole)[::2][: heads - whole] if heads > whole else own


class Bloom(Family):
    """BigScience (2022), "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model"."""

    names = ("bloom",)

    def differs(self, config: Any) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does."""
        return "its residual stream is the normed one" if config.apply_residual_connection_post_layernorm else ""

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return float(attention.inv_norm_factor)

    def slopes(self, config: Any) -> Tensor | None:
        """Return what is added to a score for each token of distance, ``[head]``."""
        return torch.tensor(alibi(config.n_head))

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        words = super().embedding(bridge, config)
        return replace(words, norm=self.norm(bridge.embed_ln, words.weight))

    def rotary(self, bridge: Any) -> None:
        """Return ``None``."""


FAMILY = Bloom()
