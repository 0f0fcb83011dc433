"""Features at the ends of paths: what one sends, and what another makes of what arrives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import shown
from interp.engine.features.places import Place
from interp.engine.patching.feature_plan import Difference, Features, entering
from interp.engine.patching.path_ends import NONE, Dictionaries
from interp.engine.patching.plan import Plan
from interp.engine.transformer.forward import Edit
from interp.engine.transformer.incremental import ChangedRows
from interp.sites import MLP_INPUTS
from interp.spec import Node

_ENCODED = 2**24  # pre-activations that are held at once


class FeatureEnds(Plan):
    """A plan of paths, as far as features are their ends.

    A sender's change is that of what its dictionary writes for it, (a' − a) · decoder, at every place where it does. A
    receiver reads the base run's stream with what arrives, and its activation becomes what it is there; a unit that it
    writes stays what it is in the base run.

    Parameters
    ----------
    features
        Of the pairs' runs; ``None`` where no feature is an end.
    """

    def __init__(self, *runs: Any, receivers: Sequence[Node], features: Features | None = None, **more: Any) -> None:
        super().__init__(*runs, **more)
        self.receivers = receivers
        self.features = features
        self.heard: Sequence[Sequence[int] | None] = ()
        # Layer → its features in the base run, and with what arrives at which receivers.
        self._read_anew: dict[tuple[int, object], tuple[Codes, Codes]] = {}

    @cached_property
    def of(self) -> Dictionaries:
        """Layer → the dictionary that features are of."""
        return NONE if self.features is None else {one.layer: one for one in self.features.dictionaries}

    def forget(self) -> None:
        super().forget()
        self._read_anew = {}

    def _own(self, layer: int) -> tuple[Dictionary, Difference]:
        assert self.features is not None
        one = self.of[layer]
        return one, self.features.differences[self.case][self.features.dictionaries.index(one)]

    def _unit(self, difference: Difference) -> Tensor:
        """Return what one unit that is written is in the base run, ``[position from start, 1]``."""
        return difference.unit.expand(len(difference.change), 1)[self.start :]

    @abstractmethod
    def arriving(self, number: int) -> Tensor:
        """Return what arrives at a receiver from the senders below it, ``[sender, position from start, d_model]``."""

    # -- senders -------------------------------------------------------------------------------------------------------

    def sent(self, layer: int, numbers: Sequence[int]) -> list[tuple[Place, Tensor]]:
        """Return by how much what features write changes at each place, ``[feature, position from start, d_out]``."""
        one, difference = self._own(layer)
        values = torch.stack([difference.change.column(number) for number in numbers])[:, self.start :, None]
        values, chosen = values * self._unit(difference), torch.tensor(numbers, device=values.device)
        return [(place, values * one.atoms(chosen, to)[:, None]) for to, place in enumerate(one.writes)]

    def added_by(self, layer: int, numbers: Sequence[int]) -> list[tuple[Place, Tensor]]:
        """Return by how much the stream changes behind each of those places, ``[feature, position from start, …]``."""
        there = slice(self.start, None)
        return [(place, self.added(place, there, change)) for place, change in self.sent(layer, numbers)]

    def sending(self, sent: Sequence[tuple[Place, Tensor]], before: Edit | None) -> Edit:
        """Return what adds that in a run of as many rows, at one point of some layers; `before` is done there, too."""
        every = {place.layer: change for place, change in sent}
        of_stream = sent[0][0].point == "resid_mid"  # which `before` looks at

        def add(index: int, tensor: Tensor) -> Tensor | None:
            def done(tensor: Tensor) -> Tensor:
                given = None if before is None else before(index, tensor)
                return tensor if given is None else given

            tensor = tensor if of_stream else done(tensor)
            if index in every:
                tensor = tensor.clone()
                tensor[:, self.start :] += every[index].view_as(tensor[:, self.start :])
            return done(tensor) if of_stream else tensor

        return add

    # -- receivers -----------------------------------------------------------------------------------------------------

    def _heard(self, number: int) -> Tensor:
        """Return by how much a receiver's activation changes, ``[sender, position from start]``."""
        receiver, changes = self.receivers[number], self.arriving(number)
        layer = receiver.layer
        asked = layer, self.heard[number] if self.heard else None
        if asked not in self._read_anew:
            one, stream = self.of[layer], self._stream(self.of[layer].reads)[self.start :]
            size = max(1, _ENCODED // (one.width * max(1, len(stream))))
            parts = [
                one.encode(shown(self.network, one.reads, stream + some).flatten(0, 1)) for some in changes.split(size)
            ]
            self._read_anew[asked] = one.encode(shown(self.network, one.reads, stream)), Codes.stacked(parts)
        before, after = self._read_anew[asked]
        return after.column(receiver.head).view(len(changes), -1) - before.column(receiver.head)

    def _stream(self, place: Place) -> Tensor:
        """Return the base run's stream where a dictionary reads it, ``[position, d_model]``."""
        base, layer = self.base, place.layer
        if place.point in MLP_INPUTS:
            return self.network.layers[layer].mlp_reads(base.resid[layer], base.mid[layer])
        at, stage = entering(place)
        return base.mid[at] if stage == "mid" else base.resid[at]

    def _through_feature(self, number: int, parts: range) -> Tensor:
        """Return the stream behind the place where a receiver writes, ``[sender, position from start, d_model]``."""
        place = self.of[self.receivers[number].layer].writes[0]
        return self.entered(place, slice(self.start, None), self._answer_of(number)[parts.start : parts.stop])

    def _answer_of(self, number: int, to: int = 0) -> Tensor:
        """Return by how much what a receiver writes changes, ``[sender, position from start, d_out]``."""
        receiver = self.receivers[number]
        one, difference = self._own(receiver.layer)
        atom = one.atoms(torch.tensor([receiver.head], device=one.encoder.device), to)[0]
        return self._heard(number)[..., None] * self._unit(difference) * atom

    def later(self, layer: int, joined: ChangedRows) -> None:
        """Add what receivers that were reached below write at the output of the MLP before `layer`."""
        for number, receiver in enumerate(self.receivers):
            if receiver.kind != "feature":
                continue
            for to, place in enumerate(self.of[receiver.layer].writes[1:], 1):
                if place.layer + 1 == layer:
                    cells = joined.cells.to(joined.rows.device)
                    own = (cells % len(self.receivers) == number).nonzero()[:, 0]
                    if len(own):
                        more = self._answer_of(number, to)[cells[own] // len(self.receivers)]
                        more = more[:, joined.start - self.start :]
                        joined.rows[own] += (more[:, 0] if joined.single else more).to(joined.rows)
