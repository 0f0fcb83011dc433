"""The lens over many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.methods._shared import named_positions
from interp.methods._shared.lens_layers import layers_of, moved, sites, streams, translators
from interp.methods._shared.many.lens_result import LensManyResult
from interp.methods._shared.many.places import Places, lined_up
from interp.methods._shared.many.reading import Reading
from interp.methods._shared.prompts import answered, single
from interp.methods._shared.span_places import END
from interp.spec import Indices, plain, resolve_indices

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.lens import Projected
    from interp.results.tables import Float
    from interp.spec import Prompts


@dataclass(frozen=True)
class Asked:
    """What is asked of every prompt: the arguments of `lens`."""

    kind: Literal["logit", "tuned", "jacobian"]
    at: str
    from_: str | None
    layer: Indices
    position: Any
    top: int
    by: str | None


def over(
    model: LoadedModel, prompts: Prompts, target: object, wrong: object, interventions: object, asked: Asked
) -> LensManyResult:
    """Return what each layer predicts in each of many prompts."""
    from interp.engine.readouts import lens as engine

    reading = Reading.of(model, prompts, interventions)
    ends = reading.positions()
    goals = single(answered(model, prompts, target, prompts.answer, "target"), "target", "lens")
    against = single(answered(model, prompts, wrong, prompts.wrong, "wrong"), "wrong answer", "lens")
    if None in against and any(one is not None for one in against):
        raise InputError(f"prompt {against.index(None)} has no wrong answer and others have; give each one, or none")
    found = engine.readout(model)
    maps = None if asked.kind == "logit" else translators(model, asked.kind, asked.from_)
    layers = layers_of(model, asked.layer, asked.at, maps)
    places, measured = _places(reading, ends, asked)
    seen: dict[int, tuple[Projected, Float | None, int]] = {}

    def read(number: int, held: dict[str, Tensor]) -> None:
        rows, end, logits = streams(model, held, layers, asked.at)
        engine.require(model, found, end[-1], logits)
        goal, other = goals[number], against[number]
        if goal is None:
            goal = int(engine.detached(lambda: found.logits(end[ends[number]]).argmax()))
        if goal == other:
            raise InputError(
                f"{reading.where(number)}the wrong answer is {model.tokens.string(goal)!r}, the target itself; name "
                "another token"
            )
        if maps is not None:
            rows = engine.detached(lambda maps=maps: moved(maps, layers, asked.at, rows))
        chosen = [at[-1] for at in places.where[number]]
        some = engine.project(found, rows[:, chosen], end[chosen], goal, asked.top)
        if some.interrupt is not None:  # a prompt is read whole or not at all
            raise some.interrupt
        apart = None if other is None else engine.difference(found, rows[:, chosen], goal, other)
        seen[number] = some, apart, goal

    reading.activations(sites(model, layers, asked.at), read)
    held = reading.held(seen)
    ids = np.stack([one.ids for one, _, _ in held])
    differences = [apart for _, apart, _ in held if apart is not None]
    entropy = np.stack([one.entropy for one, _, _ in held])
    lost = ~np.isfinite(entropy).all((0, 2))
    notes = [f"the predictions are NaN, first in layer {layers[int(lost.argmax())]}"] if lost.any() else []
    if places.by == "span" and not places.only:
        notes.append("of a span of several tokens the last is read")
    result = LensManyResult(
        **reading.fields(ends),
        kind=asked.kind,
        at=asked.at,
        layers=layers,
        by=places.by,
        places=places.names,
        measured=measured,
        targets=tuple((model.tokens.string(goal), goal) for _, _, goal in held),
        wrongs=tuple((model.tokens.string(n), n) for n in reading.held(against) if n is not None),
        ids=ids,
        probabilities=np.stack([one.probabilities for one, _, _ in held]),
        names={int(index): model.tokens.string(int(index)) for index in np.unique(ids)},
        entropy=entropy,
        kl=np.stack([one.kl for one, _, _ in held]),
        target_probability=np.stack([one.target_probability for one, _, _ in held]),
        target_rank=np.stack([one.target_rank for one, _, _ in held]),
        difference=np.stack(differences) if differences else None,
        notes=(*reading.notes(), *notes, *(maps.notes if maps is not None else ())),
    )
    return unless_interrupted(result, reading.interrupt)


def _places(reading: Reading, ends: Sequence[int], asked: Asked) -> tuple[Places, int]:
    """Return where prompts are read, and which of the places is the answer's.

    Raises
    ------
    InputError
        Nothing lines up as was asked.
    """
    encoded = reading.encoded
    if asked.position is not None:
        places = _chosen(reading, asked.position)
    else:
        found = lined_up(encoded, reading.prompts.slots, ends, asked.by, ("span", "position"), whole=False)
        places = found or Places("answer", (END,), tuple(((end,),) for end in ends))
    alike = [
        all(row[n][-1] == end for row, end in zip(places.where, ends, strict=True)) for n in range(len(places.names))
    ]
    if not any(alike) and places.by == "span":  # the answer's position is inside of a span
        where = tuple((*row, (end,)) for row, end in zip(places.where, ends, strict=True))
        return Places("span", (*places.names, END), where), len(places.names)
    return places, alike.index(True) if any(alike) else len(places.names) - 1


def _chosen(reading: Reading, position: Any) -> Places:
    """Return positions that were named: by spans, or from the end, they are there in prompts of any lengths."""
    if named_positions.is_named(position):
        listed: Any = plain(position)
        listed = list(listed) if isinstance(listed, list | tuple) else [listed]
        slots = reading.prompts.slots or [None] * len(reading.encoded)
        spanned = [
            named_positions.of_prompt(reading.model, one, own, reading.where(number))
            for number, (one, own) in enumerate(zip(reading.encoded, slots, strict=True))
        ]
        where = tuple(tuple(one.positions(name) for name in listed) for one in spanned)
        return Places("span", tuple(map(str, listed)), where)
    every = [resolve_indices(position, len(one.ids), "position") for one in reading.encoded]
    if len(set(every)) > 1:
        from_end = {tuple(at - len(one.ids) for at in own) for own, one in zip(every, reading.encoded, strict=True)}
        if len(from_end) > 1:
            raise InputError("the prompts have several lengths: name positions from the end, such as --position -1")
        names = [f"({n})".replace("-", "−") for n in next(iter(from_end))]
        return Places("end", tuple(names), tuple(tuple((at,) for at in own) for own in every))
    strings = [{one.strings[at] for one in reading.encoded} for at in every[0]]
    names = [held.pop() if len(held) == 1 else f"({at})" for held, at in zip(strings, every[0], strict=True)]
    return Places("position", tuple(names), tuple(tuple((at,) for at in own) for own in every))
