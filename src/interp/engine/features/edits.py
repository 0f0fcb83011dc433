"""Features changed in a run, as functions on hooks: what a dictionary writes is changed by what its features are.

Where a run's features become others, a' instead of a, what their dictionary writes at its place changes by
(a' − a) · decoder, and nothing else does: what the dictionary does not explain (its error) stays. A position where no
feature changes keeps its activation bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import Place, flat
from interp.engine.model.hooks import Hook
from interp.engine.model.interventions import require_read, written
from interp.errors import InputError
from interp.sites import MLP_INPUTS, SITES, Site
from interp.spec import Intervention

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network

# (activations of the run as it is, ``[prompt · position]`` rows; prompts; positions) → by how much each becomes more.
Change = Callable[[Codes, int, int], Codes]


def sites_of(one: Dictionary) -> list[Site]:
    """Return where a dictionary writes, as sites.

    Raises
    ------
    InputError
        It writes where no part of a model does: what an MLP reads.
    """
    own = next((place for place in one.writes if place.point not in SITES), None)
    if own is not None:
        raise InputError(
            f"features of {own.name} can be looked at but not changed: nothing in the model writes there; use a "
            "dictionary of the stream (resid_mid) or a transcoder"
        )
    return [Site(place.point, place.layer) for place in one.writes]


class Edited:
    """A dictionary's features being changed in a run of any number of prompts; first what it reads is looked at.

    Parameters
    ----------
    change
        By how much.
    """

    def __init__(self, one: Dictionary, change: Change) -> None:
        self.one = one
        self.in_place = one.reads in one.writes
        self._change = change
        self._found: tuple[Codes, Tensor | float] | None = None  # what the run of this moment changes, and its unit

    def look(self, x: Tensor) -> None:
        """Take in what the dictionary reads, ``[prompt, position, d_in]``."""
        rows = x.flatten(0, -2)
        self._found = self._change(self.one.encode(rows), *x.shape[:2]), self.one.taken.factor(rows)

    def add(self, tensor: Tensor, to: int) -> Tensor:
        """Return the activation at the `to`-th place that the dictionary writes, ``[prompt, position, …]``."""
        place = self.one.writes[to]
        if place == self.one.reads:
            self.look(flat(place, tensor))
        assert self._found is not None
        changes, unit = self._found
        rows = changes.counts.nonzero()[:, 0]
        if not len(rows):
            return tensor
        more = self.one.written(changes, to) * unit
        out = tensor.clone(memory_format=torch.contiguous_format)
        flat(place, out).flatten(0, 1)[rows] += more[rows].to(out)
        return out


def hooks_of(model: LoadedModel, one: Dictionary, change: Change) -> list[tuple[str, Hook]]:
    """Return hook names and functions that change a dictionary's features in a run of any number of prompts.

    Raises
    ------
    InputError
        The model's forward goes past a place that is written to, or nothing is written there.
    """
    places, edited = sites_of(one), Edited(one, change)
    require_read(model, places)

    def look(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
        edited.look(flat(one.reads, tensor))

    def adding(to: int) -> Hook:
        return lambda tensor, hook: edited.add(tensor, to)  # noqa: ARG005

    hooks: list[tuple[str, Hook]] = [] if edited.in_place else [(one.reads.hook(model), look)]
    for to, site in enumerate(places):
        hooks += written(site, adding(to))
    return hooks


def without_hooks(
    network: Network, one: Dictionary, change: Change
) -> dict[tuple[str, int], Callable[[Tensor], Tensor]]:
    """Return the same for `transformer.forward`: (site, layer) → what the activation there becomes."""
    edited = Edited(one, change)

    def look(tensor: Tensor) -> Tensor:
        edited.look(shown(network, one.reads, tensor))
        return tensor

    def adding(to: int) -> Callable[[Tensor], Tensor]:
        return lambda tensor: edited.add(tensor, to)

    read = "mlp_in" if one.reads.point in MLP_INPUTS else one.reads.point
    found: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {}
    if not edited.in_place:
        found[read, one.layer] = look
    return found | {(site.name, site.layer): adding(to) for to, site in enumerate(sites_of(one))}


def shown(network: Network, place: Place, tensor: Tensor) -> Tensor:
    """Return what a dictionary reads at a place, ``[…, d_in]``; of what an MLP reads, `tensor` is the stream."""
    if place.point not in MLP_INPUTS:
        return flat(place, tensor)
    norm = network.layers[place.layer].norm2
    if place.point == "mlp_normed":
        return norm(tensor)
    if place.point == "mlp_in":
        return tensor
    centred = tensor if norm.rms else tensor - tensor.mean(-1, keepdim=True)
    return centred / norm.size(tensor)[..., None]


def intervened(interventions: Sequence[Intervention], within: slice = slice(None)) -> Change:
    """Return what interventions on one dictionary's features change, in their order.

    Parameters
    ----------
    within
        The positions at which those apply that name none.
    """

    def change(codes: Codes, prompts: int, positions: int) -> Codes:
        after = codes
        for one in interventions:
            after = _changed(after, one, prompts, positions, within)
        return after.minus(codes)

    return change


def _changed(codes: Codes, one: Intervention, prompts: int, positions: int, within: slice) -> Codes:
    there = torch.zeros(prompts, positions, dtype=torch.bool, device=codes.values.device)
    there[:, within if one.position is None else one.position] = True
    value = _fitting(0.0 if one.mode == "zero" else one.value, there, one, codes.values).flatten()
    there = there.flatten()
    if one.feature is None:  # scaled, or by 0
        rows = codes.rows
        values = torch.where(there[rows], codes.values * value[rows], codes.values)
        return codes.with_values(values).where(values != 0)
    column = codes.column(one.feature)
    becomes = {"add": column + value, "scale": column * value}.get(one.mode, value)
    return codes.with_column(one.feature, torch.where(there, becomes, column))


def _fitting(value: Any, there: Tensor, one: Intervention, like: Tensor) -> Tensor:
    """Return a value for each prompt and position; one number, or one for each position that is changed."""
    given = torch.as_tensor(value).to(like)
    wanted = (len(there), 1 if one.position is not None else there.shape[1])
    try:
        return given.expand(wanted).expand(there.shape)
    except RuntimeError:
        what = f"feature {one.feature} of layer {one.site.layer}" if one.feature is not None else "features"
        raise InputError(
            f"a value of shape {tuple(given.shape)} does not fit {what}: give a number, or {wanted[1]} of them"
        ) from None
