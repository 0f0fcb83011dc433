"""Interchanges by the model's own forward, with functions on its hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.features.coded import coded
from interp.engine.features.codes import Codes
from interp.engine.features.edits import Change as Edit
from interp.engine.features.edits import hooks_of
from interp.engine.interchange.changes import Change, Row
from interp.engine.interchange.places import Place, Swap, dictionary_of, index
from interp.engine.model.interventions import composed, written
from interp.sites import FEATURES

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel


def functions_of(
    model: LoadedModel,
    places: Sequence[Place],
    swaps: Sequence[Swap],
    sources: Sequence[Sequence[Tensor]],
    change: Change,
) -> dict[str, Hook]:
    """Return hook name → function, for one batch of swaps, a row each; see `places.sources_of` for `sources`."""
    found: dict[str, list[Hook]] = {}
    vectors = [number for number, place in enumerate(places) if place.site.kind is not FEATURES]
    # What is written through another site is written after any other change of that.
    for number in sorted(vectors, key=lambda number: bool(places[number].site.kind.through)):
        own = _writing(places[number], number, swaps, [given[number] for given in sources], change)
        for name, function in written(places[number].site, own):
            found.setdefault(name, []).append(function)
    # Features are read of an activation as all others have left it; those of one dictionary together.
    together: dict[str, list[int]] = {}
    for number in set(range(len(places))) - set(vectors):
        together.setdefault(dictionary_of(model, places[number]).digest, []).append(number)
    for numbers in together.values():
        one = dictionary_of(model, places[numbers[0]])
        given = [coded(model, swap.source, [one])[0].codes for swap in swaps]
        edit = _exchanging([(number, places[number].features) for number in numbers], swaps, given, change)
        for name, function in hooks_of(model, one, edit):
            found.setdefault(name, []).append(function)
    return {name: composed(functions) for name, functions in found.items()}


def _writing(place: Place, number: int, swaps: Sequence[Swap], given: Sequence[Tensor], change: Change) -> Hook:
    rows = [
        (row, Row(number, swap.base, swap.source, position))
        for row, swap in enumerate(swaps)
        for position in swap.at[number]
    ]

    def write(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
        if not rows:
            return tensor
        batch = torch.tensor([row for row, _ in rows], device=tensor.device)
        at = torch.tensor([of.position for _, of in rows], device=tensor.device)
        where = index(place, batch, at)
        here = tensor[where]
        base = here.flatten(1)
        changed = tensor.clone()
        new = change(base, torch.cat(list(given)).to(base), [of for _, of in rows])
        changed[where] = new.view(here.shape).to(tensor)
        return changed

    return write


def _exchanging(
    chosen: Sequence[tuple[int, tuple[int, ...]]], swaps: Sequence[Swap], given: Sequence[Codes], change: Change
) -> Edit:
    """Return what gives each row of a batch its source's features at the places' positions."""

    def edit(now: Codes, prompts: int, positions: int) -> Codes:
        parts: list[Codes] = []
        for row in range(prompts):
            own, source, swap = now.cut(row * positions, (row + 1) * positions), given[row], swaps[row]
            pieces: list[tuple[int, Tensor, Tensor]] = []  # position, features, by how much each becomes more
            for number, features in chosen:
                for at, taken in zip(swap.at[number], swap.taken[number], strict=True):
                    mine, other = own.cut(at, at + 1), source.cut(taken, taken + 1)
                    active = sorted({*mine.features.tolist(), *other.features.tolist()})
                    wanted = change.features(features, active, Row(number, swap.base, swap.source, at))
                    if features:
                        mine, other = _only(mine, wanted), _only(other, wanted)
                    more = other.minus(mine)
                    pieces.append((at, more.features, more.values))
            like = own.features
            parts.append(
                Codes.entries(
                    torch.cat([like.new_zeros(0), *(like.new_full((len(f),), at) for at, f, _ in pieces)]),
                    torch.cat([like.new_zeros(0), *(f for _, f, _ in pieces)]),
                    torch.cat([own.values.new_zeros(0), *(v for _, _, v in pieces)]),
                    positions,
                    now.width,
                )
            )
        return Codes.stacked(parts)

    return edit


def _only(codes: Codes, features: Sequence[int]) -> Codes:
    """Return the entries of some features."""
    wanted = torch.tensor(sorted(features), dtype=torch.long, device=codes.features.device)
    return codes.where(torch.isin(codes.features, wanted))
