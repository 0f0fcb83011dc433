"""A causal transformer as plain functions over its own weights: what the exact replay computes with, without hooks.

The weights are the bridge's, read anew for every use; nothing is folded, copied or converted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from transformer_lens.model_bridge.sources.native import NativeAttention, NativeModel
from transformers.pytorch_utils import Conv1D

from interp.engine.exactness import Unreadable
from interp.engine.transformer import linear
from interp.engine.transformer.linear import Activation, gelu_tanh

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

# The families whose layers `Layer` describes completely; `read` checks the settings that would change that.
# "native" is what `TransformerBridge.boot_native` makes, which has no Hugging Face configuration.
FAMILIES = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "native"})
_LEARNED = frozenset({"gpt2", "native"})  # positions are embedded, not rotary


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; `weight` is ``[out, in]``."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, then: Activation | None = None) -> Tensor:
        return linear.linear(x, self.weight, self.bias, then)


@dataclass(frozen=True)
class Norm:
    """LayerNorm (`rms` false) or RMSNorm over the last axis."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    rms: bool

    def __call__(self, x: Tensor) -> Tensor:
        if self.rms:
            return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Identity(Norm):
    """No norm at all; `weight` is ones, so that what folds a gain folds none."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Layer:
    """One block: attention and MLP, one after the other or side by side.

    `qkv` is the three projections as one, where their weights lie side by side in memory. `gate` is ``None`` for an MLP
    without a gate; `q_norm`, `k_norm` are per head, before rotary.
    """

    norm1: Norm
    norm2: Norm
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    gate: Linear | None
    up: Linear
    down: Linear
    act: Activation
    scale: float
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    qkv: Linear | None = None

    def projected(self, x: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values, ``[…, head · d_head]`` each, of the attention's normed input."""
        if self.qkv is None:
            return self.q(x), self.k(x), self.v(x)
        return self.qkv(x).split([len(part.weight) for part in (self.q, self.k, self.v)], -1)

    def neurons(self, x: Tensor) -> Tensor:
        """Return the MLP's post-activation values, ``[…, neuron]``, of its normed input."""
        if self.gate is None:
            return self.up(x, self.act)
        gated, up = self.gate(x, self.act), self.up(x)
        # Not in place under autograd: some activation functions keep their output for the backward pass.
        return gated * up if gated.requires_grad else gated.mul_(up)

    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output, ``[…, d_model]``, of its normed input."""
        return self.down(self.neurons(x))


@dataclass(frozen=True)
class Network:
    """The whole model.

    Attributes
    ----------
    parallel
        Whether a block's MLP reads the residual stream before the attention (NeoX).
    rotary
        Length → (cos, sin), each ``[position, rotated dims]``; ``None`` for learned positions.
    embed
        Token ids ``[position]`` → the residual stream before layer 0, ``[position, d_model]``.
    """

    layers: tuple[Layer, ...]
    final: Norm
    unembed: Linear
    embed: Callable[[Tensor], Tensor]
    rotary: Callable[[int], tuple[Tensor, Tensor]] | None
    n_heads: int
    n_kv_heads: int
    d_head: int
    parallel: bool


def read(model: LoadedModel) -> Network:
    """Return `model` as a `Network` of its own weights.

    Raises
    ------
    Unreadable
        It is of another family, or a setting, a dtype or a hook makes its forward something else.
    """
    hf: Any = model.hf_model
    family = _family(model)
    config = _config(hf)
    if model.user_hooks():
        raise Unreadable("hooks of the user's own")
    if next(hf.parameters()).dtype not in {torch.float32, torch.float64}:
        raise Unreadable(f"{model.dtype} rounds differently from one batch to the next")
    if torch.is_autocast_enabled(model.device.type):
        raise Unreadable("autocast rounds differently from one batch to the next")
    if hf.training:
        raise Unreadable("the model is in training mode")
    if getattr(config, "reorder_and_upcast_attn", False):
        raise Unreadable("attention is upcast")
    if family == "native":
        _check_native(config)
    if getattr(config, "use_sliding_window", family == "mistral") and getattr(config, "sliding_window", None):
        longest = config.sliding_window
        if longest < model.geometry.n_ctx:
            raise Unreadable(f"attention slides over {longest} tokens")
    return weights(model)


def weights(model: LoadedModel) -> Network:
    """Return `model`'s weights, whatever its dtype, its mode and its hooks: for what needs no forward.

    Raises
    ------
    Unreadable
        It is of another family.
    """
    family = _family(model)
    config = _config(model.hf_model)
    bridge: Any = model.bridge
    geometry = model.geometry
    return Network(
        layers=tuple(_layer(block, index, geometry.d_head) for index, block in enumerate(bridge.blocks)),
        final=_norm(bridge.ln_final, bridge.unembed),
        unembed=_linear(bridge.unembed),
        embed=_embedding(bridge, family),
        rotary=None if family in _LEARNED else _rotary(bridge),
        n_heads=geometry.n_heads,
        n_kv_heads=geometry.n_kv_heads,
        d_head=geometry.d_head,
        parallel=bool(getattr(config, "use_parallel_residual", False)),
    )


def _family(model: LoadedModel) -> str:
    family = model.family
    hf: Any = model.hf_model
    if family not in FAMILIES:
        raise Unreadable(f"the replay does not know {family or type(hf).__name__}")
    if family == "native" and hf.cfg.attn_only:
        raise Unreadable("it has no MLPs")
    return family


def _config(hf: Any) -> Any:
    return hf.cfg if isinstance(hf, NativeModel) else hf.config


def _check_native(config: Any) -> None:
    """Refuse the settings of a native model that a `Layer` has no place for."""
    if (config.positional_embedding_type or "standard").lower() != "standard":
        raise Unreadable("its rotary positions turn neighbouring dims, not halves")
    if max(config.attn_scores_soft_cap, config.output_logits_soft_cap) > 0:
        raise Unreadable("scores or logits are capped")
    if (config.act_fn or "").lower() == "solu_ln":
        raise Unreadable("its MLPs have a norm inside")
    if (config.normalization_type or "").upper() in {"LNPRE", "RMSPRE"}:
        raise Unreadable("its norms have no gain")


def _layer(block: Any, index: int, d_head: int) -> Layer:
    attention, mlp = block.attn, block.mlp
    own = attention.original_component
    inner = mlp.original_component
    modules = dict(mlp.named_children())
    q, k, v = (_linear(part) for part in (attention.q, attention.k, attention.v))
    return Layer(
        norm1=_norm(block.ln1, attention.q),
        norm2=_norm(block.ln2, modules["in"]),
        q=q,
        k=k,
        v=v,
        o=_linear(attention.o),
        gate=_linear(modules["gate"]) if "gate" in modules else None,
        up=_linear(modules["in"]),
        down=_linear(modules["out"]),
        act=_activation(inner.act if hasattr(inner, "act") else inner.act_fn),
        scale=_scale(own, index, d_head),
        q_norm=_norm(attention.q_norm) if "q_norm" in dict(attention.named_children()) else None,
        k_norm=_norm(attention.k_norm) if "k_norm" in dict(attention.named_children()) else None,
        qkv=_joined([q, k, v]),
    )


# Activation modules as plain functions, which a product can apply on its way. GPT-2's own GELU is written out in eight
# passes over the neurons; torch has the same function in one.
_PLAIN: dict[str, Activation] = {
    "NewGELUActivation": gelu_tanh,
    "GELUActivation": functional.gelu,
    "SiLUActivation": functional.silu,
    "SiLU": functional.silu,
}


def _activation(function: Any) -> Activation:
    return _PLAIN.get(type(function).__name__) or function


def _scale(attention: Any, index: int, d_head: int) -> float:
    if hasattr(attention, "scale_attn_weights"):  # GPT-2's three settings
        scale = d_head**-0.5 if attention.scale_attn_weights else 1.0
        return scale / (index + 1) if attention.scale_attn_by_inverse_layer_idx else scale
    return 1 / float(attention.scale) if isinstance(attention, NativeAttention) else float(attention.scaling)


def _linear(component: Any) -> Linear:
    module = component.original_component
    if type(module) not in {torch.nn.Linear, Conv1D}:  # quantised, or with an adapter beside it
        raise Unreadable(f"it holds {type(module).__name__} where a plain linear layer is known")
    weight = module.weight.detach()
    bias = getattr(module, "bias", None)
    # Conv1D, GPT-2's own linear layer, keeps its weight the other way round.
    return Linear(weight if isinstance(module, torch.nn.Linear) else weight.T, None if bias is None else bias.detach())


def _joined(parts: Sequence[Linear]) -> Linear | None:
    """Return linear layers as one, without a copy of their weights; ``None`` where these are not side by side."""
    weights = [part.weight for part in parts]
    first, size = weights[0], sum(map(len, weights))
    at = first.storage_offset()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or weight.stride() != first.stride() or weight.storage_offset() != at:
            return None
        at += len(weight) * weight.stride(0)
    biases = [part.bias for part in parts if part.bias is not None]
    if len(biases) not in {0, len(parts)}:
        return None
    joined = first.as_strided((size, first.shape[1]), first.stride())
    return Linear(joined, torch.cat(biases) if biases else None)


def _norm(component: Any, reader: Any = None) -> Norm:
    """Return a norm; one that is none has as many gains of 1 as `reader`, what reads it, has columns."""
    module = component.original_component
    if isinstance(module, torch.nn.Identity):
        weight = reader.original_component.weight
        return Identity(weight.new_ones(weight.shape[1]), None, eps=0.0, rms=True)
    rms = not isinstance(module, torch.nn.LayerNorm)
    bias = getattr(module, "bias", None)
    return Norm(
        weight=module.weight.detach(),
        bias=None if bias is None else bias.detach(),
        eps=float(module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps),
        rms=rms,
    )


def _embedding(bridge: Any, family: str) -> Callable[[Tensor], Tensor]:
    words = bridge.embed.original_component.weight.detach()
    if family not in _LEARNED:
        return lambda ids: functional.embedding(ids, words)
    positions = bridge.pos_embed.original_component.weight.detach()
    return lambda ids: functional.embedding(ids, words) + positions[: len(ids)]


def _rotary(bridge: Any) -> Callable[[int], tuple[Tensor, Tensor]]:
    module = bridge.rotary_emb.original_component

    def tables(length: int) -> tuple[Tensor, Tensor]:
        sample = bridge.embed.original_component.weight.detach()
        cos, sin = module(sample, torch.arange(length, device=sample.device)[None])
        return cos[0], sin[0]

    return tables


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first dims of each head, in halves, as Llama and NeoX do.

    Parameters
    ----------
    x
        ``[…, position, head, d_head]``.
    cos, sin
        ``[position, rotated dims]``.
    """
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    half = width // 2
    swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
    rotated = turned * cos[:, None] + swapped * sin[:, None]
    return rotated if rest.shape[-1] == 0 else torch.cat([rotated, rest], dim=-1)


def chunked(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = 2048) -> Tensor:
    """Apply `function` to `rows`, ``[row, d_model]``, in chunks that keep its wide intermediate values in cache."""
    if len(rows) <= size:
        return function(rows)
    parts: Sequence[Tensor] = [function(part) for part in rows.split(size)]
    return torch.cat(list(parts))
