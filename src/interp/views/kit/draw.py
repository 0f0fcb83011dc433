"""Pieces of SVG that serve a page and a standalone picture alike.

They are styled by classes and ``var(--interp-…)``; a page resolves the variables by its theme, a standalone picture
gets them replaced. They use no ids: several pictures may share a page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import raster, theme
from interp.views.kit.text import columns, escape

SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'Noto Sans','DejaVu Sans',sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
# What a character of MONO advances, in parts of the font's size.
ADVANCE: float = theme.PALETTE["font"]["advance"]
MUTED, ACCENT, FG = (f"var(--interp-{name})" for name in ("muted", "accent", "fg"))

CSS = f"""
.interp-t{{font-family:{SANS};font-size:10px;fill:var(--interp-muted)}}
.interp-m{{font-family:{MONO};font-size:10px;fill:var(--interp-fg)}}
.interp-q{{fill:var(--interp-muted)}}
.interp-tile{{fill:var(--interp-empty)}}
.interp-mask{{fill:var(--interp-empty)}}
.interp-cut{{fill:none;stroke:var(--interp-bg);stroke-width:1}}
.interp-base{{stroke:var(--interp-line)}}
.interp-hatch{{fill:none;stroke:var(--interp-nan);stroke-width:1.2}}
.interp-ring{{fill:none;stroke:var(--interp-accent);stroke-width:2}}
"""


@dataclass(frozen=True)
class Drawing:
    """Markup of SVG elements that fill `width` × `height` from the origin."""

    width: float
    height: float
    body: str


def number(value: float) -> str:
    """Return a coordinate without needless digits.

    Examples
    --------
    >>> number(2.0), number(1 / 3)
    ('2', '0.33')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, content: str, kind: str = "t", anchor: str = "", turn: float = 0, more: str = "") -> str:
    """Return a ``<text>``; `kind` is the class, ``t`` (sans) or ``m`` (tokens), `turn` an angle in degrees.

    Examples
    --------
    >>> text(1, 2, "a<b")
    '<text class="interp-t" x="1" y="2">a&lt;b</text>'
    """
    place = (
        f'transform="translate({number(x)} {number(y)}) rotate({turn})"' if turn else f'x="{number(x)}" y="{number(y)}"'
    )
    end = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="interp-{kind}" {place}{end}{more}>{token(content)}</text>'


def token(label: str) -> str:
    """Return a label as the content of a ``<text>``.

    resvg draws a whole run in another font where one of its characters is missing, and many monospaced fonts lack the
    ``␣``: it is a run of its own.

    Examples
    --------
    >>> token("␣a")
    '<tspan>␣</tspan>a'
    """
    return escape(label).replace("␣", "<tspan>␣</tspan>")


def images(x: float, y: float, side: tuple[float, float], picture: NDArray[np.uint8], themes: Sequence[str]) -> str:
    """Return palette entries as an ``<image>`` per theme; with two themes, a page shows the one that is on.

    An enlarged picture has sharp pixels; a reduced one is smoothed, since whole rows would be lost.

    Examples
    --------
    >>> images(0, 0, (8, 8), np.zeros((2, 2), np.uint8), ["light"]).count("<image")
    1
    """
    width, height = side
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    sharp = width >= picture.shape[1]
    speed, rendering = ("optimizeSpeed", "pixelated") if sharp else ("optimizeQuality", "auto")
    return "".join(
        f'<image {place} preserveAspectRatio="none" image-rendering="{speed}" '
        f'style="image-rendering:{rendering}{f";display:var(--interp-show-{name})" if len(themes) > 1 else ""}" '
        f'href="{raster.data_uri(picture, name)}"/>'
        for name in themes
    )


def faint(opacity: float) -> str:
    """Return how a fill's opacity is written behind its colour.

    Examples
    --------
    >>> faint(0.5), faint(1)
    (';fill-opacity:0.5', '')
    """
    return f";fill-opacity:{number(opacity)}" if opacity < 1 else ""


def cells(picture: NDArray[np.uint8], cell: float, high: float | None = None) -> str:
    """Return palette entries as one path per step, equal neighbours in a row joined; squares unless `high` is given.

    Examples
    --------
    >>> cells(np.array([[0, 3, 3]], np.uint8), 10)
    '<path style="fill:var(--interp-s3)" d="M10 0h20v10h-20z"/>'
    """
    paths: dict[int, list[str]] = {}
    tall = high or cell
    for y, row in enumerate(picture):
        edges = [0, *(np.flatnonzero(np.diff(row.astype(int))) + 1).tolist(), len(row)]
        for start, stop in pairwise(edges):
            if 0 < (step := int(row[start])) <= theme.LEVELS:
                x, top, width = number(start * cell), number(y * tall), number((stop - start) * cell)
                paths.setdefault(step, []).append(f"M{x} {top}h{width}v{number(tall)}h-{width}z")
    return "".join(f'<path style="fill:var(--interp-s{step})" d="{"".join(paths[step])}"/>' for step in sorted(paths))


def inline(drawing: Drawing, label: str, scale: float = 1.0) -> str:
    """Return a drawing as an ``<svg>`` for a page, never wider than what it stands in.

    Parameters
    ----------
    scale
        How much larger it is than it was drawn, where there is room.

    Examples
    --------
    >>> "max-width" in inline(Drawing(10, 10, ""), "nothing")
    False
    """
    width, height = number(drawing.width), number(drawing.height)
    wide, high = number(scale * drawing.width), number(scale * drawing.height)
    return (
        f'<svg class="interp-svg" role="img" aria-label="{escape(label)}" width="{wide}" height="{high}" '
        f'viewBox="0 0 {width} {height}">{drawing.body}</svg>'
    )


def group(drawing: Drawing, x: float, y: float) -> str:
    """Return a drawing moved to a place.

    Examples
    --------
    >>> group(Drawing(1, 1, "<g/>"), 3, 4)
    '<g transform="translate(3 4)"><g/></g>'
    """
    return f'<g transform="translate({number(x)} {number(y)})">{drawing.body}</g>'


def row(parts: Sequence[Drawing], gap: float = 14) -> Drawing:
    """Return drawings beside each other.

    Examples
    --------
    >>> row([Drawing(5, 5, ""), Drawing(5, 9, "")], 2).width
    12.0
    """
    x, body = 0.0, ""
    for part in parts:
        body += group(part, x, 0)
        x += part.width + gap
    return Drawing(x - gap, max(part.height for part in parts), body)


def words(lines: Sequence[str]) -> Drawing:
    """Return lines of small muted text.

    Examples
    --------
    >>> words(["recovery"]).height
    14
    """
    body = "".join(text(0, 10 + 14 * n, line) for n, line in enumerate(lines))
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
        body += group(part, x, y)
        y = math.ceil(y + part.height + 10)
    return Drawing(max(x + part.width for x, part in parts), y - 10, body)
