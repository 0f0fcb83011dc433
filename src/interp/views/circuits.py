"""Pictures of a CircuitResult: what a head's circuit does to which tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.views import diverging, draw, frame, maps
from interp.views.diverging import Cells, signed
from interp.views.draw import ADVANCE, Drawing, number
from interp.views.text import columns, escape, head_label, labels, visible

if TYPE_CHECKING:
    from interp.methods.circuits import CircuitResult, Listed

_LABEL, _FONT, _LINE, _BLOCK = 14, 11, 17, 8
_WIDE = 566  # of a table: a page 600 pixels wide shows it at its own size


def html(result: CircuitResult) -> str:
    """Return the circuit among the given tokens, each token's strongest entries, and singular directions.

    Examples
    --------
    >>> html(result)[:26]  # doctest: +SKIP
    '<div class="interp-frame">'
    """
    foot = f'<span class="interp-q">{escape(_foot(result))}</span>'
    body = maps.page(_groups(result))
    return frame.html(_title(result), _facts(result), body, foot=foot, notes=result.notes, css=maps.CSS)


def svg(result: CircuitResult, theme: str = "light") -> str:
    """Return the same as a standalone SVG document.

    Examples
    --------
    >>> svg(result)[:4]  # doctest: +SKIP
    '<svg'
    """
    lines = [_foot(result), *result.notes]
    body = maps.still([(name, [part]) for name, parts in _groups(result) for part in parts], lines)
    foot = [f'<tspan class="interp-q">{escape(line)}</tspan>' for line in lines]
    return frame.svg(_title(result), _facts(result), body.body, (body.width, body.height), theme, foot)


def _title(result: CircuitResult) -> str:
    layer, _, head = result.head.partition(".")
    return f"{result.kind.upper()} circuit of {head_label(int(layer), int(head))}"


def _facts(result: CircuitResult) -> str:
    score = "copying" if result.kind == "ov" else "matching"
    offset = [f"query {result.offset} after the key"] if result.offset else []
    return frame.facts(result, f"{score} {signed(result.positivity)}", *offset)


def _foot(result: CircuitResult) -> str:
    if result.kind == "ov":
        return "rows: the token attended to; ▲ tokens whose logits it raises, ▼ lowers, against the mean logit"
    return "rows: the query token; ▲ key tokens that it looks for, ▼ that it avoids: scores before scaling"


def _groups(result: CircuitResult) -> list[tuple[str, list[Drawing]]]:
    first: list[Drawing] = []
    if result.matrix is not None and len(result.rows) > 1:
        names = labels([row.token for row in result.rows], _LABEL)
        cells = Cells(result.matrix, result.matrix == result.matrix, names, names, tokens=True)
        end = diverging.limit(result.matrix, 1e-3)
        drawn = diverging.heat(cells, end)
        first.append(diverging.stack([(0, drawn), (diverging.margin(names), diverging.scale(end))]))
    first.append(_table([(visible(row.token, _LABEL), [("▲", row.top), ("▼", row.bottom)]) for row in result.rows]))
    source, target = ("source", "target") if result.kind == "ov" else ("query", "key")
    directions = [
        (
            f"σ{n} {value.value:,.4g}",
            [
                (f"{source} ▲", value.source_top),
                (f"{source} ▼", value.source_bottom),
                (f"{target} ▲", value.target_top),
                (f"{target} ▼", value.target_bottom),
            ],
        )
        for n, value in enumerate(result.directions)
    ]
    second = [_table(directions)] if directions else []
    return [("circuit", first), ("singular directions", second)]


def _table(rows: Sequence[tuple[str, Sequence[tuple[str, Listed]]]]) -> Drawing:
    """Return rows of tokens with their values: a name in front, a list from a new line on, wrapped."""
    advance = _FONT * ADVANCE
    left = max(columns(name) for name, _ in rows) * advance + 12
    lead = max(columns(side) for _, lines in rows for side, _ in lines) * 6.2 + 8
    y, wide = 0.0, 0.0
    body: list[str] = []
    edges: list[float] = []
    for name, lines in rows:
        y += 12
        body.append(draw.text(0, y, name, "m", more=f' style="font-size:{_FONT}px;font-weight:600"'))
        for n, (side, listed) in enumerate(lines):
            y += _LINE * bool(n)
            body.append(draw.text(left, y, side, more=' style="font-size:11px"'))
            x = left + lead
            tokens = labels([token for token, _, _ in listed], _LABEL)
            for token, (_, _, value) in zip(tokens, listed, strict=True):
                size = signed(value)
                taken = columns(token) * advance + 5 + 6.4 * columns(size) + 12
                if x + taken - 12 > _WIDE and x > left + lead:
                    x, y = left + lead, y + _LINE
                body.append(draw.text(x, y, token, "m", more=f' style="font-size:{_FONT}px"'))
                body.append(draw.text(x + columns(token) * advance + 5, y, size, more=' style="font-size:11px"'))
                x += taken
                wide = max(wide, x - 12)
        y += _BLOCK
        edges.append(y)
        y += 2
    body += [f'<path class="interp-base" d="M0 {number(edge)}H{number(wide)}"/>' for edge in edges[:-1]]
    return Drawing(math.ceil(wide), y - _BLOCK, "".join(body))
