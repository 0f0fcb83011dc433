"""The picture of labels: a table of rules, the best first, beside what they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.views.kit import frame
from interp.views.kit.table import CSS, table

if TYPE_CHECKING:
    from interp.methods._shared.feature_labels import FeaturesLabelResult

_ROWS = 40
_NAMES = ("feature", "label", "precision", "recall", "F1", "single token", "its F1", "shuffled F1", "active")


def html(result: FeaturesLabelResult) -> str:
    """Return the table; numbers are of texts held out."""
    data = result.to_frame()
    rows = [list(row) for row in data.head(_ROWS).itertuples(index=False, name=None)]
    source = frame.visible_facts(result.source, 40)
    facts = frame.facts(result, frame.visible_facts(result.summary(), 160), *([source] if source else []))
    foot = (
        f"<span>a label has F1 <b>{result.least:.2f}</b> or more on texts held out, and more than for activations "
        'moved to random tokens</span><span class="interp-q">precision: of the tokens where the rule holds, those '
        "where the feature is active; recall: the other way round</span>"
    )
    return frame.html("Labels", facts, table(_NAMES, rows, len(data)), foot=foot, notes=result.notes, css=CSS)
