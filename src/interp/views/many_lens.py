"""Pictures of a LensManyResult: what becomes of the answers layer by layer, on the mean, and how sure that is."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.views import many
from interp.views.kit import curves, draw, figures, page
from interp.views.kit import theme as themes
from interp.views.kit.curves import Curve
from interp.views.kit.grid import Cell, grid
from interp.views.kit.text import labels, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from interp.methods._shared.many.lens_result import LensManyResult
    from interp.methods._shared.many.result import Spread

_TOKEN, _SHORT, _CHART = 9, 44, 300
_WIDE, _HIGH = 18, 42  # what fits: places beside each other, layers above each other
_LEAST = 0.1
_TITLE = {"logit": "Logit lens", "tuned": "Tuned lens", "jacobian": "Jacobian lens"}
_WHERE = {"pre": "before", "mid": "in the middle of", "post": "after"}
_AXES = {"probability": "probability", "rank": "rank", "difference": "logit difference"}


def plotly(
    result: LensManyResult, *, show: str = "probability", theme: str = "light", width: int = 900, height: int = 480
) -> go.Figure:
    """Return what becomes of the answers layer by layer as a Plotly line with its 95 % intervals.

    Parameters
    ----------
    show
        ``"probability"``, ``"rank"``, ``"difference"``, ``"entropy"`` or ``"kl"``.
    """
    import plotly.graph_objects as go

    view = _View(result)
    found = result.spread(show)
    mean, (low, high) = found.mean[:, result.measured], found.interval[:, :, result.measured]
    figure = go.Figure()
    figure.add_scatter(
        x=[f"L{layer}" for layer in result.layers],
        y=mean,
        mode="lines+markers",
        line={"color": themes.colour("accent", theme)},
        error_y=figures.whiskers(mean, low, high, theme),
        hovertemplate="%{x}<br><b>%{y:.4f}</b><extra></extra>",
    )
    figure.update_xaxes(type="category", showgrid=False, title="layer")
    figure.update_yaxes(title=f"mean {_AXES.get(show, show)}")
    return figures.styled(figure, view.title, view.facts, theme, width, height)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: LensManyResult) -> None:
        self.result = result
        self.title = f"{_TITLE[result.kind]} over prompts"
        self.here = result.measured
        self.columns = many.axis(result.places, _WIDE)
        # The last layer on top, and always there.
        depth = len(result.layers)
        self.rows = range(depth - 1, -1, -math.ceil(depth / _HIGH))

    @cached_property
    def what(self) -> str:
        return visible(self.result.what, _SHORT).replace("␣", " ")

    @cached_property
    def facts(self) -> str:
        result = self.result
        depth = len(result.layers)
        which = f"layer {result.layers[0]}" if depth == 1 else f"each of {depth} layers"
        return many.facts(result, self.what, f"read {_WHERE[result.at]} {which}")

    @cached_property
    def where(self) -> str:
        """The place that the curves are of."""
        return visible(self.result.places[self.here], _SHORT)

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The curves, and the two grids, each with its caption."""
        result = self.result
        chance, rank = result.spread("probability"), result.spread("rank")
        low, high = chance.interval[:, :, self.here]
        shown = [
            Curve("on top", result.on_top()[:, self.here], draw.MUTED, dashed=True),
            Curve("probability", chance.mean[:, self.here], draw.ACCENT, _cut(low, 0, 1), _cut(high, 0, 1), dots=True),
        ]
        stacks: list[page.Stack] = []
        band = "; band: 95 % interval" if np.isfinite(low).any() else ""
        if len(result.layers) > 1:
            said = f"Target at {self.where}: share on top, mean probability{band}"
            stacks.append([(said, self._chart(shown, (0, 1)))])
            stacks.append([(f"Its mean rank there, 0 is the top{band}", self._ranks(rank))])
            if result.difference is not None:
                stacks.append([(f"Its mean logit over the wrong answer{band}", self._difference())])
        return [*stacks, *([block] for block in self._grids())]

    def _chart(self, shown: list[Curve], ends: tuple[float, float]) -> draw.Drawing:
        return curves.chart([f"L{n}" for n in self.result.layers], shown, ends, wide=_CHART)

    def _ranks(self, rank: Spread) -> draw.Drawing:
        low, high = rank.interval[:, :, self.here]
        top = many.ends_of(np.concatenate([rank.mean[:, self.here], high]))[1]
        curve = Curve("rank", rank.mean[:, self.here], draw.ACCENT, _cut(low, 0, top), high, dots=True)
        return self._chart([curve], (0, max(1.0, top)))

    def _difference(self) -> draw.Drawing:
        apart = self.result.spread("difference")
        low, high = apart.interval[:, :, self.here]
        mean = apart.mean[:, self.here]
        none = Curve("0", np.zeros(len(mean)), draw.MUTED, dashed=True)
        curve = Curve("difference", mean, draw.ACCENT, low, high, dots=True)
        return self._chart([none, curve], many.ends_of(np.concatenate([mean, low, high])))

    def _grids(self) -> list[page.Block]:
        result = self.result
        if len(result.places) == 1:
            return []
        rows = [f"L{result.layers[n]}" for n in self.rows]
        names = labels([result.places[n] for n in self.columns], _TOKEN)
        chance, rank = result.spread("probability").mean, result.spread("rank").mean
        cells = [[Cell(_brief(float(rank[a, b])), float(chance[a, b])) for b in self.columns] for a in self.rows]
        blocks: list[page.Block] = [
            (f"Mean rank of the target by {result.by}; colour = its mean probability", grid(cells, rows, names))
        ]
        if result.difference is not None:
            apart = result.spread("difference").mean
            end = float(np.nanmax(np.abs(apart))) or 1.0
            values = [[float(apart[a, b]) for b in self.columns] for a in self.rows]
            held = [[Cell(_apart(value), value / end) for value in row] for row in values]
            drawn = grid(held, rows, names, signed=True)
            blocks.append(("Mean logit over the wrong answer; red is towards the target", drawn))
        return blocks

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result, last = self.result, f"L{self.result.layers[-1]}"
        at = (-1, self.here)
        top = result.on_top()[:, self.here]
        half = np.flatnonzero(top >= 0.5)
        pieces: list[page.Piece] = [
            (f"at {self.where}, {last}: on top in ", f"{top[-1]:.0%}", False),
            ("probability ", many.said(result.spread("probability"), at).removeprefix("+"), False),
            ("rank ", many.said(result.spread("rank"), at).removeprefix("+"), False),
        ]
        if result.difference is not None:
            pieces.append(("logit difference ", many.said(result.spread("difference"), at), False))
        if half.size:
            pieces.append((f"on top in half of the prompts or more from L{result.layers[half[0]]}", "", True))
        return pieces

    @cached_property
    def notes(self) -> list[str]:
        result = self.result
        notes = list(result.notes)
        if len(self.columns) < len(result.places):
            notes.append(f"the last {len(self.columns)} of {len(result.places)} places are drawn; to_frame() has all")
        if len(self.rows) < len(result.layers):
            notes.append(f"every {-self.rows.step}. layer of {len(result.layers)} is drawn; to_frame() has all")
        return notes


def _cut(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return np.clip(values, low, high)


def _brief(rank: float) -> str:
    """Return a mean rank in at most four columns."""
    if not math.isfinite(rank) or rank < 0:
        return ""
    return f"{rank:.1f}" if rank < 10 and rank % 1 else f"{rank:.0f}" if rank < 10_000 else f"{rank / 1000:.0f}k"


def _apart(value: float) -> str:
    """Return a difference in at most five columns; nothing for what rounds to zero."""
    if not math.isfinite(value) or abs(value) < 0.05:
        return ""
    return format(value, "+.1f" if abs(value) < 100 else "+.0f").replace("-", "−")


def _picture(result: LensManyResult) -> page.Picture:
    view = _View(result)
    return page.Picture(view.title, view.facts, view.stacks, view.foot, view.notes)


html, svg = page.pictures(_picture)
