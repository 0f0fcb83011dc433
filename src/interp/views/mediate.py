"""The picture of causal mediation: how much of an effect goes through which component, and how sure that is."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import bars, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.heatmap import Cells
from interp.views.kit.text import head_label, signed

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.patching.mediate import MediationResult

_TOP, _LEAST = 14, 1e-3
_TITLE = "Causal mediation"
_CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni", "fdr_bh": "Benjamini–Hochberg"}


def plotly(result: MediationResult, *, theme: str = "light", width: int = 760, height: int = 560) -> go.Figure:
    """Return indirect and direct effects of the strongest mediators with their intervals as a Plotly figure."""
    import plotly.graph_objects as go

    view = _View(result)
    cells = list(reversed(result.strongest(_TOP)))
    figure = go.Figure()
    for name, values, spans, colour in (
        ("direct", result.direct, result.direct_interval, themes.colour("accent", theme)),
        ("indirect", result.indirect, result.indirect_interval, themes.diverging(1.0, theme)),
    ):
        held, low, high = (np.array([array[cell] for cell in cells]) for array in (values, *spans))
        figure.add_bar(
            x=held,
            y=[view.label(cell) for cell in cells],
            orientation="h",
            name=name,
            marker={"color": colour},
            error_x=figures.whiskers(held, low, high, theme),
            hovertemplate="%{y}<br>" + name + " <b>%{x:+.4f}</b><extra></extra>",
        )
    if math.isfinite(result.total):
        figure.add_vline(
            x=result.total, line_dash="dot", annotation_text="total", line_color=themes.colour("fg", theme)
        )
    figure.update_xaxes(title="effect", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    return figures.styled(figure, _TITLE, view.facts, theme, width, height, barmode="group")


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: MediationResult) -> None:
        self.result = result

    def label(self, cell: tuple[int, ...]) -> str:
        """Return what a mediator is called in the picture."""
        result = self.result
        if result.features:
            return result.name(cell)
        if result.by == "head":
            return head_label(result.layers[cell[0]], cell[1])
        layer = result.layers[cell[0]]
        return f"L{layer}" if len(cell) == 1 else f"L{layer} {cell[1]}"

    @cached_property
    def facts(self) -> str:
        result = self.result
        count = len(result.per_pair_total)
        source = f"{result.task}, " * bool(result.task)
        pairs = f"{source}{count} pair{'s' * (count != 1)}"
        return frame.facts(result, f"{result.site} by {result.by}", pairs, frame.metric(result.metric))

    @cached_property
    def cells(self) -> Cells:
        result = self.result
        values = result.indirect
        rows = [f"L{n}" for n in result.layers]
        return Cells(values, result.done | np.isfinite(values), rows, [str(n) for n in range(values.shape[1])])

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """A map of the indirect effects where there are many, the strongest with intervals, the parts of the first."""
        result = self.result
        top = result.strongest(_TOP)
        drawn: list[page.Stack] = []
        if result.indirect.ndim == 2 and len(result.layers) * result.indirect.shape[1] > _TOP:
            end = heatmap.limit(result.indirect, _LEAST)
            row, column = top[0] if top else (0, 0)
            heat = heatmap.heat(self.cells, end, (row, column) if top else None)
            legend = ["red as the total effect goes, blue against it" if result.total >= 0 else "red up, blue down"]
            left = heatmap.margin(self.cells.rows)
            scale = [(left, heatmap.scale(end)), (left, draw.words(legend))]
            drawn.append([("Indirect effect: through each, a row per layer", draw.stack([(0, heat), *scale]))])
        if not top:
            return [*drawn, [("Effects", draw.words(["nothing was computed"]))]]
        stars = {True: " *", False: ""}
        rows = [
            bars.Bar(
                self.label(cell) + stars[bool(result.significant[cell])],
                float(result.indirect[cell]),
                float(result.indirect_interval[0][cell]),
                float(result.indirect_interval[1][cell]),
            )
            for cell in top
        ]
        first = top[0]
        parts = [
            bars.Bar("total", result.total, float(result.total_interval[0]), float(result.total_interval[1])),
            bars.Bar("indirect", float(result.indirect[first]), *_ends(result.indirect_interval, first)),
            bars.Bar("direct", float(result.direct[first]), *_ends(result.direct_interval, first)),
            bars.Bar("interaction", float(result.interaction[first])),
        ]
        whole = max([_LEAST, *(abs(part.value) for part in parts if math.isfinite(part.value))])
        side: page.Stack = [
            (f"Total effect, and its parts through and past {self.label(first)}", bars.bars(parts, whole))
        ]
        corrected = (
            "" if result.correction == "none" else f" ({_CORRECTIONS.get(result.correction, result.correction)})"
        )
        strongest = (f"Strongest indirect effects; * corrected p ≤ 0.05{corrected}", bars.bars(rows, _LEAST))
        return [[*(block for stack in drawn for block in stack), *side], [strongest]]

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        found = int(result.significant.sum())
        pieces: list[page.Piece] = [
            ("total ", signed(result.total), False),
            (f"clean {signed(result.clean_metric)} less corrupted {signed(result.corrupted_metric)}", "", True),
            (f"significant {found} of ", str(int(np.isfinite(result.corrected).sum())), False),
        ]
        top = result.strongest(1)
        if top:
            share = float(result.proportion[top[0]])
            pieces.append((f"{self.label(top[0])} carries ", f"{share:.0%}".replace("-", "−"), False))
            pieces.append((f"p {result.p[top[0]]:.2g}, corrected {result.corrected[top[0]]:.2g}", "", True))
        pieces.append((f"p by {result.draws:,} sign flips over pairs, 95 % intervals", "", True))
        return pieces


def _ends(interval: np.ndarray[tuple[int, ...], np.dtype[np.float64]], cell: tuple[int, ...]) -> tuple[float, float]:
    return float(interval[0][cell]), float(interval[1][cell])


def _picture(result: MediationResult) -> page.Picture:
    view = _View(result)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes)


html, svg = page.pictures(_picture)
