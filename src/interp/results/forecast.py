"""What a command will take, told before it starts, and what `--dry-run` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.results.base import Result
from interp.results.costs import Costs, scaled
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Forecast(Result):
    """What a command will take; nothing of it was run.

    Attributes
    ----------
    costs
        Forwards, operations, bytes and seconds.
    free_bytes
        What was free on the model's device.
    path
        ``"without hooks"``, or ``"with hooks: why"``.
    advice
        What to change where it does not fit; empty where it does.

    Examples
    --------
    >>> interp.patch(task="ioi", n=2, dry_run=True).fits
    True
    """

    costs: Costs
    free_bytes: int
    path: str
    advice: tuple[str, ...] = ()

    _html: ClassVar[str] = "interp.views.forecast:html"

    @property
    def forwards(self) -> int:
        """How many forward passes it counts in its provenance."""
        return self.costs.forwards

    @property
    def flops(self) -> float:
        """Floating-point operations of matrix products."""
        return self.costs.flops

    @property
    def bytes_read(self) -> int:
        """Bytes of weights: hashed once, and read for every wave or batch that goes through the layers."""
        return self.costs.bytes_read

    @property
    def peak_bytes(self) -> int:
        """The most memory that it holds at a time, above what is held when it starts."""
        return self.costs.peak_bytes

    @property
    def seconds(self) -> float:
        """How long it takes on this machine, as it was measured in this session."""
        return self.costs.seconds

    @property
    def fits(self) -> bool:
        """Whether what is free is enough."""
        return self.peak_bytes <= self.free_bytes

    def summary(self) -> str:
        """Return what it takes on one line."""
        rows = dict(self.costs.rows())
        room = "" if self.fits else f" and {scaled(self.free_bytes, 'B')} is free"
        return (
            f"{self.provenance.technique}: {rows['seconds']}, {rows['forwards']} forwards, "
            f"{rows['operations']}, {rows['peak memory']}{room}; {self.path}"
        )

    def text(self) -> str:
        """Return the line, and what to change where it does not fit."""
        return "\n".join([super().text(), *(f"advice: {line}" for line in self.advice)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each quantity, in plain numbers."""
        held = {
            "forwards": self.forwards,
            "flops": self.flops,
            "bytes read": self.bytes_read,
            "peak bytes": self.peak_bytes,
            "free bytes": self.free_bytes,
            "seconds": self.seconds,
        }
        return frame_of({"what": list(held), "value": [float(value) for value in held.values()]})
