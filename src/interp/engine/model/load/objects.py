"""A Hugging Face or PEFT model that is in memory already."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from typing import Any

import transformers

from interp.engine.model.load.adapter import refuse_virtual_tokens
from interp.engine.model.load.placement import from_files
from interp.engine.model.load.source import Source, offline, plain_name
from interp.engine.model.load.wrap import refuse_two_stacks
from interp.engine.model.loaded import no_logits
from interp.errors import InputError


def from_object(model: Any, tokenizer: Any, copy_model: bool) -> Source:
    """Take a model in memory, or a copy of it with its adapter merged in."""
    _refuse_other_heads(model)
    notes: list[str] = []
    model = getattr(model, "_orig_mod", model)  # what torch.compile made it of
    name = plain_name(getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__)
    refuse_virtual_tokens(model)
    on_disk: frozenset[int] = frozenset()
    if any(parameter.is_meta for parameter in getattr(model, "parameters", list)()):
        model, on_disk, note = from_files(name, model, copied=copy_model)
        notes.append(f"{note}; your object is as it was")
    elif hasattr(model, "merge_and_unload"):
        # Wrapping a PEFT model drops its adapter or crashes: a merged copy is what it computes.
        model = copy.deepcopy(model).merge_and_unload()
        notes.append("this is a copy with the adapter merged in; your object is as it was")
    elif copy_model:
        model = copy.deepcopy(model)
        notes.append("this is a copy; your object is as it was")
    else:
        notes.append(
            "your model object was rewired in place (parameters renamed, attention eager); copy=True leaves it alone"
        )
    if getattr(model, "config", None) is None or not hasattr(model, "save_pretrained"):
        raise InputError(
            f"cannot wrap a {type(model).__name__}; give a Hugging Face model or a TransformerBridge: "
            "TransformerBridge.boot_native(config) of transformer_lens makes one without a checkpoint"
        )
    if not model.config.architectures:  # of a model that was made of a configuration and never saved
        model.config.architectures = [type(model).__name__]
    read = survivor(tokenizer) if tokenizer is not None else None
    return Source(name, model.eval(), read, notes, on_disk=on_disk)


def _refuse_other_heads(model: Any) -> None:
    """Refuse a model without a language-model head of its own before wrapping it rewires half of it."""
    kind = type(model).__name__
    refuse_two_stacks(kind, getattr(model, "config", None))
    if kind.endswith("ForSequenceClassification"):
        raise InputError(
            f"a {kind} is explained as it is: interp.saliency_of_classifier(text, model, tokenizer, target=1); for its "
            "attention load its folder or its name"
        )
    if kind.endswith("ForPreTraining"):
        raise InputError(no_logits(f"a {kind}", "has another head beside its language-model head"))
    if hasattr(model, "get_output_embeddings") and model.get_output_embeddings() is None:
        raise InputError(no_logits(f"a {kind}"))


def survivor(tokenizer: Any) -> Any:
    """Return `tokenizer` as re-read from a folder, which the bridge does to it by path, losing tokens added since."""
    if not hasattr(tokenizer, "save_pretrained"):
        raise InputError(f"tokenizer= takes a tokenizer, such as AutoTokenizer gives, not a {type(tokenizer).__name__}")
    folder = tempfile.mkdtemp(prefix="interp-tokenizer-")
    try:
        with offline():
            tokenizer.save_pretrained(folder)
            read = transformers.AutoTokenizer.from_pretrained(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    read.model_input_names = list(tokenizer.model_input_names)  # set on the object, it is not in the folder
    weakref.finalize(read, shutil.rmtree, folder, ignore_errors=True)
    if read.get_vocab() != tokenizer.get_vocab():
        lost = sorted(set(tokenizer.get_vocab()) - set(read.get_vocab()))
        raise InputError(f"the tokenizer does not survive saving ({len(lost)} tokens lost, such as {lost[:1]})")
    return read
