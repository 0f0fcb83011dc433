"""What is taken of the runs of references, where that is no run's own: means and spreads, put together of any parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.patching.cases import Ids

if TYPE_CHECKING:
    from interp.engine.patching.fillings import Capture, Part


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and spread of values along their first axis.

    Attributes
    ----------
    count
        How many values.
    mean, deviation
        ``[…]``: NaN where there are none; a deviation is of the values themselves, not of what they are drawn from, and
        ``None`` where none is wanted.
    """

    count: int
    mean: Tensor
    deviation: Tensor | None = None

    @classmethod
    def of(cls, values: Tensor, *, spread: bool) -> Moments:
        """Return those of ``[value, …]``, with a deviation where a `spread` is asked for."""
        mean = values.mean(0)
        if not spread:
            return cls(len(values), mean)
        return cls(len(values), mean, values.std(0, correction=0) if len(values) else mean)

    @classmethod
    def together(cls, parts: Sequence[Moments]) -> Moments:
        """Return those of all parts' values (Chan, Golub and LeVeque 1983), added up in their order."""
        there = [one for one in parts if one.count]
        if len(there) < 2:
            return (there or parts)[0]
        count = sum(one.count for one in there)
        total = torch.stack([one.count * one.mean.double() for one in there]).sum(0) / count
        like = there[0].mean
        deviations = [one.deviation.double() for one in there if one.deviation is not None]
        if not deviations:
            return cls(count, total.to(like))
        both = zip(there, deviations, strict=True)
        squares = torch.stack([one.count * (own**2 + (one.mean.double() - total) ** 2) for one, own in both])
        return cls(count, total.to(like), (squares.sum(0) / count).sqrt().to(like))


@dataclass(frozen=True, eq=False)
class Filled:
    """What of the references goes into parts.

    Attributes
    ----------
    moments
        For each part: of its values position by position, ``[position, width]``; else at the first position and at all
        others, ``[width]``, and of spreads one number for all.
    widths
        For each part.
    """

    moments: tuple[tuple[Moments, ...], ...]
    widths: tuple[int, ...]

    @classmethod
    def of(
        cls, capture: Capture, references: Sequence[Ids], parts: Sequence[Part], *, spread: bool, aligned: bool
    ) -> Filled:
        """Run references, and return what is taken of them.

        Parameters
        ----------
        spread
            Whether deviations are wanted, instead of means.
        aligned
            Whether means are taken position by position.
        """
        seen = capture(references, parts)
        moments: list[tuple[Moments, ...]] = []
        for held in zip(*seen, strict=True):
            # The first position stays apart: in many models its activations are a hundred times the others', and a
            # mean with them would be theirs.
            groups = (torch.stack(held),) if aligned else (_first(held), torch.cat([one[1:] for one in held]))
            moments.append(tuple(Moments.of(own.flatten() if spread else own, spread=spread) for own in groups))
        return cls(tuple(moments), tuple(own.shape[-1] for own in seen[0]))

    @classmethod
    def together(cls, some: Sequence[Filled]) -> Filled:
        """Return what is taken of all references, of some of which each of `some` is, in order."""
        every = zip(*(one.moments for one in some), strict=True)
        moments = [tuple(Moments.together(own) for own in zip(*each, strict=True)) for each in every]
        return cls(tuple(moments), some[0].widths)

    @cached_property
    def digest(self) -> str:
        """What tells it from every other one."""
        said = hashlib.blake2b(digest_size=16)
        for one in (one for own in self.moments for one in own):
            for tensor in (one.mean, *([] if one.deviation is None else [one.deviation])):
                said.update(f"{one.count} {tuple(tensor.shape)} {tensor.dtype}".encode())
                said.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return said.hexdigest()

    def mean(self, part: int, length: int) -> Tensor:
        """Return a part's mean at as many positions, ``[position, width]``."""
        moments = self.moments[part]
        if len(moments) == 1:
            return moments[0].mean[:length]
        first, others = moments
        rest = others.mean if others.count else first.mean
        return torch.cat([first.mean[None], rest.expand(length - 1, -1)])

    def noise(self, part: int, length: int, seed: int) -> Tensor:
        """Draw noise as large as the spread of a part's values, ``[position, width]``."""
        drawn = torch.randn(length, self.widths[part], generator=torch.Generator().manual_seed(seed))
        for rows, own in zip((drawn[:1], drawn[1:]), self.moments[part], strict=True):
            assert own.deviation is not None
            rows *= float(own.deviation) if own.count else 0.0
        return drawn


def _first(held: Sequence[Tensor]) -> Tensor:
    return torch.stack([one[0] for one in held])
