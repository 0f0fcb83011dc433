"""Nemotron: LayerNorm that counts from 1, squared ReLU without a gate, a part of each head turned."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from interp.engine.transformer.families._family import Family
from interp.engine.transformer.parts import HALF, Norm


class Nemotron(Family):
    """Parmar et al. (2024), "Nemotron-4 15B Technical Report"."""

    names = ("nemotron",)

    def norm(self, component: Any, like: Tensor) -> Norm:
        """Return a norm; its weight is what its gain differs from 1 by."""
        module = component.original_component
        weight, bias = module.weight.detach(), module.bias.detach()
        weight, bias = (part.float() if part.dtype in HALF else part for part in (weight, bias))
        return Norm(1.0 + weight, bias, eps=float(module.eps), rms=False, wide=True)


FAMILY = Nemotron()
