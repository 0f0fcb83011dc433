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
from interp.engine.pool import sharing
from interp.sites import FEATURES
from interp.spec import resolve_indices

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation
    from interp.engine.pool.protocol import Pool

SHARD = 256  # positions of the runs of a shard
_PROMPTS = 16  # of a shard of unpatched runs


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
    featured = any(place.site.kind is FEATURES for place in places)  # of sets that are loaded here
    pool = None if featured else sharing.pool_of(model)
    where = ""
    compared = [number for length in sorted(lengths, reverse=True) for number in lengths[length]]

    def shared(way: exactness.Way, check: exactness.Check) -> None:
        """Run them in the command's pool, the longest first, those of a shard of one length."""
        nonlocal where, compared
        assert pool is not None
        out[:] = float("nan")
        cut = [
            [numbers[n] for n in some]
            for length, numbers in sorted(lengths.items(), reverse=True)
            for some in sharing.slices(len(numbers), max(1, SHARD // length))
        ]
        compared = cut[0] if cut else []  # whichever is done first
        asked = {"places": tuple(places), "classes": tuple(classes), "change": change}
        heads = [{**asked, "swaps": tuple(swaps[n] for n in numbers)} for numbers in cut]

        def take(number: int, found: Tensor) -> None:
            out[cut[number]] = found
            on_step(int((~out[:, 0].isnan()).sum()), len(swaps))

        where = sharing.run(pool, "interchange", [model], heads, take, way=way, check=check)

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
        if pool is not None:
            shared("lean", check)
            return

        def run(some: Sequence[Swap]) -> Tensor:
            sources, streams = runs_of(model, places, some, first)
            start = first, torch.stack(streams)
            model.count(len(some))
            return lean.ends(model, net, places, some, sources, start, classes, change)

        every(run, check)

    def hooked_way(fallback: exactness.Fallback) -> None:  # noqa: ARG001
        if pool is not None:
            shared("hooked", exactness.unchecked)
        else:
            every(by_hooks, exactness.unchecked)

    def by_hooks(some: Sequence[Swap]) -> Tensor:
        return hooked.ends(model, places, some, runs_of(model, places, some)[0], classes, change)

    def sample() -> Iterator[float]:
        few = [number for number in compared if not bool(out[number].isnan().any())][: exactness.sample_of(model)]
        for number in few:
            yield exactness.difference(out[number], by_hooks([swaps[number]])[0].double().cpu())

    def work() -> None:
        done = exactness.run(
            model,
            key(model, places) if pool is None else (*key(model, places), pool.name),
            lean=lean_way,
            hooked=hooked_way,
            sample=sample,
            length=max(lengths, default=0),
        )
        model.note(done.path + where, done.notes)

    hooks.guarded(work)


def key(model: LoadedModel, places: Sequence[Place]) -> exactness.Key:
    """Return what a comparison of the lean way depends on beside the model: the sites, the layers, the dictionaries."""
    digests = {dictionary_of(model, place).digest for place in places if place.site.kind is FEATURES}
    return "interchange", frozenset((place.site, place.head is None) for place in places), frozenset(digests)


def plain(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    positions: Sequence[int],
    classes: Sequence[int],
    *,
    on_step: OnStep = silent,
) -> Tensor:
    """Return the logits of `classes` at a position of each prompt, unpatched, ``float64 [prompt, class]``.

    Parameters
    ----------
    on_step
        Called with prompts done and prompts in all.

    Raises
    ------
    InputError
        A position or a token that is not there.
    """
    resolve_indices(tuple(classes), model.geometry.d_vocab_out, "token")
    tokens = list(classes)
    rows: list[Tensor] = []
    if (pool := sharing.pool_of(model)) is not None:
        return _plain_shared(model, pool, prompts, positions, classes, on_step)
    for ids, position in zip(prompts, positions, strict=True):
        (at,) = resolve_indices(position, len(ids), "position")
        name = "last_logits" if at == len(ids) - 1 else "logits"
        logits = model.activations_of(ids, [name])[name][0]
        rows.append(upcast((logits if name == "last_logits" else logits[at])[tokens]).double().cpu())
        on_step(len(rows), len(prompts))
    return torch.stack(rows) if rows else torch.empty(0, len(tokens), dtype=torch.float64)


def _plain_shared(
    model: LoadedModel,
    pool: Pool,
    prompts: Sequence[Sequence[int]],
    positions: Sequence[int],
    classes: Sequence[int],
    on_step: OnStep,
) -> Tensor:
    out = torch.empty(len(prompts), len(classes), dtype=torch.float64)
    cut = sharing.slices(len(prompts), _PROMPTS)
    heads = [
        {
            "prompts": tuple(tuple(prompts[n]) for n in some),
            "positions": tuple(positions[n] for n in some),
            "classes": tuple(classes),
        }
        for some in cut
    ]
    done = 0

    def take(number: int, found: Tensor) -> None:
        nonlocal done
        out[list(cut[number])] = found
        done += len(cut[number])
        on_step(done, len(prompts))

    sharing.run(pool, "plain", [model], heads, take, way=None)
    return out
