"""Saliency over many prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.methods._shared.many.places import lined_up
from interp.methods._shared.many.reading import Reading
from interp.methods._shared.many.saliency_result import SaliencyManyResult
from interp.methods._shared.saliency_checks import UNSUMMED, WARNED
from interp.results.tables import padded
from interp.spec import Intervention, Prompts

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.methods._shared.saliency_result import SaliencyResult


def over(
    model: LoadedModel,
    prompts: Prompts,
    changes: Sequence[Intervention],
    by: str | None,
    read: Callable[[int, Encoded], SaliencyResult],
) -> SaliencyManyResult:
    """Return what tokens add over many prompts, of each of which `read` gives what its own add."""
    reading = Reading.of(model, prompts, list(changes))
    every: dict[int, SaliencyResult] = {}

    def one(number: int) -> None:
        try:
            every[number] = read(number, reading.encoded[number])
        except InputError as error:
            raise InputError(reading.where(number) + str(error)) from None

    ends = [len(one.ids) - 1 for one in reading.encoded] if model.geometry.causal else reading.positions()
    places = lined_up(reading.encoded, prompts.slots, ends, by, ("span", "position", "end"))
    assert places is not None  # from the end any prompts line up
    reading.one_by_one(one)
    held = reading.held(every)
    positions = {number: result.position for number, result in every.items()}
    missed = sum(result.relative_gap > WARNED and result.method not in UNSUMMED for result in held)
    gap = (
        f"warning: in {missed} of {len(held)} prompts the parts miss the difference from the baseline by over "
        f"{WARNED:.0%}; raise the steps"
    )
    kept = dict.fromkeys(note for result in held for note in result.notes if not note.startswith("warning"))
    first = held[0]
    result = SaliencyManyResult(
        **reading.fields([positions.get(n, -1) for n in range(len(reading.encoded))]),
        method=first.method,
        metric=first.metric,
        baseline=first.baseline,
        answers=tuple(result.answer for result in held if result.answer is not None),
        wrongs=tuple(result.wrong for result in held if result.wrong is not None),
        by=places.by,
        places=places.names,
        attribution=np.stack(
            [places.summed(n, result.attribution) for n, result in zip(reading.done, held, strict=True)]
        ),
        each_token=padded([result.attribution.tolist() for result in held], np.nan, np.float64),
        values=np.array([result.value for result in held]),
        references=np.array([result.reference for result in held]),
        steps=np.array([result.steps for result in held], np.int64),
        notes=(*reading.notes(), *([gap] if missed else ()), *kept),
    )
    return unless_interrupted(result, reading.interrupt)
