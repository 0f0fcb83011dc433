"""What is shown of a PatchingResult, static or live: its quantity, its cells, their names, and what marks mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.results import strongest
from interp.views import effects
from interp.views.kit import frame, heatmap
from interp.views.kit.heatmap import Cells
from interp.views.kit.text import labels, signed

if TYPE_CHECKING:
    from interp.methods._shared.patching.result import PatchingResult

HEADS = {"k": "Key heads", "v": "Value heads"}
TOP = 10  # cells that are listed
_RANKED = 32  # neurons of a layer that are shown
NATURAL = 0.5  # a recovery that is large whatever the others are
_TOKEN = 12
_SLACK = 1e-6  # of a scale's end, so that float32 does not put a value beyond it


@dataclass(frozen=True)
class PatchingView:
    """A result, and what of it is coloured."""

    result: PatchingResult

    @cached_property
    def source(self) -> str:
        """The other model whose activations were put in, or an empty string."""
        return str(self.result.provenance.arguments.get("from_model") or "")

    @cached_property
    def span(self) -> float:
        """Clean less corrupted; 0 where recovery, which divides by it, is undefined."""
        return effects.span(self.result)

    @cached_property
    def noising(self) -> bool:
        return self.result.direction == "noise"

    @cached_property
    def quantity(self) -> str:
        return effects.quantity(self.result)

    @cached_property
    def meaning(self) -> str:
        """What the quantity's numbers mean."""
        if not self.span:
            return f"effect on the {self.metric}: clean = corrupted, so no recovery"
        if self.noising:
            return "change of recovery: 0 nothing, −1 corrupted behaviour reached"
        if self.source:
            return "recovery: 0 nothing, 1 the other model's behaviour"
        return "recovery: 0 nothing, 1 clean behaviour restored"

    @cached_property
    def metric(self) -> str:
        return frame.metric(self.result.metric)

    @cached_property
    def turned(self) -> bool:
        """Whether falling is towards the answer."""
        return not self.span and frame.falls(self.result.metric)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """What is coloured, ``[*axes]``; 0 where patching changed nothing."""
        return self.exact if self.result.estimate is None else self.result.estimate / (self.span or 1.0)

    @cached_property
    def best(self) -> NDArray[np.float64]:
        """The same, of an estimate with the exact value wherever that is known."""
        return self.values if self.result.estimate is None else np.where(self.result.done, self.exact, self.values)

    @cached_property
    def done(self) -> NDArray[np.bool_]:
        """Which cells have a value."""
        return self.result.done if self.result.estimate is None else np.ones_like(self.result.done)

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        result = self.result
        if not self.span:
            return result.above_noise(result.effect)
        return result.above_noise(result.recovery - 1 if self.noising else result.recovery)

    @cached_property
    def towards(self) -> NDArray[np.float64]:
        return -self.values if self.turned else self.values

    @cached_property
    def interval(self) -> NDArray[np.float64]:
        """The interval of the effect in the quantity's unit, ``[2, *axes]``."""
        return effects.intervals(self.result)

    @cached_property
    def lost(self) -> NDArray[np.bool_]:
        return self.done & ~np.isfinite(self.values)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        return self.done & np.isfinite(self.values)

    @cached_property
    def whole(self) -> bool:
        return bool(self.done.all())

    @cached_property
    def least(self) -> float:
        """The smallest end of a scale: below, all is noise."""
        return effects.least(self.result)

    @cached_property
    def peaks(self) -> NDArray[np.intp] | None:
        """By head and position, the position of each head's largest effect."""
        if len(self.result.axes) < 3:
            return None
        return np.where(self.known, np.abs(self.values), -1.0).argmax(-1)

    @cached_property
    def grid(self) -> Cells:
        """The picture's cells, a row per layer."""
        result = self.result
        rows = [f"L{layer}" for layer in result.layers]
        values, done, lost = self.values, self.done, self.lost
        if self.peaks is not None:
            best = self.peaks[..., None]
            values = np.where(lost.any(-1), np.nan, np.take_along_axis(values, best, -1)[..., 0])
            done = np.logical_or.reduce(done, -1)
        if result.axes[1:] == ("position",):
            names = self.tokens
            return Cells(values, done, rows, names, tokens=True, marked=self.differing)
        if result.axes[1:] == ("span",):
            return Cells(values, done, rows, list(result.positions), tokens=True)
        return Cells(values, done, rows, [str(n) for n in range(values.shape[1])])

    @cached_property
    def ranked(self) -> NDArray[np.intp] | None:
        """By neuron, which are shown of each layer: its strongest, ``[row, rank]``."""
        if self.result.axes[1:] != ("neuron",):
            return None
        return ranked(np.where(self.known, np.abs(self.values), -1.0))

    @cached_property
    def drawn(self) -> Cells:
        """The cells of the heatmap: the grid's, but of neurons each layer's strongest."""
        if self.ranked is None:
            return self.grid
        values, done = np.take_along_axis(self.values, self.ranked, 1), np.take_along_axis(self.done, self.ranked, 1)
        return Cells(values, done, self.grid.rows, [str(n + 1) for n in range(values.shape[1])])

    @cached_property
    def ring(self) -> tuple[int, int] | None:
        """The strongest cell's row and column in the heatmap, where it is shown."""
        if not self.order:
            return None
        row, column = self.order[0][:2]
        if self.ranked is None:
            return row, column
        return next(((row, int(rank)) for rank in np.flatnonzero(self.ranked[row] == column)), None)

    @cached_property
    def tokens(self) -> list[str]:
        count = self.result.patched.shape[-1]
        given = self.result.positions
        if "span" in self.result.axes:
            return list(given)
        return labels(given, _TOKEN) if len(given) == count else [str(n) for n in range(count)]

    @cached_property
    def differing(self) -> tuple[int, ...]:
        return self.result.checks.differing[0] if self.result.checks.differing else ()

    @cached_property
    def end(self) -> float:
        drawn = self.drawn
        return heatmap.limit(drawn.values[drawn.done], self.least, NATURAL if self.span else 0.0)

    @cached_property
    def order(self) -> list[tuple[int, ...]]:
        """The cells by the size of their effect, the largest first; those without any are left out."""
        found = strongest(np.where(self.known, self.best, np.nan), max(TOP, 64))
        return [cell for cell in found if self.best[cell] != 0]

    def guessed(self, cell: tuple[int, ...]) -> bool:
        """Whether a cell is known by its estimate only."""
        return self.result.estimate is not None and not self.result.done[cell]

    def name(self, cell: Sequence[int]) -> str:
        """Return a cell as it is drawn, its position as its token."""
        at = dict(zip(self.result.axes, cell, strict=True))
        layer = self.result.layers[at["layer"]]
        if "neuron" in at:
            return f"L{layer} neuron {at['neuron']}"
        if "span" in at:
            return f"L{layer} {self.tokens[at['span']]}"
        name = f"L{layer}{head_word(self.result.site)}{at['head']}" if "head" in at else f"L{layer}"
        return f"{name} {self.position(at['position'])}" if "position" in at else name

    def position(self, position: int) -> str:
        """Return a position as it is drawn, as its token where that is known."""
        return f"{self.tokens[position]} ({position})" if self.result.positions else f"position {position}"


def ranked(sizes: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the largest of each row, by rank, ``[row, rank]``.

    Examples
    --------
    >>> ranked(np.array([[0.1, 0.3, 0.2]])).tolist()
    [[1, 2, 0]]
    """
    few = np.argpartition(-sizes, min(_RANKED, sizes.shape[1]) - 1, axis=-1)[:, :_RANKED]
    return np.take_along_axis(few, np.argsort(-np.take_along_axis(sizes, few, -1), axis=-1, kind="stable"), -1)


def head_word(site: str) -> str:
    """Return what stands between a layer and a head's number: keys' and values' heads are not the query heads.

    Examples
    --------
    >>> head_word("z"), head_word("k")
    ('H', ' key head ')
    """
    return f" {HEADS[site].lower()[:-1]} " if site in HEADS else "H"


def caption(result: PatchingResult) -> str:
    """Return what the heatmap of a sweep by head or by position is called."""
    axes = result.axes
    if axes[1] == "neuron":
        return "Neurons: each layer's strongest, by rank"
    if axes[1] == "span":
        return "Spans: a row per layer"
    if axes[1] == "position":
        whose = " of pair 1" if len(result.per_pair) > 1 else ""
        return f"Positions{whose}: a row per layer"
    kind = HEADS.get(result.site, "Heads")
    return f"{kind}, each at its strongest position" if len(axes) > 2 else f"{kind}: a row per layer"


def counted(count: int) -> str:
    """Return a number of cells in words.

    Examples
    --------
    >>> counted(1), counted(1000)
    ('1 cell', '1,000 cells')
    """
    return f"{count:,} cell{'s' * (count != 1)}"


def marks(
    shown: NDArray[np.float64], end: float, *, lost: int, missing: int, joined: str = "", absent: str = "computed"
) -> list[str]:
    """Return what the marks on cells mean, for those that there are.

    Parameters
    ----------
    shown, end
        The coloured values, and where their scale ends; what is not finite does not count.
    lost, missing
        How many cells have no finite value, and how many none at all.
    joined
        What a cell is the strongest of, where several share it.
    absent
        What those that are missing are not.

    Examples
    --------
    >>> marks(np.array([0.1, 3.0]), 1.0, lost=0, missing=2)
    ['dotted: 1 cell beyond the scale, up to +3.000', 'grey: 2 cells not computed']
    """
    beyond = shown[np.isfinite(shown) & (np.abs(shown) > end * (1 + _SLACK))]
    said: list[str] = []
    if beyond.size:
        most = signed(float(beyond[np.abs(beyond).argmax()]))
        said.append(f"dotted: {counted(beyond.size)} beyond the scale, up to {most}")
    if joined:
        said.append(f"each cell is the strongest of {joined}")
    if lost:
        said.append(f"hatched: {counted(lost)} without a finite value")
    if missing:
        said.append(f"grey: {counted(missing)} not {absent}")
    return said
