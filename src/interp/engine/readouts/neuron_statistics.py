"""What neurons do in running text: the strongest activations, sums over tokens and a sample, of however many texts.

What is held does not grow with the text. Each part can take in what another one found in the texts that follow: shards
of texts that are taken in one after the other give what one pass over all of them gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.engine.features.kept import drawn


@dataclass(frozen=True)
class Rows:
    """Tokens of texts, text by text in order of their numbers, and what neurons do there.

    Attributes
    ----------
    text, position, ids
        ``int64 [row]``: which text, which position in it, and the token.
    activations
        ``float32 [row, neuron]``.
    counts
        ``bool [row]``: which rows count; a BOS does not, whose activations do not depend on the text.
    """

    text: Tensor
    position: Tensor
    ids: Tensor
    activations: Tensor
    counts: Tensor

    @staticmethod
    def of(texts: Mapping[int, tuple[Sequence[int], Tensor]], bos: int | None) -> Rows:
        """Return the rows of some texts, by number: their ids and ``[position, neuron]``."""
        lengths = torch.tensor([len(ids) for ids, _ in texts.values()])
        position = torch.cat([torch.arange(int(length)) for length in lengths])
        ids = torch.tensor([index for own, _ in texts.values() for index in own])
        activations = torch.cat([own for _, own in texts.values()])
        counts = (position > 0) | (ids != (-1 if bos is None else bos))
        return Rows(torch.tensor(list(texts)).repeat_interleave(lengths), position, ids, activations, counts)


@dataclass
class Best:
    """The strongest activations of each neuron so far, with what stands around them; of equal ones the first.

    As in a heap, texts cost what they bring that is better than the weakest one held; what was better is forgotten.

    Attributes
    ----------
    values
        ``float32 [neuron, k]``, strongest first; −∞ where there is none yet.
    ids, around
        ``int64`` and ``float32 [neuron, k, 2 · context + 1]``: tokens and activations; −1 and NaN beyond a text's ends.
    place
        ``int64 [neuron, k, 2]``: which text, and which position.
    """

    neurons: int
    top: int
    context: int
    lowest: bool = False
    values: Tensor = field(init=False)
    ids: Tensor = field(init=False)
    around: Tensor = field(init=False)
    place: Tensor = field(init=False)

    def __post_init__(self) -> None:
        shape, wide = (self.neurons, self.top), 2 * self.context + 1
        self.values = torch.full(shape, float("-inf"))
        self.ids = torch.full((*shape, wide), -1, dtype=torch.int64)
        self.around = torch.full((*shape, wide), float("nan"))
        self.place = torch.full((*shape, 2), -1, dtype=torch.int64)

    def add(self, rows: Rows) -> None:
        """Take texts in that follow those before."""
        ranked = -rows.activations if self.lowest else rows.activations.clone()
        ranked[~rows.counts] = float("-inf")
        better = (ranked.amax(0) > self.values[:, -1]).nonzero()[:, 0]
        if not len(better):
            return
        own = ranked[:, better]
        at = _first(own, min(self.top, len(own)))
        window = at[..., None] + torch.arange(-self.context, self.context + 1)
        near = window.clamp(0, len(own) - 1)
        inside = (window == near) & (rows.text[near] == rows.text[at][..., None])
        ids = torch.where(inside, rows.ids[near], -1)
        around = torch.where(inside, rows.activations[near, better[:, None, None]], float("nan"))
        place = torch.stack([rows.text[at], rows.position[at]], dim=-1)
        self._take(better, own.T.gather(1, at), ids, around, place)

    def merge(self, given: Mapping[str, Tensor]) -> None:
        """Take in what another one found, see `given`, in texts that follow those before."""
        every = torch.arange(self.neurons)
        self._take(every, *(given[name] for name in ("values", "ids", "around", "place")))

    def given(self) -> dict[str, Tensor]:
        """Return what is held, for another one to take in."""
        return {"values": self.values, "ids": self.ids, "around": self.around, "place": self.place}

    def _take(self, better: Tensor, values: Tensor, ids: Tensor, around: Tensor, place: Tensor) -> None:
        both = torch.cat([self.values[better], values], 1)
        order = both.argsort(dim=1, descending=True, stable=True)[:, : self.top]
        self.values[better] = both.gather(1, order)
        for held, new in ((self.ids, ids), (self.around, around), (self.place, place)):
            joined = torch.cat([held[better], new], 1)
            held[better] = joined.gather(1, order[..., None].expand(-1, -1, joined.shape[-1]))


def _first(ranked: Tensor, count: int) -> Tensor:
    """Return the rows of each column's `count` largest, ascending, ``[column, count]``; of equal ones the first."""
    least = ranked.topk(count, dim=0).values[-1]
    chosen = ranked >= least
    many = chosen.sum(0) > count
    if bool(many.any()):
        some, last = ranked[:, many], least[many]
        equal, room = some == last, count - (some > last).sum(0)
        chosen[:, many] &= ~(equal & (equal.cumsum(0) > room))
    return chosen.T.nonzero()[:, 1].view(-1, count)


@dataclass
class Moments:
    """Sums over tokens, ``float64 [neuron]`` each."""

    neurons: int
    count: int = 0
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(4, self.neurons, dtype=torch.float64)
        self.least = torch.full((self.neurons,), float("inf"))
        self.most = torch.full((self.neurons,), float("-inf"))

    def add(self, activations: Tensor) -> None:
        """Take ``float32 [position, neuron]`` in."""
        wide = activations.double()
        parts = (wide, wide.square(), wide.abs(), (wide > 0).double())
        sums = torch.stack([part.sum(0) for part in parts])
        found = {"sums": sums, "least": activations.amin(0), "most": activations.amax(0)}
        self.merge({**found, "count": torch.tensor(len(wide))})

    def merge(self, given: Mapping[str, Tensor]) -> None:
        """Take in what another one found, see `given`."""
        self.count += int(given["count"])
        self.sums += given["sums"]
        self.least = torch.minimum(self.least, given["least"])
        self.most = torch.maximum(self.most, given["most"])

    def given(self) -> dict[str, Tensor]:
        """Return what is held, for another one to take in."""
        return {"count": torch.tensor(self.count), "sums": self.sums, "least": self.least, "most": self.most}

    def statistics(self) -> dict[str, Tensor]:
        """Return mean, standard deviation, sparsity, share above zero, minimum and maximum.

        Sparsity is 1 − (mean |a|)² / mean a²: 0 where a neuron is always equally strong, near 1 where it rarely is.
        Treves and Rolls (1991); it asks nothing of the activation function, which is hardly ever exactly 0.
        """
        mean, square, size, above = self.sums / max(1, self.count)
        sparsity = torch.where(square > 0, 1 - size.square() / square, torch.zeros_like(square))
        return {
            "mean": mean,
            "std": (square - mean.square()).clamp_min(0).sqrt(),
            "sparsity": sparsity,
            "positive": above,
            "min": self.least.double(),
            "max": self.most.double(),
        }


class Sample:
    """A uniform sample of tokens without replacement, of whatever number comes by.

    Each token draws a number that follows from where it is and from the seed alone, and the smallest numbers stay.
    """

    def __init__(self, size: int, neurons: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.keys = torch.empty(0, dtype=torch.float64)
        self.rows = torch.empty(0, neurons)
        self.ids = torch.empty(0, dtype=torch.int64)

    def add(self, rows: Rows) -> None:
        """Take texts in."""
        keys = drawn(self.seed, rows.text, rows.position, torch.zeros_like(rows.text))
        near = rows.counts & (keys < (self.keys[-1] if len(self.keys) == self.size else float("inf")))
        self.merge({"keys": keys[near], "sampled": rows.activations[near], "tokens": rows.ids[near]})

    def merge(self, given: Mapping[str, Tensor]) -> None:
        """Take in what another one drew, see `given`."""
        keys = torch.cat([self.keys, given["keys"]])
        order = keys.argsort(stable=True)[: self.size]
        self.keys = keys[order]
        self.rows = torch.cat([self.rows, given["sampled"]])[order]
        self.ids = torch.cat([self.ids, given["tokens"]])[order]

    def given(self) -> dict[str, Tensor]:
        """Return what is held, for another one to take in."""
        return {"keys": self.keys, "sampled": self.rows, "tokens": self.ids}


@dataclass(frozen=True)
class Asked:
    """What is kept of texts.

    Attributes
    ----------
    top, context
        See `Best`.
    lowest
        Whether the lowest activations are the best.
    points, seed
        Tokens of the sample, 0 for none, and its seed.
    """

    top: int
    context: int
    lowest: bool = False
    points: int = 0
    seed: int = 0


class Found:
    """What was found in texts.

    Attributes
    ----------
    texts, lost
        How many were read, and how many of them are left out since their activations are NaN or infinite.
    """

    def __init__(self, asked: Asked, neurons: int) -> None:
        self.best = Best(neurons, asked.top, asked.context, asked.lowest)
        self.moments = Moments(neurons)
        self.sample = Sample(asked.points, neurons, asked.seed) if asked.points else None
        self.texts = self.lost = 0

    def add(self, texts: Mapping[int, tuple[Sequence[int], Tensor]], bos: int | None) -> None:
        """Take texts in that follow those before: their ids, and activations ``[position, neuron]``."""
        good = {n: one for n, one in texts.items() if bool(one[1].isfinite().all())}
        self.texts += len(texts)
        self.lost += len(texts) - len(good)
        if not good:
            return
        rows = Rows.of(good, bos)
        if not bool(rows.counts.any()):
            return
        self.best.add(rows)
        self.moments.add(rows.activations[rows.counts])
        if self.sample is not None:
            self.sample.add(rows)

    def merge(self, given: Mapping[str, Tensor]) -> None:
        """Take in what another one found, see `given`, in texts that follow those before."""
        self.texts += int(given["texts"])
        self.lost += int(given["lost"])
        for part in self._parts:
            part.merge(given)

    def given(self) -> dict[str, Tensor]:
        """Return what is held, for another one to take in."""
        found = {"texts": torch.tensor(self.texts), "lost": torch.tensor(self.lost)}
        for part in self._parts:
            found |= part.given()
        return found

    @property
    def _parts(self) -> tuple[Best | Moments | Sample, ...]:
        parts = (self.best, self.moments, self.sample)
        return tuple(part for part in parts if part is not None)
