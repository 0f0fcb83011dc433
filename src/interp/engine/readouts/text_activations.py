"""One vector for each text and layer: an activation at the last token, or its mean over the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.model import hooks
from interp.engine.model.tokens import Encoded
from interp.engine.patching.cases import by_length
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel


# (layer, ``[n, position, d_model]``) → nothing.
_Keep = Callable[[int, Tensor], None]
_Runner = Callable[[list[tuple[int, ...]], _Keep], None]


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


def pooled(
    model: LoadedModel, texts: Sequence[Encoded], site: str, position: str, at: Sequence[Sequence[int]] | None = None
) -> Pooled:
    """Run texts, those of equal length together, and keep one vector of `site` for each and every layer.

    Nothing is padded, and no more than a batch's activations of one layer are there beside what is returned.

    Parameters
    ----------
    site
        A site of the residual stream's width: ``"resid_pre"``, ``"resid_mid"``, ``"resid_post"``, ``"attn_out"`` or
        ``"mlp_out"``.
    position
        ``"last"``, or ``"mean"`` over all tokens but the special ones (BOS, ``[CLS]``, ``[SEP]``).
    at
        For each text the positions of which that is the last, or all of which count; all of the text when not given.

    Raises
    ------
    InputError
        The model lacks the site, or what is to be kept does not fit.
    """
    model.require_site(site, range(model.geometry.n_layers))
    g = model.geometry
    needed, free = 4 * g.n_layers * len(texts) * g.d_model, memory.free_bytes(torch.device("cpu"))
    if needed > free // 2:
        raise InputError(
            f"{len(texts)} texts need {memory.readable(needed)} and {memory.readable(free)} is free; give fewer texts"
        )
    return hooks.guarded(_Job(model, texts, site, position, at).run)


class _Job:
    net: network.Network

    def __init__(
        self,
        model: LoadedModel,
        texts: Sequence[Encoded],
        site: str,
        position: str,
        at: Sequence[Sequence[int]] | None,
    ) -> None:
        self.at = at
        self.model, self.texts, self.site, self.position = model, texts, site, position
        self.values = torch.empty(model.geometry.n_layers, len(texts), model.geometry.d_model)
        self.done = 0
        tokenizer: Any = model.tokens.tokenizer
        self.special = set[int](getattr(tokenizer, "all_special_ids", ()))

    def run(self) -> Pooled:
        longest = sorted(range(len(self.texts)), key=lambda index: -len(self.texts[index].ids))
        few = longest[: exactness.sample_of(self.model)]

        def lean(check: exactness.Check) -> None:
            self.net = network.read(self.model, encoders=(self.site,))
            check()
            self._all(self._lean)

        def sample() -> Iterator[float]:
            for index in few:
                self._one(self._lean, [index])
                found = self.values[:, index].clone()
                self._one(self._by_hooks, [index])
                yield exactness.difference(found, self.values[:, index])

        done = exactness.run(
            self.model,
            ("texts", self.site, self.position),
            lean=lean,
            hooked=lambda fallback: self._all(self._by_hooks),  # noqa: ARG005
            sample=sample,
            path="forward",
            length=len(self.texts[few[0]].ids) if few else 0,
        )
        return Pooled(self.values, done.path, done.notes)

    def _all(self, runner: _Runner) -> None:
        self.done = 0

        def some(indices: Sequence[int]) -> None:
            self._one(runner, indices)
            self.done += len(indices)
            self.model.on_step(self.done, len(self.texts))

        for length, indices in by_length([text.ids for text in self.texts]).items():
            memory.halving(indices, max(1, memory.ROWS // length), some, self.model.device)

    def _one(self, runner: _Runner, indices: Sequence[int]) -> None:
        """Run texts of one length and write what they give into their places."""
        ids = [self.texts[index].ids for index in indices]
        weights = self._weights(ids, indices)
        last = [-1 if self.at is None else self.at[index][-1] for index in indices]

        def keep(layer: int, tensor: Tensor) -> None:
            rows = range(len(last))
            found = tensor[rows, last] if weights is None else torch.einsum("np,npd->nd", weights, tensor.float())
            self.values[layer, list(indices)] = found.detach().float().cpu()

        runner(ids, keep)

    def _weights(self, ids: Sequence[Sequence[int]], indices: Sequence[int]) -> Tensor | None:
        """Return how much each token counts, ``[n, position]``; ``None`` where the last alone does."""
        if self.position == "last":
            return None
        of_words = [[index not in self.special for index in row] for row in ids]
        if self.at is not None:
            of_words = [[n in self.at[index] for n in range(len(ids[0]))] for index in indices]
        plain = torch.tensor(of_words, device=self.model.device)
        plain[~plain.any(1)] = True  # a text of special tokens alone
        return plain.float() / plain.sum(1, keepdim=True)

    def _by_hooks(self, ids: list[tuple[int, ...]], keep: _Keep) -> None:
        def reader(layer: int) -> hooks.Hook:
            def read(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                keep(layer, tensor)

            return read

        names = {Site(self.site, layer).hook_name: reader(layer) for layer in range(self.model.geometry.n_layers)}
        self.model.forward(ids, names)

    def _lean(self, ids: list[tuple[int, ...]], keep: _Keep) -> None:
        edit: Edit = lambda layer, tensor: keep(layer, tensor)  # noqa: E731
        forward(self.net, edits={self.site: edit}, resid=self.net.begin(ids))
        self.model.count(1)
