"""Drawings with captions beside and below each other, and the footer under them, on a page and standing alone."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from interp.views import draw, frame
from interp.views.draw import Drawing
from interp.views.text import columns, escape, labels, tooltip

# A drawing with its caption, and such drawings below each other.
Block = tuple[str, Drawing]
Stack = Sequence[Block]
# (words, bold words, whether muted).
Piece = tuple[str, str, bool]

_GAP, _ROOM, _LEAST = 28, 1090, 560
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


def html(
    title: str,
    facts: str,
    stacks: Sequence[Stack],
    pieces: Sequence[Piece],
    notes: Sequence[str],
    plain: str,
    text: str = "",
) -> str:
    """Return a page's fragment: stacks beside each other where there is room, below them the footer and notes.

    `text` is markup that stands above them: see `prompt`.

    Examples
    --------
    >>> html("Lens", "", [[("a caption", Drawing(1, 1, ""))]], [], [], "").count("a caption")
    2
    """
    drawn = "".join(f"<div>{''.join(_captioned(n, block) for n, block in enumerate(stack))}</div>" for stack in stacks)
    foot = "".join(
        f"<span{_MUTED if muted else ''}>{escape(lead)}<b>{escape(bold)}</b></span>" for lead, bold, muted in pieces
    )
    return frame.html(
        title, facts, f'{text}<div class="interp-columns">{drawn}</div>', foot=foot, notes=notes, css=_CSS, plain=plain
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


def svg(
    title: str, facts: str, stacks: Sequence[Stack], pieces: Sequence[Piece], notes: Sequence[str], theme: str
) -> str:
    """Return the same as a standalone SVG document in one theme.

    Examples
    --------
    >>> svg("Lens", "", [[("a caption", Drawing(1, 1, ""))]], [], [], "light")[:4]
    '<svg'
    """
    body: list[str] = []
    x = top = wide = tall = 0
    for stack in stacks:
        room = math.ceil(max(max(drawing.width, 6 * columns(caption)) for caption, drawing in stack))
        if x and x + room > _ROOM:
            x, top = 0, tall + 20
        y = top
        for caption, drawing in stack:
            words = f'<tspan class="interp-q">{draw.token(caption)}</tspan>'
            body.append(f'<text class="interp-f" x="{x}" y="{y + 10}">{words}</text>')
            body.append(draw.group(drawing, x, y + 20))
            y += math.ceil(drawing.height) + 38
        wide, tall = max(wide, x + room), max(tall, y - 18)
        x += room + _GAP
    wide = max(wide, _LEAST, min(900, math.ceil(_FACT * columns(facts)) + 180))
    return frame.svg(title, facts, "".join(body), (wide, tall), theme, _lines(pieces, notes, wide))


def _lines(pieces: Sequence[Piece], notes: Sequence[str], wide: float) -> list[str]:
    lines: list[str] = []
    used = math.inf
    for lead, bold, muted in pieces:
        room = _PLAIN * columns(lead) + _BOLD * columns(bold) + 14
        if used + room > wide:
            lines.append("")
            used = 0.0
        lines[-1] += (
            f'<tspan{_MUTED if muted else ""} dx="{14 if used else 0}">{draw.token(lead)}</tspan>'
            f'<tspan class="interp-b">{draw.token(bold)}</tspan>'
        )
        used += room
    said = [line for note in notes for line in textwrap.wrap(frame.visible_facts(note, 600), int(wide / _PLAIN))]
    return [*lines, *(f'<tspan class="interp-q">{escape(line)}</tspan>' for line in said)]
