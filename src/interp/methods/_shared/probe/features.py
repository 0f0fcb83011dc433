"""What a probe reads of texts where it reads features: those that are active in any of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.features.codes import Codes
    from interp.engine.features.held import FeatureSet
    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


@dataclass(frozen=True)
class Read:
    """Features of texts.

    Attributes
    ----------
    values
        ``float64 [layer, text, feature]``: activations; 0 behind a layer's last active feature.
    layers
        The layers that there are dictionaries for.
    names
        For each layer, the features that are active in any text, such as ``"2.417"``.
    """

    values: Float
    layers: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]


def read(
    model: LoadedModel,
    texts: Collection[Sequence[int]],
    given: FeatureSet,
    position: str,
    at: Sequence[Sequence[int]] | None = None,
    layers: Sequence[int] | None = None,
) -> Read:
    """Return features at each text's last token, or their mean over all but special tokens; of those `at` where given.

    Raises
    ------
    InputError
        So many are active that they do not fit into memory, or none is.
    """
    import torch

    from interp.engine import memory
    from interp.engine.features.coded import coded
    from interp.engine.features.codes import Codes

    chosen = given.layers if layers is None else tuple(layers)
    dictionaries = [given.at(layer) for layer in chosen]
    rows: list[list[Codes]] = [[] for _ in dictionaries]
    for number, text in enumerate(texts):
        counts = _counts(model, text, position, None if at is None else at[number])
        for own, held in zip(rows, coded(model, text, dictionaries), strict=True):
            codes, weights = held.codes, counts.to(held.codes.values)
            whole = codes.values * weights[codes.rows]
            own.append(Codes.entries(torch.zeros_like(codes.rows), codes.features, whole, 1, codes.width))
        model.on_step(number + 1, len(texts))
    found = [Codes.stacked(own) for own in rows]
    active = [codes.features.unique() for codes in found]
    most = max(map(len, active))
    if not most:
        raise InputError("no feature is active in any of the texts there; use --position mean, or other features")
    needed, free = 8 * len(found) * len(texts) * most, memory.free_bytes(torch.device("cpu"))
    if needed > free // 2:
        raise InputError(
            f"{most} features of {len(texts)} texts need {memory.readable(needed)} and {memory.readable(free)} is "
            "free; give fewer texts"
        )
    values = np.zeros((len(found), len(texts), most))
    for layer, (codes, own) in enumerate(zip(found, active, strict=True)):
        places = codes.rows.cpu().numpy(), torch.searchsorted(own, codes.features).cpu().numpy()
        values[layer][places] = codes.values.double().cpu().numpy()
    names = tuple(
        tuple(f"{one.layer}.{feature}" for feature in own.tolist())
        for one, own in zip(dictionaries, active, strict=True)
    )
    return Read(values, chosen, names)


def _counts(model: LoadedModel, ids: Sequence[int], position: str, at: Sequence[int] | None) -> Any:
    """Return how much each token counts, ``float64 [position]``."""
    import torch

    special = set[int](getattr(model.tokens.tokenizer, "all_special_ids", ()))
    there = torch.tensor([index not in special for index in ids], dtype=torch.float64)
    if position == "last" or at is not None:
        there = torch.zeros_like(there)
        chosen = (-1,) if at is None else at
        there[list(chosen[-1:] if position == "last" else chosen)] = 1.0
    elif not there.any():  # a text of special tokens alone
        there[:] = 1.0
    return there / there.sum()
