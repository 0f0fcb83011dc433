"""Small maps side by side, one per score, and short lists below them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import draw, frame, heatmap, page, theme
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.page import Drawn, Piece, R
from interp.views.kit.text import columns, escape

_ROOM = 300  # of a map, in CSS pixels: the height that its rows take at most
_LARGEST, _SMALLEST = 22.0, 3.0
_TOP, _GAP = 44, 18
_BESIDE = 11
_LINE = 16
WIDTH = 1090  # that drawings beside each other may take

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Map:
    """One score.

    Attributes
    ----------
    title, captions
        Its name, and its numbers in words, up to two lines.
    values
        ``float64 [row, column]``; what is not finite is left out.
    rows, columns
        Labels.
    end
        Where the scale of colours ends.
    signed
        Whether values go both ways from zero, or from zero up.
    marks
        (row, column) → the number of the class whose dot it gets.
    """

    title: str
    captions: Sequence[str]
    values: Float
    rows: Sequence[str]
    columns: Sequence[str]
    end: float = 1.0
    signed: bool = False
    marks: Mapping[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])


def draw_map(shown: Map, side: float) -> Drawing:
    """Return a map whose cells are squares of `side`.

    Examples
    --------
    >>> draw_map(Map("a", [""], np.eye(2), ["L0", "L1"], ["0", "1"]), 10).height > 20
    True
    """
    count = shown.values.shape
    left = heatmap.margin(shown.rows)
    across, down = count[1] * side, count[0] * side
    body = [
        f'<text class="interp-t" style="font-size:11.5px;font-weight:600;fill:var(--interp-fg)" x="{left}" y="11">'
        f"{escape(shown.title)}</text>",
        *(draw.text(left, 24 + 12 * n, line) for n, line in enumerate(shown.captions)),
        f'<g transform="translate({left} {_TOP})">',
    ]
    values = np.where(np.isfinite(shown.values), shown.values, 0.0) / shown.end
    painted = heatmap.colours(values, side, side) if shown.signed else draw.cells(theme.level(values), side)
    body.append(f'<g shape-rendering="crispEdges">{painted}</g>')
    if side >= 6:
        lines = "".join(f"M{number(n * side)} 0V{number(down)}" for n in range(1, count[1]))
        lines += "".join(f"M0 {number(n * side)}H{number(across)}" for n in range(1, count[0]))
        body.append(f'<path class="interp-cut" d="{lines}"/>')
    body.append(f'<rect class="interp-base" fill="none" width="{number(across)}" height="{number(down)}"/>')
    radius = number(max(1.2, min(3.0, side / 4)))
    for (row, column), kind in sorted(shown.marks.items()):
        x, y = number((column + 0.5) * side), number((row + 0.5) * side)
        body.append(
            f'<circle cx="{x}" cy="{y}" r="{radius}" '
            f'style="fill:var(--interp-k{kind});stroke:var(--interp-bg);stroke-width:1"/>'
        )
    body += [
        draw.text(-6, (row + 0.5) * side + 3.5, shown.rows[row], anchor="end") for row in every(count[0], side, 11)
    ]
    room = 5 + 6 * max(len(label) for label in shown.columns)
    body += [
        draw.text((n + 0.5) * side, down + 12, shown.columns[n], anchor="middle") for n in every(count[1], side, room)
    ]
    body.append("</g>")
    wide = max(across, 6.2 * columns(shown.title), *(5.3 * columns(line) for line in shown.captions))
    return Drawing(left + wide + 2, _TOP + down + 16, "".join(body))


def side_of(shape: tuple[int, int], count: int) -> float:
    """Return the side of the cells of `count` maps of a shape, so that they fill the room in few rows.

    Examples
    --------
    >>> side_of((30, 9), 8), side_of((4, 4), 8)
    (10.0, 22.0)
    """
    across = (WIDTH / min(count, 4) - 70) / shape[1]
    side = max(_SMALLEST, min(_LARGEST, _ROOM / shape[0], across))
    return math.floor(2 * side) / 2


def every(count: int, pitch: float, least: float) -> range:
    """Return which of `count` labels to write so that they stand at least `least` pixels apart.

    Examples
    --------
    >>> list(every(4, 5, 11))
    [0]
    """
    return range(0, count, next((n for n in (1, 2, 5, 10, 20, 50, 100) if n * pitch >= least), 10**6))


def listing(title: str, lines: Sequence[tuple[str, str]], kind: int | None = None) -> Drawing:
    """Return a titled list: a name in front, its numbers behind; `kind` is the class whose dot stands at the title.

    Examples
    --------
    >>> listing("induction", [("L18H6", "0.89")]).height
    40
    """
    x = 0 if kind is None else 12
    body = [
        "" if kind is None else f'<circle cx="4" cy="7" r="3.5" style="fill:var(--interp-k{kind})"/>',
        f'<text class="interp-t" style="font-size:11.5px;font-weight:600;fill:var(--interp-fg)" x="{x}" y="11">'
        f"{escape(title)}</text>",
    ]
    name = max((columns(label) for label, _ in lines), default=0) * 11 * ADVANCE + 10
    for n, (label, value) in enumerate(lines):
        y = 28 + _LINE * n
        body.append(draw.text(0, y, label, "m", more=' style="font-size:11px"'))
        body.append(draw.text(name if value else 0, y, value, more=' style="font-size:11px"'))
    wide = max(
        x + 7.4 * columns(title), *(name + 6.0 * columns(value) if value else name for _, value in lines or [("", "")])
    )
    return Drawing(wide, 24 + _LINE * len(lines), "".join(body))


def flow(drawings: Sequence[Drawing], width: float = WIDTH) -> Drawing:
    """Return drawings beside each other, going on below where `width` is full.

    Examples
    --------
    >>> flow([Drawing(60, 10, ""), Drawing(60, 10, "")], 100).height
    38.0
    """
    rows = _rows(drawings, width, len(drawings))
    if len(rows) > 1:  # as many in each row, that the last is not nearly empty
        rows = _rows(drawings, width, math.ceil(len(drawings) / len(rows)))
    y, wide, body = 0.0, 0.0, ""
    for row in rows:
        x = 0.0
        for part in row:
            body += draw.group(part, x, y)
            x += math.ceil(part.width) + _BESIDE
        wide = max(wide, x - _BESIDE)
        y += max(part.height for part in row) + _GAP
    return Drawing(wide, max(0.0, y - _GAP), body)


def _rows(drawings: Sequence[Drawing], width: float, most: int) -> list[list[Drawing]]:
    rows: list[list[Drawing]] = []
    used = 0.0
    for part in drawings:
        taken = math.ceil(part.width) + _BESIDE
        if not rows or len(rows[-1]) == most or used + taken - _BESIDE > width:
            rows.append([])
            used = 0.0
        rows[-1].append(part)
        used += taken
    return rows


def markup(groups: Groups) -> str:
    """Return groups of drawings, each with its description, as markup in which they wrap.

    Examples
    --------
    >>> markup([("maps", [Drawing(1, 1, "")])]).count("<svg")
    1
    """
    rows = [
        '<div class="interp-columns interp-group">'
        + "".join(f"<div>{draw.inline(part, f'{name} {n + 1}')}</div>" for n, part in enumerate(parts))
        + "</div>"
        for name, parts in groups
        if parts
    ]
    return "".join(rows)


_CSS = ".interp-frame .interp-group+.interp-group{margin-top:14px}"

Groups = Sequence[tuple[str, Sequence[Drawing]]]


@dataclass(frozen=True)
class Sheet:
    """What a page and a standalone drawing of maps and lists show of a result.

    Attributes
    ----------
    title, facts, notes
        The frame's words.
    groups
        Of drawings that wrap, each with its description.
    foot
        The footer, piece by piece.
    """

    title: str
    facts: str
    groups: Groups
    foot: Sequence[Piece]
    notes: Sequence[str] = ()


def pictures(describe: Callable[[R], Sheet]) -> tuple[Callable[[R], str], Drawn[R]]:
    """Return what `Result._html` and `Result._svg` name, from what says what a result's sheet holds.

    Examples
    --------
    >>> page, drawing = pictures(lambda words: Sheet(words, "", [("maps", [Drawing(1, 1, "")])], []))
    >>> page("Heads")[:26], drawing("Heads", theme="dark")[:4]
    ('<div class="interp-frame">', '<svg')
    """

    def html(result: R) -> str:
        sheet = describe(result)
        foot, plain = page.said(sheet.foot), _svg(sheet, theme.AUTO)
        body = markup(sheet.groups)
        return frame.html(sheet.title, sheet.facts, body, foot=foot, notes=sheet.notes, css=_CSS, plain=plain)

    def svg(result: R, theme: str = "light") -> str:
        return _svg(describe(result), theme)

    return html, svg


def _svg(sheet: Sheet, name: str) -> str:
    body = still(sheet.groups, max(page.LEAST, page.room(sheet.facts)))
    lines = page.footer(sheet.foot, sheet.notes, body.width)
    return frame.svg(sheet.title, sheet.facts, body.body, (body.width, body.height), name, lines)


def still(groups: Groups, least: float = 0.0) -> Drawing:
    """Return the same groups as one drawing, at least `least` pixels wide.

    Examples
    --------
    >>> still([("maps", [Drawing(1, 1, "")]), ("lists", [Drawing(1, 2, "")])]).height
    21.0
    """
    y, wide, body = 0.0, least, ""
    for _, parts in groups:
        if parts:
            flowed = flow(parts)
            body += draw.group(flowed, 0, y)
            y += flowed.height + _GAP
            wide = max(wide, flowed.width)
    return Drawing(wide, max(0.0, y - _GAP), body)
