"""Gemma Scope's folders (Lieberum et al. 2024): ``params.npz``, JumpReLU; their names say layer, width and L0.

A folder is such as ``layer_5/width_16k/average_l0_71`` of a repository whose name ends in ``-res`` (residual stream),
``-mlp``, ``-att`` (heads' z) or ``-transcoders``. W_enc is ``[d_in, width]``, W_dec ``[width, d_out]``; activations are
as the model has them. A transcoder reads the MLP's normed input; whether that is with the norm's gain, the files do not
say.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from interp.engine.features.dictionary import Act
from interp.engine.features.formats import Read, Wanted, _files
from interp.engine.features.formats._built import Tensors, built, layer_of
from interp.engine.features.places import Place
from interp.errors import InputError

NAME = "Gemma Scope"
WEIGHTS = "params.npz"
# What a repository's or a folder's name says, in this order → where it reads.
_SAID = (("transcoder", "mlp_unit"), ("mlp", "mlp_out"), ("att", "z"), ("res", "resid_post"))
_L0 = re.compile(r"l0_(\d+)")


def claims(folder: Path) -> bool:
    """Return whether a folder is of this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, wanted: Wanted) -> Read:
    """Return the dictionary of a folder.

    Raises
    ------
    InputError
        The file is damaged, does not fit the model, or what it is of is not said.
    """
    where = folder / WEIGHTS
    parts = [part.lower() for part in folder.absolute().parts]
    if any("embedding" in part for part in parts[-4:]):
        raise InputError(f"{where} is of the embedding, where no dictionary can be read; name one of a layer")
    said = next((int(found[1]) for part in reversed(parts) if (found := re.fullmatch(r"layer_(\d{1,6})", part))), None)
    layer = layer_of(said, wanted, where)
    tensors = Tensors({name.lower(): tensor for name, tensor in _files.npz(where).items()}, where)
    w_enc = tensors.take("w_enc", -1, -1)
    width = w_enc.shape[1]
    bias, decoder = tensors.take("b_enc", width), tensors.take("w_dec", width, -1)
    b_dec, threshold = tensors.take("b_dec", decoder.shape[1]), tensors.take("threshold", width)
    if "scaling_factor" in tensors and not bool((tensors.take("scaling_factor") == 1).all()):
        raise InputError(f"{where} holds a scaling_factor, which cannot be represented here")
    point = wanted.point or _point(parts, where)
    transcodes = point in {"mlp_unit", "mlp_normed", "mlp_in"}
    reads = Place(layer, point)
    l0 = _L0.search(parts[-1])
    made = built(
        "transcoder" if transcodes else "sae",
        reads,
        (Place(layer, "mlp_out") if transcodes else reads,),
        w_enc.T,
        bias,
        (decoder,),
        (b_dec,),
        act=Act("jumprelu", threshold=threshold),
        declared={"l0": float(l0[1])} if l0 else {},
        wanted=wanted,
        where=where,
    )
    if wanted.point is not None or not transcodes:
        return Read(NAME, (made,))
    other = replace(made, reads=Place(layer, "mlp_normed"))
    return Read(NAME, (made,), others={0: (("read with the norm's gain", other),)})


def _point(parts: list[str], where: Path) -> str:
    # A name such as gemma-scope-2b-pt-res, also as the hub's cache spells it.
    for part in reversed(parts):
        if "scope" in part:
            ending = part.rpartition("scope")[2]
            found = next((point for word, point in _SAID if word in ending), None)
            if found is not None:
                return found
    raise InputError(f"{where} does not say where it reads: its repository's name is not in its path; add --site")
