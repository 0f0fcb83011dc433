"""Drawings with captions beside and below each other, and the footer under them, on a page and standing alone."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from interp.views.kit import draw, frame, theme
from interp.views.kit.draw import Drawing
from interp.views.kit.text import columns, escape, labels, tooltip

# A drawing with its caption, and such drawings below each other.
Block = tuple[str, Drawing]
Stack = Sequence[Block]
# (words, bold words, whether muted).
Piece = tuple[str, str, bool]

R = TypeVar("R", contravariant=True)

_GAP, _ROOM, LEAST = 28, 1090, 560
# What a character of the footer takes, in pixels, plain and bold; fonts differ, and this is a wide one.
_PLAIN, _BOLD = 6.9, 7.8
_FACT = 6.3  # of the line beside the title
_MUTED = ' class="interp-q"'
_TOKEN = 40
_CSS = """
.interp-frame .interp-text{line-height:1.75;max-height:120px;overflow:auto;margin-bottom:10px}
.interp-frame .interp-held{outline:1.5px solid var(--interp-accent);outline-offset:0}
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
        Markup that stands above them on a page: see `prompt`.
    """

    title: str
    facts: str
    stacks: Sequence[Stack]
    foot: Sequence[Piece]
    notes: Sequence[str] = ()
    page: Sequence[Stack] | None = None
    text: str = ""


class Drawn(Protocol[R]):
    """What `Result._svg` names."""

    def __call__(self, result: R, theme: str = "light") -> str: ...


def pictures(describe: Callable[[R], Picture]) -> tuple[Callable[[R], str], Drawn[R]]:
    """Return what `Result._html` and `Result._svg` name, from what says what a result's picture holds.

    Examples
    --------
    >>> page, drawing = pictures(lambda words: Picture(words, "", [[("", Drawing(1, 1, ""))]], []))
    >>> page("Lens")[:26], drawing("Lens", theme="dark")[:4]
    ('<div class="interp-frame">', '<svg')
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
    drawn = "".join(f"<div>{''.join(_captioned(n, block) for n, block in enumerate(stack))}</div>" for stack in stacks)
    return frame.html(
        picture.title,
        picture.facts,
        f'{picture.text}<div class="interp-columns">{drawn}</div>',
        foot=said(picture.foot),
        notes=picture.notes,
        css=_CSS,
        plain=svg(picture, theme.AUTO),
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


def prompt(tokens: Sequence[str], held: int) -> str:
    """Return a prompt's tokens in full, as markup for a page, the one at `held` outlined.

    Examples
    --------
    >>> prompt(["a", "b"], 1).count("interp-held")
    1
    """
    spans: list[str] = []
    for n, (token, name) in enumerate(zip(tokens, labels(tokens, _TOKEN), strict=True)):
        kind = "interp-w interp-held" if n == held else "interp-w"
        spans.append(f'<span class="{kind}"{tooltip(token, name)}><bdi>{escape(name)}</bdi></span><wbr>')
    return f'<div class="interp-text interp-code">{"".join(spans)}</div>'


def _captioned(number: int, block: Block) -> str:
    caption, drawing = block
    apart = ' style="margin-top:14px"' if number else ""
    return f'<div class="interp-caption"{apart}>{escape(caption)}</div>{draw.inline(drawing, caption)}'


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
    body: list[str] = []
    x = top = wide = tall = 0
    for stack in picture.stacks:
        across = math.ceil(max(max(drawing.width, 6 * columns(caption)) for caption, drawing in stack))
        if x and x + across > _ROOM:
            x, top = 0, tall + 20
        y = top
        for caption, drawing in stack:
            words = f'<tspan class="interp-q">{draw.token(caption)}</tspan>'
            body.append(f'<text class="interp-f" x="{x}" y="{y + 10}">{words}</text>')
            body.append(draw.group(drawing, x, y + 20))
            y += math.ceil(drawing.height) + 38
        wide, tall = max(wide, x + across), max(tall, y - 18)
        x += across + _GAP
    wide = max(wide, LEAST, room(picture.facts))
    lines = footer(picture.foot, picture.notes, wide)
    return frame.svg(picture.title, picture.facts, "".join(body), (wide, tall), name, lines)


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
