"""Linear layers, by whichever of torch's two libraries is faster on this processor.

torch hands float32 products on the CPU to MKL, which keeps its AVX-512 kernels from processors that are not Intel's.
oneDNN, which torch ships too and its compiler uses, has them for every processor that can run them, is two to three
times as fast on those, and applies an activation function while the product is in cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GPT-2's GELU, in one pass."""
    return functional.gelu(x, approximate="tanh")


# Activation → its name and algorithm in oneDNN.
_FUSED: dict[Activation, tuple[str, str]] = {
    gelu_tanh: ("gelu", "tanh"),
    functional.gelu: ("gelu", "none"),
    functional.silu: ("swish", ""),
}
# oneDNN, and torch's door to it, keep what they make for each number of rows: a thousand unless told, which is a
# gigabyte with texts of all lengths, and fewer are no slower. Both ask when they are first used.
for _cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "64")
_onednn: Any = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    else None
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: Activation | None = None) -> Tensor:
    """Return ``then(x @ weight.T + bias)``.

    Parameters
    ----------
    x
        ``[…, in]``.
    weight, bias
        ``[out, in]`` and ``[out]``.
    then
        An activation function.

    Examples
    --------
    >>> linear(torch.ones(2, 3), torch.ones(4, 3), None).shape
    torch.Size([2, 4])
    """
    if _suits(x) and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        name, algorithm = ("none", "") if then is None else _FUSED.get(then, ("none", ""))
        out = _onednn(x, _dense(weight), bias, name, [], algorithm)
        return out if then is None or name != "none" else then(out)
    out = functional.linear(x, weight, bias)
    return out if then is None else then(out)


def _dense(weight: Tensor) -> Tensor:
    """Return a weight without gaps, in the order that it has: oneDNN has no fast kernel for a part of a wider one."""
    return weight.contiguous() if weight.stride(-1) == 1 else weight.T.contiguous().T


def _suits(x: Tensor) -> bool:
    """Whether oneDNN is the faster one, and does what torch would do; a single row is read faster by MKL."""
    return (
        _onednn is not None
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > x.shape[-1] > 0
        and not torch.is_autocast_enabled("cpu")
    )


@dataclass
class Pack:
    """Rows of the residual stream, or of what is made of each of them alone, of which only some are differentiated.

    Attributes
    ----------
    frozen
        ``[row, …]``: those that are not.
    graded
        ``[row, …]``: those that are.
    """

    frozen: Tensor
    graded: Tensor

    def each(self, function: Callable[[Tensor], Tensor]) -> Pack:
        """Return `function` of the frozen rows and of the graded rows."""
        return Pack(function(self.frozen), function(self.graded))

    def split(self, sizes: list[int], dim: int) -> list[Pack]:
        """Return the rows cut along an axis, as a tensor is."""
        both = zip(self.frozen.split(sizes, dim), self.graded.split(sizes, dim), strict=True)
        return [Pack(frozen, graded) for frozen, graded in both]

    def __add__(self, other: Pack) -> Pack:
        return Pack(self.frozen + other.frozen, self.graded + other.graded)

    def __mul__(self, other: Pack) -> Pack:
        return Pack(self.frozen * other.frozen, self.graded * other.graded)


class _Product(torch.autograd.Function):
    """One product for all rows of a `Pack`, and its gradient for the graded ones alone."""

    @staticmethod
    def forward(ctx: Any, frozen: Tensor, graded: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:  # pyright: ignore
        ctx.save_for_backward(weight)
        parts = linear(torch.cat([frozen, graded]), weight, bias).split([len(frozen), len(graded)])
        ctx.mark_non_differentiable(parts[0])
        return parts[0], parts[1]

    @staticmethod
    def backward(ctx: Any, _: Tensor, gradient: Tensor) -> tuple[None, Tensor, None, None]:  # pyright: ignore
        (weight,) = ctx.saved_tensors
        return None, linear(gradient, weight.T, None), None, None


X = TypeVar("X", Tensor, Pack)  # what the arithmetic of single rows takes and gives


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; `weight` is ``[out, in]``."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: X, then: Activation | None = None) -> X:
        if isinstance(x, Pack):
            out = Pack(*_Product.apply(x.frozen, x.graded, self.weight, self.bias))  # pyright: ignore
            return out if then is None else out.each(then)
        return linear(x, self.weight, self.bias, then)
