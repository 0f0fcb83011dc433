"""What attention, the lens, features and a direction were as a text was written, from the runs that wrote it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import flat
from interp.engine.readouts import lens
from interp.sites import SITES, Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel

# A lens over more layers takes longer than the run that writes the token: of deeper models every second, third … layer
# is read, the last one among them.
LAYERS = 16
RANKS = 5  # of the tokens that a head looks at, those that are kept


@dataclass(frozen=True)
class Traced:
    """What was kept of every run that wrote a token, at the position that it was written after.

    Attributes
    ----------
    lens_ids, lens_probabilities, written_logprobs
        ``[layer, token]``: what the stream after each layer predicts, how likely that is to it, and the token that was
        written, in nats.
    attention_layers
        The layers that have attention.
    attended, weights
        ``[layer, head, token, rank]``: the positions that each head looks at most, and how much; −1 and NaN where it
        looks at fewer.
    attention
        ``[token, position]``: the mean over all heads; NaN at what was not read yet.
    projections
        ``[layer, token]``, in the order of the directions that were given.
    active
        ``[4][active]``: of every feature that is active the token, the dictionary, its number and its activation.
    """

    lens_ids: NDArray[np.int64]
    lens_probabilities: NDArray[np.float32]
    written_logprobs: NDArray[np.float64]
    attention_layers: tuple[int, ...]
    attended: NDArray[np.int32]
    weights: NDArray[np.float32]
    attention: NDArray[np.float32]
    projections: NDArray[np.float64]
    active: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


@dataclass
class TextTrace:
    """Looks at the runs that write a text, as `generation.generate` wants it, and reads them all when it is written.

    Parameters
    ----------
    directions
        Place in the residual stream → a vector, ``[d_model]``; its length does not count.

    Raises
    ------
    InputError
        A model whose logits are not read off its residual stream, or one that lacks a place.
    """

    model: LoadedModel
    dictionaries: Sequence[Dictionary] = ()
    directions: Mapping[Site, Tensor] = field(default_factory=dict[Site, Tensor])

    def __post_init__(self) -> None:
        depth, hooks = self.model.geometry.n_layers, self.model.site_hooks
        self._readout = lens.readout(self.model)
        self.layers = tuple(range(depth - 1, -1, -math.ceil(depth / LAYERS)))[::-1]
        self.model.require_site("resid_post", self.layers)
        self._streams = [Site("resid_post", layer).hook_name for layer in self.layers]
        self.attention_layers = tuple(n for n in range(depth) if SITES["pattern"].within(hooks, n))
        self._patterns = {SITES["pattern"].hook(n): n for n in self.attention_layers}
        self._reads = [one.reads.hook(self.model) for one in self.dictionaries]
        vectors = [*self._streams, *self._reads, *(site.hook_name for site in self.directions)]
        self._vectors = list(dict.fromkeys(vectors))
        self._held: dict[str, Tensor] = {}
        self._steps: list[dict[str, Tensor]] = []  # hook → what a position had there
        self._looks: list[tuple[Tensor, Tensor, Tensor]] = []  # positions, weights, mean over heads

    def functions(self) -> dict[str, Hook]:
        """Return hook name → a function that keeps what the last position has there."""

        def keep(name: str, axis: int) -> Hook:
            def look(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                self._held[name] = tensor[0].select(axis, -1).detach().clone()

            return look

        return {name: keep(name, 1) for name in self._patterns} | {name: keep(name, 0) for name in self._vectors}

    def step(self, length: int, logits: Tensor) -> None:
        """Take in what a run over a text of `length` tokens left, and its logits, ``[d_vocab]``.

        Raises
        ------
        InputError
            After the first one: the logits are not what the lens reads.
        """
        held, self._held = self._held, {}
        if not self._steps:
            lens.require(self.model, self._readout, held[self._streams[-1]], logits)
        if self._patterns:
            self._looks.append(_looked([held.pop(name) for name in self._patterns], length))
        self._steps.append(held)

    def finished(self, ids: Sequence[int]) -> Traced:
        """Return what the runs that wrote `ids` had; what was read beyond them is dropped."""
        steps, looks, count = self._steps[: len(ids)], self._looks[: len(ids)], len(ids)
        if not count:
            return self._nothing()

        def rows(name: str) -> Tensor:
            return torch.stack([step[name].to(self.model.device) for step in steps])

        streams = torch.stack([rows(name) for name in self._streams])
        top, chances, written = lens.detached(lambda: _read(self._readout, streams, ids))
        projections = [
            rows(s.hook_name).double() @ (v.double() / v.double().norm()) for s, v in self.directions.items()
        ]
        return Traced(
            lens_ids=top,
            lens_probabilities=chances,
            written_logprobs=written,
            attention_layers=self.attention_layers,
            **_looks(looks),
            projections=np.stack([_array(one) for one in projections]) if projections else np.zeros((0, count)),
            active=lens.detached(lambda: self._active(rows)),
        )

    def _active(self, rows: Any) -> Any:
        """Return every active feature: token, dictionary, number, activation, by token."""
        parts: list[list[NDArray[Any]]] = [[np.zeros(0, np.int32)] for _ in range(3)] + [[np.zeros(0, np.float32)]]
        for number, (one, name) in enumerate(zip(self.dictionaries, self._reads, strict=True)):
            x = rows(name)
            codes = one.encode(flat(one.reads, x[None])[0])
            own = _array(codes.rows).astype(np.int32)
            found = (own, np.full_like(own, number), _array(codes.features), _array(codes.values.float()))
            for part, values in zip(parts, found, strict=True):
                part.append(values)
        tokens, numbers, features, values = (np.concatenate(part) for part in parts)
        order = np.lexsort((-values, tokens))
        kinds = (np.int32, np.int32, np.int32, np.float32)
        return tuple(
            each[order].astype(kind) for each, kind in zip((tokens, numbers, features, values), kinds, strict=True)
        )

    def _nothing(self) -> Traced:
        depth, heads = len(self.layers), self.model.geometry.n_heads
        shape = (len(self.attention_layers), heads, 0, RANKS)
        return Traced(
            lens_ids=np.zeros((depth, 0), np.int64),
            lens_probabilities=np.zeros((depth, 0), np.float32),
            written_logprobs=np.zeros((depth, 0)),
            attention_layers=self.attention_layers,
            attended=np.zeros(shape, np.int32),
            weights=np.zeros(shape, np.float32),
            attention=np.zeros((0, 0), np.float32),
            projections=np.zeros((len(self.directions), 0)),
            active=(*(np.zeros(0, np.int32) for _ in range(3)), np.zeros(0, np.float32)),  # pyright: ignore
        )


def _looked(patterns: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``[layer, head, rank]`` positions and weights, and the mean over all heads, ``[position]``.

    A window's cache has forgotten the keys before it: what is there are the last ones.
    """
    whole = patterns[0].new_zeros(len(patterns), len(patterns[0]), length, dtype=torch.float32)
    for own, pattern in zip(whole, patterns, strict=True):
        keys = min(length, pattern.shape[-1])
        own[:, length - keys :] = pattern[:, -keys:]
    values, places = whole.topk(min(RANKS, length), dim=-1)
    return places, values, whole.mean((0, 1))


def _looks(looks: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Any]:
    """Return what was looked at in all runs, filled up where there was less."""
    if not looks:
        return {
            "attended": np.zeros((0, 0, 0, RANKS), np.int32),
            "weights": np.zeros((0, 0, 0, RANKS), np.float32),
            "attention": np.zeros((0, 0), np.float32),
        }
    layers, heads = looks[0][0].shape[:2]
    attended = np.full((layers, heads, len(looks), RANKS), -1, np.int32)
    weights = np.full(attended.shape, np.nan, np.float32)
    attention = np.full((len(looks), len(looks[-1][2])), np.nan, np.float32)
    for n, (places, values, mean) in enumerate(looks):
        attended[:, :, n, : places.shape[-1]] = _array(places)
        weights[:, :, n, : values.shape[-1]] = _array(values)
        attention[n, : len(mean)] = _array(mean)
    nothing = ~(weights > 0)
    attended[nothing], weights[nothing] = -1, np.nan
    return {"attended": attended, "weights": weights, "attention": attention}


def _read(readout: lens.Readout, streams: Tensor, ids: Sequence[int]) -> tuple[NDArray[Any], ...]:
    """Return what streams ``[layer, token, d_model]`` predict: the likeliest token, its probability, and the
    log-probability of the token that was written, ``[layer, token]`` each.

    The vocabulary goes by in blocks, as in `lens.project`; entropy, divergence and ranks, which that has too, would
    take as long again.
    """
    own = torch.tensor(list(ids), device=streams.device).repeat(len(streams))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows, marks in zip(streams.flatten(0, 1).split(lens.ROWS), own.split(lens.ROWS), strict=True):
        normed = readout.norm(rows)
        raw = (normed * readout.weight[marks]).sum(-1)
        mark = readout.finished(raw if readout.bias is None else raw + readout.bias[marks])
        best = normed.new_full((len(rows),), float("-inf"), dtype=torch.float64)
        total, top = best.clone(), torch.zeros_like(marks)
        for start in range(0, len(readout.weight), lens.COLUMNS):
            block = slice(start, start + lens.COLUMNS)
            logits = functional.linear(
                normed, readout.weight[block], None if readout.bias is None else readout.bias[block]
            )
            logits = readout.finished(logits)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            most, at = logits.max(-1)
            top = torch.where(most > best, at + start, top)
            best = torch.maximum(best, most.double())
            total = torch.logaddexp(total, logits.logsumexp(-1).double())
        parts.append((top, (best - total).exp().float(), mark.double() - total))
    return tuple(_array(torch.cat(part).view(len(streams), -1)) for part in zip(*parts, strict=True))


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy().copy()
