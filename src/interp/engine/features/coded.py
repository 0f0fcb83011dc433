"""A plain run's features, kept as what they are: sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import flat

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_PARTS = ("starts", "features", "values", "unit")


@dataclass(frozen=True, eq=False)
class Coded:
    """Features of a run.

    Attributes
    ----------
    codes
        Their activations, a row for each position.
    unit
        ``[position, 1]`` or ``[1, 1]``: what one unit that their dictionary writes is in the activation.
    """

    codes: Codes
    unit: Tensor


def coded(model: LoadedModel, ids: Sequence[int], one: Dictionary) -> Coded:
    """Return a dictionary's features in a plain run of `ids`, from the store where it has them."""
    names = [("features", one.digest, part) for part in _PARTS]
    held = model.recall(ids, names)
    if held is None:
        hook = one.reads.hook(model)
        x = flat(one.reads, model.activations_of(ids, [hook])[hook])[0]
        codes, unit = one.encode(x), one.taken.factor(x.to(one.encoder.dtype))
        parts = (codes.starts, codes.features, codes.values, torch.as_tensor(unit).to(codes.values).view(-1, 1))
        held = dict(zip(names, parts, strict=True))
        model.keep(ids, held)
    starts, features, values, unit = (held[name] for name in names)
    return Coded(Codes(starts, features, values, one.width), unit)
