"""The best few entries of every feature, by any score, of however many come by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ENTRIES = 2**24  # of windows that are sorted at once


class Kept:
    """For each feature the `most` entries with the largest scores so far, and what stands around them.

    As in a heap, a batch costs what it brings that is better than the weakest that is held; what was better is
    forgotten.

    Attributes
    ----------
    scores
        ``float64 [feature, k]``, the largest first; −∞ where there is none yet.
    values
        ``float32 [feature, k]``: activations.
    places
        ``int32 [feature, k, 2]``: which text, and which position in it.
    around
        ``float32 [feature, k, window]``: the feature's activations around it; NaN beyond a text's ends.
    """

    def __init__(self, features: int, most: int, window: int) -> None:
        self.scores = torch.full((features, most), float("-inf"), dtype=torch.float64)
        self.values = torch.zeros(features, most)
        self.places = torch.full((features, most, 2), -1, dtype=torch.int32)
        self.around = torch.full((features, most, window), float("nan"))

    def add(
        self,
        features: Tensor,
        scores: Tensor,
        values: Tensor,
        places: Callable[[Tensor], Tensor],
        around: Callable[[Tensor], Tensor],
    ) -> None:
        """Take entries in.

        Parameters
        ----------
        features, scores, values
            ``[entry]``.
        places, around
            Give ``[entry, 2]`` and ``[entry, window]`` of some entries by their numbers: those that are better.
        """
        most = self.scores.shape[1]
        chosen = (scores > self.scores[features, -1]).nonzero()[:, 0]
        chosen = chosen[scores[chosen].argsort(descending=True, stable=True)]
        chosen = chosen[features[chosen].argsort(stable=True)]
        kinds, counts = features[chosen].unique_consecutive(return_counts=True)
        rank = torch.arange(len(chosen)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        chosen, rank = chosen[rank < most], rank[rank < most]
        step = max(1, _ENTRIES // (most * self.around.shape[-1]))
        own = torch.searchsorted(kinds, features[chosen])
        for first in range(0, len(kinds), step):
            some = (own >= first) & (own < first + step)
            self._merge(
                kinds[first : first + step],
                own[some] - first,
                rank[some],
                (scores[chosen[some]], values[chosen[some]], places(chosen[some]), around(chosen[some])),
            )

    def _merge(self, kinds: Tensor, own: Tensor, rank: Tensor, new: tuple[Tensor, ...]) -> None:
        """Merge entries of the features `kinds`; each is the `rank`-th best one of the ``kinds[own]``."""
        held = (self.scores, self.values, self.places, self.around)
        nothing = (float("-inf"), 0, -1, float("nan"))
        width = int(rank.max()) + 1
        both: list[Tensor] = []
        for old, found, empty in zip(held, new, nothing, strict=True):
            more = old.new_full((len(kinds), width, *old.shape[2:]), empty)
            more[own, rank] = found.to(old.dtype)
            both.append(torch.cat([old[kinds], more], 1))
        order = both[0].topk(self.scores.shape[1], 1).indices
        for old, merged in zip(held, both, strict=True):
            index = order.view(*order.shape, *[1] * (old.dim() - 2)).expand(-1, -1, *old.shape[2:])
            old[kinds] = merged.gather(1, index)


def drawn(seed: int, texts: Tensor, positions: Tensor, features: Tensor) -> Tensor:
    """Return a number in 0 … 1 for each entry that follows from where it is and from the seed alone, ``float64``.

    The finaliser of SplitMix64 (Steele et al. 2014) over the three: entries draw the same in whatever batches they
    come.
    """
    mixed = texts.long() * _signed(0x9E3779B97F4A7C15) + positions.long() * _signed(0xC2B2AE3D27D4EB4F)
    mixed = mixed + features.long() * _signed(0x165667B19E3779F9) + seed
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return _shifted(mixed ^ _shifted(mixed, 31), 11).double() / 2**53


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shifted(value: Tensor, by: int) -> Tensor:
    """Shift right as unsigned numbers are."""
    return (value >> by) & ((1 << (64 - by)) - 1)
