"""One vector for each text and layer: an activation at the last token, or its mean over the tokens."""

from __future__ import annotations

import math
import mmap
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness, linalg, memory
from interp.engine.model import hooks
from interp.engine.readouts import text_passes
from interp.engine.readouts.text_passes import Given, Ids, Positions, Work
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

_IN_MEMORY = 2**26  # bytes of activations; more are in a file
# (layer, ``[n, position, d_model]``) → nothing.
_Keep = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class Pooled:
    """Activations of texts.

    Attributes
    ----------
    values
        ``float32 [layer, text, d_model]``, on the CPU; what is much is in a file that ends with them.
    path
        ``"forward"``, or ``"hooked: why"``.
    notes
        What is worth knowing.
    release
        Lets go of the memory of values that are in a file; they are read from there again.
    """

    values: Tensor
    path: str
    notes: tuple[str, ...]
    release: Callable[[], None]


def pooled(
    model: LoadedModel,
    texts: Collection[Ids],
    site: str,
    position: str,
    at: Positions | None = None,
    layers: Sequence[int] | None = None,
) -> Pooled:
    """Run texts, those of equal length together, and keep one vector of `site` for each and every layer.

    Nothing is padded, and no more than a chunk of texts is there beside what is returned.

    Parameters
    ----------
    texts
        Token ids, which are gone through once.
    site
        A site of the residual stream's width: ``"resid_pre"``, ``"resid_mid"``, ``"resid_post"``, ``"attn_out"`` or
        ``"mlp_out"``.
    position
        ``"last"``, or ``"mean"`` over all tokens but the special ones (BOS, ``[CLS]``, ``[SEP]``).
    at
        For each text the positions of which that is the last, or all of which count; all of the text when not given.
    layers
        Which ones are kept; all when not given.

    Raises
    ------
    InputError
        The model lacks the site, or what is to be kept does not fit.
    KeyboardInterrupt
        Nothing is kept of texts whose others are missing.
    """
    chosen = tuple(range(model.geometry.n_layers) if layers is None else layers)
    model.require_site(site, chosen)
    shape = len(chosen), len(texts), model.geometry.d_model
    values, release = _room(shape)

    def take(first: int, given: Given) -> None:
        own = given["values"]
        for layer, rows in zip(chosen, own, strict=True):
            linalg.finite(rows.numpy(), f"activations of {site} in layer {layer}")
        values[:, first : first + own.shape[1]] = own
        release()

    work = _work(Reader(model, site, position, chosen), at)
    done = text_passes.run(model, work, texts, len(texts), take)
    if done.interrupt is not None:
        raise done.interrupt
    notes = tuple(dict.fromkeys(note for own in done.paths.values() for note in own))
    return Pooled(values, "; ".join(done.paths), notes, release)


def _room(shape: tuple[int, int, int]) -> tuple[Tensor, Callable[[], None]]:
    """Return room for values, and what takes out of memory what is in a file: much has one, which nobody else sees."""
    needed = 4 * math.prod(shape)
    if needed <= _IN_MEMORY:
        return torch.empty(shape), lambda: None
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free // 2:
        raise InputError(
            f"{shape[1]} texts need {memory.readable(needed)} and {memory.readable(free)} is free in "
            f"{tempfile.gettempdir()}; give fewer texts{' or layers' * (shape[0] > 1)}"
        )
    with tempfile.TemporaryFile() as file:
        file.truncate(needed)
        mapped = mmap.mmap(file.fileno(), needed)

    def release() -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # what was written stays in the file

    return torch.frombuffer(mapped, dtype=torch.float32).view(shape), release


class Reader:
    """Runs texts of one length together, and keeps one vector of each."""

    def __init__(self, model: LoadedModel, site: str, position: str, layers: Sequence[int]) -> None:
        self.model, self.site, self.position, self.layers = model, site, position, tuple(layers)
        tokenizer: Any = model.tokens.tokenizer
        self._special = set[int](getattr(tokenizer, "all_special_ids", ()))
        self._net: network.Network | None = None

    @property
    def key(self) -> exactness.Key:
        """What is compared with the hooked forward once."""
        return "texts", self.site, self.position, self.layers

    def ready(self) -> None:
        """Refuse, as `exactness.Unreadable`, a model that cannot be run without hooks."""
        self._net = self._net or network.read(self.model, encoders=(self.site,))

    def lean(self, prompts: Sequence[Ids], at: Positions | None) -> Tensor:
        """Return ``float32 [prompt, layer, d_model]`` without hooks."""
        self.ready()
        net = self._net
        assert net is not None

        def run(keep: _Keep) -> None:
            def edit(layer: int, tensor: Tensor) -> None:
                if layer in self.layers:
                    keep(layer, tensor)

            own: Edit = edit
            resid = net.begin(list(prompts))
            hooks.guarded(lambda: forward(net, edits={self.site: own}, resid=resid, stop=max(self.layers) + 1))
            self.model.count(1)

        return self._kept(prompts, at, run)

    def hooked(self, prompts: Sequence[Ids], at: Positions | None) -> Tensor:
        """Return the same with hooks."""

        def run(keep: _Keep) -> None:
            def reader(layer: int) -> hooks.Hook:
                def read(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                    keep(layer, tensor)

                return read

            self.model.forward(list(prompts), {Site(self.site, n).hook_name: reader(n) for n in self.layers})

        return self._kept(prompts, at, run)

    def _kept(self, prompts: Sequence[Ids], at: Positions | None, run: Callable[[_Keep], None]) -> Tensor:
        weights = self._weights(prompts, at)
        last = [-1 if at is None else own[-1] for own in at or prompts]
        found: dict[int, Tensor] = {}

        def keep(layer: int, tensor: Tensor) -> None:
            rows = range(len(last))
            own = tensor[rows, last] if weights is None else torch.einsum("np,npd->nd", weights, tensor.float())
            found[layer] = own.detach().float().cpu()

        run(keep)
        return torch.stack([found[layer] for layer in self.layers], dim=1)

    def _weights(self, prompts: Sequence[Ids], at: Positions | None) -> Tensor | None:
        """Return how much each token counts, ``[n, position]``; ``None`` where the last alone does."""
        if self.position == "last":
            return None
        of_words = [[index not in self._special for index in ids] for ids in prompts]
        if at is not None:
            of_words = [[n in own for n in range(len(prompts[0]))] for own in at]
        plain = torch.tensor(of_words, device=self.model.device)
        plain[~plain.any(1)] = True  # a text of special tokens alone
        return plain.float() / plain.sum(1, keepdim=True)


def _work(reader: Reader, at: Positions | None) -> Work:
    def made(texts: Mapping[int, tuple[Ids, Tensor]]) -> dict[str, Tensor]:
        return {"values": torch.stack([own for _, own in texts.values()], dim=1)}

    asked = {"site": reader.site, "position": reader.position, "layers": reader.layers}
    return Work("activations", asked, text_passes.TOKENS, reader, made, at)


def shard(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    asked: Mapping[str, Any],
    first: int,
    texts: Mapping[str, Tensor],
    at: Positions | None,
) -> dict[str, Tensor]:
    """Return the vectors of a shard of texts: ``values``, ``[layer, text, d_model]``."""
    return text_passes.shard(models[0], _work(Reader(models[0], **asked), None), step, first, texts, at)
