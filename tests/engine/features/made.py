"""Random dictionaries of every kind, for models of any shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.engine.features.dictionary import Act, Dictionary, Taken
from interp.engine.features.held import FeatureSet, hold
from interp.engine.features.places import Place

WIDTH = 24


def random(layer: int, d_model: int, *, point: str = "mlp_normed", n_layers: int = 0, **more: Any) -> Dictionary:
    """Return a transcoder with random weights; `n_layers` makes it a cross-layer one."""
    chance = torch.Generator().manual_seed(layer)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance) / d_model**0.5

    writes = [Place(later, "mlp_out") for later in range(layer, n_layers or layer + 1)]
    skip = draw(d_model, d_model) if more.pop("skip", False) else None
    taken = more.pop("taken", None)
    act = more.pop("act", None)
    return Dictionary(
        "clt" if n_layers else "transcoder",
        Place(layer, point),
        tuple(writes),
        draw(WIDTH, d_model) * 3,
        draw(WIDTH),
        tuple(draw(WIDTH, d_model) for _ in writes),
        tuple(draw(d_model) for _ in writes),
        act=Act("topk", k=5) if act is None else act(draw),
        taken=Taken() if taken is None else taken(draw, d_model),
        skip=skip,
    )


def gated(draw: Callable[..., Tensor]) -> Act:
    """Return a gated activation."""
    return Act("gated", scale=draw(WIDTH).exp(), magnitude=draw(WIDTH))


def jump(draw: Callable[..., Tensor]) -> Act:
    """Return an activation above thresholds of each feature's own."""
    return Act("jumprelu", threshold=draw(WIDTH).abs())


def offset(draw: Callable[..., Tensor], d_in: int) -> Taken:
    """Return an input that is scaled, and of which something is taken away."""
    return Taken(scale=1.7, offset=draw(d_in))


def relu(draw: Callable[..., Tensor]) -> Act:  # noqa: ARG001
    """Return a ReLU."""
    return Act()


def centred(draw: Callable[..., Tensor], d_in: int) -> Taken:  # noqa: ARG001
    """Return an input without its mean, scaled."""
    return Taken(centre=True, scale=0.5)


def by_layer(draw: Callable[..., Tensor], d_in: int) -> Taken:
    """Return an input normed by its own mean and deviation."""
    return Taken(normed="layer", offset=draw(d_in))


def by_token(draw: Callable[..., Tensor], d_in: int) -> Taken:  # noqa: ARG001
    """Return an input of a length that is the same for all positions."""
    return Taken(normed="token")


# What a dictionary of an MLP can be: name → settings of `random`.
KINDS: dict[str, dict[str, Any]] = {
    "topk": {},
    "relu": {"act": relu},
    "jumprelu": {"act": jump, "point": "mlp_unit"},
    "gated": {"act": gated},
    "stream": {"point": "mlp_in"},
    "skip": {"skip": True},
    "offset": {"taken": offset, "skip": True},
    "centred": {"taken": centred, "point": "mlp_in", "skip": True},
    "layer": {"taken": by_layer, "point": "mlp_in", "skip": True},
    "token": {"taken": by_token, "point": "mlp_in"},
}


def sae(layer: int, d_in: int, point: str = "resid_post", **more: Any) -> Dictionary:
    """Return a sparse autoencoder with random weights at a place; the arguments are those of `random`."""
    one = random(layer, d_in, point=point, **more)
    place = Place(layer, point)
    return replace(one, kind="sae", writes=(place,))


def every(model: Any, layer: int) -> dict[str, Dictionary]:
    """Return a dictionary of each sort for a layer of a model: SAEs at several places, transcoders, a CLT."""
    g = model.geometry
    d, heads = g.d_model, g.n_heads * g.d_head
    return {
        "stream": sae(layer, d, "resid_post", act=jump),
        "before": sae(layer, d, "resid_pre", taken=by_layer),
        "attention": sae(layer, d, "attn_out", act=gated, taken=offset),
        "heads": sae(layer, heads, "z", act=relu),
        "mlp": sae(layer, d, "mlp_out", taken=by_token),
        "neurons": sae(layer, model.neurons(layer), "neuron"),
        "transcoder": random(layer, d, act=jump),
        "skip": random(layer, d, skip=True, taken=offset),
        "clt": random(layer, d, n_layers=g.n_layers),
    }


def load(model: Any, *dictionaries: Dictionary, name: str = "made") -> FeatureSet:
    """Hold dictionaries for a model, as features-load does, and return the set."""
    found = FeatureSet(name, "", "made", tuple(dictionaries))
    hold(model, found)
    return found
