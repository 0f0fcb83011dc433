"""The layers that a lens reads, their streams, and the maps that it reads them through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from interp.errors import InputError
from interp.sites import Site
from interp.spec import Indices, resolve_indices

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.translators import Translators

# Where in a layer a stream is read → how many layers are behind it, from which the map's place follows.
_PLACES = {"pre": 0, "post": 1}


def translators(model: LoadedModel, kind: Literal["tuned", "jacobian"], source: str | None) -> Translators:
    from interp.engine.readouts import translators as files

    if source is None:
        made = {
            "tuned": "%%interp lens-train --out lens.safetensors makes one",
            "jacobian": "transformer_lens.tools.analysis.JacobianLens.fit(interp.model.bridge, …).save(FILE) makes one",
        }
        raise InputError(f"the {kind} lens is read from a file: add --from FILE; {made[kind]}")
    return files.load(source, kind, model)


def layers_of(model: LoadedModel, chosen: Indices, at: str, maps: Translators | None) -> tuple[int, ...]:
    """Return the layers to read: those asked for, or all that there are maps for."""
    depth = model.geometry.n_layers
    if f"resid_{at}" not in model.sites:
        raise InputError(f"{model.name} has no resid_mid: its attention and MLP run side by side; use --at pre or post")
    layers = resolve_indices(chosen, depth, "layer")
    if maps is None:
        return layers
    if at not in _PLACES:
        raise InputError("these lenses read the stream between layers; use --at pre or --at post")
    there = [n for n in range(depth) if n + _PLACES[at] in maps.maps or n + _PLACES[at] == depth]
    if chosen is None:
        return tuple(there)
    absent = [n for n in layers if n not in there]
    if absent:
        raise InputError(
            f"this lens has no map for layer {absent[0]} --at {at}; it has layers {', '.join(map(str, there))}"
        )
    return layers


def sites(model: LoadedModel, layers: Sequence[int], at: str) -> list[str]:
    """Return the names of the activations that a lens is read off."""
    each = [Site(f"resid_{at}", layer).hook_name for layer in layers]
    final = Site("resid_post", model.geometry.n_layers - 1).hook_name
    return list(dict.fromkeys([*each, final, "last_logits"]))


def streams(
    model: LoadedModel, held: Mapping[str, Tensor], layers: Sequence[int], at: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``[layer, position, d_model]``, the stream after the last layer, and the last position's logits."""
    import torch

    final = Site("resid_post", model.geometry.n_layers - 1).hook_name
    each = [held[Site(f"resid_{at}", layer).hook_name][0] for layer in layers]
    return torch.stack(each), held[final][0], held["last_logits"][0]


def moved(maps: Translators, layers: Sequence[int], at: str, streams: Tensor) -> Tensor:
    """Return the streams as the maps translate them; the one after the last layer has no map and stays."""
    import torch

    every = zip(layers, streams, strict=True)
    return torch.stack([maps.maps.get(n + _PLACES[at], _same)(rows) for n, rows in every])


def _same(rows: Tensor) -> Tensor:
    return rows
