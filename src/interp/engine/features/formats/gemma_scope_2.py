"""Gemma Scope 2's folders: ``config.json`` beside ``params.safetensors``, or ``params_layer_i.safetensors`` of a CLT.

w_enc is ``[d_in, width]``, w_dec ``[width, d_out]``, of a CLT ``[width, layer, d_out]``; affine_skip_connection is
``[d_in, d_out]``; JumpReLU. Of Gemma 3, the MLP's output is what comes out of the norm behind it. What a folder is of
is said by ``hf_hook_point_in`` in its config, and by its parent's name: resid_post, attn_out, mlp_out, transcoder, clt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.formats import Read, Wanted, _files
from interp.engine.features.formats._built import Tensors, built, layer_of
from interp.engine.features.places import Place
from interp.errors import InputError

NAME = "Gemma Scope 2"
CONFIG, WEIGHTS = "config.json", "params.safetensors"
_SKIP = "affine_skip_connection"
_LAYER = re.compile(r"layers?[_.](\d{1,6})")
_OF_LAYER = re.compile(r"params_layer_(\d{1,6})\.safetensors")
_HOOKS = (
    (r"layers\.\d+\.pre_feedforward_layernorm\.output", "mlp_normed"),
    (r"layers\.\d+\.mlp\.input", "mlp_normed"),
    (r"layers\.\d+\.post_feedforward_layernorm\.output", "mlp_out"),
    (r"layers\.\d+\.post_attention_layernorm\.output", "attn_out"),
    (r"layers\.\d+\.self_attn\.o_proj\.input", "z"),
    (r"layers\.\d+\.output", "resid_post"),
)


def claims(folder: Path) -> bool:
    """Return whether a folder is of this format."""
    return (folder / WEIGHTS).exists() or any(_OF_LAYER.fullmatch(path.name) for path in folder.glob("params_layer_*"))


def read(folder: Path, wanted: Wanted) -> Read:
    """Return the dictionary of a folder, or those of a CLT.

    Raises
    ------
    InputError
        A file is missing or damaged, does not fit the model, or what it is of is not said.
    """
    said = _files.config(folder / CONFIG)
    form = str(said.get("architecture", "jump_relu")).lower().replace("_", "")
    if form != "jumprelu":
        raise InputError(f"{folder / CONFIG}: the architecture {form!r:.60} is not known here; known is jump_relu")
    if not (folder / WEIGHTS).exists():
        return _clt(folder, said, wanted)
    where = folder / WEIGHTS
    tensors = Tensors(_files.safetensors(where), where)
    w_enc = tensors.take("w_enc", -1, -1)
    d_in, width = w_enc.shape
    decoder = tensors.take("w_dec", width, -1)
    point, sure = _point(said, folder, d_in, wanted)
    layer = layer_of(_layer(said, folder), wanted, where)
    transcodes = point in {"mlp_unit", "mlp_normed", "mlp_in"}
    reads = Place(layer, point)
    skip = tensors.take(_SKIP, d_in, decoder.shape[1]) if _SKIP in tensors else None
    made = built(
        "transcoder" if transcodes else "sae",
        reads,
        (Place(layer, "mlp_out") if transcodes else reads,),
        w_enc.T,
        tensors.take("b_enc", width),
        (decoder,),
        (tensors.take("b_dec", decoder.shape[1]),),
        act=Act("jumprelu", threshold=tensors.take("threshold", width)),
        skip=skip,
        declared=_declared(said),
        wanted=wanted,
        where=where,
    )
    return Read(NAME, (made,), others={0: _others(made, sure)} if transcodes else {})


def _others(made: Dictionary, sure: bool) -> tuple[tuple[str, Dictionary], ...]:
    """Return the other ways to read a transcoder: from the other normed input, its skip turned round, or both."""
    turned = None if made.skip is None else made.skip.T
    found = [] if turned is None else [("its skip connection transposed", replace(made, skip=turned))]
    if not sure:
        unit = replace(made, reads=Place(made.layer, "mlp_unit"))
        found.append(("read without the norm's gain", unit))
        if turned is not None:
            found.append(("read without the norm's gain, its skip connection transposed", replace(unit, skip=turned)))
    return tuple(found)


def _clt(folder: Path, said: Mapping[str, Any], wanted: Wanted) -> Read:
    """Return a dictionary for each layer of a CLT; decoders stay mapped."""
    paths = {int(found[1]): path for path in folder.iterdir() if (found := _OF_LAYER.fullmatch(path.name))}
    chosen = sorted(paths) if wanted.layers is None else [n for n in sorted(paths) if n in wanted.layers]
    made: list[Dictionary] = []
    others: dict[int, tuple[tuple[str, Dictionary], ...]] = {}
    for layer in chosen:
        where = paths[layer]
        layer_of(layer, wanted, where)
        tensors = Tensors(_files.safetensors(where), where)
        w_enc = tensors.take("w_enc", -1, -1)
        d_in, width = w_enc.shape
        w_dec: Tensor = tensors.take("w_dec", width, len(paths), -1, sampled=True)
        d_out = w_dec.shape[2]
        point, sure = _point(said, folder, d_in, wanted)
        later = range(layer, len(paths))
        one = built(
            "clt",
            Place(layer, point),
            [Place(layer_of(to, wanted, where), "mlp_out") for to in later],
            w_enc.T,
            tensors.take("b_enc", width),
            [w_dec[:, to] for to in later],
            [tensors.take("b_dec", d_out), *(None for _ in later[1:])],
            act=Act("jumprelu", threshold=tensors.take("threshold", width)),
            skip=tensors.take(_SKIP, d_in, d_out) if _SKIP in tensors else None,
            declared=_declared(said),
            wanted=wanted,
            where=where,
        )
        if not sure:
            others[len(made)] = _others(one, sure)
        made.append(one)
    return Read(NAME, tuple(made), others=others)


def _point(said: Mapping[str, Any], folder: Path, d_in: int, wanted: Wanted) -> tuple[str, bool]:
    """Return where a dictionary reads, and whether the files leave no doubt of it."""
    if wanted.point is not None:
        return wanted.point, True
    hook = str(said.get("hf_hook_point_in", ""))
    found = next((point for pattern, point in _HOOKS if re.search(f"{pattern}$", hook)), None)
    if found is not None:
        return found, True
    names = [part.lower() for part in folder.absolute().parts[-3:]]
    for name in reversed(names):
        if "resid_post" in name:
            return "resid_post", True
        if "attn_out" in name:
            # By width: heads' z, which the last projection reads, or what that writes.
            fits = wanted.widths.get("attn_out") != d_in and wanted.widths.get("z") == d_in
            return ("z" if fits else "attn_out"), True
        if "mlp_out" in name:
            return "mlp_out", True
        if "transcoder" in name or "clt" in name:
            return "mlp_normed", False
    raise InputError(f"{folder / CONFIG} does not say where the dictionary reads (hf_hook_point_in); add --site")


def _layer(said: Mapping[str, Any], folder: Path) -> int | None:
    texts = (str(said.get("hf_hook_point_in", "")), folder.name, folder.parent.name)
    return next((int(found[1]) for text in texts if (found := _LAYER.search(text))), None)


def _declared(said: Mapping[str, Any]) -> dict[str, float]:
    l0 = said.get("l0")
    return {"l0": float(l0)} if isinstance(l0, int | float) and not isinstance(l0, bool) else {}
