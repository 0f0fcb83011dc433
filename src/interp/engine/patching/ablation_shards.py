"""Shards of an ablation, as a worker runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine import exactness
from interp.engine.patching import captured
from interp.engine.patching.ablation import Job, Sample
from interp.engine.patching.cases import Ids
from interp.engine.patching.driver import silent
from interp.engine.patching.fillings import Fillings, Part
from interp.engine.patching.moments import Filled
from interp.engine.patching.shards import placed, whole
from interp.engine.transformer import network

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def ablated(
    models: Sequence[LoadedModel],
    step: Callable[[], None],  # noqa: ARG001 - called at every forward
    *,
    samples: Sequence[Sample],
    numbers: Sequence[int],
    parts: Sequence[Part],
    conditions: Sequence[tuple[int, ...]],
    mode: str,
    seed: int,
    at: Sequence[Sequence[int]],
    references: Sequence[Ids],
    taken: Sequence[int],
    filled: Filled | None,
) -> Tensor:
    """Return the metric, ``float64 [condition, sample]``; the first condition is the unablated one.

    Parameters
    ----------
    numbers
        Of the samples among all that are measured.
    references, taken
        What activations are taken from, and for each sample which of these.
    filled
        What is taken of all references together.
    """
    (model,) = models
    own = _here(model, parts)
    fillings = Fillings(own, mode, references, taken, seed, at, numbers, filled)
    return whole(Job(model, samples, own, fillings, conditions, silent).run()).values


def filled(
    models: Sequence[LoadedModel],
    step: Callable[[], None],  # noqa: ARG001
    *,
    way: exactness.Way,
    parts: Sequence[Part],
    references: Sequence[Ids],
    spread: bool,
    aligned: bool,
) -> Filled:
    """Return what is taken of some references; see `Filled.of`."""
    (model,) = models
    own = [part for part in _here(model, parts) if part.site != "scores"]
    if way == "lean":
        capture = captured.without_hooks(model, network.read(model, encoders={part.site for part in parts}))
    else:
        capture = captured.with_hooks(model)
    return Filled.of(capture, references, own, spread=spread, aligned=aligned)


def _here(model: LoadedModel, parts: Sequence[Part]) -> list[Part]:
    return [replace(one, dictionary=one.dictionary and placed(one.dictionary, model)) for one in parts]
