"""A shard of interchanges, as a worker runs it; how they are cut is in `run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine.interchange.changes import Change
from interp.engine.interchange.places import Place, Swap
from interp.engine.interchange.run import answers, plain
from interp.engine.patching.driver import OnStep

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def answered(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    places: Sequence[Place],
    swaps: Sequence[Swap],
    classes: Sequence[int],
    change: Change,
) -> Tensor:
    """Return what `answers` gives of some swaps."""
    return answers(models[0], places, swaps, classes, change, on_step=_told(step))


def unpatched(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    prompts: Sequence[Sequence[int]],
    positions: Sequence[int],
    classes: Sequence[int],
) -> Tensor:
    """Return what `plain` gives of some prompts."""
    return plain(models[0], prompts, positions, classes, on_step=_told(step))


def _told(step: Callable[[], None]) -> OnStep:
    def tell(*_: int) -> None:
        step()

    return tell
