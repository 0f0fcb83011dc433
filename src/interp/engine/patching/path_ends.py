"""What paths begin and end at, and which of it lies below which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import Place
from interp.errors import InputError
from interp.sites import MLP_INPUTS
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

# Layer → the dictionary that features at the ends of paths are of.
Dictionaries = Mapping[int, Dictionary]
NONE: Dictionaries = MappingProxyType({})

_KINDS = ("embed", "head", "q", "k", "v", "mlp", "feature", "logits")
_STREAM = ("resid_pre", "resid_mid", "resid_post")
# Of the places at one height of the stream, which comes first: what a part adds there; the stream as hooks before the
# height show it, and after it; what reads there.
_ADDED, _BEFORE, _AFTER, _READER = range(4)
_ORDER = {"resid_mid": _BEFORE, "resid_post": _BEFORE, "resid_pre": _AFTER, **dict.fromkeys(MLP_INPUTS, _READER)}


def parallel(model: LoadedModel) -> bool:
    """Return whether a block's MLP reads the residual stream before its attention: it has no middle then."""
    return "resid_mid" not in model.sites


def height(place: Place, parallel: bool) -> int:
    """Return how many half blocks lie below the place in the stream where a dictionary reads, or what it writes enters.

    Examples
    --------
    >>> height(Place(5, "resid_pre"), False), height(Place(5, "mlp_in"), False), height(Place(5, "mlp_out"), False)
    (10, 11, 12)
    """
    if place.point == "resid_pre" or (parallel and place.point in MLP_INPUTS):
        return 2 * place.layer
    halfway = place.point in {"resid_mid", *MLP_INPUTS} or (not parallel and place.point in {"attn_out", "z"})
    return 2 * place.layer + (1 if halfway else 2)


def written(node: Node, parallel: bool, of: Dictionaries = NONE) -> int:
    """Return how many half blocks lie below the place where a sender writes; of several, the first.

    Examples
    --------
    >>> written(Node("head", 5, 1), False), written(Node("head", 5, 1), True), written(Node("embed"), False)
    (11, 12, 0)
    """
    if node.kind == "feature":
        return height(of[node.layer].writes[0], parallel)
    if node.kind == "embed":
        return 0
    return 2 * node.layer + (1 if node.kind == "head" and not parallel else 2)


def read(node: Node, parallel: bool, depth: int, of: Dictionaries = NONE) -> int:
    """Return how many half blocks lie below the place where a receiver reads; it sees what is written there or below.

    Examples
    --------
    >>> read(Node("mlp", 5), False, 12), read(Node("mlp", 5), True, 12), read(Node("logits"), False, 12)
    (11, 10, 24)
    """
    if node.kind == "feature":
        return height(of[node.layer].reads, parallel)
    if node.kind == "logits":
        return 2 * depth
    return 2 * node.layer + (1 if node.kind == "mlp" and not parallel else 0)


def _sends(node: Node, parallel: bool, of: Dictionaries) -> int:
    own = of[node.layer].writes[0].point if node.kind == "feature" else ""
    return 4 * written(node, parallel, of) + _ORDER.get(own, _ADDED)


def _hears(node: Node, parallel: bool, depth: int, of: Dictionaries) -> int:
    own = of[node.layer].reads.point if node.kind == "feature" else ""
    return 4 * read(node, parallel, depth, of) + _ORDER.get(own, _READER)


def ordered(
    model: LoadedModel, senders: Sequence[Node], receivers: Sequence[Node], of: Dictionaries = NONE
) -> tuple[list[Node], list[Node]]:
    """Return both from the model's bottom to its top, each once."""
    same, depth = parallel(model), model.geometry.n_layers

    def own(node: Node) -> tuple[int, int, int]:
        return _KINDS.index(node.kind), node.layer, node.head

    return (
        sorted(set(senders), key=lambda node: (_sends(node, same, of), own(node))),
        sorted(set(receivers), key=lambda node: (_hears(node, same, depth, of), own(node))),
    )


def reaching(model: LoadedModel, senders: Sequence[Node], receivers: Sequence[Node], of: Dictionaries = NONE) -> Tensor:
    """Return which sender writes below which receiver reads, ``bool [sender, receiver]``.

    A dictionary of the stream writes behind where it reads: its features do not reach each other.
    """
    return below(senders, receivers, parallel(model), model.geometry.n_layers, of)


def below(
    senders: Sequence[Node], receivers: Sequence[Node], parallel: bool, depth: int, of: Dictionaries = NONE
) -> Tensor:
    """Return the same, of a model that is known by its shape."""
    low = torch.tensor([_sends(sender, parallel, of) for sender in senders])
    return low[:, None] < torch.tensor([_hears(receiver, parallel, depth, of) for receiver in receivers])


def require_stream(node: Node, one: Dictionary) -> None:
    """Refuse a feature as a receiver that reads no stream.

    Raises
    ------
    InputError
        It reads what one part of its layer writes, which nothing from below reaches directly.
    """
    if one.reads.point not in {*_STREAM, *MLP_INPUTS}:
        layer, point = one.reads.layer, one.reads.point
        inside = "heads" if point in {"attn_out", "z"} else "MLP"
        instead = f"{layer}.0.q" if inside == "heads" else f"{layer}.mlp"
        raise InputError(
            f"no path ends at {node.name}: it reads {point}, which is what the {inside} of layer {layer} make"
            f"{'' if inside == 'heads' else 's'}, and not the stream; name an input of theirs, such as --to {instead}"
        )
