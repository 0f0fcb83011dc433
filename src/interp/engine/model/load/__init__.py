"""From a hub name, a folder, a GGUF file, an adapter or an object in memory to a `LoadedModel`.

Every way ends in the same two things, a Hugging Face model and its tokenizer, which `TransformerBridge` then wraps.
"""

from __future__ import annotations

import copy
import re
import traceback
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp import files
from interp.engine import memory
from interp.engine.memory import size_of
from interp.engine.model.load.adapter import adapted, alone, base_of
from interp.engine.model.load.gguf import from_gguf
from interp.engine.model.load.hub import fetched, from_folder
from interp.engine.model.load.objects import from_object, survivor
from interp.engine.model.load.placement import rest_to
from interp.engine.model.load.source import (
    PICKLES,
    WEIGHTS,
    OnStep,
    Options,
    Source,
    device_of,
    pickled,
    plain_name,
    quiet,
    reason_of,
    refuse_limit,
    suffix_of,
    translated,
)
from interp.engine.model.load.wrap import compare_with_cpu, own_logits, wrap
from interp.engine.model.loaded import LoadedModel
from interp.engine.model.origin import Origin
from interp.errors import InputError, OutOfMemory

__all__ = ["OnStep", "Options", "alone", "load", "reason_of", "size_of", "without_adapter"]

_LENT = "there is no tokenizer beside the weights: the one that was given is used"
# What tutorials call a model, by transformer-lens' names of old → what the hub calls it.
_OLD_NAMES = {"gpt2-small": "gpt2"}


def load(
    source: Any, *, tokenizer: Any = None, copy_model: bool = False, name: str | None = None, options: Options
) -> LoadedModel:
    """Load `source`: a name, a path, a Hugging Face or PEFT model, or a TransformerBridge.

    Raises
    ------
    InputError
        Nothing is there, the hub cannot be reached, the weights are pickles, remote code is needed, the tokenizer
        does not survive saving, or the object is of a kind that cannot be wrapped.
    OutOfMemory
        The model does not fit.
    """
    recording = torch.is_grad_enabled()
    try:
        with torch.random.fork_rng(devices=[]):  # what a library draws while it builds a model is not the user's
            model = _load(source, tokenizer, copy_model, name, options)
        from_file = isinstance(source, str | Path)
        # What stays in its files is read when it is needed, and not once more before.
        found = model.fingerprint() if from_file and model.streamed is None else ""
        held = str(source) if from_file else weakref.ref(source)
        model.origin = Origin(held, tokenizer, replace(options, on_step=Options.on_step), found)
        return model
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
    finally:
        torch.set_grad_enabled(recording)  # an interrupt can keep torch.no_grad from putting it back
    # Outside the except block, so that the new error does not carry the old one's frames.
    device = device_of(options.device)
    memory.empty_cache(device)
    what = name or (source if isinstance(source, str | Path) else type(source).__name__)
    raise OutOfMemory(
        f"out of memory while loading {what}: {memory.readable(memory.free_bytes(device))} is free on {device}; free "
        "some with %interp unload or %interp clear, or use --dtype bfloat16"
    )


def without_adapter(model: LoadedModel) -> LoadedModel:
    """Load what `model` was before its adapter was merged in.

    Raises
    ------
    InputError
        It has none, or what it was loaded from is gone.
    """
    origin = model.origin
    refusal = InputError(f"{model.name} was loaded without an adapter; name two models, or load one with --adapter")
    if origin is None:
        raise refusal
    source, options = origin.object(), origin.options
    name = f"{model.name} without its adapter"
    if options.adapter is not None:
        copied = not isinstance(source, str)
        return load(
            source, tokenizer=origin.tokenizer, copy_model=copied, name=name, options=replace(options, adapter=None)
        )
    if hasattr(source, "merge_and_unload"):
        return load(copy.deepcopy(source).unload(), tokenizer=origin.tokenizer, name=name, options=options)
    if origin.path is None or not alone(origin.path):
        raise refusal
    return load(base_of(origin.path), name=name, options=options)


def _load(source: Any, tokenizer: Any, copy_model: bool, name: str | None, options: Options) -> LoadedModel:
    if isinstance(source, TransformerBridge):
        refuse_limit(options, "this model is in memory")
        if options.adapter is not None:
            raise InputError(
                "a TransformerBridge takes no adapter any more; give the Hugging Face model it was made of"
            )
        if tokenizer is not None:
            source.tokenizer = survivor(tokenizer)
        return LoadedModel(name or plain_name(str(source.cfg.model_name)), source)
    if options.adapter is not None:
        refuse_limit(options, "an adapter is merged into copies of them")
    with quiet():
        if isinstance(source, str | Path):
            found = _from_path(str(source), options)
            if found.tokenizer is None and tokenizer is not None:
                found = replace(found, tokenizer=survivor(tokenizer), notes=[*found.notes, _LENT])
        elif isinstance(source, torch.nn.Module):
            refuse_limit(options, "this model is in memory")
            found = from_object(source, tokenizer, copy_model or options.adapter is not None)
        else:
            raise InputError(f"cannot load a {type(source).__name__}; give a name, a folder, a model or a bridge")
        if options.adapter is not None:
            found = adapted(found, files.path_of(options.adapter))
        options.on_step(2, 3, "wrapping the model")
        reference = translated(f"transformers cannot run {found.name}", lambda: own_logits(found.model))
        bridge = wrap(found)
        if options.max_memory is not None:
            rest_to(bridge, device_of(options.device))
        model = translated(
            f"transformer-lens cannot run {found.name}",
            lambda: LoadedModel(
                name or found.name,
                bridge,
                notes=found.notes,
                lacks_head=found.lacks_head,
                reference=reference,
                max_memory=options.max_memory,
                on_disk=found.on_disk,
            ),
        )
    if model.device.type == "mps":
        compare_with_cpu(model)
    options.on_step(3, 3, "ready")
    return model


def _from_path(source: str, options: Options) -> Source:
    if not source.strip():
        raise InputError("the name is blank; type a folder, a hub name or bundled")
    path = files.path_of(source)
    there, suffix = files.there(path), suffix_of(path)
    if suffix == ".gguf" and there == "file":
        refuse_limit(options, "a GGUF file's are unpacked")
        return from_gguf(path, options)
    if there == "file" and suffix in PICKLES:
        raise pickled(path.name, "it is a pickle")
    if there in {"file", "other"}:
        raise InputError(f"{source} is a file; give its folder, or a .gguf file")
    if there == "folder":
        ggufs = sorted(one for one in path.iterdir() if suffix_of(one) == ".gguf")
        if ggufs and not files.there(path / "config.json"):
            if len(ggufs) > 1:
                raise InputError(f"{source} holds {len(ggufs)} GGUF files; name one: {ggufs[0].name}")
            refuse_limit(options, "a GGUF file's are unpacked")
            return from_gguf(ggufs[0], options)
        return _from_folder(path, _folder_name(path), options, local=True)
    if suffix in WEIGHTS:
        raise InputError(f"there is no file {source!r} (looked in {Path.cwd()}); type its path")
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source:
        raise InputError(f"there is no folder {source!r} (looked in {Path.cwd()})")
    source = _OLD_NAMES.get(source, source)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source, re.ASCII):
        raise InputError(f"{source!r} is neither a folder nor a hub name such as gpt2 or owner/name")
    return _from_folder(fetched(source, options), plain_name(source), options, local=False)


def _from_folder(folder: Path, name: str, options: Options, *, local: bool) -> Source:
    if not alone(folder):
        return from_folder(folder, name, options, local=local)
    refuse_limit(options, "an adapter is merged into copies of them")
    base = _from_path(base_of(folder), replace(options, adapter=None))
    return replace(adapted(base, folder), name=name)


def _folder_name(path: Path) -> str:
    """Return what to call the model in `path`; the snapshots of a hub cache are named after their repository."""
    resolved = path.resolve()
    if resolved.parent.name == "snapshots" and resolved.parent.parent.name.startswith("models--"):
        return resolved.parent.parent.name.split("--")[-1]
    return resolved.name
