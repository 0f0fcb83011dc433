"""What the interventions of a sweep end in, kept: another metric, or the same question again, then runs nothing.

A metric is a function of the last row of the residual stream, and rows are small: one for each intervention. They are
kept for a sweep as a whole, in the pieces that they came in, since last bits depend on what is computed together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.patching.cases import Case

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_SHARE = 8  # of the store, the largest part that one sweep takes


class Ends:
    """The rows of one sweep.

    Parameters
    ----------
    model, source_model
        As the sweep's.
    kind
        What tells sweeps over the same pairs apart; ``None`` for one that is not kept.
    cells
        How many cells a pair has.
    """

    def __init__(
        self, model: LoadedModel, source_model: LoadedModel, cases: Sequence[Case], kind: Hashable, cells: int
    ) -> None:
        self._model, self._ids = model, cases[0].base
        other = None if source_model is model else (id(source_model), source_model.fingerprint())
        pairs = tuple((case.base, case.source, case.position, case.spans) for case in cases)
        self._names = tuple(("sweep", part, kind, other, pairs) for part in ("rows", "cells"))
        self._room = model.store.budget // _SHARE
        self._parts: list[tuple[int, Tensor, Tensor]] = []
        size = len(cases) * cells * model.geometry.d_model * 4
        # Where several positions are measured pairs have rows of several lengths: those are not kept.
        self._fits = kind is not None and size <= self._room and not cases[0].scorer.metric.several

    @property
    def there(self) -> bool:
        """Whether all of them are in the store."""
        return self._fits and self._model.holds(self._ids, self._names)

    def add(self, case: int, cells: Tensor, rows: Tensor) -> None:
        """Take in rows, ``[n, d_model]``, of cells of one pair."""
        if self._fits:
            self._parts.append((case, cells.cpu(), rows))

    def keep(self) -> None:
        """Put what was taken in into the store: all that there is."""
        if self._parts:
            numbered = enumerate(self._parts)
            places = [
                torch.stack([torch.full_like(cells, part), torch.full_like(cells, case), cells])
                for part, (case, cells, _) in numbered
            ]
            rows = torch.cat([rows for _, _, rows in self._parts])
            self._model.keep(self._ids, dict(zip(self._names, (rows, torch.cat(places, 1)), strict=True)))
            self._parts = []

    def recalled(self) -> list[tuple[int, Tensor, Tensor]] | None:
        """Return each pair's number, cells and rows, as they were taken in; ``None`` where the store lacks them."""
        held = self._model.recall(self._ids, self._names) if self._fits else None
        if held is None:
            return None
        rows, (parts, cases, cells) = (held[name] for name in self._names)
        sizes = parts.unique_consecutive(return_counts=True)[1].tolist()
        pieces = zip(cases.split(sizes), cells.split(sizes), rows.split(sizes), strict=True)
        return [(int(case[0]), some, ends) for case, some, ends in pieces]
