"""What parts that are taken away become: nothing, a mean, another prompt's activation, or noise."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from interp.engine.patching.cases import Ids
from interp.engine.patching.moments import Filled
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary

MODES = ("zero", "mean", "resample", "noise")


@dataclass(frozen=True)
class Part:
    """What is taken away.

    Attributes
    ----------
    site
        ``"z"`` (a head), ``"mlp_out"``, ``"scores"`` (an edge of a head's attention, cut before the softmax), or a site
        of the residual stream, in which a direction's coordinate is taken away.
    query, key
        The edges: positions, or names of spans of each prompt (`ablation.Sample.ends`), all of whose tokens are meant;
        a query of ``None`` is every one but the key's own that sees the key.
    head
        Of an edge, ``None`` is every head of the layer.
    direction
        ``float32 [d_model]``, of length 1.
    feature, dictionary
        A feature, and what reads it at `layer`; `site` is the first place where that writes.
    """

    site: str
    layer: int
    head: int | None = 0
    query: int | str | None = None
    key: int | str = 0
    direction: Tensor | None = field(default=None, compare=False)
    feature: int = 0
    dictionary: Dictionary | None = field(default=None, compare=False)


# (prompts, parts) → of each prompt, each part's own activation, ``[position, width]``.
Capture = Callable[[Sequence[Ids], Sequence[Part]], list[list[Tensor]]]


class _Prompted(Protocol):
    @property
    def ids(self) -> Ids: ...


def donors(samples: Sequence[_Prompted], references: Sequence[Ids], *, exact: bool, seed: int) -> list[int]:
    """Return for each sample another prompt, drawn from those that are as long (or longer, unless `exact`).

    Raises
    ------
    InputError
        A sample for which there is none.
    """
    chance = random.Random(seed)
    found: list[int] = []
    for number, sample in enumerate(samples):
        length = len(sample.ids)
        fits = [
            n
            for n, ids in enumerate(references)
            if ids[:length] != sample.ids and (len(ids) == length or (len(ids) > length and not exact))
        ]
        if not fits:
            raise InputError(
                f"there is no other prompt of {length} tokens for prompt {number} to take activations from; give more "
                "prompts of one length, or use --mode mean"
            )
        found.append(chance.choice(fits))
    return found


class Fillings:
    """What each part becomes in each prompt.

    Parameters
    ----------
    mode, references, taken
        As for `ablation.ablate`.
    at
        For each sample, the positions where parts become something else; everywhere when empty.
    numbers
        What the samples' draws depend on: their numbers among all that are measured, of which these may be some.
    filled
        What is taken of the references, where that is known: they are not run then.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        mode: str,
        references: Sequence[Ids],
        taken: Sequence[int],
        seed: int,
        at: Sequence[Sequence[int]] = (),
        numbers: Sequence[int] | None = None,
        filled: Filled | None = None,
    ) -> None:
        self.parts = list(parts)
        self.at = at
        self.mode = mode
        self.references = list(references)
        self.taken = list(taken)
        self.seed = seed
        self.numbers = numbers
        self.filled = filled
        self.replaced = [n for n, part in enumerate(self.parts) if part.site != "scores"]
        self._places = {n: at for at, n in enumerate(self.replaced)}
        self._own: dict[int, list[Tensor]] = {}  # reference → what each part is there
        self._filled: Filled | None = None

    def of(self, part: int, sample: int, length: int) -> Tensor:
        """Return what a part becomes in a prompt, ``[position, width]``, or what is added to it; a 0 for zeros."""
        at = self._places[part]
        if self.mode == "zero":
            return torch.zeros(())
        if self.mode == "resample":
            return self._own[self.taken[sample]][at][:length]
        assert self._filled is not None
        if self.mode == "mean":
            return self._filled.mean(at, length)
        # A draw of its own for each part and sample, the same alone and together with others.
        number = sample if self.numbers is None else self.numbers[sample]
        return self._filled.noise(at, length, hash((self.seed, part, number)) % 2**63)

    def within(self, now: Tensor, becomes: Tensor, chosen: Sequence[int]) -> Tensor:
        """Return what samples' activation, ``[n, position, …]``, becomes where it is to change, and elsewhere is."""
        if not self.at:
            return becomes
        there = torch.zeros(now.shape[:2], dtype=torch.bool, device=now.device)
        for row, sample in enumerate(chosen):
            there[row, list(self.at[sample])] = True
        return torch.where(there[..., None], becomes, now)

    @property
    def spread(self) -> bool:
        """Whether it is the spread over the references that matters, and not their mean."""
        return self.mode == "noise"

    @property
    def aligned(self) -> bool:
        """Whether means are taken position by position."""
        return self.mode == "mean" and by_position(self.references)

    @property
    def averages(self) -> bool:
        """Whether something is taken of all references together."""
        return bool(self.replaced) and self.mode in {"mean", "noise"}

    @property
    def needed(self) -> Sequence[int]:
        """The numbers of the references that something is taken from."""
        if self.mode == "zero" or not self.replaced:
            return ()
        return sorted(set(self.taken)) if self.mode == "resample" else range(len(self.references))

    def prepare(self, capture: Capture, samples: Sequence[int] | None = None) -> None:
        """Run the references that are needed with `capture`; those of some samples where `samples` are given."""
        wanted = [self.parts[n] for n in self.replaced]
        if self.averages:
            self._filled = self.filled or Filled.of(
                capture, self.references, wanted, spread=self.spread, aligned=self.aligned
            )
            return
        needed = self.needed if samples is None else sorted({self.taken[sample] for sample in samples if self.taken})
        if needed and self.replaced:
            seen = capture([self.references[n] for n in needed], wanted)
            self._own = dict(zip(needed, seen, strict=True))


def own(part: Part, tensor: Tensor) -> Tensor:
    """Return a part's own rows of one prompt's activation, ``[position, width]``."""
    if part.direction is not None:
        return along(tensor, part.direction)
    return tensor[:, part.head] if part.site == "z" else tensor


def along(tensor: Tensor, direction: Tensor) -> Tensor:
    """Return the coordinate along a direction of length 1, ``[…, 1]``."""
    return (tensor @ direction.to(tensor))[..., None]


def by_position(references: Sequence[Ids]) -> bool:
    """Return whether means are taken position by position: there are several prompts, of one length.

    Examples
    --------
    >>> by_position([(1, 2), (3, 4)]), by_position([(1, 2)]), by_position([(1, 2), (3,)])
    (True, False, False)
    """
    return len(references) > 1 and len({len(ids) for ids in references}) == 1
