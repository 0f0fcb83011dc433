"""What the residual stream of a held run is the sum of: embeddings, features, errors of dictionaries, and biases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.frozen import Frozen


@dataclass(frozen=True, eq=False)
class Sources:
    """All sources of a held run, numbered: features by layer and position, then errors, then embeddings.

    Attributes
    ----------
    codes
        For each layer, its features' activations; ``None`` where no dictionary stands for its MLP.
    layers, positions, features
        ``int64 [feature entry]``.
    activations, pres
        ``[feature entry]``: a feature's activation, and the pre-activation that is linear in what it reads.
    errors
        ``[layer, position, d_model]``: what the MLPs write that their features do not.
    constants
        ``[layer, position, d_model]``: what dictionaries write whatever they read.
    """

    frozen: Frozen
    codes: tuple[Codes | None, ...]
    layers: Tensor
    positions: Tensor
    features: Tensor
    activations: Tensor
    pres: Tensor
    errors: Tensor
    constants: Tensor
    offsets: tuple[int, ...]

    @property
    def n_positions(self) -> int:
        """How many tokens the prompt has."""
        return len(self.frozen.ids)

    @property
    def n_features(self) -> int:
        """How many features are active, position by position."""
        return len(self.features)

    @property
    def first_error(self) -> int:
        """The number of the first error."""
        return self.n_features

    @property
    def first_embedding(self) -> int:
        """The number of the first embedding."""
        return self.n_features + len(self.frozen) * self.n_positions

    def __len__(self) -> int:
        return self.first_embedding + self.n_positions

    def writers(self, layer: int) -> Iterator[tuple[Dictionary, Codes, int, int]]:
        """Yield what writes a layer's MLP: dictionary, codes, to which of its places, its first feature's number."""
        for index, one in self.frozen.dictionaries.items():
            codes = self.codes[index]
            to = layer - index
            if codes is not None and 0 <= to < len(one.writes):
                yield one, codes, to, self.offsets[index]

    def written(self, entries: Tensor, layer: int) -> Tensor:
        """Return what features write into a layer's MLP, ``[entry, d_model]``; zero for those that do not."""
        out = self.errors.new_zeros(len(entries), self.errors.shape[-1])
        for one, codes, to, offset in self.writers(layer):
            own = (entries >= offset) & (entries < offset + len(codes.features))
            some = entries[own]
            if len(some):
                atoms = one.atoms(self.features[some], to) * self.activations[some, None]
                out[own] = atoms * self._factor(one, self.positions[some])
        return out

    def _factor(self, one: Dictionary, positions: Tensor) -> Tensor | float:
        """Return what one unit that a dictionary writes is in the stream, at positions: ``[entry, 1]`` or a number."""
        factor = one.taken.factor(self.frozen.shown(one.layer, one.reads.point)) if one.taken.normed else 1.0
        return factor[positions] if isinstance(factor, Tensor) else factor / one.taken.scale

    def credit(self, layer: int, slope: Tensor, out: Tensor) -> None:
        """Add to `out`, ``[reading, source]``, what readings of a layer's MLP get of its sources.

        Parameters
        ----------
        slope
            ``[reading, position, d_model]``.
        """
        for one, codes, to, offset in self.writers(layer):
            bounds, rows = codes.starts.tolist(), codes.rows
            factor = self._factor(one, rows)
            amounts = codes.values * (factor[:, 0] if isinstance(factor, Tensor) else factor)
            for position in range(self.n_positions):
                start, stop = bounds[position], bounds[position + 1]
                if stop > start:
                    atoms = one.atoms(codes.features[start:stop], to) * amounts[start:stop, None]
                    out[:, offset + start : offset + stop] += slope[:, position] @ atoms.T
        first = self.first_error + layer * self.n_positions
        out[:, first : first + self.n_positions] += torch.einsum("rpd,pd->rp", slope, self.errors[layer])


def sources(frozen: Frozen) -> Sources:
    """Return what a held run's stream is the sum of, by the dictionaries that it was held with."""
    device = frozen.start.device
    codes: list[Codes | None] = []
    parts: dict[str, list[Tensor]] = {name: [] for name in ("layers", "positions", "features", "activations", "pres")}
    offsets, total = [], 0
    for index in range(len(frozen)):
        offsets.append(total)
        one = frozen.dictionaries.get(index)
        if one is None:
            codes.append(None)
            continue
        pre = one.pre(frozen.shown(index, one.reads.point))
        linear = one.act.magnitudes(pre.clone())
        own = one.activated(pre)
        rows = own.rows
        codes.append(own)
        parts["layers"].append(torch.full_like(rows, index))
        parts["positions"].append(rows)
        parts["features"].append(own.features)
        parts["activations"].append(own.values)
        parts["pres"].append(linear[rows, own.features])
        total += len(rows)
    whole = torch.zeros(0, dtype=torch.int64, device=device)
    empty = {"activations": frozen.start.new_zeros(0), "pres": frozen.start.new_zeros(0)}
    joined = {name: torch.cat(held) if held else empty.get(name, whole) for name, held in parts.items()}
    errors, constants = _errors(frozen, codes)
    return Sources(
        frozen=frozen, codes=tuple(codes), errors=errors, constants=constants, offsets=tuple(offsets), **joined
    )


def _errors(frozen: Frozen, codes: Sequence[Codes | None]) -> tuple[Tensor, Tensor]:
    """Return what the MLPs write and their features do not, and what dictionaries write whatever they read."""
    made = torch.zeros(len(frozen), *frozen.start.shape, dtype=frozen.start.dtype, device=frozen.start.device)
    constants = torch.zeros_like(made)
    for index, one in frozen.dictionaries.items():
        own = codes[index]
        assert own is not None
        shown = frozen.shown(index, one.reads.point)
        for to, place in enumerate(one.writes):
            by_features = one.written(own, to) * one.taken.factor(shown)
            output = one.output(own, shown, to)
            skip = frozen.skipped(index, frozen.layers[index].read) if to == 0 else None
            constants[place.layer] += output - by_features - (0 if skip is None else skip)
            made[place.layer] += output
    written = torch.stack([layer.written for layer in frozen.layers])
    return written - made, constants
