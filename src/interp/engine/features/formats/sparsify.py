"""EleutherAI's sparsify: ``cfg.json`` and ``sae.safetensors``, in a folder named after a module (``layers.5.mlp``).

TopK of the ReLU. encoder.weight and W_dec are ``[width, d_in]``, W_skip ``[d_out, d_in]``; some versions wrote W_enc,
or decoder.weight, the other way round: the shape says which, and where it is square, what it gives back. An SAE reads
its module's output less b_dec; a transcoder (``transcode``) reads the module's input, as it is, and writes its output.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from interp.engine.features.dictionary import Act, Dictionary, Taken
from interp.engine.features.formats import Read, Wanted, _files, _hooks
from interp.engine.features.formats._built import Tensors, built, number, placed
from interp.errors import InputError

NAME = "sparsify"
CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def claims(folder: Path) -> bool:
    """Return whether a folder is of this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, wanted: Wanted) -> Read:
    """Return the dictionary of a folder.

    Raises
    ------
    InputError
        A file is missing or damaged, does not fit the model, or asks for what is not known here.
    """
    config, where = folder / CONFIG, folder / WEIGHTS
    cfg = _files.config(config)
    if (form := cfg.get("activation", "topk")) != "topk":
        raise InputError(f"{config}: the activation {form!r:.60} is not known here; known is topk")
    if cfg.get("signed"):
        raise InputError(f"{config}: signed features, whose largest sizes are taken, cannot be represented here")
    transcodes = bool(cfg.get("transcode", cfg.get("skip_connection", False)))
    reads = _hooks.place(_module(folder, wanted), transcodes=transcodes)
    at, to = placed(reads, _hooks.Said(reads.layer, "mlp_out") if transcodes else None, wanted, config)
    tensors = Tensors(_files.safetensors(where), where)
    d_in, k = number(cfg, "d_in", int, config), number(cfg, "k", int, config)
    encoder, square = _turned(tensors, ("encoder.weight", "W_enc"), d_in)
    width = len(encoder)
    if not 0 < k <= width:
        raise InputError(f"{config}: k {k} is not from 1 to the {width} features that there are")
    decoder, _ = _turned(tensors, ("W_dec", "decoder.weight"), d_in, width)
    bias = _bias(tensors, ("encoder.bias", "b_enc"), width, encoder)
    b_dec = _bias(tensors, ("b_dec", "decoder.bias"), d_in, encoder)
    made = built(
        "transcoder" if transcodes else "sae",
        at,
        (to,),
        encoder,
        bias,
        (decoder,),
        (b_dec,),
        act=Act("topk", k=k),
        taken=Taken(offset=None if transcodes else b_dec),
        skip=tensors.take("W_skip", d_in, d_in).T if "W_skip" in tensors else None,
        declared={"l0": float(k)},
        wanted=wanted,
        where=where,
    )
    if not square:
        return Read(NAME, (made,))
    return Read(NAME, (made,), others={0: _others(made)})


def _others(made: Dictionary) -> tuple[tuple[str, Dictionary], ...]:
    """Return the other ways to read square matrices."""
    (decoder,) = made.decoders
    return (
        ("its encoder transposed", replace(made, encoder=made.encoder.T)),
        ("its decoder transposed", replace(made, decoders=(decoder.T,))),
        ("encoder and decoder transposed", replace(made, encoder=made.encoder.T, decoders=(decoder.T,))),
    )


def _module(folder: Path, wanted: Wanted) -> str:
    """Return the module that a folder is named after; one that names none is of the layer and site that were typed."""
    name = folder.absolute().name
    if "layers" in name or "embed" in name or not (wanted.layers and len(wanted.layers) == 1):
        return name
    return f"layers.{wanted.layers[0]}{'.mlp' if str(wanted.point).startswith('mlp') else ''}"


def _turned(tensors: Tensors, names: tuple[str, ...], d_in: int, width: int = -1) -> tuple[Tensor, bool]:
    """Return a matrix as ``[width, d_in]``, and whether it is square, so that its shape does not say which is which."""
    name = next((one for one in names if one in tensors), names[0])
    shape = tuple(tensors.held[name].shape) if name in tensors else ()
    other = len(shape) == 2 and shape[0] == d_in and shape[1] != d_in and width in {-1, shape[1]}
    held = tensors.take(name, *((d_in, width) if other else (width, d_in)))
    return (held.T if other else held), len(held) == held.shape[1]


def _bias(tensors: Tensors, names: tuple[str, ...], size: int, like: Tensor) -> Tensor:
    """Return a bias under one of its names; zeros where there is none."""
    name = next((one for one in names if one in tensors), None)
    return like.new_zeros(size) if name is None else tensors.take(name, size)
