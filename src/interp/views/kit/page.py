"""Drawings with captions beside and below each other, and the footer under them, on a page and standing alone."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from interp.views.kit import draw, frame, theme
from interp.views.kit.draw import Drawing
from interp.views.kit.text import columns, escape

# A drawing with its caption, and such drawings below each other.
Block = tuple[str, Drawing]
Stack = Sequence[Block]
# What drawings show, and those drawings, which wrap.
Group = tuple[str, Sequence[Drawing]]
# (words, bold words, whether muted).
Piece = tuple[str, str, bool]

R = TypeVar("R", contravariant=True)

_GAP, _ROOM, LEAST = 28, 1090, 560
_BESIDE, _BELOW = 11, 18  # drawings of a group
# What a character of the footer takes, in pixels, plain and bold; fonts differ, and this is a wide one.
_PLAIN, _BOLD = 6.9, 7.8
_FACT = 6.3  # of the line beside the title
_MUTED = ' class="interp-q"'
_CSS = """
.interp-frame .interp-text{line-height:1.75;max-height:120px;overflow:auto;margin-bottom:10px}
.interp-frame .interp-held{outline:1.5px solid var(--interp-accent);outline-offset:0}
.interp-frame .interp-group+.interp-group{margin-top:14px}
.interp-frame .interp-progress{height:2px;margin:-2px 0 10px;background:var(--interp-line);border-radius:1px}
.interp-frame .interp-progress div{height:2px;background:var(--interp-accent);border-radius:1px}
@media print{.interp-frame .interp-text{max-height:none}}
"""


@dataclass(frozen=True)
class Picture:
    """What a page and a standalone drawing show of a result, in plain text and drawings.

    Attributes
    ----------
    title, facts, notes
        The frame's words.
    stacks
        Beside each other where there is room.
    foot
        The footer, piece by piece.
    page
        The stacks as a page has them, where its pointer finds more in them than a drawing can hold.
    text
        Markup that stands above them on a page: see `coloured_text.spans`.
    groups
        In place of stacks: drawings without captions, as many beside each other as there is room for.
    columns, css
        In place of stacks, what a page has in its columns, as markup, and its own rules.
    progress
        How much of the result there is, where it is not whole.
    gap, least
        Between stacks, and the smallest width of a drawing, in CSS pixels.
    view
        The live view that takes the picture's place: see `frame.html`.
    """

    title: str
    facts: str
    stacks: Sequence[Stack]
    foot: Sequence[Piece]
    notes: Sequence[str] = ()
    page: Sequence[Stack] | None = None
    text: str = ""
    groups: Sequence[Group] = ()
    columns: str = ""
    css: str = ""
    progress: float | None = None
    gap: int = _GAP
    least: int = LEAST
    view: str = ""


class Drawn(Protocol[R]):
    """What `Result._svg` names."""

    def __call__(self, result: R, theme: str = "light") -> str: ...


def pictures(describe: Callable[[R], Picture]) -> tuple[Callable[[R], str], Drawn[R]]:
    """Return what `Result._html` and `Result._svg` name, from what says what a result's picture holds.

    Examples
    --------
    >>> page, drawing = pictures(lambda words: Picture(words, "", [[("", Drawing(1, 1, ""))]], []))
    >>> page("Lens")[:24], drawing("Lens", theme="dark")[:4]
    ('<div class="interp-frame', '<svg')
    """

    def drawn(result: R, theme: str = "light") -> str:
        return svg(describe(result), theme)

    return lambda result: html(describe(result)), drawn


def html(picture: Picture) -> str:
    """Return a page's fragment: stacks beside each other where there is room, below them the footer and notes.

    Examples
    --------
    >>> html(Picture("Lens", "", [[("a caption", Drawing(1, 1, ""))]], [])).count("<div>")
    1
    """
    stacks = picture.stacks if picture.page is None else picture.page
    drawn = picture.columns or "".join(f"<div>{captioned(stack)}</div>" for stack in stacks)
    body = f'<div class="interp-columns">{drawn}</div>' if drawn else _wrapping(picture.groups)
    if picture.progress is not None:
        share = f"{100 * picture.progress:.2f}"
        body = f'<div class="interp-progress"><div style="width:{share}%"></div></div>{body}'
    return frame.html(
        picture.title,
        picture.facts,
        picture.text + body,
        foot=said(picture.foot),
        notes=picture.notes,
        css=_CSS + picture.css,
        plain=svg(picture, theme.AUTO),
        view=picture.view,
    )


def said(pieces: Sequence[Piece]) -> str:
    """Return a footer's pieces as markup for a page.

    Examples
    --------
    >>> said([("effect ", "+0.5", False)])
    '<span>effect <b>+0.5</b></span>'
    """
    return "".join(
        f"<span{_MUTED if muted else ''}>{escape(lead)}{f'<b>{escape(bold)}</b>' if bold else ''}</span>"
        for lead, bold, muted in pieces
    )


def captioned(stack: Stack) -> str:
    """Return drawings below each other with their captions, as markup for a page.

    Examples
    --------
    >>> captioned([("a caption", Drawing(1, 1, ""))])[:28]
    '<div class="interp-caption">'
    """
    spaced = ("", *([' style="margin-top:14px"'] * (len(stack) - 1)))
    return "".join(
        f'<div class="interp-caption"{space}><span>{escape(caption)}</span></div>{draw.inline(drawing, caption)}'
        for space, (caption, drawing) in zip(spaced, stack, strict=True)
    )


def _wrapping(groups: Sequence[Group]) -> str:
    return "".join(
        '<div class="interp-columns interp-group">'
        + "".join(f"<div>{draw.inline(part, f'{name} {n + 1}')}</div>" for n, part in enumerate(parts))
        + "</div>"
        for name, parts in groups
        if parts
    )


def svg(picture: Picture, name: str) -> str:
    """Return the same as a standalone SVG document in the theme `name`.

    Raises
    ------
    InputError
        There is no such theme.

    Examples
    --------
    >>> svg(Picture("Lens", "", [[("a caption", Drawing(1, 1, ""))]], []), "light")[:4]
    '<svg'
    """
    drawn = _stacked(picture) if picture.stacks else _flowing(picture.groups, max(picture.least, room(picture.facts)))
    wide, body = max(drawn.width, picture.least, room(picture.facts)), drawn.body
    if picture.progress is not None:
        ends = (("line", wide), ("accent", picture.progress * wide))
        body += "".join(
            f'<path style="stroke:var(--interp-{colour});stroke-width:2" d="M0 -9H{draw.number(end)}"/>'
            for colour, end in ends
        )
    lines = footer(picture.foot, picture.notes, wide)
    return frame.svg(picture.title, picture.facts, body, (wide, drawn.height), name, lines)


def width(stack: Stack) -> int:
    """Return how wide drawings below each other are with their captions.

    Examples
    --------
    >>> width([("a caption", Drawing(10, 1, ""))])
    54
    """
    return math.ceil(max((max(drawing.width, 6 * columns(caption)) for caption, drawing in stack), default=0))


def _stacked(picture: Picture) -> Drawing:
    """Return stacks beside each other, going on below where there is no more room."""
    body: list[str] = []
    x = top = wide = tall = 0
    for stack in filter(None, picture.stacks):
        across = width(stack)
        if x and x + across > _ROOM:
            x, top = 0, tall + 20
        y = top
        for caption, drawing in stack:
            words = f'<tspan class="interp-q">{draw.token(caption)}</tspan>'
            body.append(f'<text class="interp-f" x="{x}" y="{y + 10}">{words}</text>')
            body.append(draw.group(drawing, x, y + 20))
            y += math.ceil(drawing.height) + 38
        wide, tall = max(wide, x + across), max(tall, y - 18)
        x += across + picture.gap
    return Drawing(wide, tall, "".join(body))


def _flowing(groups: Sequence[Group], least: float) -> Drawing:
    """Return groups of drawings below each other, at least `least` pixels wide."""
    y, wide, body = 0.0, least, ""
    for _, parts in groups:
        if parts:
            flowed = _flow(parts)
            body += draw.group(flowed, 0, y)
            y += flowed.height + _BELOW
            wide = max(wide, flowed.width)
    return Drawing(wide, max(0.0, y - _BELOW), body)


def _flow(drawings: Sequence[Drawing], width: float = _ROOM) -> Drawing:
    """Return drawings beside each other, going on below where `width` is full."""
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
        y += max(part.height for part in row) + _BELOW
    return Drawing(wide, max(0.0, y - _BELOW), body)


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


def room(facts: str) -> int:
    """Return how wide a drawing is that shows the line beside its title, or most of it, in pixels.

    Examples
    --------
    >>> room("a model")
    225
    """
    return min(_ROOM, math.ceil(_FACT * columns(facts)) + 180)


def footer(pieces: Sequence[Piece], notes: Sequence[str], wide: float) -> list[str]:
    """Return a footer's pieces and notes as the lines of a drawing `wide` pixels wide: see `frame.svg`.

    Examples
    --------
    >>> len(footer([("effect ", "+0.5", False)], ["a note"], 400))
    2
    """
    lines: list[str] = []
    used = math.inf
    for lead, bold, muted in _pieces(pieces, int(wide / _PLAIN)):
        room = _PLAIN * columns(lead) + _BOLD * columns(bold) + 14
        if used + room > wide:
            lines.append("")
            used = 0.0
        lines[-1] += (
            f'<tspan{_MUTED if muted else ""} dx="{14 if used else 0}">{draw.token(lead)}</tspan>'
            f'<tspan class="interp-b">{draw.token(bold)}</tspan>'
        )
        used += room
    below = [line for note in notes for line in textwrap.wrap(frame.visible_facts(note, 600), int(wide / _PLAIN))]
    return [*lines, *(f'<tspan class="interp-q">{escape(line)}</tspan>' for line in below)]


def _pieces(pieces: Sequence[Piece], most: int) -> Iterator[Piece]:
    """Yield the pieces, those that are longer than a line in several."""
    for lead, bold, muted in pieces:
        *lines, last = textwrap.wrap(lead, most, drop_whitespace=False) or [""]
        yield from ((line.strip(), "", muted) for line in lines)
        yield last.lstrip() if lines else last, bold, muted
