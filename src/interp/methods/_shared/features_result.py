"""What loading and listing features return: each dictionary, and what it is worth on this model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import printable
from interp.results import Result
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.features.held import FeatureSet
    from interp.results.tables import Float

# Column of the frame → how the file calls what it declares.
FIGURES = {"fvu": "fvu", "l0": "l0", "dead": "dead", "ce recovered": "ce_recovered"}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FeaturesResult(Result):
    """Sets of features, one row per dictionary.

    Attributes
    ----------
    sets, sources, formats, kinds
        Of each row: its set's name, where that came from, the files' format, and ``sae``, ``transcoder`` or ``clt``.
    layers, widths
        ``int64 [row]``: the layer that it reads, and how many features it has.
    reads, writes
        Where: ``resid_post``, ``mlp_normed`` …, and ``mlp_out`` or, of a CLT, ``mlp_out of 0-3``.
    measured, declared
        ``float64 [row, figure]``: FVU (the share of the variance of what it should write that it does not), L0 (the
        mean number of active features), the share of features that were never active, and the share of the
        cross-entropy lost by zeroing the place that comes back; on the sample, and as the files say. NaN where unknown.
    tokens
        ``int64 [row]``: on how many tokens it was measured.
    digests
        Of each row, a hash of its weights and of how they are used.
    current
        The set that commands use when none is named; empty where none is loaded.
    """

    sets: tuple[str, ...]
    sources: tuple[str, ...]
    formats: tuple[str, ...]
    kinds: tuple[str, ...]
    layers: NDArray[np.int64]
    widths: NDArray[np.int64]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    measured: Float
    declared: Float
    tokens: NDArray[np.int64]
    digests: tuple[str, ...]
    current: str

    _html: ClassVar[str] = "interp.views.features:html"

    @classmethod
    def of(cls, sets: Sequence[FeatureSet], current: str, notes: tuple[str, ...] = ()) -> FeaturesResult:
        """Return the rows of sets, in their order."""
        rows = [
            (one, dictionary, found)
            for one in sets
            for dictionary, found in zip(one.dictionaries, one.measured, strict=True)
        ]
        nothing = float("nan")
        measured = [[getattr(found, name) for name in FIGURES.values()] for _, _, found in rows]
        declared = [[one.declared.get(name, nothing) for name in FIGURES.values()] for _, one, _ in rows]
        return cls(
            sets=tuple(one.name for one, _, _ in rows),
            sources=tuple(one.source for one, _, _ in rows),
            formats=tuple(one.format for one, _, _ in rows),
            kinds=tuple(one.kind for _, one, _ in rows),
            layers=np.array([one.layer for _, one, _ in rows], dtype=np.int64),
            widths=np.array([one.width for _, one, _ in rows], dtype=np.int64),
            reads=tuple(one.reads.point for _, one, _ in rows),
            writes=tuple(_written([(place.layer, place.point) for place in one.writes]) for _, one, _ in rows),
            measured=np.array(measured, dtype=np.float64).reshape(len(rows), len(FIGURES)),
            declared=np.array(declared, dtype=np.float64).reshape(len(rows), len(FIGURES)),
            tokens=np.array([found.tokens for _, _, found in rows], dtype=np.int64),
            digests=tuple(one.digest for _, one, _ in rows),
            current=current,
            notes=notes,
        )

    def summary(self) -> str:
        """Return which sets, and how many features they have."""
        if not self.sets:
            return "no features are loaded; type %interp features-load with a folder, a hub name or bundled"
        names = list(dict.fromkeys(self.sets))
        named = ", ".join(f"{name} (current)" if name == self.current and len(names) > 1 else name for name in names)
        count = len(self.sets)
        return f"{named}: {count} dictionar{'y' if count == 1 else 'ies'}, {int(self.widths.sum()):,} features"

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as they are shown, behind their columns' names; what files declare stands in brackets."""
        head = ("set", "kind", "layer", "reads", "writes", "features", "FVU", "L0", "dead", "CE recovered")
        rows = [
            (
                self.sets[n],
                self.kinds[n],
                str(self.layers[n]),
                self.reads[n],
                self.writes[n],
                f"{self.widths[n]:,}",
                *(_figure(*pair) for pair in zip(self.measured[n].tolist(), self.declared[n].tolist(), strict=True)),
            )
            for n in range(len(self.sets))
        ]
        return [head, *rows]

    def text(self) -> str:
        """Return the summary and the rows, in aligned columns."""
        cells = [tuple(printable(cell) for cell in row) for row in self.cells()]
        widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        notes = [f"note: {printable(note)}" for note in self.notes]
        return "\n".join([repr(self), *(lines if self.sets else []), *notes])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per dictionary: what it is, what it is worth here, and what its files declare."""
        columns = {
            "set": self.sets,
            "kind": self.kinds,
            "layer": self.layers,
            "reads": self.reads,
            "writes": self.writes,
            "features": self.widths,
            "tokens": self.tokens,
        }
        for n, name in enumerate(FIGURES):
            columns |= {name: self.measured[:, n], f"{name} declared": self.declared[:, n]}
        return frame_of({**columns, "format": self.formats, "source": self.sources, "digest": self.digests})


def _written(places: Sequence[tuple[int, str]]) -> str:
    (first, point), (last, _) = places[0], places[-1]
    return point if first == last else f"{point} of {first}-{last}"


def _figure(measured: float, declared: float) -> str:
    here = "—" if math.isnan(measured) else f"{measured:.3g}"
    return here if math.isnan(declared) else f"{here} ({declared:.3g})"
