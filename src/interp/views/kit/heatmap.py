"""Signed values as cells: how strong a colour is, the heatmap, and the bar that is its scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import draw, theme
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.text import columns

# How finely a value is told apart in a colour, each way from zero.
_LEVELS = 64
# Less of a lift than for weights: many small effects of both signs are noise.
_POWER = 0.8
# The room for cells beside and above each other, and the largest a cell gets, in CSS pixels.
_WIDE, _NAMED, _HIGH, _LARGEST = 340, 560, 400, 24
_FONT, _TURN = 10.0, 55
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
_BAR = 192

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """Signed values in rows and columns, and what stands beside and below them.

    Attributes
    ----------
    values
        ``float64 [row, column]``; what is not finite is hatched.
    done
        Which cells there are; the others are flat and empty.
    rows, columns
        Labels.
    tokens
        Whether the columns are tokens, whose labels are long, rather than numbers.
    marked
        The columns whose labels are underlined.
    """

    values: Float
    done: NDArray[np.bool_]
    rows: Sequence[str]
    columns: Sequence[str]
    tokens: bool = False
    marked: Iterable[int] = ()

    @property
    def block(self) -> int:
        """How many columns share a cell, since more than this would not be seen."""
        return math.ceil(len(self.columns) / _NAMED * 2)


def limit(values: Float, least: float, natural: float = 0.0, spread: float = 3.0) -> float:
    """Return where the scale of `values` ends: a round number.

    It is the largest size, unless a few values would wash out the rest: then they lie beyond the scale, which ends at
    `spread` times a size that three values and 1 % of all reach. It does so only where it is at least halved by that.

    Parameters
    ----------
    values
        Any shape; what is not finite does not count.
    least
        The smallest limit, so that rounding errors are not drawn as effects.
    natural
        A size that is large by itself: a limit that leaves values out is no smaller.
    spread
        See above.

    Examples
    --------
    >>> limit(np.array([0.1, -0.2, 0.45]), 0.001), limit(np.array([0.1, 0.2, 0.1, 1e6]), 0.001)
    (0.5, 0.3)
    """
    sizes = np.sort(np.abs(values[np.isfinite(values)]))[::-1]
    if not sizes.size:
        return least
    usual = float(sizes[min(sizes.size - 1, max(2, sizes.size // 100))])
    end = float(sizes[0])
    trimmed = max(natural, spread * usual)
    if usual > least / spread and end > 2 * trimmed:
        end = trimmed
    end = max(least, end)
    power = 10.0 ** math.floor(math.log10(end) + 1e-9)
    return float(f"{next(n for n in _ROUND if n * power >= end * (1 - 1e-9)) * power:.3g}")


def signed(value: float) -> str:
    """Return a value with its sign in about six columns.

    Examples
    --------
    >>> signed(0.5174), signed(-3.1), signed(0.0), signed(-2e-4), signed(-2e-6)
    ('+0.517', '−3.100', '0', '−0.0002', '−2.0e−06')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{'+' if value > 0 else '−'}∞"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        return (
            "0"
            if not size
            else format(value, "+.4f" if 5e-5 <= size < 1 else "+.1e").replace("-", "−").replace("e+", "e")
        )
    form = "+.3f" if size < 100 else "+,.1f" if size < 1e4 else "+,.0f"
    return format(value, form).replace("-", "−")


def heat(cells: Cells, end: float, ring: tuple[int, int] | None = None) -> Drawing:
    """Return cells in colours that reach their strongest at `end`; cells beyond it have a dot, `ring` is outlined.

    Many columns are joined: a cell then shows the strongest of them.

    Examples
    --------
    >>> heat(Cells(np.eye(2), np.ones((2, 2), bool), ["L0", "L1"], ["0", "1"]), 1.0).height > 0
    True
    """
    block = cells.block
    if block > 1:
        cells = _joined(cells, block)
        ring = (ring[0], ring[1] // block) if ring else None
    count = cells.values.shape
    wide, high = _size(count, _NAMED if cells.tokens else _WIDE)
    left = margin(cells.rows)
    across, down = count[1] * wide, count[0] * high
    body = [
        draw.text(left - 6, max(8.0, (row + 0.5) * high + 3.5), cells.rows[row], anchor="end")
        for row in _ticks(count[0], high, 11)
    ]
    named = _turned(cells, left, wide, down, block) if cells.tokens else _numbers(cells, left, wide, down)
    labels, right, below = named
    body += [labels, f'<g class="interp-cells" transform="translate({number(left)} 0)">', _empty(cells, wide, high)]
    body += [colours(_scaled(cells, end), wide, high), _hatch(cells, wide, high)]
    if min(wide, high) >= 5:
        body.append(_lines(count, wide, high))
    body.append(f'<rect class="interp-base" fill="none" width="{number(across)}" height="{number(down)}"/>')
    body.append(_dots(cells, end, wide, high))
    if ring:
        w, h = max(wide, 6), max(high, 6)
        x, y = (ring[1] + 0.5) * wide - w / 2, (ring[0] + 0.5) * high - h / 2
        body.append(
            f'<rect class="interp-ring" style="stroke-width:1.5" x="{number(x)}" y="{number(y)}" '
            f'width="{number(w)}" height="{number(h)}" rx="2"/>'
        )
    body.append("</g>")
    return Drawing(max(right, left + across + 2), down + below, "".join(body))


def lifted(values: Float) -> Float:
    """Return where on the scale of colours, −1 … 1, values in −1 … 1 are drawn.

    Examples
    --------
    >>> lifted(np.array([-1.0, 0.0, 0.1])).round(2).tolist()
    [-1.0, 0.0, 0.16]
    """
    known = np.clip(np.nan_to_num(values), -1, 1)
    return np.sign(known) * np.abs(known) ** _POWER


def margin(rows: Sequence[str]) -> int:
    """Return the room that the labels of rows take, in whole pixels.

    Examples
    --------
    >>> margin(["L0", "L11"])
    25
    """
    return math.ceil(max(columns(label) for label in rows) * 6.2 + 6)


def colours(values: Float, wide: float, high: float) -> str:
    """Return values in −1 … 1, ``[row, column]``, as painted rectangles: one path per colour, zero unpainted.

    Small values are lifted: see `lifted`.

    Examples
    --------
    >>> colours(np.array([[0.0, 1.0]]), 8, 8)[-29:]
    'high)" d="M8 0h8v8h-8z"/></g>'
    """
    level = np.rint(lifted(values) * _LEVELS).astype(int)
    paths: list[str] = []
    for step in np.unique(level[level != 0]).tolist():
        shape = "".join(
            f"M{number(x * wide)} {number(y * high)}h{number(wide)}v{number(high)}h-{number(wide)}z"
            for y, x in np.argwhere(level == step).tolist()
        )
        for css, opacity in theme.paint(step / _LEVELS):
            faint = f";fill-opacity:{number(opacity)}" if opacity < 1 else ""
            paths.append(f'<path style="fill:{css}{faint}" d="{shape}"/>' if opacity else "")
    # Smoothed edges would leave seams between neighbours.
    return f'<g shape-rendering="crispEdges">{"".join(paths)}</g>'


def scale(end: float, turned: bool = False) -> Drawing:
    """Return the bar of colours from −`end` to `end`; `turned` swaps the values.

    Examples
    --------
    >>> scale(0.5).height
    22
    """
    steps = np.linspace(-1, 1, _BAR // 3)[None]
    low, high = (f"+{end:g}", f"−{end:g}") if turned else (f"−{end:g}", f"+{end:g}")
    body = [
        colours(steps, 3, 8),
        f'<rect class="interp-base" fill="none" width="{_BAR}" height="8"/>',
        draw.text(0, 20, low),
        draw.text(_BAR / 2, 20, "0", anchor="middle"),
        draw.text(_BAR, 20, high, anchor="end"),
    ]
    return Drawing(_BAR, 22, "".join(body))


def words(lines: Sequence[str]) -> Drawing:
    """Return lines of small muted text.

    Examples
    --------
    >>> words(["recovery"]).height
    14
    """
    body = "".join(draw.text(0, 10 + 14 * n, line) for n, line in enumerate(lines))
    return Drawing(max((5.4 * columns(line) for line in lines), default=0), 14 * len(lines), body)


def stack(parts: Sequence[tuple[float, Drawing]]) -> Drawing:
    """Return drawings below each other, 10 pixels apart, each moved right by its number.

    Examples
    --------
    >>> stack([(0, Drawing(5, 5, "")), (2, Drawing(5, 5, ""))]).height
    20
    """
    y, body = 0, ""
    for x, part in parts:
        body += draw.group(part, x, y)
        y = math.ceil(y + part.height + 10)
    return Drawing(max(x + part.width for x, part in parts), y - 10, body)


def hatch(x: float, y: float, wide: float, high: float) -> str:
    """Return the path of three diagonal strokes over a rectangle.

    Examples
    --------
    >>> hatch(0, 0, 8, 8)[:10]
    'M0 8L8 0M0'
    """
    ends = ((0, 1, 1, 0), (0, 0.5, 0.5, 0), (0.5, 1, 1, 0.5))
    return "".join(
        f"M{number(x + a * wide)} {number(y + b * high)}L{number(x + c * wide)} {number(y + d * high)}"
        for a, b, c, d in ends
    )


def _size(count: Sequence[int], room: float) -> tuple[float, float]:
    wide, high = (min(_LARGEST, space / n) for space, n in ((room, count[1]), (_HIGH, count[0])))
    wide = min(wide, max(12.0, 2 * high))
    high = min(high, max(12.0, 2 * wide))
    # Whole and half pixels are sharpest.
    return max(0.5, math.floor(2 * wide) / 2), max(0.5, math.floor(2 * high) / 2)


def _joined(cells: Cells, block: int) -> Cells:
    count = len(cells.columns)
    starts = range(0, count, block)
    size = np.where(cells.done & np.isfinite(cells.values), np.abs(cells.values), -1.0)
    best = np.stack([start + size[:, start : start + block].argmax(1) for start in starts], 1)
    lost = np.logical_or.reduceat(cells.done & ~np.isfinite(cells.values), list(starts), 1)
    return replace(
        cells,
        values=np.where(lost, np.nan, np.take_along_axis(cells.values, best, 1)),
        done=np.logical_or.reduceat(cells.done, list(starts), 1),
        columns=[cells.columns[start] for start in starts],
        # A shared column is labelled by its first token, which need not be the one that is marked.
        marked=(),
    )


def _ticks(count: int, pitch: float, least: float) -> range:
    """Return which of `count` labels to write so that they stand at least `least` pixels apart."""
    return range(0, count, next((n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n * pitch >= least), 10**6))


def _numbers(cells: Cells, left: float, wide: float, down: float) -> tuple[str, float, float]:
    room = 7 + 6 * max(columns(label) for label in cells.columns)
    body = "".join(
        draw.text(left + (n + 0.5) * wide, down + 13, cells.columns[n], anchor="middle")
        for n in _ticks(len(cells.columns), wide, room * 0.8)
    )
    return body, 0.0, 17.0


def _turned(cells: Cells, left: float, wide: float, down: float, block: int) -> tuple[str, float, float]:
    """Return the labels of token columns, and the room that they need to the right and below."""
    gap = 11 if wide >= 11 else 15
    marked = sorted(set(cells.marked))[: len(cells.columns) // 4 + 1]
    free = [n for n in _ticks(len(cells.columns), wide, gap) if all(abs(n - m) * wide >= gap for m in marked)]
    shown = sorted({*free, *marked})
    numbered = len(shown) < len(cells.columns) or block > 1
    turn, right, below = math.radians(_TURN), 0.0, 0.0
    body: list[str] = []
    for n in shown:
        label = f"{n * block} {cells.columns[n]}" if numbered else cells.columns[n]
        length, at = columns(label) * _FONT * ADVANCE, left + (n + 0.5) * wide
        right = max(right, at + length * math.cos(turn) + 4)
        below = max(below, length * math.sin(turn) + 14)
        body.append(draw.text(at - 3, down + 10, label, "m", turn=_TURN))
        if n in marked:
            place = f"translate({number(at - 3)} {number(down + 10)}) rotate({_TURN})"
            body.append(f'<path style="stroke:var(--interp-fg)" transform="{place}" d="M0 3h{number(length)}"/>')
    return "".join(body), right, below


def _scaled(cells: Cells, end: float) -> Float:
    return np.where(cells.done & np.isfinite(cells.values), cells.values, 0.0) / end


def _empty(cells: Cells, wide: float, high: float) -> str:
    shape = "".join(
        f"M{number(x * wide)} {number(y * high)}h{number(wide)}v{number(high)}h-{number(wide)}z"
        for y, x in np.argwhere(~cells.done).tolist()
    )
    return f'<path class="interp-tile" d="{shape}"/>' if shape else ""


def _hatch(cells: Cells, wide: float, high: float) -> str:
    lost = np.argwhere(cells.done & ~np.isfinite(cells.values)).tolist()
    shape = "".join(hatch(x * wide, y * high, wide, high) for y, x in lost)
    return f'<path class="interp-hatch" d="{shape}"/>' if shape else ""


def _dots(cells: Cells, end: float, wide: float, high: float) -> str:
    beyond = cells.done & np.isfinite(cells.values) & (np.abs(cells.values) > end * (1 + 1e-9))
    radius = number(min(2.5, wide / 5, high / 5))
    return "".join(
        f'<circle style="fill:var(--interp-bg)" cx="{number((x + 0.5) * wide)}" cy="{number((y + 0.5) * high)}" '
        f'r="{radius}"/>'
        for y, x in np.argwhere(beyond).tolist()
    )


def _lines(count: Sequence[int], wide: float, high: float) -> str:
    down = "".join(f"M{number(n * wide)} 0V{number(count[0] * high)}" for n in range(1, count[1]))
    across = "".join(f"M0 {number(n * high)}H{number(count[1] * wide)}" for n in range(1, count[0]))
    return f'<path class="interp-cut" d="{down}{across}"/>'
