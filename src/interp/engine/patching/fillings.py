"""What parts that are taken away become: nothing, a mean, another prompt's activation, or noise."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from interp.engine.patching.cases import Ids
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
    """

    def __init__(
        self,
        parts: Sequence[Part],
        mode: str,
        references: Sequence[Ids],
        taken: Sequence[int],
        seed: int,
        at: Sequence[Sequence[int]] = (),
    ) -> None:
        self.parts = list(parts)
        self.at = at
        self.mode = mode
        self.references = list(references)
        self.taken = list(taken)
        self.seed = seed
        self._filled: dict[int, Callable[[int, int], Tensor]] = {}

    def of(self, part: int, sample: int, length: int) -> Tensor:
        """Return what a part becomes in a prompt, ``[position, width]``, or what is added to it."""
        return self._filled[part](sample, length)

    def within(self, now: Tensor, becomes: Tensor, chosen: Sequence[int]) -> Tensor:
        """Return what samples' activation, ``[n, position, …]``, becomes where it is to change, and elsewhere is."""
        if not self.at:
            return becomes
        there = torch.zeros(now.shape[:2], dtype=torch.bool, device=now.device)
        for row, sample in enumerate(chosen):
            there[row, list(self.at[sample])] = True
        return torch.where(there[..., None], becomes, now)

    @property
    def needed(self) -> Sequence[int]:
        """The numbers of the references that something is taken from."""
        if self.mode == "zero" or all(part.site == "scores" for part in self.parts):
            return ()
        return sorted(set(self.taken)) if self.mode == "resample" else range(len(self.references))

    def prepare(self, capture: Capture) -> None:
        """Run the references that are needed with `capture`."""
        replaced = [n for n, part in enumerate(self.parts) if part.site != "scores"]
        needed = self.needed
        if not needed:
            self._filled = {n: lambda sample, length: torch.zeros(()) for n in replaced}  # noqa: ARG005
            return
        wanted = [self.parts[n] for n in replaced]
        seen = dict(zip(needed, capture([self.references[n] for n in needed], wanted), strict=True))
        for at, part in enumerate(replaced):
            held = {n: tensors[at] for n, tensors in seen.items()}
            if self.mode == "resample":
                self._filled[part] = lambda sample, length, held=held: held[self.taken[sample]][:length]
            elif self.mode == "mean":
                mean = _mean(list(held.values()))
                self._filled[part] = lambda sample, length, mean=mean: mean(length)  # noqa: ARG005
            else:
                self._filled[part] = self._noise(part, _spread(list(held.values())), next(iter(held.values())))

    def _noise(self, part: int, spread: tuple[float, float], like: Tensor) -> Callable[[int, int], Tensor]:
        def draw(sample: int, length: int) -> Tensor:
            # A draw of its own for each part and sample, the same alone and together with others.
            source = torch.Generator().manual_seed(hash((self.seed, part, sample)) % 2**63)
            drawn = torch.randn(length, like.shape[-1], generator=source)
            drawn[:1] *= spread[0]
            drawn[1:] *= spread[1]
            return drawn.to(like)

        return draw


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


def _mean(held: Sequence[Tensor]) -> Callable[[int], Tensor]:
    """Return length → the mean, ``[position, width]``; over all positions too where they cannot be told apart.

    The first position stays apart: in many models its activations are a hundred times the others', and a mean with them
    would be theirs.
    """
    if len(held) > 1 and len(set(map(len, held))) == 1:
        mean = torch.stack(list(held)).mean(0)
        return lambda length: mean[:length]
    first = torch.stack([one[0] for one in held]).mean(0)
    others = torch.cat([one[1:] for one in held])
    rest = others.mean(0) if len(others) else first
    return lambda length: torch.cat([first[None], rest.expand(length - 1, -1)])


def _spread(held: Sequence[Tensor]) -> tuple[float, float]:
    """Return the standard deviation of a part's values at the first position, and at all others."""
    first = torch.stack([one[0] for one in held])
    rest = torch.cat([one[1:] for one in held])
    return float(first.std(correction=0)), float(rest.std(correction=0)) if len(rest) else 0.0
