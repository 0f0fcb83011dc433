"""What features do in running text, in one pass: how often and how strongly they are active, where, and which together.

What is held does not grow with the text: sums, a histogram, the strongest entries of each feature and a uniform sample
of all its entries (of which the tenths of its activations are made), and counts of pairs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from interp.engine.features.activations import Ids
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.kept import Kept, drawn
from interp.engine.features.reading import Read, over_texts

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

TOP, SAMPLE = 40, 100  # entries of a feature that are held: the strongest, and of all
LEAST_SAMPLE = 20
_HELD = 64 * 2**20  # bytes of them in a dictionary, before there are fewer
PER_OCTAVE, OCTAVES = 4, 24  # bins of the histogram: quarters of a factor of 2, from 2^−24 to 2^24
PAIRED = 2048  # features of a dictionary, up to which all pairs are counted
_KEPT = 8  # dictionaries whose pass is kept for a model


@dataclass(eq=False)
class Activity:
    """What one dictionary's features do in texts.

    Parameters
    ----------
    width
        How many features there are.
    context
        How many tokens on either side of an entry are held.
    seed
        Of the sample.
    partners
        The features whose pairs are counted.

    Attributes
    ----------
    tokens, texts
        How many were read; a BOS is none of them.
    lost
        How many texts were left out since their activations are NaN or infinite.
    counts
        ``int64 [feature]``: at how many tokens it is active.
    sums, most
        ``float64 [feature]``: its activations' sum, and the largest.
    bins
        ``int64 [feature, bin]``: activations from `edges` on.
    top, sample
        The strongest entries, and a uniform sample of all.
    together
        ``int64 [partner, feature]``: at how many tokens both are active.
    """

    width: int
    context: int
    seed: int
    partners: Tensor
    tokens: int = 0
    texts: int = 0
    lost: int = 0
    counts: Tensor = field(init=False)
    sums: Tensor = field(init=False)
    most: Tensor = field(init=False)
    bins: Tensor = field(init=False)
    together: Tensor = field(init=False)
    top: Kept = field(init=False)
    sample: Kept = field(init=False)

    def __post_init__(self) -> None:
        window = 2 * self.context + 1
        size = sample_size(self.width, window)
        self.counts = torch.zeros(self.width, dtype=torch.int64)
        self.sums, self.most = (torch.zeros(self.width, dtype=torch.float64) for _ in range(2))
        self.bins = torch.zeros(self.width, 2 * OCTAVES * PER_OCTAVE, dtype=torch.int64)
        self.together = torch.zeros(len(self.partners), self.width, dtype=torch.int64)
        self.top, self.sample = (Kept(self.width, most, window) for most in (TOP, size))
        self._row_of = torch.full((self.width,), -1, dtype=torch.int64)
        self._row_of[self.partners] = torch.arange(len(self.partners))

    def add(self, codes: Codes, texts: Tensor, first: int, length: int) -> None:
        """Take in what features do in texts of one length.

        Parameters
        ----------
        codes
            A row per token, text by text.
        texts
            ``int64 [text]``: their numbers.
        first
            The position of a text's first row.
        length
            Rows of a text.
        """
        rows, features, values = codes.rows, codes.features, codes.values
        number, position = texts[rows // length], rows % length + first
        self.tokens += len(codes)
        self.texts += len(texts)
        self.counts += torch.bincount(features, minlength=self.width)
        self.sums += torch.bincount(features, values.double(), minlength=self.width)
        self.most.scatter_reduce_(0, features, values.double(), "amax")
        bins = ((values.double().log2() + OCTAVES) * PER_OCTAVE).floor().long().clamp_(0, self.bins.shape[1] - 1)
        flat = torch.bincount(features * self.bins.shape[1] + bins, minlength=self.bins.numel())
        self.bins += flat.view(self.bins.shape)
        count_pairs(codes, self._row_of, self.together)
        window = torch.arange(-self.context, self.context + 1)
        where = rows * self.width + features  # ascending

        def places(entries: Tensor) -> Tensor:
            return torch.stack([number[entries], position[entries]], -1)

        def around(entries: Tensor) -> Tensor:
            at = rows[entries, None] + window
            inside = (at // length == (rows[entries] // length)[:, None]) & (at >= 0)
            wanted = at * self.width + features[entries, None]
            near = torch.searchsorted(where, wanted).clamp_(max=len(where) - 1)
            found = torch.where(where[near] == wanted, values[near], 0.0)
            return torch.where(inside, found, float("nan"))

        self.top.add(features, values.double(), values, places, around)
        self.sample.add(features, drawn(self.seed, number, position, features), values, places, around)

    @property
    def edges(self) -> Tensor:
        """Where the histogram's bins begin, and the end of the last, ``float64 [bin + 1]``."""
        return 2.0 ** (torch.arange(self.bins.shape[1] + 1, dtype=torch.float64) / PER_OCTAVE - OCTAVES)

    def deciles(self, feature: int) -> Tensor:
        """Return what divides a feature's activations into tenths, ``float64 [9]``: of its sample."""
        held = self.sample.values[feature][self.sample.scores[feature].isfinite()].double()
        if not len(held):
            return torch.zeros(9, dtype=torch.float64)
        return held.quantile(torch.arange(1, 10, dtype=torch.float64) / 10)

    def correlations(self, feature: int) -> Tensor | None:
        """Return how the activity of a feature goes with that of each one, ``float64 [feature]``; ``None`` if unknown.

        The correlation of being active at a token (φ): 1 where two are active at the same ones; 0 of what never is.
        """
        both = self.pairs(feature)
        if both is None:
            return None
        n, own, each = self.tokens, self.counts[feature].double(), self.counts.double()
        spread = (own * (n - own) * each * (n - each)).sqrt()
        return torch.where(spread > 0, (n * both.double() - own * each) / spread, 0.0)

    def pairs(self, feature: int) -> Tensor | None:
        """Return at how many tokens a feature and each one are both active; ``None`` where that was not counted."""
        row = int(self._row_of[feature])
        return self.together[row] if row >= 0 else None

    def knows(self, feature: int) -> bool:
        """Return whether a feature's pairs were counted."""
        return int(self._row_of[feature]) >= 0


def sample_size(width: int, window: int) -> int:
    """Return how many entries of a feature's are in its sample: fewer of a wide dictionary."""
    return min(SAMPLE, max(LEAST_SAMPLE, _HELD // (width * (4 * window + 20)) - TOP))


def count_pairs(codes: Codes, row_of: Tensor, into: Tensor) -> None:
    """Add to ``into[row_of[a], b]`` at how many tokens a and b are active, for each a with a row.

    Where few are active at a token the pairs are listed, else it is a product of matrices.
    """
    counts, width = codes.counts, codes.width
    rows = row_of[codes.features]
    chosen = (rows >= 0).nonzero()[:, 0]
    pairs = counts[codes.rows[chosen]]
    if int(pairs.sum()) * 32 > len(codes) * len(into) * width:
        active = torch.zeros(len(codes), width)
        active[codes.rows, codes.features] = 1
        into += (active[:, row_of >= 0].T @ active).round().long()
        return
    begin = codes.starts[codes.rows[chosen]]
    inner = torch.arange(int(pairs.sum())) - (pairs.cumsum(0) - pairs).repeat_interleave(pairs)
    other = codes.features[begin.repeat_interleave(pairs) + inner]
    flat = rows[chosen].repeat_interleave(pairs) * width + other
    if into.numel() <= 4 * len(flat):
        into += torch.bincount(flat, minlength=into.numel()).view(into.shape)
    else:
        into.view(-1).index_add_(0, flat, torch.ones_like(flat))


_passes: WeakKeyDictionary[LoadedModel, dict[Hashable, Activity]] = WeakKeyDictionary()


def read(
    model: LoadedModel,
    wanted: Sequence[tuple[Dictionary, Sequence[int]]],
    texts: Sequence[Ids],
    first: Sequence[int],
    *,
    key: Hashable,
    context: int,
    seed: int,
) -> Read:
    """Run texts, and return what the features of some dictionaries do in them.

    All that was read before, of the same texts on the same state of the model, is not read again.

    Parameters
    ----------
    wanted
        Dictionaries, and of each the features whose pairs are needed where there are too many to count all.
    texts, first
        Token ids, and of each the positions to leave out at its beginning: a BOS.
    key
        What tells these texts from all others.
    context, seed
        See `Activity`.
    """
    keys, found = known(model, wanted, key=key, context=context, seed=seed)
    kept, held = _keeps(model), _passes.setdefault(model, {})
    missing = [n for n, one in enumerate(found) if one is None]
    if not missing:
        return Read([one for one in found if one is not None], len(texts))
    fresh: list[Activity] = []
    for n in missing:
        dictionary, chosen = wanted[n]
        fresh.append(Activity(dictionary.width, context, seed, partners(dictionary, chosen)))

    def keep(n: int, codes: Codes, numbers: Tensor, left: int, length: int) -> None:
        if bool(codes.values.isfinite().all()):
            fresh[n].add(codes, numbers, left, length)
        else:
            fresh[n].lost += len(numbers)

    done = over_texts(model, [wanted[n][0] for n in missing], texts, first, keep)
    for n, one in zip(missing, fresh, strict=True):
        found[n] = one
        if kept and done.interrupt is None:
            held.pop(keys[n], None)
            held[keys[n]] = one
    for old in list(held)[:-_KEPT]:
        del held[old]
    done.activities = [one for one in found if one is not None]
    return done


def known(
    model: LoadedModel, wanted: Sequence[tuple[Dictionary, Sequence[int]]], *, key: Hashable, context: int, seed: int
) -> tuple[list[Hashable], list[Activity | None]]:
    """Return the keys of passes, see `read`, and of those that are kept what they gave."""
    held = _passes.get(model, {}) if _keeps(model) else {}
    keys: list[Hashable] = [(model.state, one.digest, key, context, seed) for one, _ in wanted]
    found = [held.get(own) for own in keys]
    return keys, [
        one if one is not None and all(map(one.knows, chosen)) else None
        for one, (_, chosen) in zip(found, wanted, strict=True)
    ]


def partners(dictionary: Dictionary, chosen: Sequence[int]) -> Tensor:
    """Return the features whose pairs with all others are counted: all, or of a wide dictionary the `chosen`."""
    return torch.arange(dictionary.width) if dictionary.width <= PAIRED else torch.tensor(sorted(set(chosen)))


def _keeps(model: LoadedModel) -> bool:
    operation = model.operation
    return operation is not None and not (operation.altered or operation.random)


def forget(model: LoadedModel) -> None:
    """Keep no pass of a model's."""
    _passes.pop(model, None)
