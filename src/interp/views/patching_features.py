"""Pictures of a FeaturePatchingResult: which features carry the answer, and at which tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.views import effects, patching_estimate
from interp.views import patching_pair as pairs
from interp.views.kit import bars, draw, figures, frame, heatmap, page
from interp.views.kit.heatmap import Cells
from interp.views.kit.text import signed
from interp.views.patching_view import PatchingView, counted, marks

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.patching.result import FeaturePatchingResult

_TITLE = "Activation patching: features"
_LISTED, _ROWS = 24, 30  # features in the list, and in the grid of tokens


@dataclass(frozen=True)
class _View(PatchingView):
    """A result, and what of it is coloured."""

    result: FeaturePatchingResult

    def name(self, cell: Sequence[int]) -> str:
        feature, *position = cell
        return f"F{self.result.features[feature]}" + (f" {self.position(position[0])}" if position else "")

    @cached_property
    def tokens_of(self) -> Cells | None:
        """The strongest features at every token; ``None`` where they are not divided by position."""
        if len(self.result.axes) < 2:
            return None
        size = np.where(self.known, np.abs(self.values), 0.0).max(-1)
        rows = np.argsort(-size, kind="stable")[:_ROWS]
        rows = rows[size[rows] > 0]
        names = [f"F{self.result.features[row]}" for row in rows]
        return Cells(self.values[rows], self.done[rows], names, self.tokens, tokens=True, marked=self.differing)

    @cached_property
    def bars(self) -> list[bars.Bar]:
        """The strongest cells."""
        low, high = self.interval
        return [
            bars.Bar(self.name(cell), float(self.best[cell]), float(low[cell]), float(high[cell]))
            for cell in self.order[:_LISTED]
        ]

    @cached_property
    def facts(self) -> str:
        result = self.result
        way = "corrupted into clean" if self.noising else "clean into corrupted"
        if self.source:
            way = f"features of {frame.visible_facts(self.source, 60)}"
        sets = ", ".join(frame.visible_facts(name, 40) for name in result.provenance.features)
        done = int(result.done.sum())
        estimated = "" if result.estimate is None else f"estimated, {done:,} verified" if done else "estimated"
        return frame.facts(result, f"{sets} by {result.by}", effects.pairs(result), way, self.metric, estimated)

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        if not self.order:
            return [("no feature changes the metric" if self.done.any() else "no cell is computed yet", "", True)]
        cell = self.order[0]
        pieces: list[page.Piece] = [
            ("", self.name(cell), False),
            (f"strongest of {counted(int(self.done.sum()))}", "", True),
            (f"{self.quantity} ", signed(float(self.best[cell])), False),
        ]
        if not self.guessed(cell):
            pieces.append(("effect ", signed(float(self.result.effect[cell])), False))
        return pieces

    @cached_property
    def stacks(self) -> list[page.Stack]:
        absent = marks(
            self.values[self.known],
            self.end,
            lost=int(self.lost.sum()),
            missing=int((~self.done).sum()),
        )
        lines = draw.words([self.meaning, *absent])
        if not self.order:
            return [[("Features", lines)]]
        listed = draw.stack([(0, bars.bars(self.bars, self.least, self.turned)), (0, lines)])
        guessed = ", estimated" if self.result.estimate is not None else ""
        stack: page.Stack = [(f"Strongest features, {self.quantity}{guessed}", listed)]
        agreeing = patching_estimate.scatter(self.result, self.span or 1.0)
        if agreeing is not None:
            stack = [*stack, (patching_estimate.caption(self.result), agreeing)]
        grid = self.tokens_of
        if grid is None or not len(grid.rows):
            return [stack, pairs.drawn(self)]
        shown = Cells(-grid.values, grid.done, grid.rows, grid.columns, True, grid.marked) if self.turned else grid
        whose = " of pair 1" if len(self.result.per_pair) > 1 else ""
        drawn = draw.stack([(0, heatmap.heat(shown, self.end)), (0, heatmap.scale(self.end, self.turned))])
        return [[(f"Tokens{whose}: a row per feature", drawn)], stack, pairs.drawn(self)]

    @cached_property
    def drawn(self) -> Cells:
        """What the end of the scale is taken from."""
        grid = self.tokens_of
        if grid is not None:
            return grid
        return Cells(self.values[None], self.done[None], [""], self.result.features)


def _picture(result: FeaturePatchingResult) -> page.Picture:
    view = _View(result)
    progress = None if view.whole else float(result.done.mean())
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes, progress=progress)


html, svg = page.pictures(_picture)


def plotly(result: FeaturePatchingResult, *, theme: str = "light", width: int = 720, height: int = 560) -> go.Figure:
    """Return the strongest features, and where, as bars with their intervals."""
    import plotly.graph_objects as go

    view = _View(result)
    values = np.array([bar.value for bar in view.bars])
    low, high = (np.array([getattr(bar, end) for bar in view.bars]) for end in ("low", "high"))
    figure = go.Figure()
    figure.add_bar(
        x=values,
        y=[bar.label for bar in view.bars],
        orientation="h",
        marker={"color": figures.sides(-values if view.turned else values, theme)},
        error_x=figures.whiskers(values, low, high, theme),
        hovertemplate="%{y}<br><b>%{x:+.4f}</b><extra></extra>",
    )
    figure.update_xaxes(title=view.quantity, showgrid=False, zeroline=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figures.styled(figure, _TITLE, view.facts, theme, width, height)
