"""Attention followed through all layers."""

from __future__ import annotations

import torch
from torch import Tensor


def rollout(patterns: list[Tensor]) -> Tensor:
    """Return what each query reads of each token through all layers, ``float64 [query, token]``; rows sum to 1.

    Parameters
    ----------
    patterns
        One ``[head, query, key]`` for each layer, from the first on.

    Notes
    -----
    Abnar and Zuidema (2020), "Quantifying Attention Flow in Transformers": the heads' mean, half of it the residual
    stream's identity, multiplied from layer to layer.

    Examples
    --------
    >>> rollout([torch.eye(2)[None]]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    length = patterns[0].shape[-1]
    seen = torch.eye(length, dtype=torch.float64)
    for pattern in patterns:
        mean = pattern.double().mean(0).cpu()
        seen = (mean + torch.eye(length, dtype=torch.float64)) / 2 @ seen
    return seen
