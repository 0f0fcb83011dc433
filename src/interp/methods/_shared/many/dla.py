"""Direct effects of one run as `dla` tells them, and of the runs of many prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.methods._shared.direct_effects import Parts, Run, attributed, frozen_note, place, sites
from interp.methods._shared.many.dla_result import DLAManyResult
from interp.methods._shared.many.places import lined_up
from interp.methods._shared.many.reading import Reading
from interp.methods._shared.prompts import answered, single

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.lens import Readout
    from interp.spec import Prompts

# Of the sum of the parts' sizes: what rounding in the model's own dtype can make the parts miss its logit by.
_EXACT = ("float32", "float64")
_ROUNDING, _ROUGH = 1e-5, 0.05
# The part of what interventions write into the stream, past any component.
_CHANGES = "interventions"


@dataclass(frozen=True)
class Measured:
    """One prompt's parts, and what they are parts of."""

    parts: Parts
    contributions: dict[str, float]
    right: int
    logits: Tensor
    total: float
    logit: float
    notes: tuple[str, ...]


def measured(run: Run, found: Readout, right: int | None, wrong: int | None, top: int, *, changed: bool) -> Measured:
    """Return the parts of one run; with interventions (`changed`) what these add to the stream is one of them.

    Raises
    ------
    InputError
        The parts are not those of the model's logit, or the answer is the wrong one.
    """
    from interp.engine.readouts import lens as engine

    model = run.model
    engine.require(model, found, run.end[-1], run.held["last_logits"][0])
    logits: Tensor = engine.detached(lambda: found.logits(run.end[run.at])).double()
    right = int(logits.argmax()) if right is None else right
    if right == wrong:
        raise InputError(f"answer and wrong answer are both {model.tokens.string(right)!r}; they must differ")
    parts: Parts = engine.detached(lambda: attributed(run, found, right, wrong, top))
    logit = float(logits[right] - (0.0 if wrong is None else logits[wrong]))
    contributions = dict(parts.contributions)
    frozen = frozen_note(run, found)
    if changed:
        contributions[_CHANGES] = logit - float(sum(contributions.values()))
        lost = np.abs(parts.per_position.sum(-1) - parts.heads) > 1e-4 + 1e-4 * np.abs(parts.heads)
        parts.per_position[lost] = np.nan  # what is written over a head's z was read from nowhere
    total = float(sum(contributions.values()))
    return Measured(
        parts, contributions, right, logits, total, logit, _notes(model, frozen, contributions, total, logit)
    )


def over(
    model: LoadedModel,
    prompts: Prompts,
    answer: object,
    wrong: object,
    position: int | None,
    top: int,
    interventions: object,
    by: str | None,
) -> DLAManyResult:
    """Return the parts over many prompts."""
    from interp.engine.readouts import lens as engine

    reading = Reading.of(model, prompts, interventions)
    encoded = reading.encoded
    at = reading.positions(position)
    rights = single(answered(model, prompts, answer, prompts.answer, "answer"), "answer", "dla")
    wrongs = single(answered(model, prompts, wrong, prompts.wrong, "wrong answer"), "wrong answer", "dla")
    if None in wrongs and any(one is not None for one in wrongs):
        raise InputError(f"prompt {wrongs.index(None)} has no wrong answer and others have; give each one, or none")
    places = lined_up(encoded, prompts.slots, at, by, ("span", "position"))
    found = engine.readout(model)
    every: dict[int, Measured] = {}
    neurons = _Neurons()

    def read(number: int, held: dict[str, Tensor]) -> None:
        run = Run(model, held, at[number])
        try:
            one = measured(run, found, rights[number], wrongs[number], 1, changed=bool(reading.changes))
        except InputError as error:
            raise InputError(reading.where(number) + str(error)) from None
        if number not in every:
            neurons.add(one.parts.each_neuron)
        # What is averaged already is not kept, nor what only features are told by.
        every[number] = replace(one, parts=replace(one.parts, each_neuron={}, slopes={}), logits=one.logits[:0])

    reading.activations(sites(model), read)
    held = reading.held(every)
    components = tuple(held[0].contributions)
    per_place = [
        places.summed(n, one.parts.per_position) if places is not None else one.parts.per_position[..., :0]
        for n, one in zip(reading.done, held, strict=True)
    ]
    notes = dict.fromkeys(note for one in held for note in one.notes)
    result = DLAManyResult(
        **reading.fields(at),
        answers=tuple((model.tokens.string(one.right), one.right) for one in held),
        wrongs=tuple((model.tokens.string(n), n) for n in reading.held(wrongs) if n is not None),
        components=components,
        contributions=np.array([[one.contributions[name] for name in components] for one in held], np.float64),
        heads=np.stack([one.parts.heads for one in held]),
        by="" if places is None else places.by,
        places=() if places is None else places.names,
        per_place=np.stack(per_place),
        neurons=neurons.top(top),
        totals=np.array([one.total for one in held]),
        logits=np.array([one.logit for one in held]),
        notes=(*reading.notes(), *notes),
    )
    return unless_interrupted(result, reading.interrupt)


class _Neurons:
    """Every neuron's part over prompts: how many there were, the sum and the sum of squares."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, each: Mapping[int, Tensor]) -> None:
        """Take one prompt's parts in."""
        self.count += 1
        for layer, values in each.items():
            total, squares = self.sums.get(layer, (values * 0, values * 0))
            self.sums[layer] = total + values, squares + values.square()

    def top(self, top: int) -> tuple[tuple[str, float, float], ...]:
        """Return the neurons with the largest mean parts: (name, mean, standard error)."""
        found: list[tuple[float, float, str]] = []
        for layer, (total, squares) in self.sums.items():
            mean = total / self.count
            variance = (squares - self.count * mean.square()).clamp(min=0) / max(1, self.count - 1)
            error = (variance / self.count).sqrt() if self.count > 1 else variance * float("nan")
            best = mean.abs().topk(min(top, len(mean))).indices.tolist()
            found += [(float(mean[n]), float(error[n]), f"L{layer} neuron {n}") for n in best]
        found.sort(key=lambda item: -abs(item[0]))
        return tuple((name, mean, error) for mean, error, name in found[:top])


def _notes(model: LoadedModel, frozen: str, parts: Mapping[str, float], total: float, logit: float) -> tuple[str, ...]:
    """Return what is worth knowing; refuse a model whose parts do not add up to its logit.

    Raises
    ------
    InputError
        They do not, and neither hooks of the user's own nor rounding can be why.
    """
    if not np.isfinite(total):
        return (frozen, f"the parts are NaN or infinite, first in {_first(parts)}")
    gap = abs(total - logit)
    size = sum(abs(value) for value in parts.values())
    if gap <= 1e-4 + _ROUNDING * size:
        return (frozen,)
    said = f"the parts add up to {total:+.4f} and the model's own logit is {logit:+.4f}"
    if model.user_hooks():
        return (frozen, f"{said}: hooks of yours change the residual stream between them")
    import torch

    rough = torch.is_autocast_enabled(model.device.type) or model.dtype not in _EXACT
    if gap <= _ROUGH * size and rough:
        return (frozen, f"{said}: the model rounds in less than float32")
    raise InputError(f"{said}: {model.name} does more than add attention and MLPs, and dla would be wrong")


def _first(parts: Mapping[str, float]) -> str:
    lost = [name for name, value in parts.items() if not np.isfinite(value)]
    order: Sequence[str] = sorted(lost, key=lambda name: (place(name)[1] is None, place(name)[1] or 0))
    return order[0] if order else "their sum"
