"""From a Hugging Face model to a TransformerBridge, and what it is compared with."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._hf_format import determine_architecture_from_hf_config
from transformer_lens.utilities.attn_implementation import force_eager_attention
from transformer_lens.utilities.multi_gpu import count_unique_devices, find_embedding_device, is_mixed_offload_gpu

from interp.engine.model.load import distilbert
from interp.engine.model.load.source import Source, translated
from interp.engine.model.loaded import LoadedModel
from interp.engine.model.site_shapes import TOKENS
from interp.errors import InputError


def wrap(source: Source) -> TransformerBridge:
    """Make the bridge of a model, in place; without a tokenizer where there is none."""
    config = source.model.config
    refuse_two_stacks(source.name, config)
    return translated(f"transformer-lens cannot wrap {source.name} ({architecture(config)})", lambda: _wrapped(source))


def _wrapped(source: Source) -> TransformerBridge:
    """Make the bridge of a model that is here.

    Not by ``boot_transformers``: of a model that sees or hears it asks the hub for a processor, and where that needs
    torchvision it runs pip.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    model = source.model
    placed: dict[str, Any] = getattr(model, "hf_device_map", None) or {}
    if is_mixed_offload_gpu(placed.values()):
        raise InputError("a model partly on a GPU and partly off it cannot be wrapped; load it onto one of them")
    force_eager_attention(model)
    bridge = build_bridge_from_module(
        model,
        wrapped_as(model.config),
        hf_config=copy.deepcopy(model.config),
        tokenizer=source.tokenizer,
        device=find_embedding_device(model) or next(model.parameters()).device,
        dtype=model.dtype,
        model_name=source.name,
    )
    if placed:
        bridge.cfg.n_devices = count_unique_devices(model)
    return bridge


def refuse_two_stacks(name: str, config: Any) -> None:
    """Refuse an encoder with a decoder."""
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{name} is an encoder with a decoder; interp takes models of one stack of layers")


def wrapped_as(config: Any) -> str:
    """Return the architecture whose bridge a model gets.

    Raises
    ------
    ValueError
        There is none.
    """
    if getattr(config, "model_type", "") == "distilbert":
        distilbert.register()
        return distilbert.ARCHITECTURE
    return determine_architecture_from_hf_config(config)


def architecture(config: Any) -> str:
    """Return the class that a configuration names, or the type of model."""
    return str((getattr(config, "architectures", None) or [getattr(config, "model_type", "unknown")])[0])


def own_logits(model: Any) -> tuple[list[int], Tensor] | None:
    """Return a few tokens and what Hugging Face's own forward says of them; ``None`` where it gives no logits.

    In half precision its attention is written out for that, as in transformer-lens: of tokens that make no sense two
    ways of rounding make logits that are many units apart.
    """
    ids = [n % model.get_input_embeddings().weight.shape[0] for n in range(1, TOKENS + 1)]
    half = next(model.parameters()).dtype in {torch.bfloat16, torch.float16}
    attention = getattr(model.config, "_attn_implementation", None)
    if half:
        force_eager_attention(model)
    try:
        with torch.no_grad():
            logits = getattr(model(torch.tensor([ids], device=next(model.parameters()).device)), "logits", None)
    finally:
        if half and attention is not None:
            model.set_attn_implementation(attention)
    return (ids, logits[0].float().cpu()) if isinstance(logits, Tensor) and logits.dim() == 3 else None


def compare_with_cpu(model: LoadedModel) -> None:
    """Warn where a forward on Apple's GPU differs from the CPU's: some of its kernels have been wrong."""
    ids = torch.arange(1, min(9, model.geometry.d_vocab))[None]
    with torch.no_grad():
        there = model.bridge.forward(ids.to(model.device), return_type="logits").float().cpu()
        reference = copy.deepcopy(model.hf_model).to(device="cpu", dtype=torch.float32)(ids).logits
    difference = float((there - reference).abs().max())
    if difference > 1e-2:
        model.notes = (
            *model.notes,
            f"a forward on mps differs from the CPU's by {difference:.2g} of a logit; --device cpu is exact",
        )
