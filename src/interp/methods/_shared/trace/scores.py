"""What makes one attention score, from a model and a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.engine.features.scores import score_pairs
from interp.errors import InputError
from interp.methods._shared import names
from interp.methods._shared.trace import making
from interp.methods._shared.trace.score_result import ScoreResult

if TYPE_CHECKING:
    from interp.engine.features.frozen import Frozen
    from interp.engine.features.sources import Sources
    from interp.engine.model.loaded import LoadedModel

_OTHERS, _BIASES = "others", "biases"


def score(model: LoadedModel, frozen: Frozen, strings: tuple[str, ...], head: str, query: int, key: int) -> ScoreResult:
    """Return what makes a head's score.

    Raises
    ------
    InputError
        No such head or positions, or a key that comes after the query.
    """
    named = names.heads(head, model.geometry, "--head")
    if len(named) != 1:
        raise InputError(f"--head {head!r} names {len(named)} heads; name one, such as 5.1")
    layer, number = named[0].layer, named[0].head
    count = len(strings)
    for which, at in (("--from", query), ("--to", key)):
        if not -count <= at < count:
            raise InputError(f"{which} {at} is no position; they are 0–{count - 1}, and −1 is the last")
    query, key = query % count, key % count
    if key > query:
        raise InputError(f"the token at {query} sees none at {key}, which comes after it; exchange --from and --to")
    tracer = making.tracer_of(frozen)
    found = score_pairs(tracer, layer, number, query, key)
    return ScoreResult(
        tokens=strings,
        layer=layer,
        head=number,
        query=query,
        key=key,
        score=found.score,
        weight=float(frozen.layers[layer].pattern[number, query, key]),
        queries=(*(_named(tracer.sources, int(n)) for n in found.queries), _OTHERS, _BIASES),
        keys=(*(_named(tracer.sources, int(n)) for n in found.keys), _OTHERS, _BIASES),
        pairs=found.pairs.cpu().numpy().copy(),
    )


def _named(held: Sources, number: int) -> str:
    if number < held.n_features:
        return f"{int(held.layers[number])}.{int(held.features[number])}@{int(held.positions[number])}"
    layer, position = divmod(number - held.first_error, held.n_positions)
    return f"embed@{position}" if number >= held.first_embedding else f"{layer}.error@{position}"
