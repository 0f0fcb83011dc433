"""What a dictionary is worth on a model: how well it gives back what it reads, and what the model makes of that.

Getting the place or the scale of a dictionary wrong is silent: nothing fails, and nothing means anything. So every set
is measured when it is loaded, beside what its files declare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import Place, captured, flat, unflat
from interp.engine.model.tokens import Encoded

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True)
class Measured:
    """What a dictionary is worth on some text.

    Attributes
    ----------
    tokens
        Of how many positions; a prompt's first one is left out, where it has a BOS in front: its activations are
        unlike all others', and dictionaries are mostly trained without it.
    fvu
        Share of the variance of what it should write that it does not, over all positions: 0 is perfect, 1 as good as
        the mean. Of a CLT at its own layer, where all earlier layers' features of it write too.
    l0
        Mean number of active features.
    dead
        Share of features that are active nowhere in the text.
    ce_recovered
        Of the cross-entropy (nats per token) that zeroing the place costs, the share that does not come back where it
        is replaced by what the dictionary writes: 1 is no loss. NaN for one that writes in several layers.
    """

    tokens: int
    fvu: float
    l0: float
    dead: float
    ce_recovered: float = float("nan")

    def doubt(self, dictionary: Dictionary) -> str:
        """Return how it falls short of what its file declares, or of any use; an empty string where it does not."""
        declared = dictionary.declared
        if math.isnan(self.fvu):
            return "what it should write is constant here, or not a number: nothing is known of what it is worth"
        if self.fvu > 1.0:
            worse = f"FVU {self.fvu:.2g} is worse than the mean"
            return f"{worse}: the place, the layer or the scale is not what it was made for"
        if "fvu" in declared and self.fvu > 2 * declared["fvu"] + 0.05:
            return f"FVU {self.fvu:.2g} here, {declared['fvu']:.2g} declared"
        if "l0" in declared and not declared["l0"] / 3 <= self.l0 <= 3 * declared["l0"] + 3:
            return f"{self.l0:.3g} features active a token here, {declared['l0']:.3g} declared"
        return ""


def measure(
    model: LoadedModel,
    dictionaries: Sequence[Dictionary],
    prompts: Sequence[Encoded],
    *,
    loss: bool = True,
    on_step: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> list[Measured]:
    """Return what each dictionary is worth on prompts; `loss` runs the model twice again for each of them.

    What a dictionary of centred activations should write is centred, too: its mean over dims reaches no LayerNorm.

    Raises
    ------
    InputError
        The model lacks a place that is read or written.
    """
    places = list(dict.fromkeys(place for one in dictionaries for place in (one.reads, one.writes[0])))
    sums = [_Sums(one.width) for one in dictionaries]
    for prompt in prompts:
        values = captured(model, prompt, places)
        first = int(begins(model, prompt))
        written: dict[Place, Tensor] = {}
        for one, total in zip(dictionaries, sums, strict=True):
            read = values[one.reads][first:]
            codes = one.encode(read)
            made = one.output(codes, read)
            if one.kind == "clt":
                made = made + written.get(one.writes[0], 0.0)
                for to, place in enumerate(one.writes[1:], 1):
                    written[place] = written.get(place, 0.0) + one.written(codes, to)
            expected = values[one.writes[0]][first:]
            if one.taken.centre:
                made, expected = (some - some.mean(-1, keepdim=True) for some in (made, expected))
            total.add(made, expected, codes.counts, codes.features)
    recovered = [float("nan")] * len(dictionaries)
    if loss:
        long = [prompt for prompt in prompts if len(prompt.ids) > 1]
        plain = sum(_loss(model, prompt, {}) for prompt in long)
        for n, one in enumerate(dictionaries):
            on_step(n, len(dictionaries))
            recovered[n] = _recovered(model, one, long, plain)
    return [total.measured(ce) for total, ce in zip(sums, recovered, strict=True)]


def begins(model: LoadedModel, prompt: Encoded) -> bool:
    """Return whether a prompt has a BOS in front that there is something behind."""
    bos = getattr(model.tokens.tokenizer, "bos_token_id", None)
    return bos is not None and len(prompt.ids) > 1 and prompt.ids[0] == bos


class _Sums:
    """What is summed over positions, prompt by prompt, in double precision."""

    def __init__(self, width: int) -> None:
        self._count = self._active = 0
        self._error = self._squares = 0.0
        self._sum: Tensor | None = None
        self._fired = torch.zeros(width, dtype=torch.bool)

    def add(self, made: Tensor, expected: Tensor, counts: Tensor, features: Tensor) -> None:
        made, expected = made.double().cpu(), expected.double().cpu()
        self._count += len(expected)
        self._active += int(counts.sum())
        self._error += float((made - expected).square().sum())
        self._squares += float(expected.square().sum())
        own = expected.sum(0)
        self._sum = own if self._sum is None else self._sum + own
        self._fired[features.unique().cpu()] = True

    def measured(self, recovered: float) -> Measured:
        assert self._sum is not None
        variance = self._squares - float(self._sum.square().sum()) / self._count
        return Measured(
            tokens=self._count,
            fvu=self._error / variance if variance > 0 else float("nan"),
            l0=self._active / self._count,
            dead=1.0 - float(self._fired.double().mean()),
            ce_recovered=recovered,
        )


def _recovered(model: LoadedModel, one: Dictionary, prompts: Sequence[Encoded], plain: float) -> float:
    """Return the share of the loss that comes back, see `Measured`; `plain` is the model's own on these prompts."""
    place, *others = one.writes
    if others:
        return float("nan")
    zeroed = replaced = 0.0
    for prompt in prompts:
        zeroed += _loss(model, prompt, {place.hook(model): _zero})
        replaced += _loss(model, prompt, replacing(model, one))
    return (zeroed - replaced) / (zeroed - plain) if zeroed != plain else float("nan")


def _zero(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
    return torch.zeros_like(tensor)


def replacing(model: LoadedModel, one: Dictionary) -> dict[str, Any]:
    """Return functions on hooks that put what a dictionary writes in the place of what the model does there."""
    held: dict[str, Tensor] = {}

    def read(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
        held["x"] = flat(one.reads, tensor)

    def write(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
        x = flat(one.writes[0], tensor) if one.reads == one.writes[0] else held["x"]
        rows = x.flatten(0, -2)
        made = one.output(one.encode(rows), rows).view(*x.shape[:-1], -1)
        return unflat(one.writes[0], made, tensor).to(tensor.dtype)

    hooks = {} if one.reads == one.writes[0] else {one.reads.hook(model): read}
    return {**hooks, one.writes[0].hook(model): write}


def _loss(model: LoadedModel, prompt: Encoded, functions: dict[str, Any]) -> float:
    """Return the cross-entropy of a prompt's tokens given those before, in nats, summed."""
    logits = model.forward([prompt.ids], functions, last_only=False)[0, :-1].double()
    following = torch.tensor(list(prompt.ids)[1:], device=logits.device)
    said = following < logits.shape[-1]  # some models read more tokens than they have logits for
    return float(functional.cross_entropy(logits[said], following[said], reduction="sum"))
