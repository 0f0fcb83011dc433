"""The picture of steering: what is written at each strength, and how much likelier each token became."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.sites import SITES
from interp.views.kit import coloured_text, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.draw import Drawing
from interp.views.kit.text import escape, signed, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.text.steer import SteeringResult

_BESIDE, _BELOW, _PROMPT = 500, 620, 60
_LEAST, _NATURAL = 0.5, 2.0
_TITLE = "Steering"
_AT = {"all": "all tokens", "prompt": "the prompt's tokens", "new": "new tokens"}


def plotly(result: SteeringResult, *, theme: str = "light", width: int = 720, height: int = 420) -> go.Figure:
    """Return the metric and the perplexity over strengths as a Plotly figure."""
    from plotly.subplots import make_subplots

    order = np.argsort(result.strengths, kind="stable")
    texts = [escape(frame.visible_facts(result.continuations[n], 80)) for n in order]
    figure: go.Figure = make_subplots(cols=2, horizontal_spacing=0.14)
    for column, (name, values) in enumerate(
        ((frame.metric(result.metric), result.values), ("perplexity", result.perplexity)), 1
    ):
        figure.add_scatter(
            x=result.strengths[order],
            y=values[order],
            mode="lines+markers",
            text=texts,
            hovertemplate="strength %{x}<br><b>%{y:.4f}</b><br>%{text}<extra></extra>",
            line={"color": themes.colour("accent", theme)},
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(title="strength", showgrid=False, zeroline=False, row=1, col=column)
        figure.update_yaxes(title=name, row=1, col=column)
    figure.update_yaxes(type="log", row=1, col=2)
    return figures.styled(figure, _TITLE, _View(result).facts, theme, width, height)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: SteeringResult, on_page: bool = False) -> None:
        self.result = result
        self.on_page = on_page

    @cached_property
    def facts(self) -> str:
        result = self.result
        where = SITES[result.site].drawn.format(result.layer)
        return frame.facts(result, frame.visible_facts(result.source, 60), where, f"at {_AT.get(result.at, result.at)}")

    @cached_property
    def end(self) -> float:
        return heatmap.limit(self.result.change, _LEAST, _NATURAL)

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """Without and with, beside each other; several strengths below each other, the prompt above."""
        result = self.result
        count = len(result.strengths)
        wide = _BESIDE if count == 2 else _BELOW
        order = sorted(range(count), key=lambda n: float(result.strengths[n]))
        texts = [(self._caption(n), self._text(n, wide)) for n in order]
        legend = draw.stack(
            [
                (0, heatmap.scale(self.end)),
                (0, draw.words(["log-probability with steering less that without, in nats"])),
            ]
        )
        held = result.tokens[-_PROMPT:]
        cut = "… " if len(held) < len(result.tokens) else ""
        ring = {n - (len(result.tokens) - len(held)) for n in result.positions}
        prompt = coloured_text.text(
            held, [math.nan] * len(held), wide, muted=len(held), ring=ring, titles=() if self.on_page else None
        )
        before = (f"{cut}The prompt{f'; outlined: {result.at}' if ring else ''}", prompt)
        if count == 2:
            return [[before, texts[0]], [texts[1], ("How much likelier each token became", legend)]]
        return [[before, *texts, ("How much likelier each token became", legend)]]

    def _caption(self, n: int) -> str:
        result = self.result
        size = float(result.strengths[n])
        if not result.generated[n]:
            return f"Strength {size:g}: {result.stopped[n]}"
        said = [f"Strength {size:g}" if size else "Without steering", f"perplexity {result.perplexity[n]:.2f}"]
        if math.isfinite(result.values[n]):
            said.append(f"{frame.metric(result.metric)} {signed(float(result.values[n]))}")
        return " · ".join(said)

    def _text(self, n: int, wide: int) -> Drawing:
        result = self.result
        tokens = result.generated[n]
        if not tokens:
            return draw.words(["nothing was written"])
        change = result.change[n, : len(tokens)].tolist()
        titles = [f"{value:+.3f}" for value in change]
        return coloured_text.text(
            tokens, [value / self.end for value in change], wide, signed=True, titles=titles if self.on_page else None
        )

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        ratio = result.norm / result.stream_norm if result.stream_norm else math.nan
        pieces: list[page.Piece] = [
            ("direction of length ", f"{result.norm:,.4g}" if result.norm < 1e4 else f"{result.norm:,.0f}", False),
            (
                f"the stream there {result.stream_norm:.3g} (median over the prompt), {ratio:.3g} of it at strength 1",
                "",
                True,
            ),
        ]
        change = np.where(np.isfinite(result.change), np.abs(result.change), -1.0)
        if change.size and change.max() > 0:
            row, column = (int(n) for n in np.unravel_index(int(change.argmax()), change.shape))
            token = visible(result.generated[row][column], 20)
            pieces.append(
                (
                    f"most changed {token} at strength {result.strengths[row]:g} ",
                    signed(float(result.change[row, column])),
                    False,
                )
            )
        return pieces


def _picture(result: SteeringResult) -> page.Picture:
    view, paged = _View(result), _View(result, on_page=True)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes, paged.stacks)


html, svg = page.pictures(_picture)
