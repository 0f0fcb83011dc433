"""Pictures of a DLAManyResult: which components write the answers' logits on the mean, and how sure that is."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.views import many
from interp.views.dla import component
from interp.views.kit import bars, draw, figures, heatmap, page
from interp.views.kit.grid import Cell, grid
from interp.views.kit.heatmap import Cells
from interp.views.kit.text import head_label, labels, signed, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.many.dla_result import DLAManyResult
    from interp.methods._shared.many.result import Spread

_TITLE = "Direct logit attribution over prompts"
_TOP, _NEURONS, _HEADS, _WIDE, _TOKEN, _SHORT = 14, 6, 8, 18, 12, 44
_LEAST = 1e-3


def plotly(result: DLAManyResult, *, theme: str = "light", width: int = 900, height: int = 560) -> go.Figure:
    """Return the largest mean parts as Plotly bars with their 95 % intervals."""
    import plotly.graph_objects as go

    view = _View(result)
    listed = list(reversed(view.order))
    values, (low, high) = view.spread.mean[listed], view.spread.interval[:, listed]
    figure = go.Figure()
    figure.add_bar(
        x=values,
        y=[component(result.components[n]) for n in listed],
        orientation="h",
        marker={"color": figures.sides(values, theme)},
        error_x=figures.whiskers(values, low, high, theme),
        hovertemplate="%{y}<br><b>%{x:+.4f}</b><extra></extra>",
    )
    figure.update_xaxes(title="mean part, logits", showgrid=False, zeroline=True)
    figure.update_yaxes(type="category", showgrid=False)
    return figures.styled(figure, _TITLE, view.facts, theme, width, height)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: DLAManyResult) -> None:
        self.result = result
        self.spread = result.spread
        sizes = -np.nan_to_num(np.abs(self.spread.mean), nan=-1.0)
        self.order: list[int] = np.argsort(sizes, kind="stable")[:_TOP].tolist()

    @cached_property
    def facts(self) -> str:
        return many.facts(self.result, visible(self.result.what, _SHORT).replace("␣", " "))

    @cached_property
    def cells(self) -> Cells:
        """Mean parts of layers × heads, with the MLP beside them."""
        result = self.result
        _, depth, heads = result.heads.shape
        known = dict(zip(result.components, self.spread.mean.tolist(), strict=True))
        mlps = np.array([known.get(f"mlp {n}", math.nan) for n in range(depth)])
        values = np.concatenate([result.heads.mean(0), mlps[:, None]], 1)
        done = np.ones(values.shape, bool)
        done[:, -1] = [f"mlp {n}" in known for n in range(depth)]
        return Cells(values, done, [f"L{n}" for n in range(depth)], [*map(str, range(heads)), "MLP"])

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The drawings, each with its caption, in columns."""
        result, cells = self.result, self.cells
        end = heatmap.limit(cells.values[cells.done], _LEAST)
        left = heatmap.margin(cells.rows)
        key = draw.words(["red towards the answer, blue away from it"])
        picture = draw.stack([(0, heatmap.heat(cells, end)), (left, heatmap.scale(end)), (left, key)])
        listed = [many.bar(component(result.components[n]), self.spread, n) for n in self.order]
        others = [n for n in range(len(result.components)) if n not in self.order]
        if others:
            rest = result.mean_of(result.contributions[:, others].sum(1))
            listed.append(many.bar(f"{len(others)} others", rest, ()))
        side: list[page.Block] = [(f"Largest mean parts, in logits{many.sure(self.spread)}", bars.bars(listed, _LEAST))]
        if result.neurons:
            neurons = [bars.Bar(name, value) for name, value, _ in result.neurons[:_NEURONS]]
            side.append(("Largest neurons on the mean, inside their MLPs", bars.bars(neurons, _LEAST)))
        return [[("Mean over prompts, heads and MLPs: a row per layer", picture), self._each()], side, *self._where()]

    def _each(self) -> page.Block:
        result = self.result
        ends = many.ends_of(result.logits)
        caption = "The logit difference of each prompt" if result.wrongs else "The logit of each prompt's answer"
        return f"{caption}; stroke: their mean", many.each(result.logits, self.logits, ends)

    @cached_property
    def logits(self) -> Spread:
        return self.result.mean_of(self.result.logits)

    def _where(self) -> list[page.Stack]:
        """Where the strongest heads read what they write."""
        result = self.result
        if not result.places:
            return []
        means = result.heads.mean(0)
        size = np.where(np.isfinite(means), np.abs(means), 0.0)
        order = [divmod(int(n), size.shape[1]) for n in np.argsort(-size, axis=None, kind="stable")[:_HEADS]]
        order = [place for place in order if size[place] > 0]
        if not order:
            return []
        held = many.axis(result.places, _WIDE)
        parts = result.per_place.mean(0)
        values = np.array([parts[place][held.start : held.stop] for place in order])
        end = heatmap.limit(values, _LEAST)
        rows = [[Cell(_short(v), v / end if math.isfinite(v) else math.nan) for v in row] for row in values.tolist()]
        names = labels([result.places[n] for n in held], _TOKEN)
        drawn = grid(rows, [head_label(*place) for place in order], names, signed=True)
        return [[(f"Strongest heads: what each reads, by {result.by}, in logits", drawn)]]

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        what = "logit difference " if result.wrongs else "logit "
        pieces: list[page.Piece] = [(f"mean {what}", many.said(self.logits), False)]
        low, high = (float(end) for end in self.logits.interval)
        if math.isfinite(low):
            pieces.append((f"95 % interval [{signed(low)}, {signed(high)}]", "", True))
        sums: dict[str, float] = {}
        for name, value in zip(result.components, self.spread.mean.tolist(), strict=True):
            kind = "heads" if "." in name else "MLPs" if name.startswith("mlp ") else "embedding"
            kind = "interventions" if name == "interventions" else "biases" if "bias" in name else kind
            sums[kind] = sums.get(kind, 0.0) + value
        return [*pieces, *((f"{kind} {signed(value)}", "", True) for kind, value in sums.items())]


def _short(value: float) -> str:
    """Return a value in at most five columns; nothing for what rounds to zero."""
    if not math.isfinite(value) or abs(value) < 0.005:
        return ""
    return format(value, "+.2f" if abs(value) < 10 else "+.0f").replace("-", "−")


def _picture(result: DLAManyResult) -> page.Picture:
    view = _View(result)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes)


html, svg = page.pictures(_picture)
