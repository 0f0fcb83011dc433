"""What a training of dictionaries gave, step by step and on texts held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.results import Result
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FeaturesTrainResult(Result):
    """A training of dictionaries.

    Attributes
    ----------
    name
        What the set of them is called; it is the current one now.
    layers
        The layers that there is one for each.
    reads, writes
        The point of a layer that they read and that they write, such as ``"mlp_normed"`` and ``"mlp_out"``.
    width, k
        How many features there are, and how many are active at a token.
    loss, batch_fvu, batch_l0, batch_dead
        ``float64 [step, layer]``: of each step's tokens. The loss is a mean square, of what is written brought to a
        mean square of 1; the dead are those that were idle for 2 % of the training.
    fvu, l0, dead, ce_recovered
        ``float64 [layer]``: on texts held out, as `Measured` says; NaN where nothing is measured yet.
    steps
        How many steps were taken, and how many were asked for.
    tokens
        How many tokens are trained on, over and over, and how many were measured on.
    saved
        The folder that was written, or an empty string.
    """

    name: str
    layers: tuple[int, ...]
    reads: str
    writes: str
    width: int
    k: int
    loss: Float
    batch_fvu: Float
    batch_l0: Float
    batch_dead: Float
    fvu: Float
    l0: Float
    dead: Float
    ce_recovered: Float
    steps: tuple[int, int]
    tokens: tuple[int, int]
    saved: str = ""

    _html: ClassVar[str] = "interp.views.features_train:html"
    _svg: ClassVar[str] = "interp.views.features_train:svg"

    def summary(self) -> str:
        """Return what was trained, and what it is worth."""
        what = "transcoders" if self.reads != self.writes else "SAEs"
        of = f"{len(self.layers)} {what if len(self.layers) > 1 else what[:-1]} of {self.width} features"
        known = self.fvu[np.isfinite(self.fvu)]
        worth = f"; FVU {known.min():.3f} to {known.max():.3f} on texts held out" if len(known) else ""
        return f"{self.name}: {of}, {self.steps[0]} steps{worth}" + f", in {self.saved}" * bool(self.saved)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer: the last step's figures, and those of the texts held out."""
        last = [float("nan")] * len(self.layers) if not len(self.loss) else self.loss[-1]
        return frame_of(
            {
                "layer": self.layers,
                "loss": last,
                "FVU": self.fvu,
                "L0": self.l0,
                "dead": self.dead,
                "CE recovered": self.ce_recovered,
            }
        )
