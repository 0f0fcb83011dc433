"""Decompositions of finite matrices: LAPACK ends the process where a matrix holds NaN or infinity.

Nothing else in interp calls it (`tests/engine/test_linalg.py`).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputError

Numbers = TypeVar("Numbers", Tensor, NDArray[np.float32], NDArray[np.float64])


def finite(values: Numbers, what: str) -> Numbers:
    """Return `values`, which are called `what`.

    Raises
    ------
    InputError
        They hold NaN or infinity.

    Examples
    --------
    >>> finite(np.array([1.0, 2.0]), "two numbers").sum()
    np.float64(3.0)
    """
    good = values.isfinite().all() if isinstance(values, Tensor) else np.isfinite(values).all()
    if not bool(good):
        raise InputError(f"{what} hold NaN or infinity; look at the model's weights, or load it again in float32")
    return values


def eigenvalues(matrix: Tensor, what: str) -> Tensor:
    """Return the eigenvalues of square matrices ``[…, n, n]``, in float64: ``complex128 [..., n]``."""
    return torch.linalg.eigvals(finite(matrix.double(), what))


def qr(matrix: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Return Q and R, ``[…, m, k]`` and ``[…, k, n]``, of matrices ``[…, m, n]``."""
    q, r = torch.linalg.qr(finite(matrix, what))
    return q, r


def triangle(matrix: Tensor, what: str) -> Tensor:
    """Return the R alone of `qr`."""
    return torch.linalg.qr(finite(matrix, what), mode="r").R


def svd(matrix: Tensor, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, the singular values and Vᵀ, ``[…, m, k]``, ``[…, k]`` and ``[…, k, n]``."""
    u, values, vh = torch.linalg.svd(finite(matrix, what))
    return u, values, vh


def solved(matrix: NDArray[np.float64], values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Return x of ``matrix · x = values``, ``[n, n]`` and ``[n]``."""
    found: NDArray[np.float64] = np.linalg.solve(finite(matrix, what), finite(values, what)).astype(np.float64)
    return found
