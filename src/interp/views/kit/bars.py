"""Signed values as bars from a common zero, and the spread of many values around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import cells, draw, heatmap, theme
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.text import columns, signed

_ROW, _LEAST, _HIGH = 19, 13, 570
_TRACK: int = theme.PALETTE["bars"]["track"]
_STRIP = 250
_FONT = 11
_NUMBER = 62
# How many values of a row are drawn one by one.
_SINGLE = 16
# A bar that is this many times longer than the others is broken.
_SPREAD: float = theme.PALETTE["bars"]["longest"]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """A labelled value.

    Attributes
    ----------
    label
        As it is shown.
    value
        What is not finite is hatched.
    low, high
        The ends of its interval; NaN for none.
    done
        Whether there is a value; if not, its place is flat and empty.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    done: bool = True


def bars(rows: Sequence[Bar], least: float, turned: bool = False, *, neutral: bool = False) -> Drawing:
    """Return a row per value: label, bar (red to the right, blue to the left), interval as a thin line, number.

    Parameters
    ----------
    rows
        Top to bottom.
    least
        The smallest end of the scale.
    turned
        Whether falling is towards the answer, so that negative bars are the red ones.
    neutral
        Whether they are sizes, for or against nothing: of one colour, and without a sign in front.

    Examples
    --------
    >>> bars([Bar("L9H9", 0.5)], 0.001).height
    19
    """
    values = np.array([row.value for row in rows])
    end = heatmap.limit(values[[row.done for row in rows]], least, spread=_SPREAD)
    end = min(end, max([least, *np.abs(values[np.isfinite(values)])]))
    pitch = max(_LEAST, min(_ROW, _HIGH / len(rows)))
    left = math.ceil(max(columns(row.label) for row in rows) * _FONT * ADVANCE + 10)
    shown = [math.copysign(min(abs(row.value), end), row.value) if _finite(row) else 0.0 for row in rows]
    # An interval is seen whole, unless it is longer than twice the longest bar.
    reach = [min(max(x, -2 * end), 2 * end) for row in rows for x in (row.low, row.high) if _finite(row) and x == x]
    below, above = max(0.0, -min(shown + reach)), max(0.0, *shown, *reach)
    unit = _TRACK / ((below + above) or 1)
    zero = left + below * unit
    thick = min(9.0, pitch - 4)
    body: list[str] = []
    for n, (row, value) in enumerate(zip(rows, shown, strict=True)):
        middle = (n + 0.5) * pitch
        top = middle - thick / 2
        body.append(draw.text(0, middle + 4, row.label, "m", more=f' style="font-size:{_FONT}px"'))
        if not _finite(row):
            body.append(_nothing(row, left, top, thick))
        elif value:
            side = "accent" if neutral else "towards-high" if (value > 0) != turned else "against-high"
            x, wide = min(zero, zero + value * unit), max(1.0, abs(value) * unit)
            body.append(
                f'<rect style="fill:var(--interp-{side})" x="{number(x)}" y="{number(top)}" '
                f'width="{number(wide)}" height="{number(thick)}" rx="1.5"/>'
            )
            if abs(row.value) > end * (1 + 1e-9):
                body.append(_break(zero + value * unit * 0.8, middle, thick))
            body.append(_interval(row, zero, unit, middle, (left, left + _TRACK)))
        if row.done:
            said = signed(row.value).removeprefix("+" if neutral else "")
            body.append(_value(left + _TRACK + _NUMBER, middle + 4, said))
    body.append(f'<path class="interp-base" d="M{number(zero)} 0V{number(len(rows) * pitch)}"/>')
    return Drawing(left + _TRACK + _NUMBER, len(rows) * pitch, "".join(body))


def strips(values: Float, done: NDArray[np.bool_], labels: Sequence[str], least: float) -> Drawing:
    """Return a row per row of values: a band that holds 99 % of them, a line for each of the strongest others.

    Beside it stands the row's strongest value, with its number.

    Parameters
    ----------
    values, done
        ``[row, column]``.
    labels
        One per row.
    least
        The smallest end of the scale.

    Examples
    --------
    >>> strips(np.zeros((2, 9)), np.ones((2, 9), bool), ["L0", "L1"], 0.001).height
    52
    """
    known = done & np.isfinite(values)
    size = np.where(known, np.abs(values), -1.0)
    best = size.argmax(1)
    peaks = np.array([values[row, column] if known[row, column] else 0.0 for row, column in enumerate(best)])
    end = heatmap.limit(peaks, least, spread=_SPREAD)
    pitch = max(_LEAST, min(_ROW, _HIGH / len(labels)))
    left = heatmap.margin(labels)
    zero, unit, thick = left + _STRIP / 2, _STRIP / 2 / end, pitch - 4
    body: list[str] = []
    for row, label in enumerate(labels):
        middle = (row + 0.5) * pitch
        top = middle - thick / 2
        body.append(draw.text(left - 6, middle + 3.5, label, anchor="end"))
        if not known[row].any():
            state = Bar(label, math.nan, done=bool(done[row].any()))
            body.append(_nothing(state, left, top, thick, _STRIP))
            continue
        held = np.clip(values[row][known[row]], -end, end)
        low, high = (zero + float(q) * unit for q in np.quantile(held, [0.005, 0.995]))
        body.append(
            f'<rect style="fill:var(--interp-muted);fill-opacity:0.45" x="{number(low)}" y="{number(top)}" '
            f'width="{number(max(1.0, high - low))}" height="{number(thick)}" rx="1.5"/>'
        )
        body.append(_needles(held, zero, unit, top, thick))
        if not known[row].all() and bool((done[row] & ~known[row]).any()):
            body.append(cells.hatch(left, top, thick, thick))
        body.append(draw.text(left + _STRIP + 50, middle + 4, str(best[row]), "m", "end"))
        body.append(_value(left + _STRIP + 54 + _NUMBER, middle + 4, signed(float(values[row, best[row]]))))
    down = len(labels) * pitch
    body += [
        f'<path class="interp-base" d="M{number(zero)} 0V{number(down)}"/>',
        draw.text(left, down + 12, f"−{end:g}"),
        draw.text(zero, down + 12, "0", anchor="middle"),
        draw.text(left + _STRIP, down + 12, f"+{end:g}", anchor="end"),
    ]
    return Drawing(left + _STRIP + 54 + _NUMBER, down + 14, "".join(body))


def _finite(row: Bar) -> bool:
    return row.done and math.isfinite(row.value)


def _value(x: float, y: float, said: str) -> str:
    return draw.text(x, y, said, "t", "end", more=' style="font-size:11.5px;fill:var(--interp-fg)"')


def _nothing(row: Bar, left: float, top: float, thick: float, wide: float = _TRACK) -> str:
    if row.done:
        return cells.hatch(left, top, 2 * thick, thick)
    return (
        f'<rect class="interp-tile" x="{number(left)}" y="{number(top)}" width="{number(wide)}" '
        f'height="{number(thick)}"/>'
    )


def _interval(row: Bar, zero: float, unit: float, middle: float, room: tuple[float, float]) -> str:
    if not (math.isfinite(row.low) and math.isfinite(row.high)):
        return ""
    x1, x2 = (min(room[1], max(room[0], zero + end * unit)) for end in (row.low, row.high))
    return (
        f'<path class="interp-span" style="stroke:var(--interp-fg);stroke-opacity:0.6" '
        f'd="M{number(x1)} {number(middle)}H{number(x2)}"/>'
    )


def _break(x: float, middle: float, thick: float) -> str:
    """Return the slanted gap of a bar that is longer than there is room."""
    return (
        f'<path style="stroke:var(--interp-bg);stroke-width:3" d="M{number(x - 3)} {number(middle + thick / 2 + 1)}'
        f'L{number(x + 3)} {number(middle - thick / 2 - 1)}"/>'
    )


def _needles(held: Float, zero: float, unit: float, top: float, thick: float) -> str:
    """Return a line for each of the strongest values."""
    strongest = held[np.argsort(-np.abs(held), kind="stable")[:_SINGLE]]
    paths: list[str] = []
    for side, chosen in (("towards", strongest[strongest > 0]), ("against", strongest[strongest < 0])):
        shape = "".join(f"M{number(zero + value * unit)} {number(top)}v{number(thick)}" for value in chosen.tolist())
        if shape:
            paths.append(f'<path style="stroke:var(--interp-{side}-high);stroke-width:1.5" d="{shape}"/>')
    return "".join(paths)
