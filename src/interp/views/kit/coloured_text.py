"""Text whose tokens are coloured by a value, with the value below each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import draw, heatmap, theme
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.text import columns, escape, labels, tooltip

_FONT, _SMALL = 12.0, 9.5
_HIGH, _LINE, _GAP = 18, 40, 3
_SHOWN = 24  # columns of a token
_INK_TURNS = 0.72
_FAINT = 0.02  # of the scale: less has no number


def text(
    tokens: Sequence[str],
    values: NDArray[np.float64],
    end: float,
    *,
    width: float = 620,
    signed: bool = True,
    ring: int | None = None,
) -> Drawing:
    """Return tokens in lines of `width`, coloured by their values, with each value that is not faint below its token.

    Parameters
    ----------
    tokens
        As the model has them.
    values
        ``float64 [token]``; what is not finite is hatched.
    end
        Where the scale of colours ends.
    signed
        Whether colours diverge from zero; else they are those of weights.
    ring
        A token to outline.

    Examples
    --------
    >>> text(["a", " b"], np.array([0.5, -1.0]), 1.0).height
    40
    """
    body: list[str] = []
    x, y = 0.0, 0.0
    for n, (name, value) in enumerate(zip(labels(tokens, _SHOWN), values.tolist(), strict=True)):
        said = brief(value) if abs(value) >= _FAINT * end else ""
        wide = max(columns(name) * _FONT * ADVANCE + 6, columns(said) * 5.6 + 4)
        if x and x + wide > width:
            x, y = 0.0, y + _LINE
        fills, ink = _paint(value / end, signed)
        place = f'x="{number(x)}" y="{number(y)}" width="{number(wide)}" height="{_HIGH}" rx="3"'
        body += [f'<rect {place} style="fill:{css}{_faint(opacity)}"/>' for css, opacity in fills]
        if not math.isfinite(value):
            body.append(f'<path class="interp-hatch" d="{heatmap.hatch(x, y, wide, _HIGH)}"/>')
        if n == ring:
            body.append(f'<rect class="interp-ring" style="fill:none;stroke-width:1.5" {place}/>')
        middle = x + wide / 2
        body.append(draw.text(middle, y + 13, name, "m", "middle", more=f' style="font-size:{_FONT:g}px;fill:{ink}"'))
        body.append(f'<path class="interp-base" d="M{number(x + 1)} {number(y + _HIGH + 0.5)}h{number(wide - 2)}"/>')
        if said:
            body.append(draw.text(middle, y + _HIGH + 12, said, anchor="middle", more=f' style="font-size:{_SMALL}px"'))
        x += wide + _GAP
        if tokens[n].endswith("\n") and n < len(tokens) - 1:
            x, y = 0.0, y + _LINE
    return Drawing(width, y + _LINE, "".join(body))


_WORD = "display:inline-flex;flex-direction:column;align-items:center;margin:0 3px 4px 0;max-width:100%"


def html(
    tokens: Sequence[str], values: NDArray[np.float64], end: float, *, signed: bool = True, ring: int | None = None
) -> str:
    """Return the same as markup for a page, whose lines are as wide as it is; every token can be had in full.

    Examples
    --------
    >>> html(["a"], np.array([1.0]), 1.0).count("+1.00")
    1
    """
    spans: list[str] = []
    for n, (name, value) in enumerate(zip(labels(tokens, _SHOWN), values.tolist(), strict=True)):
        fills, ink = _paint(value / end, signed)
        said = brief(value) if abs(value) >= _FAINT * end else "" if math.isfinite(value) else "not a number"
        held = " interp-held" if n == ring else ""
        spans.append(
            f'<span style="{_WORD}"><span class="interp-w{held}" style="margin:0;padding:1px 3px;color:{ink}'
            f'{_background(fills)}"{tooltip(tokens[n], name)}><bdi>{escape(name)}</bdi></span>'
            f'<span class="interp-q" style="font:{_SMALL}px/1.3 {draw.SANS}">{said or "&nbsp;"}</span></span>'
            + ("<br>" if tokens[n].endswith("\n") and n < len(tokens) - 1 else "<wbr>")
        )
    return f'<div class="interp-text interp-code" style="max-height:300px;line-height:1.4">{"".join(spans)}</div>'


def _background(fills: Sequence[tuple[str, float]]) -> str:
    """Return the coats of `_paint` as one background."""
    if not fills:
        return ""
    (below, faint), (top, part) = (fills[0], fills[1] if len(fills) > 1 else fills[0])
    if len(fills) == 1:
        top, below, part = top, "transparent", faint
    return f";background:color-mix(in srgb,{top} {number(100 * part)}%,{below})"


def brief(value: float) -> str:
    """Return a value in at most five columns.

    Examples
    --------
    >>> brief(0.5), brief(-12.34), brief(0.004)
    ('+.50', '−12.3', '+.004')
    """
    if not math.isfinite(value):
        return ""
    size = abs(value)
    form = ".3f" if size < 0.01 else ".2f" if size < 10 else ".1f" if size < 100 else ".0f" if size < 1e4 else ".0e"
    said = format(size, form).replace("e+0", "e")
    return ("+" if value >= 0 else "−") + (said[1:] if said.startswith("0.") else said)


def _paint(value: float, signed: bool) -> tuple[Sequence[tuple[str, float]], str]:
    """Return the coats of a value in −1 … 1, and the colour of text on them."""
    if not math.isfinite(value):
        return (), "var(--interp-fg)"
    if not signed:
        step = int(theme.level(np.array(value)))
        return ((f"var(--interp-s{step})", 1.0),) if step else (), theme.ink(step)
    lifted = float(heatmap.lifted(np.array(value)))
    return theme.paint(lifted), f"var(--interp-{'on-high' if abs(lifted) > _INK_TURNS else 'fg'})"


def _faint(opacity: float) -> str:
    return f";fill-opacity:{number(opacity)}" if opacity < 1 else ""
