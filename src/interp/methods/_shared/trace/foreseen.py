"""What an attribution graph will take, and what changing its features in the model will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from interp.engine import exactness
from interp.engine.features.attribution import BATCH
from interp.engine.features.checked import together
from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.work import NOTHING, Stored, Through, Work, one_batch, total
from interp.methods._shared.trace import making

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.methods._shared.trace.result import TraceResult

_ACTIVE = 64  # features of a position and layer, where nothing says how many are active
_KEPT = 256  # sources from which what they write is carried up, for heads' shares
_FEWER = ("fewer features (--most)", "a shorter prompt")


def of_trace(
    model: LoadedModel,
    encoded: Encoded,
    dictionaries: Mapping[int, Dictionary],
    most: int,
    *,
    before: int = 0,
) -> tuple[Foresight, Work]:
    """Return the work of tracing one prompt: how many features are active is a guess where no k says it.

    Parameters
    ----------
    before
        Tokens of the longest prompt that is traced before it.
    """
    sight = Foresight(model, half=False)
    sizes, length = sight.sizes, len(encoded.ids)
    each = [one.act.k or min(one.width, int(one.declared.get("l0", _ACTIVE))) for one in dictionaries.values()]
    active = length * sum(each)
    targets, per_position = min(most, active), sum(each) / max(1, sizes.depth)
    sources = active + (sizes.depth + 1) * length
    attention = 2 * sizes.width * sizes.d_head * (sizes.heads + sizes.kv_heads)
    mean = sizes.depth / 2  # layers that a feature's reading is carried down through
    rows = targets * length
    down = rows * mean * (attention + 2 * sizes.width * per_position)
    up = _KEPT * length * sizes.depth * attention
    encoding = sum(2.0 * length * one.width * one.encoder.shape[1] for one in dictionaries.values())
    batches = -(-targets // BATCH) + 1
    element = sizes.element
    stored = Stored(model)
    names = list(dict.fromkeys(one.reads.hook(model) for one in dictionaries.values()))
    stored.plain(encoded.ids, "last_logits")
    if before.bit_length() < length.bit_length() and not exactness.trusted(model, making.KEY, length):
        stored.plain(encoded.ids, *names)
    work = Work(
        forwards=1,
        through=(Through(length, sizes.depth, scores=length * length),),
        flops=down + up + encoding,
        moved=element * (rows * mean * sizes.width * 10 + 3.0 * targets * sources * max(1, batches // 4)),
        calls=int(batches * mean * (30 + 3 * length) + sizes.depth * 60),
        held=element * targets * sources,
        peak=element * (BATCH * length * sizes.width * 8 + 2 * targets * sources),
        advice=_FEWER,
    )
    return sight, stored.work + work


def of_check(model: LoadedModel, length: int, features: int, nodes: int) -> tuple[Foresight, Work]:
    """Return the work of changing features one by one, each twice, and looking at nodes."""
    runs, size, places = 2 * features, together(length), min(nodes, 2 * model.geometry.n_layers)
    # An unchanged run goes with each batch.
    batches = (one_batch(model, (1 + min(size, runs - at)) * length, places) for at in range(0, runs, size))
    return Foresight(model, half=False), total(batches)


def of_validation(
    model: LoadedModel,
    graph: TraceResult,
    features: int,
    prompts: Sequence[Encoded],
    dictionaries: Mapping[int, Dictionary],
) -> tuple[Foresight, Work]:
    """Return the work of changing a graph's features, and of tracing other prompts as it was."""
    sight, changed = of_check(model, len(graph.tokens), len(graph.top(features)), len(graph.kinds))
    work, longest = changed if features else NOTHING, 0
    for one in prompts:
        work = work + of_trace(model, one, dictionaries, graph.most, before=longest)[1]
        longest = max(longest, len(one.ids))
    return sight, work
