"""The picture of a forecast: what it takes in words, and its memory beside what is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.results.costs import scaled
from interp.views.kit import frame, table
from interp.views.kit.text import escape

if TYPE_CHECKING:
    from interp.results.forecast import Forecast

_CSS = f"""{table.CSS}
.interp-frame .interp-room{{height:8px;max-width:420px;margin:10px 0 4px;background:var(--interp-line);overflow:hidden}}
.interp-frame .interp-room>div{{height:8px;background:var(--interp-fg)}}
"""


def html(result: Forecast) -> str:
    """Return the forecast as a frame: quantities, a bar of memory, and what to change where it does not fit."""
    share = 100 * min(1.0, result.peak_bytes / max(1, result.free_bytes))
    room = (
        f'<div class="interp-room"><div style="width:{share:.1f}%"></div></div>'
        f'<div class="interp-note">{escape(scaled(result.peak_bytes, "B"))} of '
        f"{escape(scaled(result.free_bytes, 'B'))} that is free</div>"
    )
    rows = table.table(
        ["what it takes", "about"], [(name, words.removeprefix("about ")) for name, words in result.costs.rows()]
    )
    name = result.provenance.technique
    facts = f"nothing was run · {result.path}"
    return frame.html(f"Forecast of {name}", facts, rows + room, notes=(*result.advice, *result.notes), css=_CSS)
