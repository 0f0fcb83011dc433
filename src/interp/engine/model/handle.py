"""The bridge of a loaded model and what it says of itself: shape, tokenizer, device, modules, state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources.native import NativeModel

from interp.engine.model import hooks
from interp.engine.model.carried import Carried
from interp.engine.model.fingerprint import State
from interp.engine.model.fingerprint import inspect as inspect_state
from interp.engine.model.streamed import Streamed
from interp.engine.model.tokens import Tokens, type_count
from interp.errors import InputError, printable
from interp.sites import FEATURES, SITES, available, find, ranges


@dataclass(frozen=True)
class Geometry:
    """The model's shape; `n_kv_heads` equals `n_heads` where heads share no keys and values.

    `d_vocab` tokens are read, `d_vocab_out` have a logit: as many, where a model is not told apart.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_ctx: int
    causal: bool
    d_vocab_out: int = -1

    def __post_init__(self) -> None:
        if self.d_vocab_out < 0:
            object.__setattr__(self, "d_vocab_out", self.d_vocab)

    @classmethod
    def of(cls, config: Any) -> Geometry:
        """Return the shape that a bridge's configuration tells."""
        sizes = {name: int(getattr(config, name)) for name in ("n_layers", "n_heads", "d_model", "d_head", "d_vocab")}
        return cls(
            **sizes,
            n_kv_heads=int(getattr(config, "n_key_value_heads", None) or sizes["n_heads"]),
            n_ctx=int(config.n_ctx),
            causal=getattr(config, "attention_dir", "causal") == "causal",
        )


# What of a loaded model is meant for users; the rest is for techniques.
USED = (
    *("bridge", "device", "dtype", "family", "fingerprint", "geometry", "hf_model", "hook_names", "name", "nbytes"),
    *("neurons", "notes", "run", "sites", "store", "tokens"),
)


class Handle:
    """A TransformerBridge under a name; the base of `LoadedModel`, which documents the attributes."""

    def __init__(self, name: str, bridge: TransformerBridge) -> None:
        self.name = printable(name)
        self._bridge: TransformerBridge | None = bridge
        self.geometry = Geometry.of(bridge.cfg)
        self._tokens: Tokens | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.odd: dict[str, str] = {}
        self.way: Callable[[], str] | None = None  # says how it is computed with at this moment
        self.streamed: Streamed | Carried | None = None

    def __repr__(self) -> str:
        kind = type(self).__name__
        if self._bridge is None:
            return f"{kind}({self.name}: unloaded)"
        g, way = self.geometry, "" if self.way is None else f", {self.way()}"
        return f"{kind}({self.name}: {g.n_layers} layers × {g.n_heads} heads, {self.dtype} on {self.device}{way})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        """Show the model in a notebook, with what to try."""
        printer.text(repr(self))
        if self._bridge is not None:
            printer.text('\ntry: %interp attention "The cat sat on the mat"; %interp help lists the commands')

    def __dir__(self) -> list[str]:
        """Return what is meant for users: the completion of ``interp.model.``."""
        return [name for name in USED if hasattr(type(self), name) or name in vars(self)]

    if not TYPE_CHECKING:  # a checker would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            # Asked for only where there is no such attribute.
            bridge = vars(self).get("_bridge")
            if bridge is not None and not name.startswith("_") and name in dir(bridge):
                raise AttributeError(f"interp.model has no {name!r}, its bridge has: interp.model.bridge.{name}")
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def bridge(self) -> TransformerBridge:
        """The live model; yours to use and to change at any time.

        Raises
        ------
        InputError
            It was unloaded, or replaced by another one of its name.
        """
        if self._bridge is None:
            raise InputError(f"{self.name} was unloaded or replaced; load it again, or use interp.model")
        return self._bridge

    @property
    def tokens(self) -> Tokens:
        """The tokenizer as the bridge has it now, with the vocabulary and the context window of the model."""
        config: Any = self.bridge.cfg
        tokenizer: Any = self.bridge.tokenizer
        bos = bool(getattr(config, "default_prepend_bos", True))
        held = self._tokens
        if held is None or held.tokenizer is not tokenizer or held.default_bos != bos or held.is_outdated():
            g = self.geometry
            types = type_count(self.hf_model.forward, getattr(self.hf_model, "config", None))
            held = self._tokens = Tokens(tokenizer, g.d_vocab, g.n_ctx, bos, bidirectional=not g.causal, n_types=types)
        return held

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        return next(self.hf_model.parameters()).device

    @property
    def dtype(self) -> str:
        """The dtype of the model's first parameter, without torch's prefix."""
        return str(next(self.hf_model.parameters()).dtype).removeprefix("torch.")

    @property
    def nbytes(self) -> int:
        """Bytes of weights and buffers, shared ones counted once."""
        held = (module.__dict__ for _, module in _walked(self.hf_model))
        tensors = (tensor for own in held for kind in ("_parameters", "_buffers") for tensor in own[kind].values())
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor is not None}.values())

    @property
    def hf_model(self) -> nn.Module:
        """The model that the bridge wraps."""
        return self.bridge.original_model

    @property
    def family(self) -> str:
        """What Hugging Face calls the model's architecture (``"llama"``), ``"native"`` for transformer-lens' own."""
        hf: Any = self.hf_model
        return "native" if isinstance(hf, NativeModel) else getattr(getattr(hf, "config", None), "model_type", "")

    def modules(self) -> list[tuple[str, nn.Module]]:
        """Return every module of the bridge and of the model inside it, once, with its name."""
        found = _walked(self.bridge)
        held = {id(module) for _, module in found}
        return [*found, *(pair for pair in _walked(self.hf_model) if id(pair[1]) not in held)]

    @property
    def keeps_logits(self) -> bool:
        """Whether the library's forward can be asked for the last positions' logits alone."""
        return "logits_to_keep" in signature(self.hf_model.forward).parameters

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Every name that `Run.activations` takes."""
        return tuple(self.bridge.hook_dict)

    @property
    def sites(self) -> list[str]:
        """The sites of the table that any of the model's layers has."""
        return available(self.site_hooks)

    @property
    def site_hooks(self) -> dict[str, Any]:
        """The bridge's hooks by name, but those of a site's name that are something else in this model."""
        return {name: point for name, point in self.bridge.hook_dict.items() if name not in self.odd}

    def require_site(self, name: str, layers: Iterable[int] = ()) -> None:
        """Refuse a site that the model lacks, or that one of `layers` does: not all layers need be of one kind.

        Raises
        ------
        InputError
            What the model has instead, or which layers have it, is named.
        """
        kind, hooks_of = find(name), self.site_hooks
        if kind is FEATURES:
            raise InputError(
                "features are patched by patch and mediate, taken away by ablate; here a site of the model is needed: "
                + ", ".join(self.sites)
            )
        there = [layer for layer in range(self.geometry.n_layers) if kind.within(hooks_of, layer)]
        if not there:
            why = next(
                (f" ({self.odd[hook]})" for n in range(self.geometry.n_layers) if (hook := kind.hook(n)) in self.odd),
                "",
            )
            raise InputError(f"{self.name} has no {name}{why}; it has {', '.join(self.sites)}")
        lacking = next((layer for layer in layers if layer not in there), None)
        if lacking is not None:
            having = f"layer{'s' * (len(there) > 1)} {ranges(there)}"
            raise InputError(
                f"layer {lacking} of {self.name} has no {name}, unlike {having}: its layers differ in kind"
            )

    def neurons(self, layer: int = 0) -> int:
        """Return how many neurons a layer's MLP has, read off the activation; 0 where it has none of that kind."""
        kind = SITES["neuron"]
        return self.shapes[kind.hook(layer)][-1] if kind.within(self.site_hooks, layer) else 0

    def fingerprint(self) -> str:
        """Return the hash of all that a forward's result depends on (see `interp.engine.model.fingerprint`)."""
        return self._inspected()[0].digest

    def _inspected(self) -> tuple[State, tuple[str, ...]]:
        """Return the model's state, and the hooks on it that are the user's own, as ``module: function``."""
        modules = self.modules()
        state = inspect_state(modules, self.bridge.cfg, getattr(self.hf_model, "config", None))
        # A replaced forward or a module of the user's own class does what a hook does.
        return state, (*(str(found) for found in hooks.foreign(modules)), *state.own_code)


def _walked(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return what ``root.named_modules()`` gives, without a generator inside a generator for each level."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, nn.Module]] = [("", root)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        found.append((name, module))
        prefix = f"{name}." if name else ""
        children = module.__dict__["_modules"]
        waiting += [(prefix + key, child) for key, child in reversed(children.items()) if child is not None]
    return found
