"""Pictures of a ProbeResult: the score over layers, with its interval, shuffled labels and the most frequent class."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import curves, figures, frame, page
from interp.views.kit import theme as themes
from interp.views.kit.curves import Curve
from interp.views.kit.draw import ACCENT, MUTED
from interp.views.kit.text import visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.readouts.probe import ProbeResult

_SHORT = 24
_TITLE = "Linear probe"


def plotly(result: ProbeResult, *, theme: str = "light", width: int = 900, height: int = 460) -> go.Figure:
    """Return the score, shuffled labels and the baseline as Plotly lines over layers."""
    import plotly.graph_objects as go

    view = _View(result)
    layers = list(result.numbers)
    accent, muted = themes.colour("accent", theme), themes.solid("muted", theme)
    figure = go.Figure()
    figure.add_scatter(
        x=layers,
        y=result.score,
        name=result.metric,
        mode="lines+markers",
        line={"color": accent},
        error_y=figures.whiskers(result.score, result.interval[:, 0], result.interval[:, 1], theme),
        hovertemplate="layer %{x}<br><b>%{y:.4f}</b><extra></extra>",
    )
    figure.add_scatter(
        x=layers,
        y=result.control,
        name="shuffled labels",
        mode="lines",
        line={"color": muted, "dash": "dash"},
        hovertemplate="layer %{x}, shuffled<br><b>%{y:.4f}</b><extra></extra>",
    )
    figure.add_hline(y=result.baseline, line={"color": muted, "width": 1}, annotation_text=view.floor)
    figure.update_xaxes(title="layer", showgrid=False, dtick=max(1, len(layers) // 10), zeroline=False)
    figure.update_yaxes(title=result.metric, range=list(view.ends))
    return figures.styled(figure, _TITLE, view.facts, theme, width, height)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: ProbeResult) -> None:
        self.result = result

    @property
    def floor(self) -> str:
        return "most frequent class" if self.result.classes else "the mean"

    @cached_property
    def facts(self) -> str:
        result = self.result
        count = len(result.classes)
        labels = " / ".join(result.classes) if 0 < count <= 4 else f"{count} classes" if count else "real numbers"
        of = f" of {frame.visible_facts(result.at, 40)}" if result.at else ""
        where = f"last token{of}" if result.position == "last" else f"mean over tokens{of}"
        folds = result.scores.shape[1]
        return frame.facts(result, labels, f"{sum(result.counts)} texts", f"{result.site}, {where}", f"{folds} folds")

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Accuracy begins at 0; R² where the shuffled labels are, unless that is far below it."""
        result = self.result
        if result.classes:
            return 0.0, 1.0
        lowest = float(np.nanmin([*result.control, *result.interval[:, 0], 0.0]))
        return max(-1.0, math.floor(lowest * 4) / 4), 1.0

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The chart with its caption."""
        result = self.result
        depth = len(result.score)
        flat = np.full(depth, result.baseline)
        lines = [
            Curve(self.floor, flat, MUTED, dashed=True),
            Curve("shuffled labels", result.control, MUTED, result.controls.min(1), result.controls.max(1)),
            Curve(result.metric, result.score, ACCENT, result.interval[:, 0], result.interval[:, 1], dots=True),
        ]
        drawn = curves.chart([f"L{n}" for n in result.numbers], lines, self.ends, ring=result.row)
        folds, shuffles = result.scores.shape[1], result.controls.shape[1]
        spread = f", and the least and most of {shuffles} shuffles" if shuffles > 1 else ""
        cut = "; what is below the scale lies on its edge" if np.nanmin(result.control) < self.ends[0] else ""
        sure = "95 % interval over" if np.isfinite(result.interval).any() else "mean over"
        caption = f"{result.metric.capitalize()} on held-out texts; bands: {sure} {folds} folds{spread}{cut}"
        return [[(caption, drawn)]]

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        best = result.row
        low, high = result.interval[best]
        pieces: list[page.Piece] = [
            ("best layer ", f"L{result.best}", False),
            (f"{result.metric} ", f"{result.score[best]:.3f}", False),
            *([(f"{low:.3f} to {high:.3f}".replace("-", "−"), "", True)] if math.isfinite(low) else []),
            ("shuffled labels ", f"{result.control[best]:.3f}".replace("-", "−"), False),
            ("selectivity ", f"{result.selectivity[best]:.3f}".replace("-", "−"), False),
        ]
        if result.classes:
            most = result.classes[int(np.argmax(result.counts))]
            pieces += [
                ("balanced ", f"{result.balanced[best]:.3f}", False),
                (f"most frequent class {visible(most, _SHORT)} ", f"{result.baseline:.3f}", True),
            ]
        return pieces


def _picture(result: ProbeResult) -> page.Picture:
    view = _View(result)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes)


html, svg = page.pictures(_picture)
