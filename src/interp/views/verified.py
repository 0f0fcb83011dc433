"""The picture of a Verified: the verdict, values then against now, and what changed, field by field."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from interp.results.verified import moved
from interp.views.kit import draw, frame, page
from interp.views.kit.draw import ACCENT, MUTED, Drawing, number
from interp.views.kit.text import columns, escape, minus

if TYPE_CHECKING:
    from interp.results.verified import Verified

_SIDE, _LEFT, _BELOW = 210, 46, 30
_MOST = 4000  # points that are drawn: the ones that differ most
_ROWS, _PITCH = 14, 19
_NAME, _BAR = 24, 90
_LINE = 58  # characters of a line of the verdict
_LEADS = frozenset({"holds", "changed", "cannot be verified"})
_MARK = {"holds": "✓ holds", "changed": "≠ changed", "unverified": "? not verified"}


def _picture(result: Verified) -> page.Picture:
    names = [one for one in dict.fromkeys(result.models) if one]
    mark, said = _verdict(result)
    drawn = _stacks(result)
    words = draw.stack([(0, _lines([mark, *textwrap.wrap(said, _LINE)]))])
    whole: list[page.Stack] = [[("", words), *(drawn[0] if drawn else [])], *drawn[1:]]
    return page.Picture(
        f"Verified: {frame.visible_facts(result.of, 40)}" if result.of else "Verified",
        " → ".join(frame.visible_facts(one, 60) for one in names),
        whole,
        [(frame.visible_facts(one, 120), "", True) for one in result.facts()],
        result.notes,
        page=drawn,
        text=f'<div class="interp-verdict"><b>{escape(mark)}</b> {escape(said)}</div>',
        css=_CSS,
    )


_CSS = """
.interp-frame .interp-verdict{margin:0 0 12px;line-height:1.5;overflow-wrap:anywhere}
.interp-frame .interp-verdict b{margin-right:8px}
"""


def _verdict(result: Verified) -> tuple[str, str]:
    """Return the verdict in a word or two with its mark, and the rest of it."""
    said = frame.visible_facts(result.verdict, 600)
    lead, _, rest = said.partition(": ")
    return _MARK[result.state], minus(rest if lead in _LEADS else said)


def _lines(lines: list[str]) -> Drawing:
    """Return the verdict's lines, the first of them bold."""
    body = "".join(
        draw.text(0, 12 + 17 * n, line, "f", more=' style="font-weight:600"' * (n == 0)) for n, line in enumerate(lines)
    )
    return Drawing(max(6.3 * columns(line) for line in lines), 17 * len(lines) + 2, body)


def _stacks(result: Verified) -> list[page.Stack]:
    found: list[page.Stack] = []
    if len(result.values_then) > 1:
        found.append([(f"{frame.visible_facts(result.measure, 40)}, each value", _scatter(result))])
    if np.nan_to_num(result.largest, nan=1.0).any():
        found.append([("fields that are not equal", _rows(result))])
    return found


def _scatter(result: Verified) -> Drawing:
    """Return values then (across) against now (up); on the line they are the same."""
    x, y = result.values_then, result.values_now
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    order = np.argsort(-np.abs(y - x), kind="stable")[:_MOST]
    low, high = (float(one) for one in (np.minimum(x, y).min(initial=0), np.maximum(x, y).max(initial=0)))
    unit = _SIDE / ((high - low) or 1.0)
    ends = (_short(low), _short(high))
    body = [
        f'<rect class="interp-tile" x="{_LEFT}" y="0" width="{_SIDE}" height="{_SIDE}"/>',
        f'<path style="stroke:{MUTED};stroke-dasharray:3 3" d="M{_LEFT} {_SIDE}L{_LEFT + _SIDE} 0"/>',
        draw.text(_LEFT - 6, 9, ends[1], anchor="end"),
        draw.text(_LEFT - 6, _SIDE, ends[0], anchor="end"),
        draw.text(_LEFT - 6, _SIDE / 2, "now", anchor="end"),
        draw.text(_LEFT, _SIDE + 14, ends[0]),
        draw.text(_LEFT + _SIDE, _SIDE + 14, ends[1], anchor="end"),
        draw.text(_LEFT + _SIDE / 2, _SIDE + 14, "then", anchor="middle"),
    ]
    at = np.stack([(x - low) * unit, (high - y) * unit], axis=1)[order].round(1)
    body += [
        f'<circle style="fill:{ACCENT};fill-opacity:0.7" cx="{number(_LEFT + across)}" cy="{number(up)}" r="2.5"/>'
        for across, up in np.unique(at, axis=0).tolist()
    ]
    return Drawing(_LEFT + _SIDE + 4, _SIDE + 20, "".join(body))


def _rows(result: Verified) -> Drawing:
    """Return a row per field that is not equal, those first of which most changed."""
    share = result.changed / np.maximum(result.counts, 1)
    order = [n for n in np.argsort(-share, kind="stable").tolist() if result.largest[n] != 0]
    shown, equal = order[:_ROWS], len(result.names) - len(order)
    more = [f"{len(order) - len(shown)} more in to_frame()"] * (len(order) > len(shown))
    more += [f"{equal} field{'s' * (equal != 1)} equal"] * (equal > 0)
    names = [frame.visible_facts(result.names[n], _NAME) for n in shown]
    left = max(columns(name) for name in names) * 6.1 + 14
    places = (left, left + _BAR + 10, left + _BAR + 96, left + _BAR + 182)
    body = [
        draw.text(at, 10, word)
        for at, word in zip(places, ("changed", "values", "by at most", "then → now"), strict=True)
    ]
    for row, (n, name) in enumerate(zip(shown, names, strict=True)):
        y = 28 + _PITCH * row
        body.append(draw.text(0, y, name, "m"))
        body.append(f'<rect class="interp-tile" x="{number(left)}" y="{y - 8}" width="{_BAR}" height="9" rx="1.5"/>')
        if result.changed[n]:
            wide = number(max(1.5, _BAR * float(share[n])))
            place = f'x="{number(left)}" y="{y - 8}" width="{wide}" height="9" rx="1.5"'
            body.append(f'<rect style="fill:{ACCENT}" {place}/>')
        words = (f"{result.changed[n]:,} of {result.counts[n]:,}", *_difference(result, n))
        body += [draw.text(at, y, word, "m") for at, word in zip(places[1:], words, strict=True)]
    if more:
        body.append(draw.text(0, 28 + _PITCH * len(shown), "; ".join(more)))
    return Drawing(places[-1] + 120, 28 + _PITCH * (len(shown) + bool(more)) - 12, "".join(body))


def _difference(result: Verified, n: int) -> tuple[str, str]:
    """Return how far a field's values are apart at most, and the two that are."""
    largest = float(result.largest[n])
    if math.isnan(largest):
        return "words", ""
    return _short(largest), moved(float(result.then[n]), float(result.now[n]))


def _short(value: float) -> str:
    return minus(f"{value:.3g}")


html, svg = page.pictures(_picture)
