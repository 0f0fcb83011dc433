"""Running text of tokens, each on the colour of its value, with the value below it where that is wanted."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import cells, draw, heatmap
from interp.views.kit.draw import Drawing, number
from interp.views.kit.text import columns, escape, labels, tooltip, visible

_FONT, _SMALL = 12, 9.5
_TOKEN, _NUMBERED = 40, 24  # columns of a token; of one with a number below
_FULL = 120_000
_FAINT = 0.02  # of the scale: less has no number
_WORD = "display:inline-flex;flex-direction:column;align-items:center;margin:0 3px 4px 0;max-width:100%"


def text(
    tokens: Sequence[str],
    values: Sequence[float],
    wide: float,
    *,
    signed: bool = False,
    muted: int = 0,
    ring: int | Collection[int] | None = None,
    titles: Sequence[str] | None = None,
    numbers: Sequence[str] | None = None,
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
        The token to outline, or several.
    titles
        What the pointer says of each token, behind what is cut of it; ``None`` where there is no pointer.
    numbers
        What stands below each token, in smaller type: see `brief_numbers`. What is not finite is hatched then.

    Examples
    --------
    >>> text(["a", " b"], [0.0, 1.0], 300).height, text(["a", " b"], [0.0, 1.0], 300, numbers=["", "+1.00"]).height
    (20.0, 40.0)
    """
    below = numbers is not None
    rings = ring if isinstance(ring, Collection) else (ring,)
    advance = _FONT * draw.ADVANCE
    top, high, pitch, gap, pad = (0.0, 18, 40, 3, 6) if below else (1.5, 17, 20, 2, 0)
    names = labels(tokens, _NUMBERED if below else min(_TOKEN, max(4, int(wide / advance) - 1)))
    body: list[str] = []
    x = y = across = 0.0
    for n, (name, value) in enumerate(zip(names, values, strict=True)):
        said = numbers[n] if numbers is not None else ""
        room = max(columns(name) * advance + pad, columns(said) * 5.6 + 4 if said else 0.0)
        if x and x + room > wide:
            x, y = 0.0, y + pitch
        fills, ink = ((), "var(--interp-muted)") if n < muted else heatmap.fills(value, signed)
        box = f'x="{number(x)}" y="{number(y + top)}" width="{number(room)}" height="{high}" rx="3"'
        body += [f'<rect {box} style="fill:{css}{draw.faint(opacity)}"/>' for css, opacity in fills if opacity]
        if below and not math.isfinite(value):
            body.append(cells.hatch(x, y, room, high))
        if n in rings:
            body.append(f'<rect class="interp-ring" style="stroke-width:1.5" {box}/>')
        title = "" if titles is None else _title(tokens[n], name, titles[n] if titles else "")
        at, end = (x + room / 2, ' text-anchor="middle"') if below else (x, "")
        body.append(
            f'<text class="interp-m" x="{number(at)}" y="{number(y + high - 5 + 2 * (not below))}"{end} '
            f'style="font-size:{_FONT}px;fill:{ink}">{title}{draw.token(name)}</text>'
        )
        if room > 2:
            body.append(f'<path class="interp-base" d="M{number(x + 1)} {number(y + 18.5)}h{number(room - 2)}"/>')
        if said:
            body.append(draw.text(x + room / 2, y + 30, said, anchor="middle", more=f' style="font-size:{_SMALL}px"'))
        x += room + gap
        across = max(across, x)
        if tokens[n].endswith("\n") and n < len(names) - 1:
            x, y = 0.0, y + pitch
    return Drawing(wide if below else max(1.0, across), y + pitch, "".join(body))


def line(tokens: Sequence[str], values: Sequence[float], peak: int, wide: float, *, share: float = 0.6) -> Drawing:
    """Return tokens in one line of `wide` pixels, the token `peak` outlined with its middle at `share` of it.

    What has no room on either side is left out, token by token.

    Examples
    --------
    >>> line(["a", "b", "c"], [0.0, 1.0, 0.0], 1, 60).body.count("<text")
    3
    """
    advance = _FONT * draw.ADVANCE
    names = labels(tokens, max(4, int(wide / advance / 2)))
    rooms = [columns(name) * advance for name in names]
    start = share * wide - rooms[peak] / 2
    starts = [start + sum(rooms[peak:n]) + 2 * (n - peak) for n in range(peak, len(names))]
    starts = [start - sum(rooms[n:peak]) - 2 * (peak - n) for n in range(peak)] + starts
    body: list[str] = []
    for n, (name, value) in enumerate(zip(names, values, strict=True)):
        if n != peak and not (starts[n] >= 0 and starts[n] + rooms[n] <= wide):
            continue
        fills, ink = heatmap.fills(value, signed=False)
        box = f'x="{number(starts[n])}" y="1.5" width="{number(rooms[n])}" height="17" rx="3"'
        body += [f'<rect {box} style="fill:{css}{draw.faint(opacity)}"/>' for css, opacity in fills if opacity]
        if n == peak:
            body.append(f'<rect class="interp-ring" style="stroke-width:1.5" {box}/>')
        style = f' style="font-size:{_FONT}px;fill:{ink}"'
        body.append(draw.text(starts[n], 14, name, "m", more=style))
    return Drawing(wide, 20, "".join(body))


def centred(tokens: Sequence[str], values: Sequence[float], peak: int) -> str:
    """Return the same as markup for a page, as wide as there is room; see ``layout/feature.css`` for its rules.

    Examples
    --------
    >>> centred(["a", "b", "c"], [0.0, 1.0, 0.0], 1).count("interp-peak")
    1
    """

    def shown(first: int, last: int) -> str:
        return "".join(
            f'<span class="interp-w{" interp-peak" * (n == peak)}"{_painted(values[n])}{tooltip(tokens[n], names[n])}>'
            f"<bdi>{escape(names[n])}</bdi></span>"
            for n in range(first, last)
        )

    names = labels(tokens, _TOKEN)
    return (
        f'<span class="interp-centred interp-code"><span>{shown(0, peak)}</span>{shown(peak, peak + 1)}'
        f"<span>{shown(peak + 1, len(tokens))}</span></span>"
    )


def _painted(value: float) -> str:
    fills, ink = heatmap.fills(value, signed=False)
    return f' style="background:{fills[0][0]};color:{ink}"' if fills else ""


def spans(tokens: Sequence[str], values: Sequence[float] | None = None, *, ring: int | None = None) -> str:
    """Return tokens as markup for a page, where they wrap; every token can be had in full.

    Parameters
    ----------
    values
        In 0 … 1; without them no token is coloured, and a newline breaks no line.
    ring
        The token to outline.

    Examples
    --------
    >>> spans(["a", "b"], ring=1).count("interp-held")
    1
    """
    body: list[str] = []
    for n, (token, name) in enumerate(zip(tokens, labels(tokens, _TOKEN), strict=True)):
        fills, ink = ((), "") if values is None else heatmap.fills(values[n], signed=False)
        style = f' style="background:{fills[0][0]};color:{ink}"' if fills else ""
        broken = values is not None and token.endswith("\n") and n < len(tokens) - 1
        body.append(
            f'<span class="interp-w{" interp-held" * (n == ring)}"{style}{tooltip(token, name)}>'
            f"<bdi>{escape(name)}</bdi></span>{'<br>' if broken else '<wbr>'}"
        )
    return f'<div class="interp-text interp-code">{"".join(body)}</div>'


def numbered(
    tokens: Sequence[str], values: NDArray[np.float64], end: float, *, signed: bool = True, ring: int | None = None
) -> str:
    """Return tokens with their values below them as markup for a page; `end` is where the scale of colours ends.

    Examples
    --------
    >>> numbered(["a"], np.array([1.0]), 1.0).count("+1.00")
    1
    """
    body: list[str] = []
    names, numbers = labels(tokens, _NUMBERED), brief_numbers(values, end)
    for n, (name, said, value) in enumerate(zip(names, numbers, values.tolist(), strict=True)):
        fills, ink = heatmap.fills(value / end, signed)
        said = said if math.isfinite(value) else "not a number"
        held = " interp-held" if n == ring else ""
        body.append(
            f'<span style="{_WORD}"><span class="interp-w{held}" style="margin:0;padding:1px 3px;color:{ink}'
            f'{_background(fills)}"{tooltip(tokens[n], name)}><bdi>{escape(name)}</bdi></span>'
            f'<span class="interp-q" style="font:{_SMALL}px/1.3 {draw.SANS}">{said or "&nbsp;"}</span></span>'
            + ("<br>" if tokens[n].endswith("\n") and n < len(tokens) - 1 else "<wbr>")
        )
    return f'<div class="interp-text interp-code" style="max-height:300px;line-height:1.4">{"".join(body)}</div>'


def brief_numbers(values: NDArray[np.float64], end: float) -> list[str]:
    """Return values in at most five columns each, nothing for what is faint on a scale that ends at `end`.

    Examples
    --------
    >>> brief_numbers(np.array([0.5, -12.34, 0.004, np.nan]), 1.0)
    ['+.50', '−12.3', '', '']
    """
    return [_brief(value) if abs(value) >= _FAINT * end else "" for value in values.tolist()]


def _brief(value: float) -> str:
    if not math.isfinite(value):
        return ""
    size = abs(value)
    form = ".3f" if size < 0.01 else ".2f" if size < 10 else ".1f" if size < 100 else ".0f" if size < 1e4 else ".0e"
    said = format(size, form).replace("e+0", "e")
    return ("+" if value >= 0 else "−") + (said[1:] if said.startswith("0.") else said)


def _background(fills: Sequence[tuple[str, float]]) -> str:
    """Return colours that lie over each other as one background."""
    if not fills:
        return ""
    (below, faint), (top, part) = (fills[0], fills[1] if len(fills) > 1 else fills[0])
    if len(fills) == 1:
        top, below, part = top, "transparent", faint
    return f";background:color-mix(in srgb,{top} {number(100 * part)}%,{below})"


def _title(token: str, name: str, said: str) -> str:
    full = visible(token, _FULL)
    words = " ".join([full] * (full != name) + [said] * bool(said))
    return f"<title>{escape(words)}</title>" if words else ""
