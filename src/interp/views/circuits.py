"""Pictures of a OVQKResult: what a head's circuit does to which tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.spec import Node
from interp.views.kit import draw, frame, heatmap, page
from interp.views.kit.draw import ADVANCE, Drawing, number
from interp.views.kit.grid import Cell, grid
from interp.views.kit.heatmap import Cells
from interp.views.kit.page import Piece
from interp.views.kit.text import columns, labels, signed, visible

if TYPE_CHECKING:
    from interp.methods.heads.ov_qk import Listed, OVQKResult

_LABEL, _FONT, _LINE, _BLOCK = 14, 11, 17, 8
_WIDE = 538  # of a table: a page 600 pixels wide shows it at its own size, and one of 1120 two
_MANY = 8  # tokens


def _title(result: OVQKResult) -> str:
    return f"{result.kind.upper()} circuit of {Node.parse(result.head).drawn}"


def _facts(result: OVQKResult) -> str:
    score = "copying" if result.kind == "ov" else "matching"
    offset = [f"query {result.offset} after the key"] if result.offset else []
    return frame.facts(result, f"{score} {signed(result.positivity)}", *offset)


def _foot(result: OVQKResult) -> list[Piece]:
    if result.kind == "ov":
        said = "rows: the token attended to; ▲ tokens whose logits it raises, ▼ lowers, against the mean logit"
    else:
        said = "rows: the query token; ▲ key tokens that it looks for, ▼ that it avoids: scores before scaling"
    return [(said, "", True)]


def _groups(result: OVQKResult) -> list[tuple[str, list[Drawing]]]:
    first: list[Drawing] = []
    if result.matrix is not None and len(result.rows) > 1:
        first.append(_matrix(result.matrix, labels([row.token for row in result.rows], _LABEL)))
    rows = [(visible(row.token, _LABEL), [("▲", row.top), ("▼", row.bottom)]) for row in result.rows]
    half = -(-len(rows) // 2) if len(rows) > _MANY else len(rows)
    first += [_table(part) for part in (rows[:half], rows[half:]) if part]
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


def _matrix(values: NDArray[np.float64], names: Sequence[str]) -> Drawing:
    """Return the entries among the given tokens: written where there are few, with a scale where there are many."""
    end = heatmap.limit(values, 1e-3)
    if len(names) <= _MANY:
        cells = [[Cell(signed(value).replace(",", ""), value / end) for value in row] for row in values.tolist()]
        return grid(cells, names, names, signed=True)
    heat = heatmap.heat(Cells(values, values == values, names, names, tokens=True), end)
    return draw.stack([(0, heat), (heatmap.margin(names), heatmap.scale(end))])


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
                taken = columns(token) * advance + 5 + 6.9 * columns(size) + 12
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


def _picture(result: OVQKResult) -> page.Picture:
    return page.Picture(_title(result), _facts(result), [], _foot(result), result.notes, groups=_groups(result))


html, svg = page.pictures(_picture)
