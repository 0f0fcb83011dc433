"""What is interchanged between two runs, and where in them; read off source runs through the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.held import current
from interp.engine.model.interventions import require_read
from interp.errors import InputError
from interp.sites import FEATURES, Site
from interp.spec import resolve_indices

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """What is interchanged; several make one interchange.

    Attributes
    ----------
    site
        Which activation.
    head
        Of a site with heads: this one alone; all of them where it is ``None``.
    features
        Of the site ``features``: these alone; all of the layer's where there are none.
    dictionary
        The loaded set that they are of; the current one where it is ``None``.

    Examples
    --------
    >>> Place(Site("z", 5), head=1).name
    'head 5.1 z'
    """

    site: Site
    head: int | None = None
    features: tuple[int, ...] = ()
    dictionary: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.site.kind is FEATURES:
            own = ", ".join(f"F{self.site.layer}.{number}" for number in self.features)
            return own or f"features of layer {self.site.layer}"
        if self.head is not None:
            return f"head {self.site.layer}.{self.head} {self.site.name}"
        return f"{self.site.name} of layer {self.site.layer}"


@dataclass(frozen=True)
class Swap:
    """One interchange.

    Attributes
    ----------
    base, source
        Token ids, with BOS, of the run that is changed and of the run that it is given something of.
    at
        For each place: positions of `base` …
    taken
        … and the positions of `source` that stand in for them, as many.
    position
        Where in `base` the answer is read.
    expected
        The token id that is to become the answer.
    """

    base: Ids
    source: Ids
    at: tuple[tuple[int, ...], ...]
    taken: tuple[tuple[int, ...], ...]
    position: int
    expected: int


def require(model: LoadedModel, places: Sequence[Place], swaps: Sequence[Swap], classes: Sequence[int]) -> None:
    """Refuse an interchange that a model cannot make.

    Raises
    ------
    InputError
        A place that the model has not, or at which writing does nothing; positions that do not fit their prompts; a
        class that is no token.
    """
    if not places:
        raise InputError("an interchange needs a place, such as resid_post of layer 2")
    if model.lacks_head:
        raise InputError(f"the checkpoint of {model.name} holds no language-model head: it has no answers")
    resolve_indices(tuple(classes), model.geometry.d_vocab_out, "token")
    for place in places:
        _require_place(model, place)
    require_read(model, [place.site for place in places])
    for swap in swaps:
        _require_swap(places, swap)


def _require_place(model: LoadedModel, place: Place) -> None:
    kind, layer = place.site.kind, place.site.layer
    resolve_indices(layer, model.geometry.n_layers, "layer")
    if kind is FEATURES:
        one = dictionary_of(model, place)
        for feature in place.features:
            current(model, place.dictionary).chosen(one, feature)
        return
    if place.features:
        raise InputError(f"{place.site.name} has no features; use Site('features', {layer})")
    model.require_site(place.site.name, [layer])
    if place.head is None:
        return
    if not kind.headed:
        raise InputError(f"{place.site.name} has no heads; leave the head out, or use z")
    count = model.geometry.n_kv_heads if kind.kv_heads else model.geometry.n_heads
    resolve_indices(place.head, count, "head", " (of keys and values)" if kind.kv_heads else "")


def _require_swap(places: Sequence[Place], swap: Swap) -> None:
    if not len(places) == len(swap.at) == len(swap.taken):
        raise InputError(f"there are {len(places)} places, and positions for {len(swap.at)} and {len(swap.taken)}")
    _require_positions((swap.position,), len(swap.base), "the answer")
    for place, at, taken in zip(places, swap.at, swap.taken, strict=True):
        if len(at) != len(taken):
            raise InputError(f"{place.name}: {len(at)} positions of base and {len(taken)} of source do not line up")
        if len(set(at)) < len(at):
            raise InputError(f"{place.name}: a position of base stands there twice")
        _require_positions(at, len(swap.base), place.name)
        _require_positions(taken, len(swap.source), place.name)
        if place.site.kind.heads_first and len(swap.base) != len(swap.source):
            raise InputError(f"{place.name} has an entry for each key: base and source need one length")


def _require_positions(positions: Sequence[int], length: int, what: str) -> None:
    if not positions:
        raise InputError(f"{what} has no position in one of the prompts")
    off = next((at for at in positions if not 0 <= at < length), None)
    if off is not None:
        raise InputError(f"{what}: no position {off} in a prompt of {length} tokens")


def dictionary_of(model: LoadedModel, place: Place) -> Dictionary:
    """Return the dictionary whose features a place is."""
    return current(model, place.dictionary).at(place.site.layer)


def index(place: Place, rows: Any, positions: Any) -> tuple[Any, ...]:
    """Return where a place is at one position in each of some rows of a batch."""
    return rows, *place.site.kind.index(place.head, positions)


def first_layer(model: LoadedModel, places: Sequence[Place]) -> int:
    """Return the first layer in which anything is read or changed."""
    features = [dictionary_of(model, place) for place in places if place.site.kind is FEATURES]
    vectors = [place.site.layer for place in places if place.site.kind is not FEATURES]
    return min([*vectors, *(one.layer for one in features), *(to.layer for one in features for to in one.writes)])


def runs_of(
    model: LoadedModel, places: Sequence[Place], swaps: Sequence[Swap], start: int | None = None
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Return what runs without an interchange have, of the store: each prompt is run once.

    Parameters
    ----------
    start
        The layer before which the base runs' stream is wanted; none of them where it is ``None``.

    Returns
    -------
    tuple
        For each swap what its source run has at each place, ``[position, width]``, empty for a place of features; and
        for each swap its base run's stream, ``[position, d_model]``.
    """
    names = [None if place.site.kind is FEATURES else place.site.hook_name for place in places]
    before = None if start is None else Site("resid_pre", start).hook_name
    wanted: dict[Ids, dict[str, None]] = {}
    for swap in swaps:
        wanted.setdefault(swap.source, {}).update(dict.fromkeys(name for name in names if name is not None))
        if before is not None:
            wanted.setdefault(swap.base, {})[before] = None
    held: dict[Ids, dict[str, Tensor]] = {}
    for ids, own in wanted.items():
        held[ids] = {name: tensor[0] for name, tensor in model.activations_of(ids, list(own)).items()} if own else {}

    def taken(swap: Swap, number: int) -> Tensor:
        name = names[number]
        if name is None:
            return torch.empty(0)
        tensor = held[swap.source][name]
        at = torch.tensor(swap.taken[number], device=tensor.device)
        return tensor[None][index(places[number], torch.zeros_like(at), at)].flatten(1)

    sources = [[taken(swap, number) for number in range(len(places))] for swap in swaps]
    return sources, [held[swap.base][before] for swap in swaps] if before is not None else []
