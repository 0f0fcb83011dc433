"""Answers of runs, with and without an interchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.interchange import hooked
from interp.engine.interchange.changes import Change
from interp.engine.interchange.places import Place, Swap, require, sources_of
from interp.engine.metrics import upcast
from interp.engine.model import hooks
from interp.engine.patching.cases import by_length
from interp.engine.patching.driver import OnStep, silent
from interp.spec import resolve_indices

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def answers(
    model: LoadedModel,
    places: Sequence[Place],
    swaps: Sequence[Swap],
    classes: Sequence[int],
    change: Change,
    *,
    on_step: OnStep = silent,
    into: Tensor | None = None,
) -> Tensor:
    """Return the logits of `classes` where each base run's answer is read, the interchange being made in it.

    The interchange intervention of Geiger et al. (2021), "Causal Abstractions of Neural Networks". Swaps of one length
    run together; what a swap gives does not depend, but for rounding, on what runs beside it.

    Parameters
    ----------
    places
        What is interchanged, all at once.
    change
        How: see `changes`.
    on_step
        Called with swaps done and swaps in all.
    into
        What is filled as swaps finish, ``float64 [swap, class]``: what is there when an interrupt or memory that runs
        out stops the work; NaN elsewhere. A new one where it is ``None``.

    Returns
    -------
    Tensor
        ``float64 [swap, class]``, on the CPU.

    Raises
    ------
    InputError
        A place, a position or a token that is not there, or a change that does not go with a place.
    """
    require(model, places, swaps, classes)
    out = torch.empty(len(swaps), len(classes), dtype=torch.float64) if into is None else into
    out[:] = float("nan")
    tokens = list(classes)
    done = 0

    def some(numbers: Sequence[int]) -> None:
        nonlocal done
        own = [swaps[number] for number in numbers]
        functions = hooked.functions_of(model, places, own, sources_of(model, places, own), change)
        ends = _read(model, own, functions)
        out[list(numbers)] = upcast(ends[:, tokens]).double().cpu()
        done += len(numbers)
        on_step(done, len(swaps))

    def every() -> None:
        for length, numbers in by_length([swap.base for swap in swaps]).items():
            memory.halving(numbers, max(1, memory.ROWS // length), some, model.device)

    hooks.guarded(every)
    return out


def plain(
    model: LoadedModel, prompts: Sequence[Sequence[int]], positions: Sequence[int], classes: Sequence[int]
) -> Tensor:
    """Return the logits of `classes` at a position of each prompt, unpatched, ``float64 [prompt, class]``.

    Raises
    ------
    InputError
        A position or a token that is not there.
    """
    resolve_indices(tuple(classes), model.geometry.d_vocab_out, "token")
    tokens = list(classes)
    rows: list[Tensor] = []
    for ids, position in zip(prompts, positions, strict=True):
        (at,) = resolve_indices(position, len(ids), "position")
        name = "last_logits" if at == len(ids) - 1 else "logits"
        logits = model.activations_of(ids, [name])[name][0]
        rows.append(upcast((logits if name == "last_logits" else logits[at])[tokens]).double().cpu())
    return torch.stack(rows) if rows else torch.empty(0, len(tokens), dtype=torch.float64)


def _read(model: LoadedModel, swaps: Sequence[Swap], functions: dict[str, hooks.Hook]) -> Tensor:
    """Return the logits where the answers of one batch of swaps are read, ``[swap, d_vocab]``."""
    last = all(swap.position == len(swap.base) - 1 for swap in swaps)
    logits = model.forward([swap.base for swap in swaps], functions, last_only=last)
    if last:
        return logits[:, -1]
    at = torch.tensor([swap.position for swap in swaps], device=logits.device)
    return logits[torch.arange(len(swaps), device=logits.device), at]
