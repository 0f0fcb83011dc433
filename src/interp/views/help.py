"""What a command takes, as a table, and cells that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.views.kit import frame
from interp.views.kit.draw import MONO
from interp.views.kit.table import CSS, table
from interp.views.kit.text import escape, visible

if TYPE_CHECKING:
    from interp.interface.helping import Help

_CELL = f"""
.interp-frame pre.interp-typed{{margin:0 0 8px;padding:8px 12px;border:1px solid var(--interp-line);border-radius:8px;
background:none;color:inherit;overflow-x:auto;font:12px/1.5 {MONO};white-space:pre-wrap;overflow-wrap:anywhere}}
"""


def html(result: Help) -> str:
    """Return the picture as a self-contained HTML fragment."""
    typed, _, said = result.title.partition(": ")
    body = table(result.columns, result.rows) if result.rows else ""
    cells = "".join(f'<pre class="interp-typed">{escape(cell)}</pre>' for cell in result.cells)
    tried = f'<div class="interp-note">To try, on the bundled model</div>{cells}' if cells else ""
    return frame.html(visible(typed, 60), said, body + tried, notes=result.notes, css=CSS + _CELL)
