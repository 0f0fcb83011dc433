"""Pictures of a SaliencyResult: the text coloured by what each token adds, and the largest parts as bars."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.views.kit import bars, coloured_text, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.text import escape, labels, signed, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.saliency_result import SaliencyResult

_SHORT, _TOKEN, _TOP = 20, 12, 12
_LEAST = 1e-3
_SEEN = 5e-3
_DRAWN, _WIDE = 300, 620  # tokens, and the lines that they are drawn in
NAMES = {
    "ig": "Integrated gradients",
    "gradient-input": "Gradient × input",
    "deeplift": "DeepLIFT",
    "occlusion": "Occlusion",
    "kernel-shap": "KernelSHAP",
    "lime": "LIME",
    "rollout": "Attention rollout",
}
_STARTS = {"zero": "zero embedding", "mean": "mean embedding", "counterfactual": "counterfactual"}


def plotly(result: SaliencyResult, *, theme: str = "light", width: int = 900, height: int = 420) -> go.Figure:
    """Return the parts as Plotly bars, one per position."""
    import plotly.graph_objects as go

    view = _View(result)
    names = labels(result.tokens, _SHORT)
    figure = go.Figure()
    figure.add_bar(
        x=[f"{n} {escape(name)}" for n, name in enumerate(names)],
        y=result.attribution,
        marker={"color": figures.sides(result.attribution, theme)},
        hovertemplate="%{x}<br><b>%{y:+.4f}</b><extra></extra>",
    )
    figure.update_xaxes(type="category", showgrid=False, tickfont={"family": "monospace"})
    figure.update_yaxes(title=view.units)
    return figures.styled(figure, view.title, view.facts, theme, width, height)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: SaliencyResult) -> None:
        self.result = result
        self.title = NAMES[result.method]
        count = len(result.tokens)
        if count != len(result.attribution):
            raise InputError(
                f"there are {count} tokens and {len(result.attribution)} attributions; they must be as many"
            )
        first = 0 if count <= _DRAWN or result.position < 0 else max(0, min(result.position + 1, count) - _DRAWN)
        self.drawn = range(first, min(count, first + _DRAWN))

    @property
    def units(self) -> str:
        metric = self.result.metric
        return {"attention": "share of attention", "logprob": "nats", "prob": "probability"}.get(metric, "logits")

    @cached_property
    def what(self) -> str:
        result = self.result
        if result.answer is None:
            return f"read from {visible(result.tokens[result.position], _SHORT)} ({result.position})"
        answer = visible(result.answer[0], _SHORT)
        return (
            f"{answer} over {visible(result.wrong[0], _SHORT)}" if result.wrong else f"{self.result.metric} of {answer}"
        )

    @cached_property
    def facts(self) -> str:
        result = self.result
        count = len(result.tokens)
        start = f"from the {_STARTS[result.baseline]}" if result.baseline and result.method != "gradient-input" else ""
        steps = f"{result.steps} gradients" if result.steps > 1 else ""
        return frame.facts(result, f"{count} token{'s' * (count != 1)}", start, steps)

    @cached_property
    def caption(self) -> str:
        if self.result.answer is None:
            return f"Share of each token, {self.what}, outlined"
        return f"What each token adds to {self.what}, in {self.units}"

    @cached_property
    def shown(self) -> tuple[tuple[str, ...], NDArray[np.float64], float]:
        """The tokens that are drawn, their parts, and where the scale ends."""
        held = slice(self.drawn.start, self.drawn.stop)
        end = heatmap.limit(self.result.attribution, _LEAST, spread=10.0)
        return self.result.tokens[held], self.result.attribution[held], end

    @property
    def ring(self) -> int | None:
        position = self.result.position
        return position - self.drawn.start if position in self.drawn else None

    def stacks(self, on_page: bool) -> list[page.Stack]:
        """The drawings, each with its caption, in columns; a page has its text above them."""
        result = self.result
        end = self.shown[2]
        if result.answer is None:
            parts = [(0.0, draw.words([f"scale to {end:g}, {themes.LIFT}"]))]
        else:
            legend = [f"red towards {visible(result.answer[0], _SHORT)}, blue away from it"]
            if self.ring is not None:
                legend.append("outlined: where the answer is read")
            parts = [(0.0, heatmap.scale(end)), (0.0, draw.words(legend))]
        if not on_page:
            tokens, values, _ = self.shown
            numbers, signed_ = coloured_text.brief_numbers(values, end), bool(result.answer)
            coloured = (values / end).tolist()
            drawn = coloured_text.text(tokens, coloured, _WIDE, signed=signed_, ring=self.ring, numbers=numbers)
            parts.insert(0, (0.0, drawn))
        largest = result.top(_TOP)
        # After the first, only what is long enough to be seen as a bar.
        seen = [one for n, one in enumerate(largest) if n == 0 or not abs(one[2]) < _SEEN * abs(largest[0][2])]
        listed = bars.bars([bars.Bar(self._label(p), value) for p, _, value in seen], _LEAST)
        key = ("Scale" if on_page else self.caption, draw.stack(parts))
        strongest = (f"Largest parts, in {self.units}", listed)
        return [[strongest], [key]] if on_page else [[key], [strongest]]

    def _label(self, position: int) -> str:
        result = self.result
        label = f"{position} {visible(result.tokens[position], _TOKEN)}"
        if result.counterfactual and result.counterfactual[position] != result.tokens[position]:
            label += f" ← {visible(result.counterfactual[position], _TOKEN)}"
        return label

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        if result.answer is None:
            position, token, value = result.top(1)[0]
            return [("", self.what, False), (f"most of {visible(token, _SHORT)} ({position}) ", signed(value), True)]
        return [
            (f"{self.what} ", signed(result.value), False),
            (f"on the {_STARTS[result.baseline]} ", signed(result.reference), False),
            ("difference ", signed(result.value - result.reference), False),
            ("the parts sum to ", signed(result.total), False),
            *([("halves of the samples apart by ±", f"{result.error:.3g}", False)] if result.error else []),
            ("gap ", f"{result.relative_gap:.1%}" if math.isfinite(result.relative_gap) else "not a number", False),
        ]

    @cached_property
    def notes(self) -> list[str]:
        notes = list(self.result.notes)
        count = len(self.result.tokens)
        if len(self.drawn) < count:
            notes.append(
                f"tokens {self.drawn.start}–{self.drawn.stop - 1} of {count} are drawn; to_frame() has all of them"
            )
        return notes


def _picture(result: SaliencyResult) -> page.Picture:
    view = _View(result)
    caption = f'<div class="interp-caption">{escape(view.caption)}</div>'
    text = caption + coloured_text.numbered(*view.shown, signed=bool(result.answer), ring=view.ring)
    stacks, paged = view.stacks(on_page=False), view.stacks(on_page=True)
    return page.Picture(view.title, view.facts, stacks, view.foot, view.notes, paged, text)


html, svg = page.pictures(_picture)
