"""Captioned drawings beside each other in the frame, with a footer of words and numbers: as a page, as a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from interp.views import draw, frame
from interp.views.draw import Drawing
from interp.views.text import columns, escape

Block = tuple[str, Drawing]
# Words, bold words, whether all of it is muted.
Piece = tuple[str, str, bool]

_GAP = 24
_LETTER, _BOLD = 6.3, 7.2


def html(title: str, facts: str, blocks: Sequence[Block], foot: Sequence[Piece], notes: Sequence[str]) -> str:
    """Return the blocks as a self-contained HTML fragment; they wrap where there is no room.

    Examples
    --------
    >>> "Paths" in html("Paths", "", [("grid", Drawing(10, 10, ""))], [], [])
    True
    """
    body = "".join(
        f'<div style="width:{draw.number(max(drawing.width, _LETTER * columns(caption)))}px">'
        f'<div class="interp-caption">{escape(caption)}</div>{draw.inline(drawing, caption)}</div>'
        for caption, drawing in blocks
    )
    lines = "".join(f"<span{_muted(muted)}>{escape(lead)}<b>{escape(bold)}</b></span>" for lead, bold, muted in foot)
    plain = svg(title, facts, blocks, foot, notes, "light")
    content = f'<div class="interp-columns">{body}</div>'
    return frame.html(title, facts, content, foot=lines, notes=notes, plain=plain)


def svg(
    title: str, facts: str, blocks: Sequence[Block], foot: Sequence[Piece], notes: Sequence[str], theme: str
) -> str:
    """Return the blocks as a standalone SVG document in one theme.

    Examples
    --------
    >>> svg("Paths", "", [("grid", Drawing(10, 10, ""))], [], [], "dark")[:4]
    '<svg'
    """
    body: list[str] = []
    wide = tall = 0
    for caption, drawing in blocks:
        x = wide + _GAP * bool(wide)
        words = f'<tspan class="interp-q">{draw.token(caption)}</tspan>'
        body.append(f'<text class="interp-f" x="{x}" y="10">{words}</text>{draw.group(drawing, x, 20)}')
        wide = x + math.ceil(max(drawing.width, 6 * columns(caption)))
        tall = max(tall, math.ceil(drawing.height) + 20)
    wide = max(wide, min(900, math.ceil(_LETTER * columns(facts)) + 180))
    said = [frame.visible_facts(note, 600) for note in notes]
    wrapped = [line for note in said for line in textwrap.wrap(note, max(24, int(wide / _LETTER)))]
    lines = [*_lines(foot, wide), *(f'<tspan class="interp-q">{escape(line)}</tspan>' for line in wrapped)]
    return frame.svg(title, facts, "".join(body), (wide, tall), theme, lines)


def row(parts: Sequence[Drawing], gap: float = 14) -> Drawing:
    """Return drawings beside each other.

    Examples
    --------
    >>> row([Drawing(5, 5, ""), Drawing(5, 9, "")], 2).width
    12.0
    """
    x, body = 0.0, ""
    for part in parts:
        body += draw.group(part, x, 0)
        x += part.width + gap
    return Drawing(x - gap, max(part.height for part in parts), body)


def _lines(foot: Sequence[Piece], wide: float) -> list[str]:
    lines: list[str] = []
    used = math.inf
    for lead, bold, muted in foot:
        room = _LETTER * columns(lead) + _BOLD * columns(bold) + 14
        if used + room > wide:
            lines.append("")
            used = 0.0
        lines[-1] += (
            f'<tspan{_muted(muted)} dx="{14 if used else 0}">{draw.token(lead)}</tspan>'
            f'<tspan class="interp-b">{draw.token(bold)}</tspan>'
        )
        used += room
    return lines


def _muted(muted: bool) -> str:
    return ' class="interp-q"' if muted else ""
