"""A linear layer's product, by whichever of torch's two libraries is faster on this processor.

torch hands float32 products on the CPU to MKL, which keeps its AVX-512 kernels from processors that are not Intel's.
oneDNN, which torch ships too and its compiler uses, has them for every processor that can run them, is two to three
times as fast on those, and applies an activation function while the product is in cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
        and x.numel() > x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
    )
