"""Answers of runs, with and without an interchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.interchange import hooked, lean
from interp.engine.interchange.changes import Change
from interp.engine.interchange.places import Place, Swap, dictionary_of, first_layer, require, runs_of
from interp.engine.metrics import upcast
from interp.engine.model import hooks
from interp.engine.patching.cases import by_length
from interp.engine.patching.driver import OnStep, silent
from interp.sites import FEATURES
from interp.spec import resolve_indices

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation


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

    def fill(operation: Operation) -> None:  # noqa: ARG001
        _fill(model, places, swaps, classes, change, on_step, out)

    model.operate("interchange", {}, fill)
    return out


def _fill(
    model: LoadedModel,
    places: Sequence[Place],
    swaps: Sequence[Swap],
    classes: Sequence[int],
    change: Change,
    on_step: OnStep,
    out: Tensor,
) -> None:
    lengths = by_length([swap.base for swap in swaps])

    def every(run: Callable[[Sequence[Swap]], Tensor], check: exactness.Check) -> None:
        out[:] = float("nan")
        done = 0

        def some(numbers: Sequence[int]) -> None:
            nonlocal done
            out[list(numbers)] = run([swaps[number] for number in numbers]).double().cpu()
            done += len(numbers)
            check()
            on_step(done, len(swaps))

        # The longest first: it is then that some are compared.
        for length, numbers in sorted(lengths.items(), reverse=True):
            memory.halving(numbers, max(1, memory.ROWS // length), some, model.device)

    def lean_way(check: exactness.Check) -> None:
        net, first = lean.read(model, places), first_layer(model, places)

        def run(some: Sequence[Swap]) -> Tensor:
            sources, streams = runs_of(model, places, some, first)
            start = first, torch.stack(streams)
            model.count(len(some))
            return lean.ends(model, net, places, some, sources, start, classes, change)

        every(run, check)

    def by_hooks(some: Sequence[Swap]) -> Tensor:
        return hooked.ends(model, places, some, runs_of(model, places, some)[0], classes, change)

    def sample() -> Iterator[float]:
        done = (number for length in sorted(lengths, reverse=True) for number in lengths[length])
        few = [number for number in done if not bool(out[number].isnan().any())][: exactness.sample_of(model)]
        for number in few:
            yield exactness.difference(out[number], by_hooks([swaps[number]])[0].double().cpu())

    def work() -> None:
        done = exactness.run(
            model,
            key(model, places),
            lean=lean_way,
            hooked=lambda fallback: every(by_hooks, exactness.unchecked),  # noqa: ARG005
            sample=sample,
            length=max(lengths, default=0),
        )
        model.note(done.path, done.notes)

    hooks.guarded(work)


def key(model: LoadedModel, places: Sequence[Place]) -> exactness.Key:
    """Return what a comparison of the lean way depends on beside the model: the sites, the layers, the dictionaries."""
    digests = {dictionary_of(model, place).digest for place in places if place.site.kind is FEATURES}
    return "interchange", frozenset((place.site, place.head is None) for place in places), frozenset(digests)


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
