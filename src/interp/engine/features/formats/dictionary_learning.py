"""dictionary_learning's folders: ``ae.pt``, a state dict that is read without running code, and ``config.json``.

Which class it is stands in the config, under ``trainer``; so do the layer and the submodule (the residual stream after
the layer where none is named). Modules of torch have ``encoder.weight`` as ``[width, d_in]`` and ``decoder.weight`` as
``[d_in, width]``; JumpReLU's and Matryoshka's W_enc is ``[d_in, width]``, W_dec ``[width, d_in]``. BatchTopK's are used
with their threshold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.engine.features.dictionary import Act, Taken
from interp.engine.features.formats import Read, Wanted, _files
from interp.engine.features.formats._built import Tensors, built, declared_of, layer_of, number
from interp.engine.features.places import Place
from interp.errors import InputError

NAME = "dictionary_learning"
CONFIG, WEIGHTS = "config.json", "ae.pt"
_SUBMODULE = re.compile(r"(resid|mlp|attn|attention)_(?:out|post)_?layer_?(\d{1,6})")
_POINTS = {"resid": "resid_post", "mlp": "mlp_out", "attn": "attn_out", "attention": "attn_out"}


def claims(folder: Path) -> bool:
    """Return whether a folder is of this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, wanted: Wanted) -> Read:
    """Return the dictionary of a folder.

    Raises
    ------
    InputError
        A file is missing or damaged, would run code, does not fit the model, or is of a class that is not known here.
    """
    config, where = folder / CONFIG, folder / WEIGHTS
    said = _files.config(config)
    trainer: Any = said.get("trainer")
    if not isinstance(trainer, dict):
        raise InputError(f"{config} is no configuration of dictionary_learning's: it lacks trainer")
    buffer: Any = said.get("buffer")
    if isinstance(buffer, dict) and buffer.get("io", "out") != "out":
        raise InputError(f"{config}: it reads a module's input (io {buffer['io']!r:.40}), which is not known here")
    tensors = Tensors(_files.checkpoint(where), where)
    form = str(trainer.get("dict_class", "AutoEncoder"))
    layer, point = _place(trainer, folder, wanted, config)
    encoder, bias, decoder, b_dec, act, offset = _parts(form, trainer, tensors, config)
    made = built(
        "sae",
        Place(layer, point),
        (Place(layer, point),),
        encoder,
        bias,
        (decoder,),
        (b_dec,),
        act=act,
        taken=Taken(offset=b_dec if offset else None),
        declared=_declared(folder),
        wanted=wanted,
        where=where,
    )
    return Read(NAME, (made,))


def _parts(
    form: str, trainer: Mapping[str, Any], tensors: Tensors, config: Path
) -> tuple[Tensor, Tensor, Tensor, Tensor, Act, bool]:
    """Return encoder, its bias, decoder, its bias, what makes activations, and whether that bias is taken from x."""
    if form in {"JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"}:
        w_enc = tensors.take("W_enc", -1, -1)
        d_in, width = w_enc.shape
        encoder, decoder = w_enc.T, tensors.take("W_dec", width, d_in)
        bias, b_dec = tensors.take("b_enc", width), tensors.take("b_dec", d_in)
        if form == "JumpReluAutoEncoder":
            return encoder, bias, decoder, b_dec, Act("jumprelu", threshold=tensors.take("threshold", width)), False
        return encoder, bias, decoder, b_dec, _thresholded(tensors), True
    if form not in {"AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"}:
        raise InputError(f"{config}: dict_class {form!r:.60} is not known here")
    encoder = tensors.take("encoder.weight", -1, -1)
    width, d_in = encoder.shape
    decoder = tensors.take("decoder.weight", d_in, width).T
    if form == "GatedAutoEncoder":
        bias, scale = tensors.take("gate_bias", width), tensors.take("r_mag", width).exp()
        act = Act("gated", scale=scale, magnitude=tensors.take("mag_bias", width) - bias * scale)
        return encoder, bias, decoder, tensors.take("decoder_bias", d_in), act, True
    bias = tensors.take("encoder.bias", width)
    if form == "AutoEncoder":
        return encoder, bias, decoder, tensors.take("bias", d_in), Act(), True
    if form == "AutoEncoderNew":
        return encoder, bias, decoder, tensors.take("decoder.bias", d_in), Act(), False
    b_dec = tensors.take("b_dec", d_in)
    if form == "BatchTopKSAE":
        return encoder, bias, decoder, b_dec, _thresholded(tensors), True
    k = number(trainer, "k", int, config)
    if not 0 < k <= width:
        raise InputError(f"{config}: k {k} is not from 1 to the {width} features that there are")
    return encoder, bias, decoder, b_dec, Act("topk", k=k), True


def _thresholded(tensors: Tensors) -> Act:
    """Return what a BatchTopK's threshold makes; one below zero was never set."""
    threshold = tensors.take("threshold").reshape(1)
    if float(threshold) < 0:
        raise InputError(f"{tensors.where} has no threshold yet: it was saved too early in its training")
    return Act("jumprelu", threshold=threshold)


def _place(trainer: Mapping[str, Any], folder: Path, wanted: Wanted, config: Path) -> tuple[int, str]:
    names = [str(trainer.get("submodule_name") or ""), *reversed(folder.absolute().parts[-4:])]
    found = next((match for name in names if (match := _SUBMODULE.search(name))), None)
    said: Any = trainer.get("layer")
    layer = int(found[2]) if found else said if isinstance(said, int) and not isinstance(said, bool) else None
    named = str(trainer.get("submodule_name") or "")
    if named and not _SUBMODULE.search(named) and wanted.point is None:
        raise InputError(f"{config}: the submodule {named!r:.60} is not known here; say where it reads with --site")
    point = wanted.point or (_POINTS[found[1]] if found else "resid_post")
    return layer_of(layer, wanted, config), point


def _declared(folder: Path) -> dict[str, float]:
    """Return what ``eval_results.json`` says, where it is there."""
    path = folder / "eval_results.json"
    if not path.exists():
        return {}
    held = declared_of(_files.config(path))
    shares = {"fvu": 1 - held["frac_variance_explained"]} if "frac_variance_explained" in held else {}
    recovered = {"ce_recovered": held["frac_recovered"]} if "frac_recovered" in held else {}
    return {**shares, **recovered, **({"l0": held["l0"]} if "l0" in held else {})}
