"""Attention patterns over many prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import unless_interrupted
from interp.methods._shared import labels
from interp.methods._shared.many.attention_result import AttentionManyResult
from interp.methods._shared.many.places import Places, lined_up, not_lined_up
from interp.methods._shared.many.reading import Reading
from interp.methods._shared.patterns import room, statistics
from interp.sites import Site
from interp.spec import Node

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.spec import Prompts


def over(
    model: LoadedModel,
    prompts: Prompts,
    layers: tuple[int, ...],
    heads: tuple[int, ...],
    interventions: object,
    by: str | None,
) -> AttentionManyResult:
    """Return the patterns of many prompts, by what lines up.

    Raises
    ------
    InputError
        Nothing lines up.
    """
    reading = Reading.of(model, prompts, interventions)
    ends = [len(one.ids) - 1 for one in reading.encoded]
    places = lined_up(reading.encoded, prompts.slots, ends, by, ("position", "span"))
    if places is None:
        raise not_lined_up(reading.encoded)
    count, size = len(reading.encoded), len(places.names)
    each, notes = room((count, len(layers), len(heads), size, size))
    stats: dict[int, dict[str, NDArray[np.float32]]] = {}
    sites = [Site("pattern", layer).hook_name for layer in layers]

    def read(number: int, held: dict[str, Tensor]) -> None:
        some: list[dict[str, Any]] = []
        for n, site in enumerate(sites):
            pattern = held[site][0, list(heads)].float().cpu().numpy()
            each[number, n] = _of_places(places, number, pattern)
            some.append(statistics(pattern[None]))
        stats[number] = {name: np.concatenate([one[name] for one in some]) for name in some[0]}

    reading.activations(sites, read)
    kept = each if len(reading.done) == count else each[reading.done]
    if not np.isfinite(kept.max(initial=0.0)) and places.by == "position":
        notes.append("the patterns hold NaN or infinite weights")
    known = {name: label for name, label in labels.of(model).items() if _held(name, layers, heads)}
    held = reading.held(stats)
    result = AttentionManyResult(
        **reading.fields(ends),
        layers=layers,
        heads=heads,
        by=places.by,
        places=places.names,
        each=kept,
        stats={name: np.stack([one[name] for one in held]) for name in held[0]},
        causal=model.geometry.causal,
        labels=known,
        notes=(*reading.notes(), *notes),
    )
    return unless_interrupted(result, reading.interrupt)


def _of_places(places: Places, number: int, pattern: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a pattern ``[head, query, key]`` by places: summed over keys, averaged over queries."""
    if places.by == "position":
        return pattern
    onto = places.summed(number, pattern)  # [head, query, place]
    rows = [
        onto[:, list(at)].mean(1) if at else np.full(onto[:, 0].shape, np.nan, onto.dtype)
        for at in places.where[number]
    ]
    return np.stack(rows, axis=1)


def _held(name: str, layers: tuple[int, ...], heads: tuple[int, ...]) -> bool:
    node = Node.parse(name)
    return node.layer in layers and node.head in heads
