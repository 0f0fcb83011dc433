"""Interchanges by plain functions over the weights, from the first layer that is changed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.features.edits import without_hooks
from interp.engine.interchange.changes import Change
from interp.engine.interchange.hooked import Sources, features_of, writing
from interp.engine.interchange.places import Place, Swap, dictionary_of
from interp.engine.metrics import upcast
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.network import Network
from interp.sites import FEATURES

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def read(model: LoadedModel, places: Sequence[Place]) -> Network:
    """Return the model as plain functions that know all of the places.

    Raises
    ------
    Unreadable
        They do not know one, or the model.
    """
    vectors = {place.site.name for place in places if place.site.kind is not FEATURES}
    exactness.require_known(*vectors)
    net = network.read(model, encoders={"resid_pre", *vectors})
    normed = any(layer.after_norm is not None for layer in net.stored)
    if normed and any(len(dictionary_of(model, p).writes) > 1 for p in places if p.site.kind is FEATURES):
        exactness.require_known(FEATURES.name)
    return net


def ends(
    model: LoadedModel,
    net: Network,
    places: Sequence[Place],
    swaps: Sequence[Swap],
    sources: Sources,
    start: tuple[int, Tensor],
    classes: Sequence[int],
    change: Change,
) -> Tensor:
    """Return the same as `hooked.ends`, with gradients with respect to what `change` computes with.

    Parameters
    ----------
    start
        The first layer that is changed, and the base runs' stream before it, ``[swap, position, d_model]``.
    """
    found: dict[str, dict[int, list[Callable[[Tensor], Tensor]]]] = {}

    def add(site: str, layer: int, function: Callable[[Tensor], Tensor]) -> None:
        found.setdefault(site, {}).setdefault(layer, []).append(function)

    for number, place in enumerate(places):
        if place.site.kind is not FEATURES:
            add(place.site.name, place.site.layer, writing(place, number, swaps, sources, change))
    for one, edit in features_of(model, places, swaps, change):
        for (site, layer), function in without_hooks(net, one, edit).items():
            add(site, layer, function)
    edits = {site: _edit(of_layers) for site, of_layers in found.items()}
    first, resid = start
    end = forward(net, edits=edits, resid=resid, first=first)
    at = torch.tensor([swap.position for swap in swaps], device=end.device)
    rows = end[torch.arange(len(swaps), device=end.device), at]
    return upcast(net.unembed(net.ending(rows))[:, list(classes)])


def _edit(of_layers: dict[int, list[Callable[[Tensor], Tensor]]]) -> Edit:
    def edit(layer: int, tensor: Tensor) -> Tensor:
        for function in of_layers.get(layer, ()):
            tensor = function(tensor)
        return tensor

    return edit
