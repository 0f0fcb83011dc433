"""How a model gets to a worker: by where it came from, and the weights that were changed since; never by pickles.

A worker loads what the kernel loaded, and must find the fingerprint that the kernel found when it had loaded it.
Weights that the user has changed since are sent, and the fingerprint must then be that of the user's model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from torch import Tensor

from interp import bundled, files
from interp.engine.model.load import Options, load
from interp.engine.pool import rebuilt
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


_BUNDLED = "bundled"


@dataclass(frozen=True)
class Travelling:
    """A model as a worker is told of it.

    Attributes
    ----------
    name
        What the user calls it.
    fingerprint
        What a worker's must be.
    recipe
        How to load it, as plain data.
    loaded
        The fingerprint that loading it must give; an empty string of one that is made anew, whose weights are sent.
    model
        The model itself: its weights are asked for where they are others than the recipe's.
    """

    name: str
    fingerprint: str
    recipe: Mapping[str, Any]
    loaded: str
    model: LoadedModel


def travelling(model: LoadedModel, *, local: bool) -> Travelling:
    """Return `model` as workers are told of it.

    Parameters
    ----------
    local
        Whether it stays in this process.

    Raises
    ------
    InputError
        It came from no file, and is of a class that no worker can make.
    """
    origin, operation = model.origin, model.operation
    found = model.fingerprint() if operation is None else operation.fingerprint
    if local:
        return Travelling(model.name, found, {}, found, model)
    if origin is None or not isinstance(origin.source, str):
        made_of = rebuilt.description(model)
        if made_of is None:
            raise InputError(
                f"{model.name} is held in this notebook alone, and a worker cannot make a "
                f"{type(model.hf_model).__name__}: save it with save_pretrained(folder) and %interp load folder, or "
                "%interp disconnect"
            )
        return Travelling(model.name, found, {"name": model.name, "made_of": made_of}, "", model)
    source = origin.source if origin.path is None else str(origin.path.resolve())
    if source == str(bundled.MODEL.resolve()):
        source = _BUNDLED  # a worker on another machine has its own
    recipe = {"name": model.name, "source": source, "options": plain_options(origin.options)}
    return Travelling(model.name, found, recipe, origin.fingerprint or found, model)


def plain_options(options: Options) -> dict[str, Any]:
    """Return how a model was loaded as plain data; another process may be in another folder."""
    adapter = None if options.adapter is None else str(files.path_of(options.adapter).resolve())
    said = {one.name: getattr(options, one.name) for one in fields(options) if one.name != "on_step"}
    return said | {"adapter": adapter}


def built(recipe: Mapping[str, Any], tokenizer: Any = None) -> LoadedModel:
    """Load a model by its recipe, or make one like it; `tokenizer` is for weights that have none beside them."""
    if "made_of" in recipe:
        return rebuilt.rebuilt(recipe["name"], recipe["made_of"])
    source = bundled.MODEL if recipe["source"] == _BUNDLED else recipe["source"]
    return load(source, tokenizer=tokenizer, name=recipe["name"], options=Options(**recipe["options"]))


def tensors_of(model: LoadedModel) -> dict[str, Tensor]:
    """Return every parameter and buffer once, by a name that is the same in every process."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, module in model.modules():
        own: Any = module.__dict__
        for key, tensor in (*own["_parameters"].items(), *own["_buffers"].items()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{name}.{key}"] = tensor
    return found


def digests(model: LoadedModel) -> dict[str, str]:
    """Return a hash of each of `tensors_of`: its dtype, its shape and its values."""
    return {name: _digest(tensor) for name, tensor in tensors_of(model).items()}


def _digest(tensor: Tensor) -> str:
    held = tensor.detach().cpu().contiguous()
    made = xxhash.xxh3_128(json.dumps([str(held.dtype), list(held.shape)]).encode())
    made.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def changed(model: LoadedModel, there: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors of which a worker has others, whose digests are given.

    Raises
    ------
    InputError
        They do not have the same names, or the weights stay in files, which cannot be written to.
    """
    here = digests(model)
    if here.keys() != there.keys():
        raise more_than_weights(model.name)
    different = [name for name, digest in here.items() if there[name] != digest]
    if different and model.streamed is not None:
        raise InputError(
            f"{model.name} was changed, and a worker's weights stay in their files: load it without --max-memory and "
            "--device-map, or %interp disconnect"
        )
    tensors = tensors_of(model)
    return {name: tensors[name] for name in different}


def change(model: LoadedModel, tensors: Mapping[str, Tensor]) -> None:
    """Write weights that came from the kernel into a worker's model, as far as they fit there."""
    own = tensors_of(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                continue
            if own[name].dtype != tensor.dtype:  # a buffer that was cast with the model
                own[name].data = tensor.to(own[name].device)
            else:
                own[name].copy_(tensor)


def more_than_weights(name: str) -> InputError:
    """Return the refusal of a model that was changed in something else than the values of its weights."""
    return InputError(
        f"{name} was changed in more than the values of its weights, and nothing else goes to workers: undo it, save "
        "the model to a folder and load that, or %interp disconnect"
    )
