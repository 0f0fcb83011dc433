"""What an attribution graph will take, and what changing its features in the model will."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from interp.engine.features.attribution import BATCH
from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.work import Stored, Through, Work, one_batch

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

_ACTIVE = 64  # features of a position and layer, where nothing says how many are active
_KEPT = 256  # sources from which what they write is carried up, for heads' shares
_FEWER = ("fewer features (--most)", "a shorter prompt")


def of_trace(
    model: LoadedModel, encoded: Encoded, dictionaries: Mapping[int, Dictionary], most: int
) -> tuple[Foresight, Work]:
    """Return the work of tracing one prompt: how many features are active is a guess where no k says it."""
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
    stored.plain(encoded.ids, *names, "last_logits")
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
    sight, size = Foresight(model, half=False), 2 * features
    return sight, one_batch(model, (size + 1) * length, min(nodes, 2 * model.geometry.n_layers))
