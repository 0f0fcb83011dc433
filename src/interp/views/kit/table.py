"""The picture of a result that has none of its own: its table, or what a terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.views.kit import frame
from interp.views.kit.draw import MONO
from interp.views.kit.text import escape, minus, tooltip, visible

if TYPE_CHECKING:
    from interp.results import Result

_ROWS = 60
_COLUMNS = 12
_WIDE = 120
_SHORT = 24  # characters of a cell that is not broken into lines
CSS = f"""
.interp-frame .interp-scroll{{overflow-x:auto}}
.interp-frame table.interp-table{{border-collapse:collapse;border:0;margin:0;width:auto;font-size:12px;display:table}}
.interp-frame table.interp-table .interp-row,.interp-frame table.interp-table .interp-row:nth-child(n){{background:none;
border:0}}
.interp-frame table.interp-table .interp-row .interp-cell{{padding:3px 22px 3px 0;border:0;
border-bottom:1px solid var(--interp-line);text-align:left;vertical-align:baseline;font-weight:400;max-width:640px;
min-width:min(200px,60vw);overflow-wrap:break-word;white-space:normal;color:var(--interp-fg)}}
.interp-frame table.interp-table .interp-row .interp-short{{min-width:0;white-space:nowrap}}
.interp-frame table.interp-table .interp-row .interp-number{{min-width:0;text-align:right;white-space:nowrap}}
.interp-frame table.interp-table .interp-row .interp-name{{min-width:0;color:var(--interp-muted);white-space:nowrap}}
.interp-frame table.interp-table .interp-row:last-child .interp-cell{{border-bottom:0}}
.interp-frame pre.interp-pre{{margin:0;padding:0;border:0;background:none;color:inherit;overflow:auto;
font:12px/1.5 {MONO}}}
"""


def html(result: Result) -> str:
    """Return a result as a frame around its table, or around its text where it has no table.

    Examples
    --------
    >>> from interp.results import Result
    >>> "<table" in html(Result())
    False
    """
    try:
        data = result.to_frame()
    except NotImplementedError:
        body = f'<pre class="interp-pre">{escape(_own_text(result))}</pre>'
    else:
        names = [str(name) for name in data.columns]
        # A frame's index is part of what it says where it has a name.
        if data.index.name is not None:
            names = [str(data.index.name), *names]
            data = data.reset_index()
        cells = [list(row) for row in data.head(_ROWS).itertuples(index=False, name=None)]
        body = table(names, cells, len(data))
    title, facts = _heading(result)
    return frame.html(title, facts, body, notes=result.notes, css=CSS)


def table(names: Sequence[str], rows: Sequence[Sequence[Any]], total: int | None = None, *, widest: int = _WIDE) -> str:
    """Return rows as the markup of a table; numbers are aligned right, and `total` tells how many rows there are.

    A cell of more than `widest` characters is cut.

    Examples
    --------
    >>> "… 3 more rows" in table(["a"], [[1], [2]], 5)
    True
    """
    shown = names[:_COLUMNS]
    numeric = [all(_is_number(row[n]) for row in rows) and bool(rows) for n in range(len(shown))]
    digits = [_digits([row[n] for row in rows]) if numeric[n] else 0 for n in range(len(shown))]
    head = "".join(
        f'<th class="interp-cell interp-name{" interp-number" * numeric[n]}" scope="col">{escape(name)}</th>'
        for n, name in enumerate(shown)
    )
    cells = ["".join(_cell(row[n], numeric[n], digits[n], widest) for n in range(len(shown))) for row in rows]
    lines = "".join(f'<tr class="interp-row">{row}</tr>' for row in cells)
    more = [
        f"… {count} more {what}"
        for count, what in (((total or 0) - len(rows), "rows"), (len(names) - len(shown), "columns"))
        if count > 0
    ]
    return (
        f'<div class="interp-scroll"><table class="interp-table"><thead><tr class="interp-row">{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>" + "".join(f'<div class="interp-note">{line}</div>' for line in more)
    )


def _heading(result: Result) -> tuple[str, str]:
    """Return the title, which is the technique's name, and the facts; what no technique made is its own title."""
    name, summary = result.provenance.technique, minus(frame.visible_facts(result.summary(), 160))
    if name:
        return visible(name[:1].upper() + name[1:], 60), summary if summary != name else ""
    return summary or type(result).__name__.removesuffix("Result"), ""


def _own_text(result: Result) -> str:
    """Return what a terminal shows, less what the frame says already: the first line and the notes."""
    said = {repr(result), *_heading(result), *(f"note: {note}" for note in result.notes)}
    return "\n".join(line for line in result.text().split("\n") if line not in said or not line)


def _cell(value: Any, numeric: bool, digits: int, widest: int) -> str:
    if numeric:
        return f'<td class="interp-cell interp-number">{escape(_number(value, digits))}</td>'
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    label = frame.visible_facts(text, widest) if text == text.strip() else visible(text, widest)
    # What is cut is there on demand.
    title = tooltip(text, visible(text, widest), 10_000) if len(text) > widest else ""
    short = " interp-short" if len(label) <= _SHORT else ""
    return f'<td class="interp-cell{short}"{title}><bdi>{escape(label)}</bdi></td>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _digits(values: Sequence[Any]) -> int:
    """Return how many decimals a column needs: none for whole numbers, else four significant ones at its largest."""
    if all(isinstance(value, int | np.integer) or value != value for value in values):
        return 0
    largest = max((abs(float(value)) for value in values if abs(float(value)) < float("inf")), default=0.0)
    return 4 if largest < 10 else 2


def _number(value: Any, digits: int) -> str:
    text = f"{value:,}" if isinstance(value, int | np.integer) else f"{float(value):,.{digits}f}"
    return text.replace("-", "−")
