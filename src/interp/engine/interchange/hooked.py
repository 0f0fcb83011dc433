"""Interchanges by the model's own forward, with functions on its hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.features.coded import coded
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import Change as Edit
from interp.engine.features.edits import hooks_of
from interp.engine.interchange.changes import Change, Row
from interp.engine.interchange.places import Place, Swap, dictionary_of, index
from interp.engine.metrics import upcast
from interp.engine.model.interventions import composed, written
from interp.sites import FEATURES

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel

Sources = Sequence[Sequence[Tensor]]  # of each swap, for each place: see `places.runs_of`


def ends(
    model: LoadedModel,
    places: Sequence[Place],
    swaps: Sequence[Swap],
    sources: Sources,
    classes: Sequence[int],
    change: Change,
    *,
    gradients: bool = False,
) -> Tensor:
    """Return the logits of `classes` where each of some swaps of one length is read, ``[swap, class]``."""
    found: dict[str, list[Hook]] = {}
    vectors = [number for number, place in enumerate(places) if place.site.kind is not FEATURES]
    # What is written through another site is written after any other change of that.
    for number in sorted(vectors, key=lambda number: bool(places[number].site.kind.through)):
        own = on_hook(writing(places[number], number, swaps, sources, change))
        for name, function in written(places[number].site, own):
            found.setdefault(name, []).append(function)
    # Features are read of an activation as all others have left it.
    for one, edit in features_of(model, places, swaps, change):
        for name, function in hooks_of(model, one, edit):
            found.setdefault(name, []).append(function)
    functions = {name: composed(some) for name, some in found.items()}
    last = all(swap.position == len(swap.base) - 1 for swap in swaps)
    logits = model.forward([swap.base for swap in swaps], functions, last_only=last, gradients=gradients)
    if last:
        rows = logits[:, -1]
    else:
        at = torch.tensor([swap.position for swap in swaps], device=logits.device)
        rows = logits[torch.arange(len(swaps), device=logits.device), at]
    return upcast(rows[:, list(classes)])


def on_hook(function: Callable[[Tensor], Tensor]) -> Hook:
    """Return a function of an activation as one on a hook."""

    def run(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
        return function(tensor)

    return run


def writing(
    place: Place, number: int, swaps: Sequence[Swap], sources: Sources, change: Change
) -> Callable[[Tensor], Tensor]:
    """Return what makes a batch's activation, a row for each swap, that of its interchange at the `number`-th place."""
    every = [(row, position) for row, swap in enumerate(swaps) for position in swap.at[number]]
    rows = [Row(number, swaps[row].base, swaps[row].source, position) for row, position in every]

    def write(tensor: Tensor) -> Tensor:
        where = index(place, *torch.tensor(every, device=tensor.device).T)
        here = tensor[where]
        given = torch.cat([own[number] for own in sources]).to(here)
        changed = tensor.clone()
        changed[where] = change(here.flatten(1), given, rows).view(here.shape).to(tensor)
        return changed

    return write


def features_of(
    model: LoadedModel, places: Sequence[Place], swaps: Sequence[Swap], change: Change
) -> list[tuple[Dictionary, Edit]]:
    """Return each dictionary of which features are interchanged, once, and what its features become in a batch."""
    together: dict[str, list[int]] = {}
    for number, place in enumerate(places):
        if place.site.kind is FEATURES:
            together.setdefault(dictionary_of(model, place).digest, []).append(number)
    found: list[tuple[Dictionary, Edit]] = []
    for numbers in together.values():
        one = dictionary_of(model, places[numbers[0]])
        given = [coded(model, swap.source, [one])[0].codes for swap in swaps]
        found.append((one, _exchanging([(n, places[n].features) for n in numbers], swaps, given, change)))
    return found


def _exchanging(
    chosen: Sequence[tuple[int, tuple[int, ...]]], swaps: Sequence[Swap], given: Sequence[Codes], change: Change
) -> Edit:
    """Return what gives each row of a batch its source's features at the places' positions."""

    def edit(now: Codes, prompts: int, positions: int) -> Codes:
        rows: list[Tensor] = []
        parts: list[Codes] = []
        for row in range(prompts):
            source, swap = given[row], swaps[row]
            for number, features in chosen:
                for at, taken in zip(swap.at[number], swap.taken[number], strict=True):
                    place = row * positions + at
                    mine, other = now.cut(place, place + 1), source.cut(taken, taken + 1)
                    active = {*mine.features.tolist(), *other.features.tolist()}
                    wanted = change.features(features, sorted(active), Row(number, swap.base, swap.source, at))
                    if features:
                        mine, other = _only(mine, wanted), _only(other, wanted)
                    parts.append(other.minus(mine))
                    rows.append(torch.full_like(parts[-1].features, place))
        features, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("features", "values"))
        return Codes.entries(torch.cat(rows), features, values, len(now), now.width)

    return edit


def _only(codes: Codes, features: Sequence[int]) -> Codes:
    """Return the entries of some features."""
    wanted = torch.tensor(sorted(features), dtype=torch.long, device=codes.features.device)
    return codes.where(torch.isin(codes.features, wanted))
