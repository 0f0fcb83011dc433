"""Which nodes of an attribution graph have their title beside them, and on which side: where nothing else is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import theme
from interp.views.kit.text import columns

if TYPE_CHECKING:
    from interp.views.trace_layout import Arrangement

NONE, RIGHT, LEFT, ABOVE, BELOW = range(5)
FONT, BASE = 10, 3.5  # px; from a line's middle to its foot
_MOST = 16  # titles at most, the most influential first
_LETTER, _HIGH, FROM = 5.7, 12.0, 3.0
TICK = 3.0  # of the line to a title above or below
_SIZES: dict[str, float] = theme.PALETTE["trace"]
_MARK = _SIZES["mark"]
_EDGE = 36.0  # what the rows' names take at both ends

Box = tuple[float, float, float, float]


def labelled(drawn: Arrangement) -> Arrangement:
    """Return the drawing with places for the titles of its most influential features.

    A title stands for as long as none of the marks that are drawn with more edges lies under it.
    """
    sides, until = np.zeros(len(drawn.names), int), np.zeros(len(drawn.names), int)
    features = [n for n, kind in enumerate(drawn.kinds) if kind == "feature" and drawn.first[n] <= len(drawn.sources)]
    # What a picture opens with comes before what more edges add.
    features.sort(key=lambda n: (drawn.first[n] > drawn.opens, -drawn.influences[n]))
    there = [n for n in range(len(drawn.names)) if drawn.first[n] <= len(drawn.sources)]
    marks = [(n, _mark(drawn, n)) for n in there]
    taken: list[Box] = []
    for number in features:
        if len(taken) == _MOST:
            break
        best, last, where = NONE, 0, (0.0, 0.0, 0.0, 0.0)
        for side in (RIGHT, LEFT, ABOVE, BELOW):
            box = _box(drawn, number, side)
            if box[0] < _EDGE or box[2] > drawn.width - _EDGE or any(_meet(box, other) for other in taken):
                continue
            hidden = [int(drawn.first[other]) for other, mark in marks if other != number and _meet(box, mark)]
            room = min(hidden, default=len(drawn.sources) + 1) - 1
            if room > last:
                best, last, where = side, room, box
        if best and last >= max(drawn.opens, int(drawn.first[number])):
            sides[number], until[number] = best, last
            taken.append(where)
    return replace(drawn, sides=sides, until=until)


def place(drawn: Arrangement, number: int) -> tuple[float, float, str]:
    """Return where a node's title is written, and from where: ``start``, ``middle`` or ``end``."""
    x, y, side = float(drawn.x[number]), float(drawn.y[number]), int(drawn.sides[number])
    if side in (RIGHT, LEFT):
        return x + (_MARK + FROM) * (1 if side == RIGHT else -1), y + BASE, "start" if side == RIGHT else "end"
    out = _MARK + TICK + FROM
    return x, y - out if side == ABOVE else y + out + FONT - 3, "middle"


def _box(drawn: Arrangement, number: int, side: int) -> Box:
    x, y = float(drawn.x[number]), float(drawn.y[number])
    long, out = _LETTER * columns(drawn.titles[number]), _MARK + FROM
    left = {RIGHT: x + out, LEFT: x - out - long}.get(side, x - long / 2)
    top = {ABOVE: y - out - TICK - _HIGH + 2, BELOW: y + out + TICK - 2}.get(side, y - _HIGH / 2)
    return left, top, left + long, top + _HIGH


def _mark(drawn: Arrangement, number: int) -> Box:
    x, y, half = float(drawn.x[number]), float(drawn.y[number]), float(drawn.wide[number]) / 2
    high = _SIZES["half"] if drawn.kinds[number] in {"logit", "group"} else _MARK
    return x - half - 1, y - high - 1, x + half + 1, y + high + 1


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
