"""Features' activations at some positions, as rows of what is not zero."""

from __future__ import annotations

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

    def dense(self) -> Tensor:
        """Return ``[row, width]``; for narrow dictionaries and few rows."""
        out = self.values.new_zeros(len(self), self.width)
        out[self.rows, self.features] = self.values
        return out

    def column(self, feature: int) -> Tensor:
        """Return one feature's activation in each row, ``[row]``."""
        out, own = self.values.new_zeros(len(self)), self.features == feature
        out[self.rows[own]] = self.values[own]
        return out

    def with_values(self, values: Tensor) -> Codes:
        """Return the same entries with other activations."""
        return Codes(self.starts, self.features, values, self.width)


def _starts(rows: Tensor, count: int) -> Tensor:
    return torch.searchsorted(rows, torch.arange(count + 1, device=rows.device))
