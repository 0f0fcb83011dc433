"""Small dictionaries of features for whatever model is at hand."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from interp.engine.features import held
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.formats import saelens
from interp.engine.features.measure import Measured
from interp.engine.features.places import Place


def perfect(width: int, layer: int = 0, point: str = "resid_post", **declared: float) -> Dictionary:
    """Return an SAE with a feature for each direction of an axis, which gives back all that it reads."""
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    place = Place(layer, point)
    return Dictionary(
        "sae", place, (place,), both, torch.zeros(2 * width), (both,), (torch.zeros(width),), declared=declared
    )


def transcoder(width: int, layer: int = 0) -> Dictionary:
    """Return a transcoder of an MLP that reads all of its input and writes some of it back."""
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    written = (0.1 * both.roll(1, 0),)
    places = Place(layer, "mlp_normed"), (Place(layer, "mlp_out"),)
    return Dictionary(
        "transcoder", *places, both, torch.zeros(2 * width), written, (torch.zeros(width),), act=Act("topk", k=4)
    )


def hold(model: Any) -> None:
    """Make transcoders of every layer the current features of a model."""
    if "transcoders" in held.sets_of(model):
        return
    shape, like = model.geometry, next(model.hf_model.parameters())
    layers = [transcoder(shape.d_model, layer).to(like.device, like.dtype) for layer in range(shape.n_layers)]
    unknown = (Measured(0, *[float("nan")] * 3),) * len(layers)
    held.hold(model, held.FeatureSet("transcoders", "tests", "", tuple(layers), measured=unknown))


def written(folder: Path, width: int, layers: Iterable[int] = (0,), point: str = "resid_post") -> Path:
    """Write a perfect SAE for each of some layers, in SAELens' format; return the folder."""
    for layer in layers:
        saelens.write(folder / f"layer_{layer}", perfect(width, layer, point), said={"sample": ["The cat sat on it."]})
    return folder


@cache
def fitting(width: int, layers: int) -> Path:
    """Return a folder with such an SAE of each layer, which goes when the process ends."""
    place = Path(tempfile.mkdtemp(prefix="interp-dictionaries-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return written(place / "dictionaries", width, range(layers))
