"""The picture of loaded features: a table of what each dictionary is worth, beside what its files declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.views.kit import frame
from interp.views.kit.table import CSS, table

if TYPE_CHECKING:
    from interp.methods._shared.features_result import FeaturesResult

_ROWS = 60


def html(result: FeaturesResult) -> str:
    """Return the table; what is doubtful of a dictionary is a note below."""
    names, *rows = result.cells()
    body = table(names, rows[:_ROWS], len(rows)) if rows else ""
    tokens = int(result.tokens.max()) if rows else 0
    said = ["measured on " + f"{tokens} tokens; what the files declare stands in brackets"] if rows else []
    facts = frame.facts(result, frame.visible_facts(result.summary(), 160), *said)
    return frame.html("Features", facts, body, notes=result.notes, css=CSS)
