"""What a command takes, as a table below cells that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.views.kit import frame
from interp.views.kit.draw import MONO
from interp.views.kit.table import CSS, table
from interp.views.kit.text import escape

if TYPE_CHECKING:
    from interp.interface.helping import Help

_LONGEST = 2000  # of a sentence: nothing of help is cut
_CELL = f"""
.interp-frame pre.interp-typed{{margin:0 0 8px;padding:8px 12px;border:1px solid var(--interp-line);border-radius:8px;
background:none;color:inherit;font:12px/1.5 {MONO};white-space:pre-wrap;overflow-wrap:anywhere}}
.interp-frame table.interp-table .interp-row .interp-cell{{min-width:0;overflow-wrap:anywhere}}
.interp-frame table.interp-table .interp-row .interp-cell:first-child{{max-width:220px}}
"""


def html(result: Help) -> str:
    """Return the picture as a self-contained HTML fragment."""
    typed, _, said = result.title.partition(": ")
    cells = "".join(f'<pre class="interp-typed">{escape(cell)}</pre>' for cell in result.cells)
    takes = table(result.columns, result.rows, widest=_LONGEST) if result.rows else ""
    return frame.html(typed, said, cells + takes, notes=result.notes, css=CSS + _CELL)
