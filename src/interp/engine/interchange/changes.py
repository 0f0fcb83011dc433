"""What an interchange makes of the base run's activation, given the source run's: all of it, a part, or a control."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.engine import linalg
from interp.engine.metrics import upcast
from interp.errors import InputError


@dataclass(frozen=True)
class Row:
    """A position of one swap: what draws there depend on, and not on what else runs beside it."""

    place: int
    base: tuple[int, ...]
    source: tuple[int, ...]
    position: int

    def seed(self, seed: int) -> int:
        """Return the seed of its own draw."""
        return zlib.crc32(repr((seed, self.place, tuple(self.base), tuple(self.source), self.position)).encode())


@dataclass(frozen=True)
class Whole:
    """All that the source run has at the place."""

    def __call__(self, base: Tensor, source: Tensor, rows: Sequence[Row]) -> Tensor:  # noqa: ARG002
        """Return what ``[row, width]`` of the base run becomes, given as much of the source run."""
        return source

    def features(self, chosen: Sequence[int], active: Sequence[int], row: Row) -> Sequence[int]:  # noqa: ARG002
        """Return which features are interchanged; none is all of them.

        Parameters
        ----------
        chosen
            Those of the place.
        active
            Those that are active in either run, at the position.
        """
        return chosen


@dataclass(frozen=True, eq=False)
class Subspace:
    """What the source run has in a subspace; outside it the base run's stays: h + (s − h) B Bᵀ.

    Attributes
    ----------
    bases
        For each place an orthonormal basis, ``[width, rank]``; heads' z lie side by side where a place is all heads.
    losses
        The loss at each step, where the basis was learned.
    """

    bases: tuple[Tensor, ...]
    losses: tuple[float, ...] = ()

    def __call__(self, base: Tensor, source: Tensor, rows: Sequence[Row]) -> Tensor:
        """Return what ``[row, width]`` of the base run becomes, given as much of the source run."""
        given = self.bases[rows[0].place]
        if given.shape[0] != base.shape[1]:
            raise InputError(f"the subspace is of {given.shape[0]} dimensions, and the place has {base.shape[1]}")
        here = upcast(base)
        basis = given.to(here)
        return here + ((upcast(source) - here) @ basis) @ basis.T

    def features(self, *_: object) -> Sequence[int]:
        """Refuse features."""
        raise InputError("features have no subspace; name the features, or a subspace of the stream")


@dataclass(frozen=True)
class SameNorm:
    """A control: as far as `reference` moves the base run, but another way.

    Where `reference` is the whole place, each position is moved in a random direction; where it is a subspace, the
    same interchange in a random subspace of its rank is stretched to that length; where features are interchanged, as
    many others that are active in either run are.

    Attributes
    ----------
    reference
        What it goes as far as.
    seed
        Of what is drawn.
    """

    reference: Whole | Subspace
    seed: int

    def __call__(self, base: Tensor, source: Tensor, rows: Sequence[Row]) -> Tensor:
        """Return what ``[row, width]`` of the base run becomes, given as much of the source run."""
        here, there = upcast(base), upcast(source)
        length = (upcast(self.reference(base, source, rows)) - here).norm(dim=-1, keepdim=True)
        if isinstance(self.reference, Subspace):
            rank = self.reference.bases[rows[0].place].shape[1]
            basis = random_basis(here.shape[1], rank, zlib.crc32(repr((self.seed, rows[0].place)).encode())).to(here)
            way = ((there - here) @ basis) @ basis.T
        else:
            way = torch.stack([_direction(here.shape[1], row.seed(self.seed)) for row in rows]).to(here)
        return here + way * (length / way.norm(dim=-1, keepdim=True).clamp_min(1e-12))

    def features(self, chosen: Sequence[int], active: Sequence[int], row: Row) -> Sequence[int]:
        """Return as many features that are active and not of the place; all there are where there are fewer."""
        if not chosen:
            raise InputError("all features of the layer are interchanged: there are no others to compare with")
        others = sorted(set(active) - set(chosen))
        return random.Random(row.seed(self.seed)).sample(others, min(len(chosen), len(others)))


Change = Whole | Subspace | SameNorm


def random_basis(width: int, rank: int, seed: int) -> Tensor:
    """Return a random orthonormal basis, ``float64 [width, rank]``, the same for a seed.

    Examples
    --------
    >>> random_basis(8, 2, 0).shape
    torch.Size([8, 2])
    """
    if not 0 < rank <= width:
        raise InputError(f"no subspace of {rank} dimensions in {width}; the rank is 1–{width}")
    drawn = torch.randn(width, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return linalg.qr(drawn, "random numbers")[0]


def _direction(width: int, seed: int) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
