"""What selfcheck returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.results import Result
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float

# Method → the edge AUROC that it has to reach.
BARS: Mapping[str, float] = {"exact": 0.95, "acdc": 0.95, "eap-ig": 0.90, "eap": 0.0, "trace": 0.99, "random": 0.0}
METHODS = tuple(BARS)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SelfcheckResult(Result):
    """How well each method tells a compiled model's true edges from all others.

    Attributes
    ----------
    programs, ablations, methods
        What the axes are: compiled models, what an ablated edge carries, and methods.
    auroc
        ``float64 [program, ablation, method]``: the share of pairs of a true and a false edge in which the true one has
        the larger score, either way, ties counted half; NaN where it was not reached.
    interval
        ``float64 [2, program, ablation, method]``: the 95 % interval over pairs, how far the AUROC hangs on
        which pairs were drawn, by the jackknife; NaN where a method scores no pair by itself, and for fewer than
        four pairs.
    seconds
        ``float64 [program, ablation, method]``.
    true, false, undefined
        ``int64 [program, ablation]``: edges that change the output by construction when they alone are ablated, those
        that nothing reads, and those left out: what they carry is the same after the ablation.
    hidden
        ``"program ablation method"`` → the true edge that the method puts lowest, with its score there, its exact score
        and how many false edges are above it; only where there are any.
    pairs, seed
        How many pairs each model was run on, and what drew them.
    bars
        Method → the AUROC that it has to reach; 0 for none.
    """

    programs: tuple[str, ...]
    ablations: tuple[str, ...]
    methods: tuple[str, ...]
    auroc: Float
    interval: Float
    seconds: Float
    true: NDArray[np.int64]
    false: NDArray[np.int64]
    undefined: NDArray[np.int64]
    hidden: dict[str, tuple[str, float, float, int]]
    pairs: int
    seed: int
    bars: Mapping[str, float] = field(default_factory=lambda: dict(BARS))

    _html: ClassVar[str] = "interp.views.selfcheck:html"
    _svg: ClassVar[str | None] = "interp.views.selfcheck:svg"

    def summary(self) -> str:
        """Return each method's lowest AUROC."""
        lowest = [
            f"{method} {rounded(np.nanmin(values))}"
            for method, values in zip(self.methods, np.moveaxis(self.auroc, -1, 0), strict=True)
            if np.isfinite(values).any()
        ]
        count = f"{len(self.programs)} model{'s' if len(self.programs) > 1 else ''} × {len(self.ablations)} ablations"
        return f"{count}, lowest edge AUROC: {', '.join(lowest) or 'nothing was reached'}"

    def misses(self) -> list[tuple[str, str, str, float]]:
        """Return what is below its bar: (program, ablation, method, AUROC).

        Examples
        --------
        >>> result.misses()
        []
        """
        found: list[tuple[str, str, str, float]] = []
        for place in np.argwhere(self.auroc < [self.bars[method] for method in self.methods]):
            program, ablation, method = (int(n) for n in place)
            value = float(self.auroc[program, ablation, method])
            found.append((self.programs[program], self.ablations[ablation], self.methods[method], value))
        return found

    def text(self) -> str:
        """Return the AUROCs as a table, a row for each model and ablation, and the seconds of each method."""
        head = ["", "ablation", *self.methods, "true", "false", "undefined"]
        rows = [head]
        for p, program in enumerate(self.programs):
            for a, ablation in enumerate(self.ablations):
                counts = [str(int(edges[p, a])) for edges in (self.true, self.false, self.undefined)]
                rows.append([program, ablation, *(rounded(value) for value in self.auroc[p, a]), *counts])
        spent = [f"{np.nansum(self.seconds[..., n]):.1f}" for n in range(len(self.methods))]
        rows.append(["seconds", "", *spent, "", "", ""])
        widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if n < 2 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([repr(self), *lines, *(f"note: {note}" for note in self.notes)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per model, ablation and method: AUROC, interval, bar, seconds, how many edges are which."""
        return frame_of(
            [
                {
                    "model": program,
                    "ablation": ablation,
                    "method": method,
                    "auroc": self.auroc[p, a, m],
                    "low": self.interval[0, p, a, m],
                    "high": self.interval[1, p, a, m],
                    "bar": self.bars[method] or float("nan"),
                    "seconds": self.seconds[p, a, m],
                    "true": self.true[p, a],
                    "false": self.false[p, a],
                    "undefined": self.undefined[p, a],
                }
                for p, program in enumerate(self.programs)
                for a, ablation in enumerate(self.ablations)
                for m, method in enumerate(self.methods)
            ]
        )


def rounded(value: float) -> str:
    # Rounded down, as in the picture: what is below a bar must not read as reaching it.
    return f"{math.floor(1000 * value + 1e-9) / 1000:.3f}" if np.isfinite(value) else "–"


__all__ = ["BARS", "METHODS", "SelfcheckResult", "rounded"]
