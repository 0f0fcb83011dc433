"""Features that are taken away: what they become, and what they are elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.features.coded import coded
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import Change
from interp.engine.patching.cases import Ids
from interp.engine.patching.fillings import Capture, Fillings, Part

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def capturing(model: LoadedModel, capture: Capture) -> Capture:
    """Return `capture`, with features' activations taken from what dictionaries read of plain runs."""

    def both(prompts: Sequence[Ids], wanted: Sequence[Part]) -> list[list[Tensor]]:
        others = [part for part in wanted if part.dictionary is None]
        captured = capture(prompts, others) if others else [[]] * len(prompts)
        own = {part.dictionary.digest: part.dictionary for part in wanted if part.dictionary is not None}
        found: list[list[Tensor]] = []
        for ids, held in zip(prompts, captured, strict=True):
            rest = iter(held)
            codes = dict(zip(own, (each.codes for each in coded(model, ids, list(own.values()))), strict=True))
            found.append(
                [
                    next(rest) if (one := part.dictionary) is None else codes[one.digest].column(part.feature)[:, None]
                    for part in wanted
                ]
            )
        return found

    return both


def changes(fillings: Fillings, numbers: Iterable[int], chosen: Sequence[int]) -> list[tuple[Dictionary, Change]]:
    """Return each dictionary of which features are among some parts, and by how much these change in some samples.

    From the bottom up: what features of lower layers write, those above them read.

    Parameters
    ----------
    numbers
        Of the fillings' parts.
    chosen
        The samples of a batch.
    """
    found: dict[str, tuple[Dictionary, list[int]]] = {}
    for n in numbers:
        if (one := fillings.parts[n].dictionary) is not None:
            found.setdefault(one.digest, (one, []))[1].append(n)
    ordered = sorted(found.values(), key=lambda own: (own[0].layer, own[0].reads not in own[0].writes))
    return [(one, _filling(fillings, own, chosen)) for one, own in ordered]


def _filling(fillings: Fillings, numbers: Sequence[int], chosen: Sequence[int]) -> Change:
    def change(codes: Codes, prompts: int, positions: int) -> Codes:
        after = codes
        for n in numbers:
            feature = fillings.parts[n].feature
            now = after.column(feature).view(prompts, positions, 1)
            value = torch.stack([fillings.of(n, sample, positions) for sample in chosen]).to(now)
            if value.dim() == 1:  # zeros
                value = torch.zeros_like(now)
            becomes = fillings.within(now, now + value if fillings.mode == "noise" else value, chosen)
            after = after.with_column(feature, becomes.flatten())
        return after.minus(codes)

    return change
