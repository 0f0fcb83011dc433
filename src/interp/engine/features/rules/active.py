"""Where features are active in texts that rules are found on and in texts that they are scored on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from interp.engine.features.activations import Ids
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.reading import Read, over_texts
from interp.engine.features.rules.corpus import Bools, Corpus

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True)
class Active:
    """What chosen features of some dictionaries do in texts.

    Attributes
    ----------
    corpus
        The texts.
    counted
        ``bool [token]``: which tokens count.
    places, values
        For each dictionary, feature → the tokens of the corpus where it is active, and its activations there.
    """

    corpus: Corpus
    counted: Bools
    places: Sequence[Mapping[int, Tensor]]
    values: Sequence[Mapping[int, Tensor]]

    def of(self, dictionary: int, feature: int, above: float) -> Bools:
        """Return where a feature is active, ``bool [token that counts]``, by more than `above`."""
        out = np.zeros(len(self.corpus), np.bool_)
        if feature in self.places[dictionary]:
            values = self.values[dictionary][feature]
            out[self.places[dictionary][feature][values > above].numpy()] = True
        return out[self.counted]

    def most(self, dictionary: int, feature: int) -> float:
        """Return a feature's largest activation."""
        found = self.values[dictionary].get(feature)
        return 0.0 if found is None else float(found.max())


def active(
    model: LoadedModel,
    wanted: Sequence[tuple[Dictionary, Iterable[int]]],
    texts: Sequence[Ids],
    first: Sequence[int],
    strings: Mapping[int, str],
) -> tuple[Active, Read]:
    """Run texts and return what the features do in them; of texts that an interrupt left out, nothing counts.

    Parameters
    ----------
    wanted
        Dictionaries and their features.
    texts, first
        See `activity.read`.
    strings
        Token id → its string.
    """
    starts = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    numbers: dict[str, int] = {}
    known = {index: numbers.setdefault(string, len(numbers)) for index, string in strings.items()}
    ids = np.array([known[index] for text in texts for index in text], np.int64)
    corpus = Corpus(list(numbers), ids, starts)
    counted = np.zeros(len(ids), np.bool_)
    held = [_Held(torch.tensor(sorted(set(chosen))), one.width) for one, chosen in wanted]

    def keep(n: int, codes: Codes, which: Tensor, left: int, length: int) -> None:
        begin = torch.from_numpy(starts)[which] + left
        at = (begin[:, None] + torch.arange(length)).flatten()
        if bool(codes.values.isfinite().all()):
            held[n].add(codes, at)
            if n == len(held) - 1:
                counted[at.numpy()] = True

    done = over_texts(model, [one for one, _ in wanted], texts, first, keep)
    split = [one.split() for one in held]
    return Active(corpus, counted, [one for one, _ in split], [one for _, one in split]), done


@dataclass
class _Held:
    features: Tensor
    width: int
    parts: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor, Tensor]])

    def __post_init__(self) -> None:
        self._wanted = torch.zeros(self.width, dtype=torch.bool)
        self._wanted[self.features] = True

    def add(self, codes: Codes, at: Tensor) -> None:
        own = self._wanted[codes.features]
        found = codes.features[own].int(), at[codes.rows[own]].int(), codes.values[own]
        self.parts.append(found)

    def split(self) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        if not self.parts:
            return {}, {}
        features, places, values = (torch.cat(column) for column in zip(*self.parts, strict=True))
        order = features.argsort(stable=True)
        kinds, counts = features[order].unique_consecutive(return_counts=True)
        names: list[int] = kinds.tolist()
        sizes: list[int] = counts.tolist()
        return (
            dict(zip(names, places[order].long().split(sizes), strict=True)),
            dict(zip(names, values[order].split(sizes), strict=True)),
        )
