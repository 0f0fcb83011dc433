"""The residual stream as dictionaries give it back: without what they do not explain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import Place, captured, parallel
from interp.engine.model.tokens import Encoded
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

# Where in a layer the stream is read → what dictionaries give back that it is, or that was added to it last.
_OF = {"pre": ("resid_pre",), "mid": ("resid_mid", "attn_out"), "post": ("resid_post", "mlp_out")}
_APART = {torch.float64: 1e-6, torch.float32: 1e-3}  # of the largest value; in half precision 5 %


def explained(model: LoadedModel, tokens: Encoded, dictionaries: Sequence[Dictionary], at: str) -> Tensor:
    """Return the stream of a plain run less the errors of dictionaries, ``[dictionary, position, d_model]``.

    Each layer is taken by itself: with x what stands where its dictionary writes and x̂ all that the dictionary writes
    there (features, bias, skip), the stream less (x − x̂). Of a dictionary of the stream that is x̂.

    Parameters
    ----------
    at
        ``pre``, ``mid`` or ``post``: where in each layer.

    Raises
    ------
    InputError
        A dictionary gives back no part of the stream there.
    """
    for one in dictionaries:
        _check(one, at)
    streams = {one: Place(one.layer, f"resid_{at}") for one in dictionaries}
    places = [place for one in dictionaries for place in (one.reads, one.writes[0], streams[one])]
    added = [one for one in dictionaries if one.writes[0] != streams[one]]
    under = {one: _under(model, one.writes[0]) for one in added}
    found = captured(model, tokens, list(dict.fromkeys([*places, *(place for own in under.values() for place in own)])))
    for one in added:
        _require_sum(model, one, found[streams[one]], [found[place] for place in (one.writes[0], *under[one])])
    rows: list[Tensor] = []
    for one in dictionaries:
        x, stream, there = found[one.reads], found[streams[one]], found[one.writes[0]]
        written = one.output(one.encode(x), x).to(stream)
        rows.append(written if one.writes[0] == streams[one] else stream - there + written)
    return torch.stack(rows)


def _check(one: Dictionary, at: str) -> None:
    place, taken = one.writes[0], _OF[at]
    if len(one.writes) > 1:
        raise InputError(
            f"features of layer {one.layer} write in several layers, and no layer's stream is what one of them gives "
            "back; use a transcoder or a dictionary of the stream"
        )
    if place.point in taken and place.layer == one.layer:
        return
    other = next((where for where, points in _OF.items() if place.point in points), None)
    raise InputError(
        f"features of layer {one.layer} give back {place.point}, which is not what the stream is made of at {at}; "
        + (f"use --at {other}" if other else "use a transcoder or a dictionary of the stream")
    )


def _under(model: LoadedModel, place: Place) -> list[Place]:
    """Return what the stream behind `place` is the sum of, beside what stands there."""
    if place.point == "attn_out":
        return [Place(place.layer, "resid_pre")]
    if parallel(model):
        return [Place(place.layer, "resid_pre"), Place(place.layer, "attn_out")]
    return [Place(place.layer, "resid_mid")]


def _require_sum(model: LoadedModel, one: Dictionary, stream: Tensor, parts: Sequence[Tensor]) -> None:
    """Refuse a family in which a norm stands between what is added and the stream."""
    total = torch.stack([part.float() for part in parts]).sum(0)
    size = float(stream.float().abs().max())
    if not float((total - stream.float()).abs().max()) <= _APART.get(stream.dtype, 0.05) * size:
        raise InputError(
            f"in {model.name} a norm stands behind {one.writes[0].point}: what features write there is no part of the "
            "stream; use a dictionary of the stream"
        )
