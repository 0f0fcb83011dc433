"""Maps from a layer's residual stream to the last one's: a tuned or a Jacobian lens, its files, and whose it is."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import files
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

Kind = Literal["tuned", "jacobian"]
FORMAT = "interp tuned lens"


@dataclass(frozen=True)
class Translators:
    """One map for each place in the residual stream.

    Attributes
    ----------
    maps
        Place → function of ``[…, d_model]``. Place i is before layer i, which is after layer i − 1; the place after the
        last layer needs no map.
    notes
        What could not be checked, or does not quite fit.
    """

    maps: Mapping[int, Callable[[Tensor], Tensor]]
    notes: tuple[str, ...] = ()


def affine(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return ``h + h Wᵀ + b``, which is the identity where both are zero."""

    def translate(stream: Tensor) -> Tensor:
        moved = stream.to(weight.dtype) @ weight.T
        return (stream + (moved if bias is None else moved + bias)).to(stream.dtype)

    return translate


def save(path: str | os.PathLike[str], pairs: Mapping[int, tuple[Tensor, Tensor]], model: LoadedModel) -> Path:
    """Write affine maps, place → (weight, bias), and whose they are as safetensors; return the file.

    Raises
    ------
    InputError
        A suffix other than .safetensors, or a place that must not or cannot be written to.
    """
    target = files.writable(path)
    if target.suffix.lower() != ".safetensors":
        raise InputError(f"a lens is saved as .safetensors, not {target.suffix or 'without a suffix'}; name {path}")
    held = {
        f"{place}.{name}": tensor.detach().float().cpu().contiguous()
        for place, pair in sorted(pairs.items())
        for name, tensor in zip(("weight", "bias"), pair, strict=True)
    }
    about = {
        "format": FORMAT,
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "d_model": str(model.geometry.d_model),
        "layers": str(model.geometry.n_layers),
    }

    def write(place: Path) -> None:
        try:
            save_file(held, place, metadata=about)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    return files.write(target, write)


def load(source: str, kind: Kind, model: LoadedModel) -> Translators:
    """Return the maps in `source` if they belong to `model`.

    A tuned lens is a .safetensors file of ours, or a folder as the tuned-lens package writes it (``config.json`` beside
    ``params.pt``). A Jacobian lens is a .pt file of transformer-lens'. The two .pt formats are pickles; they are
    read with ``weights_only``, which builds tensors and plain values and runs nothing else.

    Raises
    ------
    InputError
        Nothing is there, it is not a lens of this kind, or it belongs to another model.
    """
    path = files.path_of(source)
    if not files.there(path):
        raise InputError(f"there is no lens at {source!r}; give the file that lens-train saved, or its folder")
    if kind == "jacobian":
        return _jacobian(path, model)
    return _published(path, model) if path.is_dir() else _ours(path, model)


def _ours(path: Path, model: LoadedModel) -> Translators:
    if path.suffix.lower() != ".safetensors":
        raise InputError(
            f"{path} is not a lens; give a .safetensors file of lens-train's, or a folder with config.json and "
            "params.pt"
        )
    try:
        with safe_open(path, framework="pt", device=str(model.device)) as file:
            about: dict[str, str] = file.metadata() or {}
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {str(error).partition(chr(10))[0]}") from None
    if about.get("format") != FORMAT:
        raise InputError(f"{path} is not a lens: lens-train did not write it")
    notes: list[str] = []
    if about.get("fingerprint") != model.fingerprint():
        if about.get("model") != model.name:
            raise InputError(
                f"{path} was trained on {about.get('model')}, and its weights are not those of {model.name}"
            )
        notes.append(
            f"the lens was trained on {model.name} in another state: its weights, dtype or settings differ now"
        )
    try:
        width, depth = int(about["d_model"]), int(about["layers"])
    except (KeyError, ValueError):
        raise InputError(f"{path} does not say what it is a lens of; train it again with lens-train") from None
    return Translators(_affine(held, path, width, depth, model), tuple(notes))


def _published(path: Path, model: LoadedModel) -> Translators:
    try:
        config: dict[str, Any] = files.read_json(path / "config.json", "give the folder as the package wrote it")
        depth, width = int(config["num_hidden_layers"]), int(config["d_model"])
        held: Any = torch.load(_stored(path / "params.pt"), map_location=model.device, weights_only=True)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path} is not a folder of the tuned-lens package (config.json, params.pt): {reason}"
        ) from None
    named = str(config.get("base_model_name_or_path", "another model"))
    note = f"the lens says it was trained on {named}; that these are its weights is not checked"
    if not isinstance(held, dict):
        raise InputError(f"{path / 'params.pt'} holds no translators")
    return Translators(_affine(held, path, width, depth, model), (note,))


def _stored(path: Path) -> Path:
    """Return a .pt file's path where what it holds is no larger than the file; torch stores tensors as they are.

    Raises
    ------
    ValueError
        It is packed, or as torch wrote files before 1.6, whose sizes are not known before they are read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        raise ValueError(f"{path.name} is no file of torch.save") from None
    if size > path.stat().st_size:
        raise ValueError(f"{path.name} is compressed: {size} bytes in a file of {path.stat().st_size}")
    return path


def _affine(
    held: Mapping[str, Any], path: Path, width: int, depth: int, model: LoadedModel
) -> dict[int, Callable[[Tensor], Tensor]]:
    geometry = model.geometry
    if (width, depth) != (geometry.d_model, geometry.n_layers):
        raise InputError(
            f"the lens at {path} is for {depth} layers of width {width}; {model.name} has {geometry.n_layers} of width "
            f"{geometry.d_model}"
        )
    places = {str(place) for place in range(depth)}
    found: dict[int, Callable[[Tensor], Tensor]] = {}
    for name, weight in held.items():
        place, _, part = name.partition(".")
        if part != "weight":
            continue
        bias = held.get(f"{place}.bias")
        fits = place in places and isinstance(weight, Tensor) and weight.shape == (width, width)
        if not fits or not (bias is None or (isinstance(bias, Tensor) and bias.shape == (width,))):
            raise InputError(f"the lens at {path} holds {name!r}, which is no translator of {model.name}")
        found[int(place)] = affine(weight.float(), None if bias is None else bias.float())
    if not found:
        raise InputError(f"the lens at {path} holds no translators")
    return found


def _jacobian(path: Path, model: LoadedModel) -> Translators:
    from transformer_lens.tools.analysis import JacobianLens

    try:
        lens = JacobianLens.load(str(_stored(path))).validate_model(model.bridge)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a Jacobian lens for {model.name}: {reason}") from None

    def moved(layer: int) -> Callable[[Tensor], Tensor]:
        return lambda stream: lens.transport(stream, layer).to(stream.dtype)

    return Translators({layer + 1: moved(layer) for layer in lens.source_layers})
