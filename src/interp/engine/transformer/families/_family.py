"""What a family of models says of itself: where its weights are, its norms, its positions, its quirks.

The defaults are those of Llama and of what is built like it, with the weights where transformer-lens' bridge has them.
A family says what is different.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from interp.engine.exactness import Unreadable
from interp.engine.transformer.block import Block
from interp.engine.transformer.linear import Activation, Linear, gelu_tanh
from interp.engine.transformer.parts import Embedding, Identity, Norm, Output, Rotation, Transform, Unembed

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
    normed
        Of an encoder: the sites of which the bridge's hooks show the stream after its norm.
    """

    names: ClassVar[tuple[str, ...]] = ()
    normed: ClassVar[frozenset[str]] = frozenset()

    # -- what differs by a setting -----------------------------------------------------------------------------------

    def config(self, model: Any) -> Any:
        """Return the configuration of what the bridge wraps."""
        return model.config

    def differs(self, config: Any) -> str:
        """Return which setting makes a model's forward another than `Block`'s; an empty string where none does.

        What is read off the weights alone is as it is.
        """
        return ""

    def unlike(self, config: Any) -> str:
        """Return which setting makes a model's weights other than `Block`'s; an empty string where none does."""
        return ""

    def parallel(self, config: Any) -> bool:
        """Return whether a block's MLP reads the residual stream before its attention."""
        return False

    def residual(self, config: Any) -> float:
        """Return what a half block's output is multiplied by before it is added to the stream."""
        return 1.0

    def scale(self, attention: Any, index: int, d_head: int) -> float:
        """Return what the scores of layer `index` are multiplied by."""
        return float(attention.scaling)

    def window(self, attention: Any, config: Any, index: int) -> int | None:
        """Return how many tokens back the attention of layer `index` reaches; ``None``: all."""
        return getattr(attention, "sliding_window", None)

    def cap(self, config: Any) -> float | None:
        """Return what attention's scores are softly held within."""
        return None

    def slopes(self, config: Any) -> Tensor | None:
        """Return what is added to a score for each token of distance, ``[head]``."""
        return None

    def sinks(self, attention: Any) -> Tensor | None:
        """Return a score for each head that takes attention and gives nothing."""
        return None

    # -- what stands before and after the blocks ---------------------------------------------------------------------

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        return Embedding(bridge.embed.original_component.weight.detach())

    def rotary(self, bridge: Any) -> Callable[[int], Sequence[Rotation | None]] | None:
        """Return the function of a length that gives each layer's turns; ``None`` where no layer has any."""
        module, layers = bridge.rotary_emb.original_component, len(bridge.blocks)
        return lambda length: [turns(bridge, module, length)] * layers

    def unembed(self, bridge: Any, config: Any) -> Unembed:
        """Return what makes logits of the normed stream."""
        return Unembed(linear_of(bridge.unembed))

    def head(self, bridge: Any, config: Any) -> Transform | None:
        """Return what is done to the stream before its final norm; ``None``: nothing."""
        return None

    # -- a block -----------------------------------------------------------------------------------------------------

    def norm(self, component: Any, like: Tensor) -> Norm:
        """Return a norm that is one; `like` has as many columns as it has dims."""
        module = component.original_component
        bias = getattr(module, "bias", None)
        return Norm(
            weight=module.weight.detach(),
            bias=None if bias is None else bias.detach(),
            eps=float(module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps),
            rms=not isinstance(module, torch.nn.LayerNorm),
        )

    def norm_of(self, parent: Any, name: str, width: Tensor) -> Norm:
        """Return the norm called `name`; where there is none, one that does nothing to as many dims as `width` has."""
        component = getattr(parent, name, None)
        if component is None or isinstance(component.original_component, torch.nn.Identity):
            return Identity(width.new_ones(width.shape[-1]), None, eps=0.0, rms=True)
        return self.norm(component, width)

    def block(self, block: Any, index: int, d_head: int, config: Any) -> Block:
        """Return the weights of a bridge's block, number `index`.

        Raises
        ------
        Unreadable
            One of its parts is of another kind.
        """
        attention, mlp = block.attn, getattr(block, "mlp", None)
        inside, own = dict(attention.named_children()), attention.original_component
        q, k, v = (linear_of(part) for part in (attention.q, attention.k, attention.v))
        norm1 = self.norm_of(block, "ln1", q.weight)
        # A parallel block may have one norm for both halves; one without any reads the stream as it is.
        norm2 = norm1 if mlp is None or self._one_norm(block, config) else self.norm_of(block, "ln2", q.weight)
        residual = self.residual(config)
        gate, up, down, act, experts = _mlp(mlp, q.weight, self.activation)
        return Block(
            norm1=norm1,
            norm2=norm2,
            q=q,
            k=k,
            v=v,
            o=Output(linear_of(attention.o), self._after(block, "ln1_post", q.weight), residual),
            gate=gate,
            up=up,
            down=Output(down, self._after(block, "ln2_post", q.weight), residual),
            act=act,
            scale=self.scale(own, index, d_head),
            d_head=d_head,
            parallel=self.parallel(config),
            q_norm=self.norm(inside["q_norm"], q.weight.T) if "q_norm" in inside else None,
            k_norm=self.norm(inside["k_norm"], k.weight.T) if "k_norm" in inside else None,
            qkv=joined([q, k, v]),
            window=self.window(own, config, index),
            cap=self.cap(config),
            slopes=None if (slopes := self.slopes(config)) is None else slopes.to(q.weight),
            sinks=self.sinks(own),
            experts=experts,
        )

    def activation(self, mlp: Any) -> Activation:
        """Return the activation function of an MLP, a module of Hugging Face's."""
        return activation_of(mlp)

    def _one_norm(self, block: Any, config: Any) -> bool:
        return self.parallel(config) and not hasattr(block, "ln2")

    def _after(self, block: Any, name: str, like: Tensor) -> Norm | None:
        return self.norm(getattr(block, name), like) if hasattr(block, name) else None


class LearnedPositions(Family):
    """A family whose positions are embedded, and nothing is turned."""

    def embedding(self, bridge: Any, config: Any) -> Embedding:
        """Return what the residual stream begins with."""
        positions = bridge.pos_embed.original_component.weight.detach()
        return replace(super().embedding(bridge, config), positions=positions)

    def rotary(self, bridge: Any) -> None:
        """Return ``None``."""


def turns(bridge: Any, module: Any, length: int, kind: str | None = None) -> Rotation:
    """Return the turns of the first positions by Hugging Face's own rotary module, of layers of one `kind`."""
    sample = bridge.embed.original_component.weight.detach()
    places = torch.arange(length, device=sample.device)[None]
    cos, sin = module(sample, places) if kind is None else module(sample, places, kind)
    return Rotation(cos[0].to(sample.device), sin[0].to(sample.device))


def by_kind(bridge: Any, kinds: Sequence[str]) -> Callable[[int], list[Rotation]]:
    """Return the function of a length that gives each layer's turns, where each kind of layer has its own table."""
    module = bridge.rotary_emb.original_component

    def tables(length: int) -> list[Rotation]:
        made = {kind: turns(bridge, module, length, kind) for kind in dict.fromkeys(kinds)}
        return [made[kind] for kind in kinds]

    return tables


def _mlp(
    mlp: Any, like: Tensor, act: Callable[[Any], Activation]
) -> tuple[Linear | None, Linear, Linear, Activation, Callable[[Tensor], Tensor] | None]:
    """Return an MLP's gate, what goes in, what comes out, its activation function; and its experts, if it has some."""
    nothing = Linear(like.new_zeros(0, like.shape[1]), None)  # without neurons: of layers that are attention alone
    away = Linear(nothing.weight.T, None)
    if mlp is None:
        return None, nothing, away, functional.relu, None
    parts, own = dict(mlp.named_children()), mlp.original_component
    if "in" not in parts:
        return None, nothing, away, functional.relu, _experts(own)
    gate = linear_of(parts["gate"]) if "gate" in parts else None
    return gate, linear_of(parts["in"]), linear_of(parts["out"]), act(own), None


def _experts(module: Any) -> Callable[[Tensor], Tensor]:
    """Return routed experts as a function of rows: the model's own module, which takes each row by itself."""
    if not any("xperts" in name for name, _ in module.named_children()):
        raise Unreadable(f"it holds {type(module).__name__} where an MLP is known")

    return Experts(module)


class Constant:
    """A module as a function whose own weights are constants, as all weights here are.

    Else what is computed with them would have a gradient of its own. Where hooks of accelerate's are on it, rows go to
    its device and back.
    """

    def __init__(self, module: Any, weights: Mapping[str, Tensor] | None = None) -> None:
        self.module = module
        self._carried = weights is not None
        own = itertools.chain(module.named_parameters(), module.named_buffers())
        self._weights = {name: tensor.detach() for name, tensor in own} if weights is None else weights

    def __call__(self, x: Tensor) -> Any:
        """Return what the module gives for `x`, on the device of that."""
        at = next((tensor.device for tensor in self._weights.values()), x.device)
        if not (self._carried or torch.is_grad_enabled()):
            out = self.module(x.to(at))
        else:
            out = torch.func.functional_call(self.module, dict(self._weights), x.to(at))
        return (out[0] if isinstance(out, tuple) else out).to(x.device)

    def moved(self, to: Callable[[Tensor], Tensor]) -> Constant:
        """Return the same with weights that `to` gives."""
        if "_hf_hook" in vars(self.module):
            return self
        return type(self)(self.module, {name: to(tensor) for name, tensor in self._weights.items()})


class Experts(Constant):
    """Routed experts as a function of rows, which take each row by itself."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[…, d_model]``, of the same."""
        return super().__call__(x.reshape(1, -1, x.shape[-1])).view(x.shape) if x.numel() else x


def activation_of(mlp: Any) -> Activation:
    """Return an MLP's activation function.

    Raises
    ------
    Unreadable
        It goes by a name that is not known.
    """
    known = ("act", "act_fn", "activation_fn", "gelu_impl")
    function = next((getattr(mlp, name) for name in known if hasattr(mlp, name)), None)
    if function is None:
        raise Unreadable(f"the activation function of {type(mlp).__name__} is not known")
    return plain(function)


def plain(function: Any) -> Activation:
    """Return an activation function, or a module that is one, as a plain function."""
    if isinstance(function, torch.nn.Module) and any(True for _ in function.parameters()):
        return Constant(function)
    return _PLAIN.get(type(function).__name__) or function


def linear_of(component: Any) -> Linear:
    """Return a bridge's component as a linear layer.

    Raises
    ------
    Unreadable
        It is quantised, or has an adapter beside it.
    """
    module = component.original_component
    if type(module) not in {torch.nn.Linear, Conv1D} and type(module).__name__ != "FalconLinear":
        raise Unreadable(f"it holds {type(module).__name__} where a plain linear layer is known")
    weight = module.weight.detach()
    bias = getattr(module, "bias", None)
    # Conv1D, GPT-2's own linear layer, keeps its weight the other way round.
    return Linear(weight.T if isinstance(module, Conv1D) else weight, None if bias is None else bias.detach())


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
