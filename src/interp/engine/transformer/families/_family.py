"""What a family of models says of itself: where its weights are, its norms, its positions, its quirks.

The defaults are those of Llama and of what is built like it, with the weights where transformer-lens' bridge has them.
A family says what is different.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from interp.engine.exactness import Unreadable
from interp.engine.transformer.block import Block, Identity, Norm, Rotation
from interp.engine.transformer.linear import Activation, Linear, gelu_tanh

# Activation modules as plain functions, which a product can apply on its way. GPT-2's own GELU is written out in eight
# passes over the neurons; torch has the same function in one.
_PLAIN: dict[str, Activation] = {
    "NewGELUActivation": gelu_tanh,
    "GELUActivation": functional.gelu,
    "SiLUActivation": functional.silu,
    "SiLU": functional.silu,
}


class Family:
    """How the weights of a family's models make blocks.

    Attributes
    ----------
    names
        What Hugging Face calls the architectures (``config.model_type``).
    """

    names: ClassVar[tuple[str, ...]] = ()

    def config(self, model: Any) -> Any:
        """Return the configuration of what the bridge wraps."""
        return model.config

    def differs(self, config: Any, n_ctx: int) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does."""
        longest = self.window(config)
        return f"attention slides over {longest} tokens" if longest and longest < n_ctx else ""

    def window(self, config: Any) -> int | None:
        """Return over how many tokens attention slides."""
        return config.sliding_window if getattr(config, "use_sliding_window", False) else None

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return False

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return float(attention.scaling)

    def embedding(self, bridge: Any) -> Callable[[Tensor], Tensor]:
        """Return the function of token ids ``[position]`` that gives the residual stream before layer 0."""
        words = bridge.embed.original_component.weight.detach()
        return lambda ids: functional.embedding(ids, words)

    def rotary(self, bridge: Any) -> Callable[[int], Rotation] | None:
        """Return the function of a length that gives its positions' turns; ``None`` where nothing is turned."""
        module = bridge.rotary_emb.original_component

        def tables(length: int) -> Rotation:
            sample = bridge.embed.original_component.weight.detach()
            cos, sin = module(sample, torch.arange(length, device=sample.device)[None])
            return Rotation(cos[0], sin[0])

        return tables

    def block(self, block: Any, index: int, d_head: int, config: Any) -> Block:
        """Return the weights of a bridge's block, number `index`.

        Raises
        ------
        Unreadable
            One of its parts is of another kind.
        """
        attention, mlp = block.attn, getattr(block, "mlp", None)
        inside, parts = dict(attention.named_children()), {} if mlp is None else dict(mlp.named_children())
        q, k, v = (linear_of(part) for part in (attention.q, attention.k, attention.v))
        norm1 = norm_of(block.ln1, attention.q)
        nothing = q.weight.new_zeros(0, q.weight.shape[1])  # an MLP without neurons, of layers that are attention alone
        return Block(
            norm1=norm1,
            norm2=norm1 if mlp is None else norm_of(block.ln2, parts["in"]),
            q=q,
            k=k,
            v=v,
            o=linear_of(attention.o),
            gate=linear_of(parts["gate"]) if "gate" in parts else None,
            up=Linear(nothing, None) if mlp is None else linear_of(parts["in"]),
            down=Linear(nothing.T, None) if mlp is None else linear_of(parts["out"]),
            act=functional.relu if mlp is None else activation_of(mlp.original_component),
            scale=self.scale(attention.original_component, index, d_head),
            d_head=d_head,
            parallel=self.parallel(config),
            q_norm=norm_of(inside["q_norm"]) if "q_norm" in inside else None,
            k_norm=norm_of(inside["k_norm"]) if "k_norm" in inside else None,
            qkv=joined([q, k, v]),
        )


class LearnedPositions(Family):
    """A family whose positions are embedded, and nothing is turned."""

    def embedding(self, bridge: Any) -> Callable[[Tensor], Tensor]:
        """Return the function of token ids ``[position]`` that gives the residual stream before layer 0."""
        words = super().embedding(bridge)
        positions = bridge.pos_embed.original_component.weight.detach()
        return lambda ids: words(ids) + positions[: len(ids)]

    def rotary(self, bridge: Any) -> None:
        """Return ``None``."""


def activation_of(mlp: Any) -> Activation:
    """Return an MLP's activation function."""
    function = next(getattr(mlp, name) for name in ("act", "act_fn", "activation_fn") if hasattr(mlp, name))
    return _PLAIN.get(type(function).__name__) or function


def linear_of(component: Any) -> Linear:
    """Return a bridge's component as a linear layer.

    Raises
    ------
    Unreadable
        It is quantised, or has an adapter beside it.
    """
    module = component.original_component
    if type(module) not in {torch.nn.Linear, Conv1D}:
        raise Unreadable(f"it holds {type(module).__name__} where a plain linear layer is known")
    weight = module.weight.detach()
    bias = getattr(module, "bias", None)
    # Conv1D, GPT-2's own linear layer, keeps its weight the other way round.
    return Linear(weight if isinstance(module, torch.nn.Linear) else weight.T, None if bias is None else bias.detach())


def joined(parts: Sequence[Linear]) -> Linear | None:
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
    together = first.as_strided((size, first.shape[1]), first.stride())
    return Linear(together, torch.cat(biases) if biases else None)


def norm_of(component: Any, reader: Any = None) -> Norm:
    """Return a norm; one that is none has as many gains of 1 as `reader`, what reads it, has columns."""
    module = component.original_component
    if isinstance(module, torch.nn.Identity):
        weight = reader.original_component.weight
        return Identity(weight.new_ones(weight.shape[1]), None, eps=0.0, rms=True)
    bias = getattr(module, "bias", None)
    return Norm(
        weight=module.weight.detach(),
        bias=None if bias is None else bias.detach(),
        eps=float(module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps),
        rms=not isinstance(module, torch.nn.LayerNorm),
    )
