"""Cells with something written in them: a row per layer or head, a column per token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.views.kit import draw, heatmap, theme
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.text import columns

_FONT = 10.0
_HIGH, _PAD, _LEAST, _TURN = 17, 8, 26, 55
_INK_TURNS = 0.72


@dataclass(frozen=True)
class Cell:
    """What is in a place of the grid.

    Attributes
    ----------
    text
        As it is shown.
    value
        In 0 … 1 for sequential colours, −1 … 1 for diverging ones; NaN is hatched.
    """

    text: str
    value: float


def grid(
    cells: Sequence[Sequence[Cell]],
    rows: Sequence[str],
    columns_: Sequence[str],
    *,
    signed: bool = False,
    level: bool = False,
    ring: tuple[int, int] | None = None,
) -> Drawing:
    """Return the cells, ``[row][column]``, as wide as the longest text in them, labelled at the left and below.

    Parameters
    ----------
    cells
        All rows of one length.
    rows, columns_
        Labels; those of the columns are tokens.
    signed
        Whether colours diverge from zero.
    level
        Whether cells are made as wide as the columns' labels, so that these need not be turned.
    ring
        The (row, column) to outline.

    Examples
    --------
    >>> grid([[Cell("a", 0.5)]], ["L0"], ["x"]).height > 17
    True
    """
    advance = _FONT * ADVANCE
    longest = max(columns(label) for label in columns_)
    widest = max([*(columns(cell.text) for row in cells for cell in row), longest * level])
    wide = max(_LEAST, math.ceil(widest * advance + _PAD))
    turned = longest * advance > wide - 4
    left = heatmap.margin(rows)
    fills: dict[tuple[str, float], list[str]] = {}
    written: list[str] = []
    hatched: list[str] = []
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            place = f"M{x * wide} {y * _HIGH}h{wide}v{_HIGH}h-{wide}z"
            ink = "var(--interp-fg)"
            if not math.isfinite(cell.value):
                hatched.append(heatmap.hatch(x * wide, y * _HIGH, wide, _HIGH))
            elif signed:
                # In steps, so that equal cells share a path.
                value = round(float(heatmap.lifted(np.array(cell.value))) * 64) / 64
                for coat in theme.paint(value):
                    fills.setdefault(coat, []).append(place)
                ink = f"var(--interp-{'on-high' if abs(value) > _INK_TURNS else 'fg'})"
            else:
                step = int(theme.level(np.array(cell.value)))
                if step:
                    fills.setdefault((f"var(--interp-s{step})", 1.0), []).append(place)
                ink = theme.ink(step)
            if cell.text:
                written.append(
                    f'<text class="interp-m" x="{number((x + 0.5) * wide)}" y="{(y + 0.5) * _HIGH + 3.5:g}" '
                    f'text-anchor="middle" style="fill:{ink}">{draw.token(cell.text)}</text>'
                )
    across, down = len(columns_) * wide, len(cells) * _HIGH
    body = [draw.text(left - 6, (y + 0.5) * _HIGH + 3.5, label, anchor="end") for y, label in enumerate(rows)]
    right = left + across
    below = 0.0
    turn = math.radians(_TURN)
    for x, label in enumerate(columns_):
        length = columns(label) * advance
        at = left + (x + 0.5) * wide
        if not turned:
            body.append(draw.text(at, down + 13, label, "m", "middle"))
            below = max(below, 18)
            continue
        body.append(draw.text(at - 3, down + 11, label, "m", turn=_TURN))
        right = max(right, at + length * math.cos(turn) + 4)
        below = max(below, length * math.sin(turn) + 15)
    body.append(f'<g transform="translate({number(left)} 0)">')
    body.append(f'<rect class="interp-tile" width="{across}" height="{down}"/>')
    body.append('<g shape-rendering="crispEdges">')
    # The second coat of a strong colour lies on its first.
    for (css, opacity), places in sorted(fills.items(), key=lambda item: "high" in item[0][0]):
        faint = f";fill-opacity:{number(opacity)}" if opacity < 1 else ""
        body.append(f'<path style="fill:{css}{faint}" d="{"".join(places)}"/>')
    body.append("</g>")
    if hatched:
        body.append(f'<path class="interp-hatch" d="{"".join(hatched)}"/>')
    lines = "".join(f"M{x * wide} 0V{down}" for x in range(1, len(columns_)))
    lines += "".join(f"M0 {y * _HIGH}H{across}" for y in range(1, len(cells)))
    body += [f'<path class="interp-cut" d="{lines}"/>', *written]
    if ring is not None:
        y, x = ring
        body.append(
            f'<rect class="interp-ring" style="stroke-width:1.5" x="{x * wide}" y="{y * _HIGH}" width="{wide}" '
            f'height="{_HIGH}" rx="2"/>'
        )
    return Drawing(right + 2, down + below + 2, "".join([*body, "</g>"]))
