"""Pictures of a FeaturesTrainResult: loss, FVU, L0 and dead features over the steps, a line for each layer."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import curves, frame, page, theme
from interp.views.kit.curves import Curve
from interp.views.kit.draw import Drawing
from interp.views.kit.text import minus

if TYPE_CHECKING:
    from interp.methods._shared.features_train_result import FeaturesTrainResult

_TITLE = "Features in training"
_WIDE = 400  # a chart
_POINTS = 120  # of a line; each is the mean of the steps about it
_AHEAD = 0.05  # of the steps, which are left out of the scale: there the loss is as high as it will be


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: FeaturesTrainResult) -> None:
        self.result = result

    @cached_property
    def facts(self) -> str:
        result = self.result
        taken, asked = result.steps
        return frame.facts(
            result,
            result.reads if result.reads == result.writes else f"{result.reads} → {result.writes}",
            f"{result.width:,} features, k = {result.k}",
            f"{taken:,} steps" if taken == asked else f"{taken:,} of {asked:,} steps",
            f"{result.tokens[0]:,} tokens",
        )

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """Four charts, two below each other."""
        result = self.result
        of = "of each step's tokens"
        charts = (
            (f"FVU {of}: the share of the variance that is missed", result.batch_fvu, 0.0),
            (f"Loss {of}: mean square of what is missed", result.loss, 0.0),
            (f"L0 {of}: active features a token", result.batch_l0, float(result.k)),
            ("Dead features: idle for 2 % of the training, as a share", result.batch_dead, 0.02),
        )
        drawn = [(caption, self._chart(values, least)) for caption, values, least in charts if len(values)]
        return [drawn[:2], drawn[2:]]

    def _chart(self, values: NDArray[np.float64], least: float) -> Drawing:
        steps = len(values)
        parts = np.array_split(np.arange(steps), min(_POINTS, steps))
        means = np.array([values[part].mean(0) for part in parts])
        settled = means[math.floor(_AHEAD * len(means)) :]
        high = max(1.2 * least, float(settled.max()) * 1.05, 1e-3)
        lines = [
            Curve(f"L{layer}", means[:, n], f"var(--interp-k{n % theme.CLASSES})")
            for n, layer in enumerate(self.result.layers)
        ]
        return curves.chart([f"{part[-1] + 1:,}" for part in parts], lines, (0.0, high), wide=_WIDE)

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer: what is measured on texts held out, layer by layer where they are few."""
        result = self.result
        pieces: list[page.Piece] = []
        for name, values, form in (
            ("FVU ", result.fvu, "{:.3f}"),
            ("L0 ", result.l0, "{:.1f}"),
            ("dead ", result.dead, "{:.1%}"),
            ("CE recovered ", result.ce_recovered, "{:.3f}"),
        ):
            known = values[np.isfinite(values)]
            if len(known):
                ends = [form.format(float(end)) for end in (known.min(), known.max())]
                pieces.append((name, minus(ends[0] if ends[0] == ends[1] else " to ".join(ends)), False))
        if pieces:
            pieces.append((f"on {result.tokens[1]:,} tokens of texts held out", "", True))
        return pieces


def _picture(result: FeaturesTrainResult) -> page.Picture:
    view = _View(result)
    taken, asked = result.steps
    progress = None if taken == asked else taken / asked
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes, progress=progress)


html, svg = page.pictures(_picture)
