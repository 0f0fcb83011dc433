"""What a run says of tokens that are known: how likely each was, at which rank, and what was likelier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.engine.metrics import upcast
from interp.engine.model.hooks import Hook
from interp.engine.readouts import lens
from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

_NUMBERS = 1 << 24  # logits that are there at once: 64 positions of a vocabulary of 262,144


@dataclass(frozen=True)
class Known:
    """What was predicted where the token is known, ``[token]`` each; what was likeliest has the axis ``k`` besides.

    Attributes
    ----------
    logprobs
        Of the tokens, in nats; NaN for one that the model reads and has no logit for.
    ranks
        0 is the top; −1 where there is no log-probability.
    ids, probabilities
        The likeliest tokens, likeliest first.
    """

    logprobs: NDArray[np.float64]
    ranks: NDArray[np.int64]
    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def known(
    model: LoadedModel,
    ids: Sequence[int],
    wanted: Sequence[int],
    start: int = 0,
    *,
    top: int = 1,
    functions: Mapping[str, Hook] | None = None,
) -> Known:
    """Return what a run of `ids` says of the tokens `wanted`, which its positions from `start` on predict.

    Logits are made of some positions at a time, of the stream after the last layer: those of all positions of a long
    text would not fit. Where that is not what the model's own logits are, or hooks of the user's are on it, its own
    forward makes them all.

    Raises
    ------
    InputError
        The model has no language-model head, or all logits, where they are needed, do not fit into memory.
    """
    vocabulary = model.geometry.d_vocab_out
    size = size_of(model)
    parts: list[tuple[Tensor, ...]] = []

    def work() -> None:
        logits = _logits(model, ids, functions or {})
        for first in range(0, len(wanted), size):
            some = torch.tensor(wanted[first : first + size], device=model.device)
            rows = upcast(logits(start + first, start + first + len(some)))
            parts.append(tuple(part.cpu() for part in _read(rows, some, min(top, vocabulary))))

    lens.detached(work)
    logprobs, ranks, best, chances = (torch.cat(part).numpy().copy() for part in zip(*parts, strict=True))
    return Known(logprobs, ranks, best, chances)


def size_of(model: LoadedModel) -> int:
    """Return of how many positions logits are there at once."""
    return max(1, _NUMBERS // model.geometry.d_vocab_out)


def of_logits(logits: Tensor, wanted: Sequence[int]) -> Known:
    """Return what logits ``[token, d_vocab]`` say of the tokens `wanted`."""
    read = _read(upcast(logits), torch.tensor(wanted, dtype=torch.int64, device=logits.device), 1)
    return Known(*(part.cpu().numpy().copy() for part in read))


def _read(logits: Tensor, wanted: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probabilities and ranks of tokens, and the likeliest ones with theirs, of ``[token, d_vocab]``."""
    best = logits.topk(top, dim=-1)
    peak = best.values[:, :1]
    scratch = (logits - peak).exp_()
    total = peak[:, 0].double() + scratch.sum(-1).double().log()
    said = wanted < logits.shape[-1]  # some models read more tokens than they have logits for
    own = logits.gather(-1, torch.where(said, wanted, 0)[:, None])
    logprobs = torch.where(said, own[:, 0].double() - total, float("nan"))
    above = torch.gt(logits, own, out=scratch).sum(-1).long()  # exact in float32, below 2^24 tokens; no new memory
    ranks = torch.where(logprobs.isnan(), -1, above)
    return logprobs, ranks, best.indices, (best.values.double() - total[:, None]).exp().float()


def _logits(model: LoadedModel, ids: Sequence[int], functions: Mapping[str, Hook]) -> Callable[[int, int], Tensor]:
    """Return what gives the logits of the positions from one to another, ``[position, d_vocab]``."""
    if model.lacks_head:
        raise InputError(f"the checkpoint of {model.name} holds no language-model head: it predicts no token")
    if not model.altered() and "resid_post" in model.sites:
        end, last = _ended(model, ids, functions)
        found = _readout(model, end, last)
        if found is not None:
            return lambda first, stop: found.logits(end[first:stop])
    if functions:
        whole = model.forward([ids], functions, last_only=False)[0]
    else:
        whole = model.activations_of(ids, ["logits"])["logits"][0]
    return lambda first, stop: whole[first:stop]


def _readout(model: LoadedModel, end: Tensor, last: Tensor) -> lens.Readout | None:
    """Return how logits are made of the stream after the last layer; ``None`` where the model's own are others."""
    try:
        found = lens.readout(model)
        lens.require(model, found, end[-1], last)
    except InputError:  # a head of another kind: a lens has to refuse it, and here there is another way
        return None
    return found


def _ended(model: LoadedModel, ids: Sequence[int], functions: Mapping[str, Hook]) -> tuple[Tensor, Tensor]:
    """Return the stream after the last layer, ``[position, d_model]``, and the last position's logits."""
    final = Site("resid_post", model.geometry.n_layers - 1).hook_name
    if not functions:
        found = model.activations_of(ids, [final, "last_logits"])
        return found[final][0], found["last_logits"][0]
    own, held = functions.get(final), dict[str, Any]()

    def keep(tensor: Tensor, hook: HookPoint) -> Tensor:
        changed = tensor if own is None else own(tensor, hook)
        changed = tensor if changed is None else changed
        held[final] = changed.detach().clone()
        return changed

    logits = model.forward([ids], {**functions, final: keep})
    return held[final][0], logits[0, -1]
