"""A model of the same shape that was never trained: what is found there too says nothing of training."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from transformer_lens.model_bridge.sources.native import boot
from transformers import PreTrainedModel

from interp.engine import memory
from interp.engine.model.load import Options, load
from interp.engine.model.load.source import translated
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def untrained(model: LoadedModel, seed: int) -> LoadedModel:
    """Return a model of the same class and configuration with the weights that its library begins training with.

    It is another model, which shares nothing with `model` and is to be closed by the caller. It has no tokenizer: what
    runs on it are token ids. The global random state stays as it is.

    Parameters
    ----------
    seed
        Of the weights; the same seed gives the same bits.

    Raises
    ------
    InputError
        It cannot be made: the weights stay in their files or on several devices, are quantised, are of a class that
        initialises nothing, or do not fit into memory a second time.

    Examples
    --------
    >>> import interp
    >>> other = untrained(interp.model, seed=0)
    >>> other.geometry == interp.model.geometry, other.fingerprint() == interp.model.fingerprint()
    (True, False)
    >>> other.close()
    """
    what = f"an untrained copy of {model.name}"
    if model.streamed is not None:
        raise InputError(f"{what} cannot be made: its weights stay in their files, or are on several devices")
    free = memory.free_bytes(model.device)
    if model.nbytes > free:
        raise InputError(
            f"{what} needs {memory.readable(model.nbytes)}, and {memory.readable(free)} is free on {model.device}"
        )
    if not all(parameter.is_floating_point() for parameter in model.hf_model.parameters()):
        raise InputError(f"{what} cannot be made: its weights are quantised")
    name = f"{model.name} (untrained)"
    options = Options(device=str(model.device))
    with torch.random.fork_rng(devices=[]):
        # Made on the CPU, whose generator alone is seeded: torch.manual_seed would seed every device's.
        torch.default_generator.manual_seed(seed)
        if model.family == "native":
            made = _native(model)
        else:
            made = translated(f"{what} cannot be made", lambda: _pretrained(model, what))
            made.to(device=model.device, dtype=getattr(torch, model.dtype))
    return load(made.eval(), name=name, options=options)


def _native(model: LoadedModel) -> Any:
    """Return a bridge of transformer-lens' own kind of model, with its own initial weights."""
    config: Any = copy.deepcopy(model.bridge.cfg)
    config.init_weights, config.seed = True, None  # the generator is seeded already
    return boot(config, device=model.device, dtype=getattr(torch, model.dtype), model_name=model.name)


def _pretrained(model: LoadedModel, what: str) -> Any:
    """Return a Hugging Face model made of its configuration alone."""
    kind: Any = type(model.hf_model)
    if not issubclass(kind, PreTrainedModel):
        raise InputError(f"{what} cannot be made: {kind.__name__} is no class of Hugging Face's")
    config: Any = copy.deepcopy(model.hf_model.config)
    # A GGUF file's weights were unpacked when it was read: they are plain numbers now, whatever its configuration says.
    if getattr(config, "quantization_config", None) is not None:
        if getattr(model.hf_model, "quantization_method", None) not in {None, "gguf"}:
            raise InputError(f"{what} cannot be made: its weights are quantised")
        del config.quantization_config
    return kind(config)
