"""Pictures of a SaliencyManyResult: what each place adds on the mean, and how sure that is."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from interp.views import many
from interp.views.kit import bars, draw, figures, heatmap, page
from interp.views.kit.grid import Cell, grid
from interp.views.kit.text import escape, labels, signed, visible
from interp.views.saliency import NAMES

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.many.saliency_result import SaliencyManyResult

_TOKEN, _SHORT, _PLACES, _PROMPTS, _WIDE = 14, 60, 24, 24, 18
_LEAST = 1e-3
_STARTS = {"zero": "zero embedding", "mean": "mean embedding"}
_BY = {"span": "span", "position": "position", "end": "position from the end"}


def plotly(result: SaliencyManyResult, *, theme: str = "light", width: int = 900, height: int = 420) -> go.Figure:
    """Return the mean parts as Plotly bars with their 95 % intervals, one per place."""
    import plotly.graph_objects as go

    view = _View(result)
    values, (low, high) = view.spread.mean, view.spread.interval
    figure = go.Figure()
    figure.add_bar(
        x=[f"{n} {escape(visible(name, _TOKEN))}" for n, name in enumerate(result.places)],
        y=values,
        marker={"color": figures.sides(values, theme)},
        error_y=figures.whiskers(values, low, high, theme),
        hovertemplate="%{x}<br><b>%{y:+.4f}</b><extra></extra>",
    )
    figure.update_xaxes(type="category", showgrid=False, tickfont={"family": "monospace"})
    figure.update_yaxes(title=view.units)
    return figures.styled(figure, view.title, view.facts, theme, width, height)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: SaliencyManyResult) -> None:
        self.result = result
        self.spread = result.spread
        self.title = f"{NAMES.get(result.method, result.method)} over prompts"

    @property
    def units(self) -> str:
        metric = self.result.metric
        return {"attention": "share of attention", "logprob": "nats", "prob": "probability"}.get(metric, "logits")

    @cached_property
    def facts(self) -> str:
        result = self.result
        start = f"from the {_STARTS[result.baseline]}" if result.baseline and result.method != "gradient-input" else ""
        return many.facts(result, start, f"by {_BY[result.by]}")

    @cached_property
    def what(self) -> str:
        return visible(self.result.what, _SHORT).replace("␣", " ")

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The means as bars, and each prompt's parts as a row."""
        result = self.result
        held = many.axis(result.places, _PLACES)
        names = labels(result.places, _TOKEN)
        listed = [many.bar(names[n], self.spread, n) for n in held]
        drawn = bars.bars(listed, _LEAST, neutral=not result.answers)
        caption = f"Mean, in {self.units}{many.sure(self.spread)}"
        return [[(caption, drawn)], [self._rows(names)]]

    def _rows(self, names: list[str]) -> page.Block:
        result = self.result
        columns = many.axis(names, _WIDE)
        values = result.attribution[:_PROMPTS, columns.start : columns.stop]
        end = heatmap.limit(values, _LEAST, spread=10.0)
        rows = [[Cell(_brief(v), v / end if math.isfinite(v) else math.nan) for v in row] for row in values.tolist()]
        called = [str(n) for n in result.numbers[:_PROMPTS].tolist()]
        drawn = grid(rows, called, [names[n] for n in columns], signed=bool(result.answers))
        left = heatmap.margin(called)
        if result.answers:
            drawn = draw.stack(
                [(0, drawn), (left, heatmap.scale(end)), (left, draw.words(["red towards the answer, blue away"]))]
            )
        some = f", the first {len(rows)} of {result.n}" if len(rows) < result.n else ""
        return f"What it is in each prompt{some}: a row per prompt", drawn

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        if not result.answers:
            place, value, _ = result.top(1)[0]
            return [("most of ", visible(place, _TOKEN), False), (signed(value), "", True)]
        from_ = _STARTS[result.baseline]
        total = result.mean_of(result.attribution.sum(1))
        return [
            (f"{self.what}, mean ", many.said(result.mean_of(result.values)), False),
            (f"on the {from_} ", many.said(result.mean_of(result.references)), False),
            ("difference ", many.said(result.mean_of(result.values - result.references)), False),
            ("the parts sum to ", many.said(total), False),
        ]

    @cached_property
    def notes(self) -> list[str]:
        result = self.result
        count = len(result.places)
        cut = f"the last {_PLACES} of {count} places are drawn; to_frame() has all" if count > _PLACES else ""
        return [*result.notes, *([cut] if cut else [])]


def _brief(value: float) -> str:
    if not math.isfinite(value) or abs(value) < 0.005:
        return ""
    return format(value, ".2f" if abs(value) < 1 else ".1f" if abs(value) < 100 else ".0f").replace("-", "−")


def _picture(result: SaliencyManyResult) -> page.Picture:
    view = _View(result)
    return page.Picture(view.title, view.facts, view.stacks, view.foot, view.notes)


html, svg = page.pictures(_picture)
