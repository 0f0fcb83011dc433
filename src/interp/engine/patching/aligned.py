"""A source run aligned to the base run: its activations at as many positions as the base has, whatever its own length.

`Case.aligned` says which positions of the base are given what; the others keep the base's own. Whatever stands in for
the base where runs have two lengths is made here: what spans are patched with, what gradients are multiplied with, and
what an ablated edge carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.engine.patching.cases import Aligned, Case


def put(own: Tensor, given: Tensor, aligned: Aligned) -> Tensor:
    """Return `own`, ``[position, …]``, where positions are given what `given` has at others: the mean of several.

    Examples
    --------
    >>> put(torch.zeros(3), torch.tensor([1.0, 3.0]), ((1, (0, 1)), (2, (1,)))).tolist()
    [0.0, 2.0, 3.0]
    """
    out = own.clone()
    single = [(at, taken[0]) for at, taken in aligned if len(taken) == 1]
    if single:
        at, taken = (list(places) for places in zip(*single, strict=True))
        out[at] = given[taken]
    for taken in dict.fromkeys(taken for _, taken in aligned if len(taken) > 1):
        out[[at for at, of in aligned if of == taken]] = given[list(taken)].mean(0)
    return out


def aligned_to(own: Tensor, given: Tensor, cases: Sequence[Case]) -> Tensor:
    """Return the source runs' activations aligned to the base runs'.

    Parameters
    ----------
    own, given
        The base runs', ``[case, position, …]``, and the source runs', ``[case, source position, …]``.
    """
    runs = zip(own, given, cases, strict=True)
    return torch.stack([put(mine, theirs, case.aligned or ()) for mine, theirs, case in runs])


def given_at(cases: Sequence[Case], device: torch.device) -> Tensor:
    """Return which positions of the base runs are given anything, ``bool [case, position]``."""
    found = torch.zeros(len(cases), len(cases[0].base), dtype=torch.bool)
    for row, case in enumerate(cases):
        found[row, [at for at, _ in case.aligned or ()]] = True
    return found.to(device)
