"""Features' activations at some positions, as rows of what is not zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Codes:
    """Activations of a dictionary's features, sparse by rows (CSR): row r has entries ``starts[r] : starts[r + 1]``.

    Attributes
    ----------
    starts
        ``int64 [row + 1]``.
    features
        ``int64 [entry]``: which feature, ascending in each row.
    values
        ``[entry]``: its activation there; none is zero.
    width
        How many features the dictionary has.
    """

    starts: Tensor
    features: Tensor
    values: Tensor
    width: int

    @classmethod
    def of(cls, dense: Tensor) -> Codes:
        """Return the entries of ``[row, width]`` that are not zero."""
        rows, features = dense.nonzero(as_tuple=True)
        return cls(_starts(rows, len(dense)), features, dense[rows, features], dense.shape[1])

    @classmethod
    def chosen(cls, features: Tensor, values: Tensor, width: int) -> Codes:
        """Return the entries of rows that have at most k each: both ``[row, k]``; those of zero are left out."""
        features, order = features.sort(-1)
        values = values.gather(-1, order)
        there = values != 0
        starts = torch.zeros(len(values) + 1, dtype=torch.int64, device=values.device)
        starts[1:] = there.sum(-1).cumsum(0)
        return cls(starts, features[there], values[there], width)

    @classmethod
    def entries(cls, rows: Tensor, features: Tensor, values: Tensor, count: int, width: int) -> Codes:
        """Return `count` rows of entries in any order; values of one feature in one row add up, and zeros go."""
        places, at = (rows * width + features).unique(return_inverse=True)
        sums = values.new_zeros(len(places)).index_add_(0, at, values)
        there = sums != 0
        places, sums = places[there], sums[there]
        rows = places.div(width, rounding_mode="floor")
        return cls(_starts(rows, count), places - rows * width, sums, width)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def rows(self) -> Tensor:
        """Which row each entry is in, ``int64 [entry]``."""
        every = torch.arange(len(self), device=self.starts.device)
        return every.repeat_interleave(self.starts.diff())

    @property
    def counts(self) -> Tensor:
        """How many features are active in each row, ``int64 [row]``."""
        return self.starts.diff()

    def to(self, device: torch.device) -> Codes:
        """Return it there."""
        return Codes(self.starts.to(device), self.features.to(device), self.values.to(device), self.width)

    def dense(self) -> Tensor:
        """Return ``[row, width]``; for narrow dictionaries and few rows."""
        out = self.values.new_zeros(len(self), self.width)
        out[self.rows, self.features] = self.values
        return out

    def column(self, feature: int) -> Tensor:
        """Return one feature's activation in each row, ``[row]``."""
        out, own = self.values.new_zeros(len(self)), (self.features == feature).nonzero()[:, 0]
        out[torch.searchsorted(self.starts, own, right=True) - 1] = self.values[own]
        return out

    def with_values(self, values: Tensor) -> Codes:
        """Return the same entries with other activations."""
        return Codes(self.starts, self.features, values, self.width)

    def with_column(self, feature: int, column: Tensor) -> Codes:
        """Return the same with one feature's activations, ``[row]``, in the place of its own."""
        others, there = self.features != feature, column.nonzero()[:, 0]
        return Codes.entries(
            torch.cat([self.rows[others], there]),
            torch.cat([self.features[others], torch.full_like(there, feature)]),
            torch.cat([self.values[others], column[there].to(self.values)]),
            len(self),
            self.width,
        )

    def minus(self, other: Codes) -> Codes:
        """Return the differences of activations; those that are none have no entry."""
        return Codes.entries(
            torch.cat([self.rows, other.rows]),
            torch.cat([self.features, other.features]),
            torch.cat([self.values, -other.values]),
            len(self),
            self.width,
        )

    def where(self, kept: Tensor) -> Codes:
        """Return the entries that are `kept`, ``bool [entry]``, in as many rows."""
        return Codes(_starts(self.rows[kept], len(self)), self.features[kept], self.values[kept], self.width)

    def cut(self, first: int, stop: int) -> Codes:
        """Return some of the rows."""
        begin, end = int(self.starts[first]), int(self.starts[stop])
        starts = self.starts[first : stop + 1] - begin
        return Codes(starts, self.features[begin:end], self.values[begin:end], self.width)

    @staticmethod
    def stacked(parts: Sequence[Codes]) -> Codes:
        """Return the rows of all parts, one below the other."""
        counts = torch.cat([part.counts for part in parts])
        return Codes(
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            torch.cat([part.features for part in parts]),
            torch.cat([part.values for part in parts]),
            parts[0].width,
        )


def _starts(rows: Tensor, count: int) -> Tensor:
    return torch.searchsorted(rows, torch.arange(count + 1, device=rows.device))
