"""What `claims` returns: claims that were tested before, as they were and as they are now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.results import Result, resolve
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.results.tables import Float

_HELD = ("supported", "supported in part")
# What became of claims, worst first.
CHANGES = ("broke", "weaker", "not run", "changed", "stronger", "unchanged")


def change(was: str, now: str) -> str:
    """Return what became of a claim, from its verdicts; no verdict now is none that was made.

    Examples
    --------
    >>> change("supported", "rejected"), change("supported", "supported in part"), change("rejected", "rejected")
    ('broke', 'weaker', 'unchanged')
    >>> change("not established", "supported"), change("rejected", "not established"), change("supported", "")
    ('stronger', 'changed', 'not run')
    """
    if not now:
        return "not run"
    if was == now:
        return "unchanged"
    if was in _HELD:
        return "broke" if now not in _HELD else "weaker" if was == _HELD[0] else "stronger"
    return "stronger" if now in _HELD else "changed"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ClaimsResult(Result):
    """Claims that were tested before, and again.

    Attributes
    ----------
    names
        What each result is called: its variable, its file, or the claim in short.
    claims
        Their three lines.
    models
        The model that each was tested on now.
    was, now
        The verdicts; an empty one where a claim was not tested again.
    changes
        ``"broke"``, ``"weaker"``, ``"stronger"``, ``"changed"``, ``"unchanged"`` or ``"not run"``.
    missing
        Why a claim was not tested again; else an empty string.
    accuracy
        ``float64 [2, claim]``: before and now; NaN where there is none.
    interval
        ``float64 [2, 2, claim]``: before and now, its lower and upper end.
    """

    names: tuple[str, ...]
    claims: tuple[str, ...]
    models: tuple[str, ...]
    was: tuple[str, ...]
    now: tuple[str, ...]
    changes: tuple[str, ...]
    missing: tuple[str, ...]
    accuracy: Float
    interval: Float

    _html: ClassVar[str] = "interp.views.claims:html"
    _svg: ClassVar[str | None] = "interp.views.claims:svg"

    def summary(self) -> str:
        """Return how many claims there are, and what became of them."""
        count = Counter(self.changes)
        said = ", ".join(f"{count[kind]} {kind}" for kind in CHANGES if count[kind])
        many = f"{len(self.names)} claim{'s' * (len(self.names) != 1)}"
        return f"{many}: {said}" if said else f"{many}; test one with %%interp claim"

    def text(self) -> str:
        """Return a line for each claim."""
        shown = resolve("interp.errors:printable")
        wide = max(map(len, self.names), default=0)
        lines = []
        for n, name in enumerate(self.names):
            before, after = self.accuracy[:, n]
            said = self.missing[n] or f"{before:.2f} → {after:.2f}  {self.was[n]} → {self.now[n]}"
            lines.append(f"  {shown(name):{wide}}  {self.changes[n]:9}  {shown(said)}")
        return "\n".join([repr(self), *lines, *(f"note: {shown(note)}" for note in self.notes)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per claim."""
        return frame_of(
            {
                "claim": self.names,
                "change": self.changes,
                "was": self.was,
                "now": self.now,
                "accuracy": self.accuracy[0],
                "accuracy now": self.accuracy[1],
                "difference": self.accuracy[1] - self.accuracy[0],
                "low now": self.interval[1, 0],
                "high now": self.interval[1, 1],
                "model": self.models,
                "not run": self.missing,
            }
        )

    @property
    def broke(self) -> tuple[str, ...]:
        """The names of the claims that held and no longer do."""
        return tuple(name for name, kind in zip(self.names, self.changes, strict=True) if kind == "broke")

    @property
    def difference(self) -> Float:
        """``float64 [claim]``: by how much the accuracy is another."""
        return np.asarray(self.accuracy[1] - self.accuracy[0])
