"""What pictures of effects over pairs have in common: their quantity and unit, their intervals, their pairs."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import frame
from interp.views.kit.page import Piece
from interp.views.kit.text import signed


class Effects(Protocol):
    """The part of a result that is read here."""

    @property
    def clean_metric(self) -> float: ...
    @property
    def corrupted_metric(self) -> float: ...
    @property
    def direction(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def per_pair(self) -> Sized: ...
    @property
    def interval(self) -> NDArray[Any]: ...
    @property
    def recovery_interval(self) -> NDArray[Any]: ...


def span(result: Effects) -> float:
    """Return clean less corrupted; 0 where recovery, which divides by it, is undefined."""
    clean, corrupted = result.clean_metric, result.corrupted_metric
    between = clean - corrupted
    return between if math.isfinite(between) and abs(between) > 1e-6 * max(1.0, abs(clean)) else 0.0


def quantity(result: Effects) -> str:
    """Return what is coloured."""
    if not span(result):
        return "effect"
    return "change of recovery" if result.direction == "noise" else "recovery"


def least(result: Effects) -> float:
    """Return the smallest end of a scale: below, all is noise."""
    return 1e-3 if span(result) else 1e-4


def intervals(result: Effects) -> NDArray[np.float64]:
    """Return the intervals of the quantity, ``[2, *axes]``."""
    return result.recovery_interval - (result.direction == "noise") if span(result) else result.interval


def interval(result: Effects, cell: tuple[int, ...]) -> list[Piece]:
    """Return one effect's interval as a piece of the footer, where it is known."""
    low, high = (float(result.interval[end][cell]) for end in (0, 1))
    if not (math.isfinite(low) and math.isfinite(high)):
        return []
    return [(f"95 % interval [{signed(low)}, {signed(high)}] over {len(result.per_pair)} pairs", "", True)]


def pairs(result: Effects) -> str:
    """Return how many pairs there are, and of which task."""
    count = len(result.per_pair)
    return f"{frame.visible_facts(result.task, 40)}, " * bool(result.task) + f"{count} pair{'s' * (count != 1)}"
