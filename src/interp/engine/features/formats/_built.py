"""A dictionary made of a file's tensors, once these fit together and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from interp.engine.features.dictionary import Act, Dictionary, Taken
from interp.engine.features.formats import Wanted
from interp.engine.features.formats._hooks import Said
from interp.engine.features.places import Place
from interp.errors import InputError

_CHECKED = 1 << 22  # elements that are looked at together
_SAMPLED = 64  # rows


@dataclass
class Tensors:
    """A file's tensors by name, each to be taken once with the shape that it should have.

    Attributes
    ----------
    where
        The file, as messages name it.
    """

    held: Mapping[str, Tensor]
    where: Path

    def __contains__(self, name: str) -> bool:
        return name in self.held

    def take(self, name: str, *shape: int, sampled: bool = False) -> Tensor:
        """Return a tensor; of `shape`, −1 is any number. `sampled`: only its first rows are looked at, not all read.

        Raises
        ------
        InputError
            It is not there, of another shape (turned round, perhaps), or holds what is no number.
        """
        found = self.held.get(name)
        if found is None:
            raise InputError(f"{self.where} lacks {name}; it has {', '.join(sorted(self.held)) or 'nothing'}")
        if not found.dtype.is_floating_point:
            raise InputError(f"{name} of {self.where} is {found.dtype}, not real numbers; save it again")
        if shape and not _fits(found.shape, shape):
            turned = len(shape) == 2 and _fits(found.shape[::-1], shape)
            asked = " × ".join("any" if size < 0 else str(size) for size in shape)
            has = " × ".join(map(str, found.shape)) or "a single number"
            instead = "it is transposed: save its transpose" if turned else "its files do not belong together"
            raise InputError(f"{name} of {self.where} is {has} and should be {asked}; {instead}")
        _finite(found[:_SAMPLED] if sampled else found, f"{name} of {self.where}")
        return found


def _fits(has: Sequence[int], shape: Sequence[int]) -> bool:
    return len(has) == len(shape) and all(size in {-1, own} for own, size in zip(has, shape, strict=True))


def _finite(tensor: Tensor, what: str) -> None:
    """Refuse NaNs and infinities, piece by piece: what says it of a whole tensor is as large as that."""
    rows = tensor.reshape(1) if tensor.dim() == 0 else tensor
    pieces = rows.split(max(1, _CHECKED // max(1, rows[:1].numel())))
    if not all(bool(torch.isfinite(piece).all()) for piece in pieces):
        raise InputError(f"{what} holds NaN or infinity; it is damaged, or of a training run that failed")


def layer_of(said: int | None, wanted: Wanted, where: Path) -> int:
    """Return the layer that a file is of: what it says, else the one that was typed.

    Raises
    ------
    InputError
        Neither says it, or the model has none such.
    """
    if said is None:
        if wanted.layers is None or len(wanted.layers) != 1:
            raise InputError(f"{where} does not say of which layer it is; add --layer with one")
        (said,) = wanted.layers
    if said >= wanted.n_layers:
        raise InputError(f"{where} is of layer {said}, and this model has layers 0–{wanted.n_layers - 1}")
    return said


def placed(reads: Said, writes: Said | None, wanted: Wanted, where: Path) -> tuple[Place, Place]:
    """Return where a dictionary reads and writes: what was typed with ``--site`` is where it reads, and an SAE writes.

    Raises
    ------
    InputError
        The model has no such layer.
    """
    layer = layer_of(reads.layer, wanted, where)
    own = Place(layer, wanted.point or reads.point)
    if writes is None:
        return own, own
    return own, Place(layer_of(writes.layer, wanted, where), writes.point)


def built(
    kind: Literal["sae", "transcoder", "clt"],
    reads: Place,
    writes: Sequence[Place],
    encoder: Tensor,
    bias: Tensor,
    decoders: Sequence[Tensor],
    decoder_biases: Sequence[Tensor | None],
    *,
    act: Act,
    taken: Taken | None = None,
    skip: Tensor | None = None,
    declared: Mapping[str, float] | None = None,
    wanted: Wanted,
    where: Path,
) -> Dictionary:
    """Return the dictionary, if it is as wide as the model's activations are where it reads and writes.

    Raises
    ------
    InputError
        It is not.
    """
    fit(encoder.shape[1], reads.point, "reads", wanted, where)
    for place, decoder in zip(writes, decoders, strict=True):
        fit(decoder.shape[1], place.point, "writes", wanted, where)
    return Dictionary(
        kind,
        reads,
        tuple(writes),
        encoder,
        bias,
        tuple(decoders),
        tuple(decoder_biases),
        act,
        taken or Taken(),
        skip,
        dict(declared or {}),
    )


def fit(width: int, point: str, does: str, wanted: Wanted, where: Path) -> None:
    """Refuse what is not as wide as the model's activations at a point are.

    Raises
    ------
    InputError
        It is not; the message names the sites at which it would be.
    """
    has = wanted.widths.get(point)
    if has == width:
        return
    fitting = [name for name, size in wanted.widths.items() if size == width]
    instead = f"as wide are {', '.join(fitting)}: name one with --site" if fitting else "it is another model's"
    found = f"this model has no {point}" if has is None else f"this model's {point} is {has} wide"
    raise InputError(f"{where} {does} {width} numbers a position, and {found}; {instead}")


def number(said: Mapping[str, Any], name: str, kind: type, where: Path) -> Any:
    """Return a number that a configuration says, as an int or a float.

    Raises
    ------
    InputError
        It is not there, or none.
    """
    found = said.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or kind(found) != found:
        what = "lacks" if found is None else f"says {found!r:.40} for"
        raise InputError(f"{where} {what} {name}, which should be a {'whole ' if kind is int else ''}number")
    return kind(found)


def declared_of(said: object) -> dict[str, float]:
    """Return the figures in what a file declares of itself; what is no figure is left out."""
    entries: Mapping[Any, Any] = said if isinstance(said, Mapping) else {}
    return {
        str(name): float(value)
        for name, value in entries.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
