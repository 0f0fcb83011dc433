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


def coded(model: LoadedModel, ids: Sequence[int], dictionaries: Sequence[Dictionary]) -> list[Coded]:
    """Return dictionaries' features in a plain run of `ids`, from the store where it has them; it is run once."""
    names = [[("features", one.digest, part) for part in _PARTS] for one in dictionaries]
    found = [model.recall(ids, own) for own in names]
    missing = [one.reads.hook(model) for one, held in zip(dictionaries, found, strict=True) if held is None]
    values = model.activations_of(ids, list(dict.fromkeys(missing))) if missing else {}
    answer: list[Coded] = []
    for one, own, held in zip(dictionaries, names, found, strict=True):
        if held is None:
            x = flat(one.reads, values[one.reads.hook(model)])[0]
            codes, unit = one.encode(x), one.taken.factor(x.to(one.encoder.dtype))
            parts = (codes.starts, codes.features, codes.values, torch.as_tensor(unit).to(codes.values).view(-1, 1))
            held = dict(zip(own, parts, strict=True))
            model.keep(ids, held)
        starts, features, activations, unit = (held[name] for name in own)
        answer.append(Coded(Codes(starts, features, activations, one.width), unit))
    return answer
