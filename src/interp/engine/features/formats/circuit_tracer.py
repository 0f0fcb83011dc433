"""circuit-tracer's transcoders (PLT), a safetensors file per layer, and cross-layer ones (CLT), two per layer.

A PLT is ``layer_i.safetensors``: W_enc and W_dec ``[width, d_model]``, b_enc, b_dec, W_skip ``[d_out, d_in]``,
``activation_function.threshold``. A CLT is ``W_enc_i.safetensors`` (W_enc_i, b_enc_i, b_dec_i, threshold_i) and
``W_dec_i.safetensors``: W_dec_i ``[width, layers from i on, d_model]``, of which rows are read when they are needed.
``config.yaml`` says at which hooks (``feature_input_hook``, ``feature_output_hook``) and of which activation; without
it, a PLT reads ``mlp.hook_in`` and a CLT ``hook_resid_mid``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from interp import files
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.formats import Read, Wanted, _files, _hooks
from interp.engine.features.formats._built import Tensors, built, layer_of
from interp.engine.features.places import Place
from interp.errors import InputError

NAME = "circuit-tracer"
CONFIG = "config.yaml"
_PLT = re.compile(r"(?:layer_|transcoder_)?(\d{1,6})\.safetensors")
_CLT = re.compile(r"W_enc_(\d{1,6})\.safetensors")


def claims(folder: Path) -> bool:
    """Return whether a folder is of this format."""
    if (folder / "W_enc_0.safetensors").exists() or _layers(folder, _CLT):
        return True
    found = _layers(folder, _PLT)
    return bool(found) and not _files.names(found[min(found)]).isdisjoint({"W_enc", "b_enc"})


def read(folder: Path, wanted: Wanted) -> Read:
    """Return the dictionaries of a folder.

    Raises
    ------
    InputError
        A file is missing or damaged, does not fit the model, or asks for what is not known here.
    """
    said = _config(folder / CONFIG)
    paths = _layers(folder, _CLT)
    one = _clt if paths else _plt
    paths = paths or _layers(folder, _PLT)
    if sorted(paths) != list(range(len(paths))) and one is _clt:
        raise InputError(f"{folder} lacks layers of its cross-layer transcoder; it has {sorted(paths)}")
    chosen = [n for n in sorted(paths) if wanted.layers is None or n in wanted.layers]
    made = tuple(one(paths[layer], layer, len(paths), said, wanted) for layer in chosen)
    others = {
        n: (("read without the norm's gain", replace(dictionary, reads=Place(dictionary.layer, "mlp_unit"))),)
        for n, dictionary in enumerate(made)
        if "feature_input_hook" not in said and wanted.point is None and dictionary.reads.point == "mlp_normed"
    }
    return Read(NAME, made, others=others)


def _plt(where: Path, layer: int, count: int, said: Mapping[str, Any], wanted: Wanted) -> Dictionary:  # noqa: ARG001
    layer_of(layer, wanted, where)
    held = _files.safetensors(where)
    tensors = Tensors({name.replace("activation_function.", ""): tensor for name, tensor in held.items()}, where)
    encoder = tensors.take("W_enc", len(tensors.take("b_enc")), -1)
    width, d_in = encoder.shape
    decoder = tensors.take("W_dec", width, len(tensors.take("b_dec")))
    return built(
        "transcoder",
        Place(layer, wanted.point or _hooks.point(said.get("feature_input_hook", "mlp.hook_in"))),
        (Place(layer, _hooks.point(said.get("feature_output_hook", "hook_mlp_out"))),),
        encoder,
        tensors.take("b_enc", width),
        (decoder,),
        (tensors.take("b_dec", decoder.shape[1]),),
        act=_act(said, tensors, "threshold", width),
        skip=tensors.take("W_skip", decoder.shape[1], d_in).T if "W_skip" in tensors else None,
        wanted=wanted,
        where=where,
    )


def _clt(where: Path, layer: int, count: int, said: Mapping[str, Any], wanted: Wanted) -> Dictionary:
    read_ = Tensors(_files.safetensors(where), where)
    if f"W_skip_{layer}" in read_:
        raise InputError(f"{where} holds W_skip_{layer}, which is not known here")
    path = where.with_name(f"W_dec_{layer}.safetensors")
    wrote = Tensors(_files.safetensors(path), path)
    encoder = read_.take(f"W_enc_{layer}", len(read_.take(f"b_enc_{layer}")), -1)
    later = range(layer, count)
    decoders = wrote.take(f"W_dec_{layer}", len(encoder), len(later), len(read_.take(f"b_dec_{layer}")), sampled=True)
    to = _hooks.point(said.get("feature_output_hook", "hook_mlp_out"))
    return built(
        "clt",
        Place(layer, wanted.point or _hooks.point(said.get("feature_input_hook", "hook_resid_mid"))),
        [Place(layer_of(other, wanted, where), to) for other in later],
        encoder,
        read_.take(f"b_enc_{layer}"),
        [decoders[:, n] for n in range(len(later))],
        [read_.take(f"b_dec_{layer}"), *(None for _ in later[1:])],
        act=_act(said, read_, f"threshold_{layer}", len(encoder)),
        wanted=wanted,
        where=where,
    )


def _act(said: Mapping[str, Any], tensors: Tensors, threshold: str, width: int) -> Act:
    """Return what makes activations: what the config says, else a threshold where there is one."""
    form: Any = said.get("activation")
    if form == "topk" or (form is None and "k" in tensors):
        k: Any = said.get("k", int(tensors.held["k"]) if "k" in tensors else None)
        if isinstance(k, bool) or not isinstance(k, int) or not 0 < k <= width:
            raise InputError(f"{tensors.where}: of TopK, config.yaml should say k, from 1 to the {width} features")
        return Act("topk", k=k)
    if form not in {None, "relu", "jump_relu", "jumprelu"}:
        raise InputError(f"{tensors.where}: the activation {form!r:.60} is not known here")
    if threshold not in tensors or form == "relu":
        return Act()
    # One for all, or one for each, with an axis of one in front or not.
    held = tensors.held[threshold]
    return Act(
        "jumprelu",
        threshold=tensors.take(threshold, *(held.shape if held.numel() in {1, width} else (width,))).flatten(),
    )


def _layers(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    return {int(found[1]): path for path in folder.iterdir() if (found := pattern.fullmatch(path.name))}


def _config(path: Path) -> Mapping[str, Any]:
    """Return what ``config.yaml`` says; nothing where it is not there."""
    if not path.exists():
        return {}
    try:
        said: Any = yaml.safe_load(files.read_text(path, "fetch it again"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {str(error).partition(chr(10))[0]}; fetch it again") from None
    if not isinstance(said, dict):
        raise InputError(f"{path} is no configuration of circuit-tracer's")
    return {str(name): value for name, value in said.items()}
