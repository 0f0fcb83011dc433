"""Shares as dots on one axis from 0 to 1, each with its interval as a bar: labels at the left, numbers at the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from interp.views.kit import draw
from interp.views.kit.draw import Drawing, number
from interp.views.kit.text import columns

_ROW, _GAP = 24, 14
_WORD, _BOLD = 6.2, 7.2  # px that a character of a label takes, at its size
_STRONG = ' style="font-size:11.5px;fill:var(--interp-fg){}"'


@dataclass(frozen=True)
class Dot:
    """A share.

    Attributes
    ----------
    value
        What is not finite is not drawn.
    low, high
        The ends of its interval; NaN for none.
    strong
        Whether it is what the picture is about.
    hollow
        Whether it is what was before.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    strong: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    """A labelled row of dots.

    Attributes
    ----------
    label, said
        What stands at the left and at the right.
    dots
        The last is drawn over the others.
    instead
        What stands on the axis where there is no dot.
    bold
        Whether the words are.
    """

    label: str
    said: str
    dots: tuple[Dot, ...] = ()
    instead: str = ""
    bold: bool = False


def shares(rows: Sequence[Row], *, track: float = 300, widest: int = 46) -> Drawing:
    """Return rows of dots on one axis, `track` pixels long, with lines at 0, 1/2 and 1.

    A label that has more than `widest` characters is cut.

    Examples
    --------
    >>> shares([Row("the claim", "0.90", (Dot(0.9, 0.8, 1.0, strong=True),))]).height
    44
    """
    labels = [row.label if columns(row.label) <= widest else f"{row.label[: widest - 1]}…" for row in rows]
    sizes = [_BOLD if row.bold else _WORD for row in rows]
    left = math.ceil(max(columns(label) * size for label, size in zip(labels, sizes, strict=True))) + _GAP
    right = math.ceil(max(columns(row.said) * size for row, size in zip(rows, sizes, strict=True))) + _GAP
    high = len(rows) * _ROW
    body = [
        f'<path class="interp-base" style="stroke-opacity:{1 if end in (0, 1) else 0.6}" '
        f'd="M{number(left + end * track)} 0V{high + 4}"/>'
        for end in (0, 0.5, 1)
    ]
    for n, (row, label) in enumerate(zip(rows, labels, strict=True)):
        middle = (n + 0.5) * _ROW
        style = _STRONG.format(";font-weight:600" if row.bold else "")
        body.append(draw.text(0, middle + 4, label, more=style))
        if row.instead:
            body.append(draw.text(left + 8, middle + 4, row.instead))
        body += [_dot(dot, left, middle, track) for dot in row.dots if math.isfinite(dot.value)]
        body.append(draw.text(left + track + _GAP, middle + 4, row.said, more=style))
    body += [
        draw.text(left, high + 16, "0", anchor="middle"),
        draw.text(left + track / 2, high + 16, "½", anchor="middle"),
        draw.text(left + track, high + 16, "1", anchor="middle"),
    ]
    return Drawing(left + track + right, high + 20, "".join(body))


def _dot(dot: Dot, left: float, middle: float, track: float) -> str:
    x = left + dot.value * track
    colour = "accent" if dot.strong else "muted"
    bar = ""
    if math.isfinite(dot.low) and math.isfinite(dot.high):
        wide = max(1.0, (dot.high - dot.low) * track)
        bar = (
            f'<rect style="fill:var(--interp-{colour});fill-opacity:0.28" x="{number(left + dot.low * track)}" '
            f'y="{number(middle - 3)}" width="{number(wide)}" height="6" rx="3"/>'
        )
    fill = "var(--interp-bg)" if dot.hollow else f"var(--interp-{colour})"
    return (
        f'{bar}<circle cx="{number(x)}" cy="{number(middle)}" r="{5 if dot.strong else 4}" '
        f'style="fill:{fill};stroke:var(--interp-{colour});stroke-width:1.5"/>'
    )
