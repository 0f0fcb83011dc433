"""SAELens' folders: ``cfg.json`` and ``sae_weights.safetensors`` (decoderesearch.github.io/SAELens).

W_enc is ``[d_in, d_sae]``, W_dec ``[d_sae, d_out]``, W_skip ``[d_out, d_in]``. Since its version 6 the hooks' names
stand in ``metadata``, before that beside everything else; both are read. `write` makes such a folder; a TopK
transcoder, which SAELens has no class for, is called ``topk_transcoder``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from interp import files
from interp.engine.features.dictionary import Act, Dictionary, Normed, Taken
from interp.engine.features.formats import Read, Wanted, _files, _hooks
from interp.engine.features.formats._built import Tensors, built, declared_of, number, placed
from interp.errors import InputError

NAME = "SAELens"
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_NORMED: dict[str, Normed] = {"none": "", "layer_norm": "layer", "constant_norm_rescale": "token"}
# Trained as BatchTopK, they are used with a threshold, and saved as such; without one they cannot be used.
_KINDS = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk", "gated": "gated", "batchtopk": "jumprelu"}


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
    said = _files.config(folder / CONFIG)
    metadata: Any = said.get("metadata")
    cfg = {**(metadata if isinstance(metadata, dict) else {}), **said}
    where = folder / CONFIG
    kind, form, skips = _architecture(cfg, where)
    name = cfg.get("hook_name", cfg.get("hook_point"))
    if name is None:
        raise InputError(f"{where} does not say where the dictionary reads: it lacks hook_name")
    for unknown in ("hook_head_index", "hook_head_index_out"):
        if cfg.get(unknown) is not None:
            raise InputError(f"{where}: it reads one head alone ({unknown}), which cannot be represented here")
    reads = _hooks.place(name, transcodes=kind == "transcoder")
    writes = None
    if kind == "transcoder":
        writes = _hooks.place(cfg.get("hook_name_out") or _hooks.spelled(reads.layer, "mlp_out"))
    at, to = placed(reads, writes, wanted, where)
    tensors = Tensors(_files.safetensors(folder / WEIGHTS), folder / WEIGHTS)
    d_in, width = number(cfg, "d_in", int, where), number(cfg, "d_sae", int, where)
    d_out = number(cfg, "d_out", int, where) if "d_out" in cfg else d_in
    encoder, decoder = tensors.take("W_enc", d_in, width).T, tensors.take("W_dec", width, d_out)
    bias = tensors.take("b_gate" if form == "gated" else "b_enc", width)
    b_dec = tensors.take("b_dec", d_out)
    encoder, bias, decoder = _rescaled(cfg, tensors, form, encoder, bias, decoder)
    own: Any = said.get("interp")
    kept: dict[str, Any] = own if isinstance(own, dict) else {}
    made = built(
        "sae" if kind == "sae" else "transcoder",
        at,
        (to,),
        encoder,
        bias,
        (decoder,),
        (b_dec,),
        act=_act(cfg, tensors, form, width, bias, where),
        taken=_taken(cfg, kind, b_dec, where),
        skip=tensors.take("W_skip", d_out, d_in).T if skips else None,
        declared=declared_of(kept.get("declared")),
        wanted=wanted,
        where=folder / WEIGHTS,
    )
    found = Read(NAME, (made,), kept)
    # Files say seldom whether the residual stream was centred, as it is in the models that most were trained on.
    told = isinstance(cfg.get("model_from_pretrained_kwargs"), dict) or "interp" in said
    if told or at.point not in {"resid_pre", "resid_mid", "resid_post"} or made.taken.normed == "layer":
        return found
    other = replace(made, taken=replace(made.taken, centre=True))
    return replace(found, others={0: (("read as centred over its dims", other),)})


def _architecture(cfg: Mapping[str, Any], where: Path) -> tuple[str, str, bool]:
    """Return ``sae`` or ``transcoder``, what makes activations, and whether the input is added to what is written."""
    said = str(cfg.get("architecture", "standard"))
    transcodes = said.endswith("transcoder")
    rest = said.removesuffix("transcoder").rstrip("_")
    skips = transcodes and rest.endswith("skip")
    form = (rest.removesuffix("skip").rstrip("_") if skips else rest) or "standard"
    if form not in _KINDS:
        raise InputError(f"{where}: the architecture {said!r:.60} is not known here; known are {', '.join(_KINDS)}")
    act: Any = cfg.get("activation_fn", cfg.get("activation_fn_str", "relu"))
    if act == "topk" and form == "standard":
        form = "topk"
    elif act not in {"relu", "topk", None}:
        raise InputError(f"{where}: the activation {act!r:.60} is not known here; known are relu and topk")
    return "transcoder" if transcodes or "hook_name_out" in cfg else "sae", _KINDS[form], skips


def _act(cfg: Mapping[str, Any], tensors: Tensors, form: str, width: int, bias: Tensor, where: Path) -> Act:
    if form == "topk":
        given: Any = cfg.get("activation_fn_kwargs")
        k = number({"k": given.get("k")} if "k" not in cfg and isinstance(given, dict) else cfg, "k", int, where)
        if not 0 < k <= width:
            raise InputError(f"{where}: k {k} is not from 1 to the {width} features that there are")
        return Act("topk", k=k)
    if form == "jumprelu":
        if "log_threshold" in tensors and "threshold" not in tensors:
            return Act("jumprelu", threshold=tensors.take("log_threshold", width).exp())
        return Act("jumprelu", threshold=tensors.take("threshold", width))
    if form == "gated":
        scale = tensors.take("r_mag", width).exp()
        return Act("gated", scale=scale, magnitude=tensors.take("b_mag", width) - bias * scale)
    return Act()


def _taken(cfg: Mapping[str, Any], kind: str, b_dec: Tensor, where: Path) -> Taken:
    said: Any = cfg.get("normalize_activations") or "none"
    if said is True or said == "expected_average_only_in":
        raise InputError(
            f"{where}: it reads activations scaled to an average norm (normalize_activations), and does not say by "
            "what; fold the factor into the weights with SAELens' fold_activation_norm_scaling_factor, and save again"
        )
    if said not in _NORMED:
        raise InputError(f"{where}: normalize_activations {said!r:.60} is not known here; known: {', '.join(_NORMED)}")
    if _NORMED[said] and kind == "transcoder":
        raise InputError(f"{where}: a transcoder whose input is normalised ({said}) cannot be represented here")
    offset = bool(cfg.get("apply_b_dec_to_input", kind == "sae"))
    if offset and kind == "transcoder":
        raise InputError(f"{where}: apply_b_dec_to_input makes no sense of a transcoder, whose b_dec is of its output")
    given: Any = cfg.get("model_from_pretrained_kwargs")
    centred = isinstance(given, dict) and bool(given.get("center_writing_weights"))
    return Taken(centre=centred, normed=_NORMED[said], offset=b_dec if offset else None)


def _rescaled(
    cfg: Mapping[str, Any], tensors: Tensors, form: str, encoder: Tensor, bias: Tensor, decoder: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return encoder, bias and decoder with the factors in them that SAELens multiplies by when it runs."""
    if form == "topk" and cfg.get("rescale_acts_by_decoder_norm"):
        norms = decoder.norm(dim=-1)
        encoder, bias, decoder = encoder * norms[:, None], bias * norms, decoder / norms[:, None]
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in tensors:
            factor = tensors.take(name, len(encoder))
            if cfg.get("finetuning_scaling_factor"):
                decoder = decoder * factor[:, None]
            elif not bool((factor == 1).all()):
                raise InputError(f"{tensors.where} holds a {name} that its cfg.json says not to use")
    return encoder, bias, decoder


def write(folder: Path, dictionary: Dictionary, *, said: Mapping[str, Any] = {}) -> None:
    """Write a dictionary as a folder, which is made where it is not there; tensors keep their dtype.

    Parameters
    ----------
    said
        What else ``cfg.json`` is to say under ``interp``, beside what the dictionary declares; ``sample`` is a list of
        texts that it is measured on when it is loaded.

    Raises
    ------
    InputError
        The format has no place for it, or the folder cannot be written to.
    """
    if dictionary.kind == "clt":
        raise InputError("SAELens' format has no cross-layer transcoders; save one as circuit-tracer's")
    (to,), (decoder,), (b_dec,) = dictionary.writes, dictionary.decoders, dictionary.decoder_biases
    taken, act, scale = dictionary.taken, dictionary.act, dictionary.taken.scale
    b_dec = decoder.new_zeros(decoder.shape[1]) if b_dec is None else b_dec
    offset = taken.offset is not None
    transcodes = dictionary.kind == "transcoder"
    if offset and (transcodes or not torch.equal(taken.offset.to(b_dec), b_dec)):  # pyright: ignore[reportOptionalMemberAccess]
        raise InputError(
            "SAELens' format has no place for what is taken from the input, unless it is the decoder's bias"
        )
    if transcodes and taken.normed:
        raise InputError("SAELens' format has no transcoders whose input is normalised")
    tensors = {
        "W_enc": (dictionary.encoder if scale == 1.0 else dictionary.encoder * scale).T,
        "W_dec": decoder if scale == 1.0 else decoder / scale,
        "b_dec": b_dec if scale == 1.0 else b_dec / scale,
        **_activation(dictionary),
        **({} if dictionary.skip is None else {"W_skip": dictionary.skip.T}),
    }
    form = {"relu": "" if transcodes else "standard"}.get(act.kind, act.kind)
    parts = [form, "skip" if dictionary.skip is not None else "", "transcoder" if transcodes else ""]
    reads = dictionary.reads
    cfg: dict[str, Any] = {
        "architecture": "_".join(filter(None, parts)),
        "d_in": dictionary.encoder.shape[1],
        "d_sae": dictionary.width,
        **({"d_out": decoder.shape[1]} if transcodes else {}),
        **({"k": act.k} if act.kind == "topk" else {}),
        "dtype": str(decoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": offset,
        "normalize_activations": next(name for name, normed in _NORMED.items() if normed == taken.normed),
        "reshape_activations": "hook_z" if reads.point == "z" else "none",
        "metadata": {
            "hook_name": _hooks.spelled(reads.layer, reads.point),
            **({"hook_name_out": _hooks.spelled(to.layer, to.point)} if transcodes else {}),
            **({"model_from_pretrained_kwargs": {"center_writing_weights": True}} if taken.centre else {}),
            "sae_lens_version": "6.0.0",
        },
        "interp": {**said, "declared": dict(dictionary.declared)},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(folder)!r} cannot be made ({files.reason_of(error)})") from None
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def save(place: Path) -> None:
        try:
            save_file(held, place)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    files.write(folder / WEIGHTS, save)
    files.write(folder / CONFIG, json.dumps(cfg, indent=1).encode())


def _activation(dictionary: Dictionary) -> dict[str, Tensor]:
    """Return the tensors of the encoder's bias and of what makes activations, by name."""
    act, bias = dictionary.act, dictionary.bias
    if act.kind == "gated":
        assert act.scale is not None
        assert act.magnitude is not None
        return {"b_gate": bias, "b_mag": act.magnitude + bias * act.scale, "r_mag": act.scale.log()}
    if act.kind == "jumprelu":
        assert act.threshold is not None
        return {"b_enc": bias, "threshold": act.threshold.expand(dictionary.width)}
    return {"b_enc": bias}
