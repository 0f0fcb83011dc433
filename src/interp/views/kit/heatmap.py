"""Signed values as cells: how strong a colour is, the heatmap, and the bar that is its scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import draw, theme
from interp.views.kit.cells import Size, hatched, lines, number_labels, outline, outlined, rectangles, row_labels, ticks
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.text import columns

# How finely a value is told apart in a colour, each way from zero.
_LEVELS: int = theme.PALETTE["signed"]["levels"]
# Less of a lift than for weights: many small effects of both signs are noise.
_POWER: float = theme.PALETTE["signed"]["power"]
# The room for cells beside and above each other, and the largest a cell gets, in CSS pixels.
_GEOMETRY: dict[str, int] = theme.PALETTE["heat"]
_WIDE, _NAMED, _HIGH, _LARGEST = (_GEOMETRY[name] for name in ("width", "tokens", "height", "cell"))
_TURN, _BAR = _GEOMETRY["turn"], _GEOMETRY["bar"]
_FONT: int = theme.PALETTE["font"]["size"]
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)

# The lifted size from which on text on a colour that diverges has the better contrast in the opposite lightness.
_INK_TURNS: float = theme.PALETTE["signed"]["ink"]

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


def heat(cells: Cells, end: float, ring: tuple[int, int] | None = None) -> Drawing:
    """Return cells in colours that reach their strongest at `end`; cells beyond it have a dot, `ring` is outlined.

    Many columns share cells: a cell then shows the strongest of them.

    Examples
    --------
    >>> heat(Cells(np.eye(2), np.ones((2, 2), bool), ["L0", "L1"], ["0", "1"]), 1.0).height > 0
    True
    """
    block = cells.block
    if block > 1:
        cells = _pooled(cells, block)
        ring = (ring[0], ring[1] // block) if ring else None
    rows, count = cells.values.shape
    wide, high = size = _size((rows, count), _NAMED if cells.tokens else _WIDE)
    left = margin(cells.rows)
    across, down = count * wide, rows * high
    known = cells.done & np.isfinite(cells.values)
    empty, beyond = rectangles(~cells.done, size), known & (np.abs(cells.values) > end * (1 + 1e-9))
    right = left + across + 2
    if cells.tokens:
        columns_, far, below = _token_labels(cells, left, wide, down, block)
        right, below = max(right, far), below + 4
    else:
        columns_, below = number_labels(cells.columns, left, wide, down + 13), 17.0
    body = [
        row_labels(cells.rows, left - 6, high, top=8.0),
        columns_,
        f'<g class="interp-cells" transform="translate({number(left)} 0)">',
        f'<path class="interp-tile" d="{empty}"/>' if empty else "",
        colours(np.where(known, cells.values, 0.0) / end, size),
        hatched(cells.done & ~known, size),
        lines((rows, count), size) if min(size) >= 5 else "",
        outline(across, down),
        _dots(beyond, size),
        outlined(ring, size) if ring else "",
        "</g>",
    ]
    return Drawing(right, down + below, "".join(body))


def lifted(values: Float) -> Float:
    """Return where on the scale of colours, −1 … 1, values in −1 … 1 are drawn.

    Examples
    --------
    >>> lifted(np.array([-1.0, 0.0, 0.1])).round(2).tolist()
    [-1.0, 0.0, 0.16]
    """
    known = np.clip(np.nan_to_num(values), -1, 1)
    return np.sign(known) * np.abs(known) ** _POWER


def fills(value: float, signed: bool) -> tuple[Sequence[tuple[str, float]], str]:
    """Return what `value` is painted with, ``(CSS colour, opacity)`` over each other, and the colour of text on it.

    Parameters
    ----------
    value
        In −1 … 1 for colours that diverge from zero, 0 … 1 for those of weights; what is not finite is not coloured.
    signed
        Which of the two.

    Examples
    --------
    >>> fills(1.0, False), fills(0.0, True)
    (((('var(--interp-s32)', 1.0),), 'var(--interp-on-high)'), ((), 'var(--interp-fg)'))
    """
    if not math.isfinite(value):
        return (), "var(--interp-fg)"
    if not signed:
        step = int(theme.level(np.array(value)))
        return ((f"var(--interp-s{step})", 1.0),) if step else (), theme.ink(step)
    level = float(lifted(np.array(value)))
    return theme.paint(level), f"var(--interp-{'on-high' if abs(level) > _INK_TURNS else 'fg'})"


def margin(rows: Sequence[str]) -> int:
    """Return the room that the labels of rows take, in whole pixels.

    Examples
    --------
    >>> margin(["L0", "L11"])
    25
    """
    return math.ceil(max(columns(label) for label in rows) * 6.2 + 6)


def turned_labels(
    labels: Sequence[tuple[float, str]], y: float, marked: Sequence[bool] = ()
) -> tuple[str, float, float]:
    """Return long labels below columns, each at the middle of its own, and how far they go to the right and down.

    Parameters
    ----------
    labels
        ``(x, label)``.
    y
        Where they begin.
    marked
        Which are underlined.

    Examples
    --------
    >>> [round(end) for end in turned_labels([(0, "Mary")], 10)[1:]]
    [18, 30]
    """
    turn, right, bottom = math.radians(_TURN), 0.0, 0.0
    body: list[str] = []
    for n, (x, label) in enumerate(labels):
        length = columns(label) * _FONT * ADVANCE
        right, bottom = max(right, x + length * math.cos(turn) + 4), max(bottom, y + length * math.sin(turn))
        body.append(draw.text(x - 3, y, label, "m", turn=_TURN))
        if n < len(marked) and marked[n]:
            place = f"translate({number(x - 3)} {number(y)}) rotate({_TURN})"
            body.append(f'<path style="stroke:var(--interp-fg)" transform="{place}" d="M0 3h{number(length)}"/>')
    return "".join(body), right, bottom


def colours(values: Float, size: Size) -> str:
    """Return values in −1 … 1, ``[row, column]``, as painted rectangles: one path per colour, zero unpainted.

    Small values are lifted: see `lifted`.

    Examples
    --------
    >>> colours(np.array([[0.0, 1.0]]), (8, 8))[-29:]
    'high)" d="M8 0h8v8h-8z"/></g>'
    """
    level = np.rint(lifted(values) * _LEVELS).astype(int)
    paths: list[str] = []
    for step in np.unique(level[level != 0]).tolist():
        shape = rectangles(level == step, size)
        for css, opacity in theme.paint(step / _LEVELS):
            paths.append(f'<path style="fill:{css}{draw.faint(opacity)}" d="{shape}"/>' if opacity else "")
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
        colours(steps, (3, 8)),
        outline(_BAR, 8),
        draw.text(0, 20, low),
        draw.text(_BAR / 2, 20, "0", anchor="middle"),
        draw.text(_BAR, 20, high, anchor="end"),
    ]
    return Drawing(_BAR, 22, "".join(body))


def _size(count: Sequence[int], room: float) -> tuple[float, float]:
    wide, high = (min(_LARGEST, space / n) for space, n in ((room, count[1]), (_HIGH, count[0])))
    wide = min(wide, max(12.0, 2 * high))
    high = min(high, max(12.0, 2 * wide))
    # Whole and half pixels are sharpest.
    return max(0.5, math.floor(2 * wide) / 2), max(0.5, math.floor(2 * high) / 2)


def _pooled(cells: Cells, block: int) -> Cells:
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


def _token_labels(cells: Cells, left: float, wide: float, down: float, block: int) -> tuple[str, float, float]:
    """Return the labels of token columns, how far they go to the right, and the room that they need below."""
    gap = 11 if wide >= 11 else 15
    marked = sorted(set(cells.marked))[: len(cells.columns) // 4 + 1]
    free = [n for n in ticks(len(cells.columns), wide, gap) if all(abs(n - m) * wide >= gap for m in marked)]
    shown = sorted({*free, *marked})
    numbered = len(shown) < len(cells.columns) or block > 1
    named = [f"{n * block} {cells.columns[n]}" if numbered else cells.columns[n] for n in shown]
    placed = [(left + (n + 0.5) * wide, name) for n, name in zip(shown, named, strict=True)]
    body, right, bottom = turned_labels(placed, down + 10, [n in marked for n in shown])
    return body, right, bottom - down


def _dots(beyond: NDArray[np.bool_], size: Size) -> str:
    wide, high = size
    radius = number(min(2.5, wide / 5, high / 5))
    return "".join(
        f'<circle style="fill:var(--interp-bg)" cx="{number((x + 0.5) * wide)}" cy="{number((y + 0.5) * high)}" '
        f'r="{radius}"/>'
        for y, x in np.argwhere(beyond).tolist()
    )
