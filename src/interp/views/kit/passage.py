"""Running text of tokens, each on the colour of its value, broken into lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from interp.views.kit import draw, heatmap, theme
from interp.views.kit.draw import Drawing, number
from interp.views.kit.text import columns, escape, labels, visible

_FONT, _LINE, _TOKEN, _FULL = 12, 20, 40, 120_000
_INK_TURNS = 0.72


def passage(
    tokens: Sequence[str],
    values: Sequence[float],
    wide: float,
    *,
    signed: bool = False,
    muted: int = 0,
    ring: int | None = None,
    titles: Sequence[str] | None = None,
) -> Drawing:
    """Return tokens in lines of at most `wide` pixels.

    Parameters
    ----------
    tokens
        Token strings; a line also ends after one that ends in a newline.
    values
        In 0 … 1 for sequential colours, −1 … 1 for diverging ones (`signed`); what is not finite is not coloured.
    muted
        How many tokens at the beginning are pale and not coloured.
    ring
        The token to outline.
    titles
        What the pointer says of each token, behind what is cut of it; ``None`` where there is no pointer.

    Examples
    --------
    >>> passage(["a", " b"], [0.0, 1.0], 300).height
    20
    """
    advance = _FONT * draw.ADVANCE
    names = labels(tokens, min(_TOKEN, max(4, int(wide / advance) - 1)))
    body: list[str] = []
    x = y = 0.0
    across = 0.0
    for n, (name, value) in enumerate(zip(names, values, strict=True)):
        room = columns(name) * advance
        if x and x + room > wide:
            x, y = 0.0, y + _LINE
        box = f'x="{number(x)}" y="{number(y + 1.5)}" width="{number(room)}" height="17" rx="3"'
        fill, ink = ("", "var(--interp-muted)") if n < muted else _coat(value, signed)
        body += [f'<rect {box} style="{css}"/>' for css in fill] if fill else []
        if n == ring:
            body.append(f'<rect class="interp-ring" style="stroke-width:1.5" {box}/>')
        title = "" if titles is None else _title(tokens[n], name, titles[n] if titles else "")
        body.append(
            f'<text class="interp-m" x="{number(x)}" y="{number(y + 14)}" style="font-size:{_FONT}px;fill:{ink}">'
            f"{title}{draw.token(name)}</text>"
        )
        if room > 2:
            body.append(f'<path class="interp-base" d="M{number(x + 1)} {number(y + 18.5)}h{number(room - 2)}"/>')
        x += room + 2
        across = max(across, x)
        if tokens[n].endswith("\n") and n < len(names) - 1:
            x, y = 0.0, y + _LINE
    return Drawing(max(1.0, across), y + _LINE, "".join(body))


def _title(token: str, name: str, said: str) -> str:
    full = visible(token, _FULL)
    words = " ".join([full] * (full != name) + [said] * bool(said))
    return f"<title>{escape(words)}</title>" if words else ""


def _coat(value: float, signed: bool) -> tuple[list[str], str]:
    """Return the styles of a token's background and the colour of its text."""
    if not math.isfinite(value):
        return [], "var(--interp-fg)"
    if not signed:
        step = int(theme.level(np.array(min(1.0, max(0.0, value)))))
        return ([f"fill:var(--interp-s{step})"] if step else []), theme.ink(step)
    level = float(heatmap.lifted(np.array(value)))
    coats = [f"fill:{css};fill-opacity:{number(opacity)}" for css, opacity in theme.paint(level) if opacity]
    return coats, f"var(--interp-{'on-high' if abs(level) > _INK_TURNS else 'fg'})"
