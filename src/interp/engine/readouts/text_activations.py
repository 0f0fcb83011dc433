"""One vector for each text and layer: an activation at the last token, or its mean over the tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.model import hooks
from interp.engine.model.tokens import Encoded
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

ROWS = 2048  # tokens that are run together
_TOLERANCE = 1e-3  # of the activation's size; above it the forward without hooks is not trusted

# (layer, ``[n, position, d_model]``) → nothing.
_Keep = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class Pooled:
    """Activations of texts.

    Attributes
    ----------
    values
        ``float32 [layer, text, d_model]``, on the CPU.
    path
        ``"forward"``, or ``"hooked: why"``.
    notes
        What is worth knowing.
    """

    values: Tensor
    path: str
    notes: tuple[str, ...] = ()


def pooled(model: LoadedModel, texts: Sequence[Encoded], site: str, position: str) -> Pooled:
    """Run texts, those of equal length together, and keep one vector of `site` for each and every layer.

    Nothing is padded, and no more than a batch's activations of one layer are there beside what is returned.

    Parameters
    ----------
    site
        A site of the residual stream's width: ``"resid_pre"``, ``"resid_mid"``, ``"resid_post"``, ``"attn_out"`` or
        ``"mlp_out"``.
    position
        ``"last"``, or ``"mean"`` over all tokens but the special ones (BOS, ``[CLS]``, ``[SEP]``).

    Raises
    ------
    InputError
        The model lacks the site, or what is to be kept does not fit.
    """
    if Site(site, 0).hook_name not in model.bridge.hook_dict:
        raise InputError(f"{model.name} has no {site}; use --site resid_pre or resid_post")
    g = model.geometry
    needed, free = 4 * g.n_layers * len(texts) * g.d_model, memory.free_bytes(torch.device("cpu"))
    if needed > free // 2:
        raise InputError(
            f"{len(texts)} texts need {memory.readable(needed)} and {memory.readable(free)} is free; give fewer texts"
        )
    return hooks.run_hooked((), _Job(model, texts, site, position).run)


class _Job:
    def __init__(self, model: LoadedModel, texts: Sequence[Encoded], site: str, position: str) -> None:
        self.model, self.texts, self.site, self.position = model, texts, site, position
        self.values = torch.empty(model.geometry.n_layers, len(texts), model.geometry.d_model)
        self.done = 0
        tokenizer: Any = model.tokens.tokenizer
        self.special = set[int](getattr(tokenizer, "all_special_ids", ()))

    def run(self) -> Pooled:
        try:
            net = network.read(self.model)
        except network.Unreadable as reason:
            return self._hooked(str(reason), ())
        self._one(lambda ids, keep: _lean(self.model, net, self.site, ids, keep), [0])
        first = self.values[:, 0].clone()
        self._one(self._by_hooks, [0])
        size = float(self.values[:, 0].abs().max())
        worst = float((first - self.values[:, 0]).abs().max()) / (size or 1.0)
        if worst > _TOLERANCE:
            reason = f"the forward without hooks differed by {worst:.1g} from the hooked one"
            return self._hooked(reason, (f"{reason} on this model and was not used",))
        self._all(lambda ids, keep: _lean(self.model, net, self.site, ids, keep))
        return Pooled(self.values, "forward")

    def _hooked(self, reason: str, notes: tuple[str, ...]) -> Pooled:
        self._all(self._by_hooks)
        return Pooled(self.values, f"hooked: {reason}", notes)

    def _all(self, runner: Callable[[Tensor, _Keep], None]) -> None:
        by_length: dict[int, list[int]] = {}
        for index, text in enumerate(self.texts):
            by_length.setdefault(len(text.ids), []).append(index)
        self.done = 0

        def some(indices: Sequence[int]) -> None:
            self._one(runner, indices)
            self.done += len(indices)
            self.model.on_step(self.done, len(self.texts))

        for length, indices in by_length.items():
            memory.halving(indices, max(1, ROWS // length), some, self.model.device)

    def _one(self, runner: Callable[[Tensor, _Keep], None], indices: Sequence[int]) -> None:
        """Run texts of one length and write what they give into their places."""
        ids = torch.tensor([self.texts[index].ids for index in indices], device=self.model.device)
        weights = self._weights(ids)

        def keep(layer: int, tensor: Tensor) -> None:
            found = tensor[:, -1] if weights is None else torch.einsum("np,npd->nd", weights, tensor.float())
            self.values[layer, list(indices)] = found.detach().float().cpu()

        runner(ids, keep)

    def _weights(self, ids: Tensor) -> Tensor | None:
        """Return how much each token counts, ``[n, position]``; ``None`` where the last alone does."""
        if self.position == "last":
            return None
        plain = torch.tensor([[index not in self.special for index in row] for row in ids.tolist()], device=ids.device)
        plain[~plain.any(1)] = True  # a text of special tokens alone
        return plain.float() / plain.sum(1, keepdim=True)

    def _by_hooks(self, ids: Tensor, keep: _Keep) -> None:
        def reader(layer: int) -> hooks.Hook:
            def read(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                keep(layer, tensor)

            return read

        names = {Site(self.site, layer).hook_name: reader(layer) for layer in range(self.model.geometry.n_layers)}
        self.model.forward(ids.tolist(), names)


def _lean(model: LoadedModel, net: network.Network, site: str, ids: Tensor, keep: _Keep) -> None:
    edit: Edit = lambda layer, tensor: keep(layer, tensor)  # noqa: E731
    forward(net, ids, {site: edit})
    model.count(1)
