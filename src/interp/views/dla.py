"""Pictures of a DLAResult: which components write a logit, and from where the heads among them read."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.spec import Node
from interp.views.kit import bars, coloured_text, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.grid import Cell, grid
from interp.views.kit.heatmap import Cells
from interp.views.kit.text import head_label, labels, signed, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.readouts.dla import DLAResult

_SHORT, _TOKEN = 20, 12
_TOP, _NEURONS, _HEADS = 14, 6, 6
_WIDE = 20  # positions beside each other
_LEAST = 1e-3
_NAMES = {
    "embed": "embedding",
    "pos_embed": "position",
    "type_embed": "segment",
    "norm_bias": "norm bias",
    "unembed_bias": "unembed bias",
    "head_bias": "head bias",
}
_TITLE = "Direct logit attribution"


def plotly(result: DLAResult, *, theme: str = "light", width: int = 900, height: int = 560) -> go.Figure:
    """Return two Plotly figures in one: the largest parts as bars, and layers × heads and MLPs as a heatmap."""
    from plotly.subplots import make_subplots

    view = _View(result)
    cells = view.cells
    listed = list(reversed(view.listed))
    values = [value for _, value in listed]
    figure: go.Figure = make_subplots(cols=2, column_widths=[0.45, 0.55], horizontal_spacing=0.12)
    figure.add_bar(
        x=values,
        y=[label for label, _ in listed],
        orientation="h",
        marker={"color": figures.sides(values, theme)},
        hovertemplate="%{y}<br><b>%{x:+.4f}</b><extra></extra>",
        row=1,
        col=1,
    )
    figure.add_heatmap(
        z=np.where(np.isfinite(cells.values) & cells.done, cells.values, np.nan),
        x=list(cells.columns),
        y=list(cells.rows),
        zmin=-view.end,
        zmax=view.end,
        colorscale=themes.scale(theme),
        colorbar={"thickness": 12, "title": {"text": "logits"}},
        hoverongaps=False,
        hovertemplate="%{y} · %{x}<br><b>%{z:+.4f}</b><extra></extra>",
        row=1,
        col=2,
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_xaxes(type="category", title="head", row=1, col=2)
    return figures.styled(figure, _TITLE, view.facts, theme, width, height)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: DLAResult) -> None:
        self.result = result

    @cached_property
    def what(self) -> str:
        answer = visible(self.result.answer[0], _SHORT)
        return f"{answer} over {visible(self.result.wrong[0], _SHORT)}" if self.result.wrong else f"logit of {answer}"

    @cached_property
    def facts(self) -> str:
        result = self.result
        # The frame makes foreign text visible itself.
        plain = [token[0][:_SHORT].strip() for token in (result.answer, result.wrong) if token]
        what = " over ".join(plain) if all(plain) else ""
        return frame.facts(result, what, f"position {result.position} of {len(result.tokens)}")

    @cached_property
    def listed(self) -> list[tuple[str, float]]:
        """The largest parts, and what all others add, so that the bars sum to the total."""
        parts = self.result.top(len(self.result.contributions))
        shown = [(component(name), value) for name, value in parts[:_TOP]]
        rest = parts[_TOP:]
        if rest:
            shown.append((f"{len(rest)} others", sum(value for _, value in rest)))
        return shown

    @cached_property
    def cells(self) -> Cells:
        """Layers × heads, with the MLP beside them."""
        result = self.result
        depth, heads = result.heads.shape
        mlps = np.array([result.contributions.get(f"mlp {n}", math.nan) for n in range(depth)])
        values: NDArray[np.float64] = np.concatenate([result.heads, mlps[:, None]], 1)
        done = np.ones(values.shape, bool)
        done[:, -1] = [f"mlp {n}" in result.contributions for n in range(depth)]
        return Cells(values, done, [f"L{n}" for n in range(depth)], [*map(str, range(heads)), "MLP"])

    @cached_property
    def end(self) -> float:
        return heatmap.limit(self.cells.values[self.cells.done], _LEAST)

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The drawings, each with its caption, in columns."""
        result = self.result
        cells = self.cells
        known = np.where(np.isfinite(cells.values) & cells.done, np.abs(cells.values), -1.0)
        row, column = (int(n) for n in np.unravel_index(int(known.argmax()), known.shape))
        ring = (row, column) if known.max() > 0 else None
        left = heatmap.margin(cells.rows)
        legend = [f"red towards {visible(result.answer[0], _SHORT)}, blue away from it"]
        beyond = cells.done & (np.abs(cells.values) > self.end * (1 + 1e-9))
        if beyond.any():
            legend.append(f"dotted: beyond the scale, up to {signed(float(cells.values[row, column]))}")
        picture = draw.stack(
            [
                (0, heatmap.heat(cells, self.end, ring)),
                (left, heatmap.scale(self.end)),
                (left, draw.words(legend)),
            ]
        )
        listed = bars.bars([bars.Bar(label, value) for label, value in self.listed], _LEAST)
        side = [("Largest parts, in logits", listed)]
        if result.neurons:
            neurons = [bars.Bar(name, value) for name, value in result.neurons[:_NEURONS]]
            side.append(("Largest neurons, inside their MLPs", bars.bars(neurons, _LEAST)))
        if result.features:
            features = [bars.Bar(name, value) for name, value in result.features[:_NEURONS]]
            side.append(("Largest features, inside what they write to", bars.bars(features, _LEAST)))
        return [[("Heads and MLPs: a row per layer", picture)], side, *self._where()]

    def _where(self) -> list[page.Stack]:
        """Where the strongest heads read what they write."""
        result = self.result
        size = np.where(np.isfinite(result.heads), np.abs(result.heads), 0.0)
        order = [divmod(int(n), size.shape[1]) for n in np.argsort(-size, axis=None, kind="stable")[:_HEADS]]
        order = [place for place in order if size[place] > 0]
        if not order:
            return []
        held = range(len(result.tokens))
        if result.position + 1 < len(held) and not result.per_position[..., result.position + 1 :].any():
            held = held[: result.position + 1]
        held = held[-_WIDE:]
        values = np.array([result.per_position[place][held.start : held.stop] for place in order])
        end = heatmap.limit(values, _LEAST)
        rows = [[Cell(_short(v), v / end if math.isfinite(v) else math.nan) for v in row] for row in values.tolist()]
        tokens = labels([result.tokens[n] for n in held], _TOKEN)
        drawn = grid(rows, [head_label(*place) for place in order], tokens, signed=True)
        return [[("Strongest heads: what each reads from which position, in logits", drawn)]]

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        sums: dict[str, float] = {}
        for name, value in result.contributions.items():
            kind = "heads" if "." in name else "MLPs" if name.startswith("mlp ") else "embedding"
            kind = "biases" if "bias" in name else kind
            sums[kind] = sums.get(kind, 0.0) + value
        return [
            (f"{self.what} ", signed(result.logit), False),
            (f"sum of {len(result.contributions)} parts ", signed(result.total), False),
            *((f"{kind} {signed(value)}", "", True) for kind, value in sums.items()),
        ]

    @cached_property
    def notes(self) -> list[str]:
        result = self.result
        notes = list(result.notes)
        if result.per_position.shape[-1] > _WIDE:
            notes.append(f"the last {_WIDE} positions are drawn; per_position has all")
        return notes


def component(name: str) -> str:
    """Return a component as it is drawn.

    Examples
    --------
    >>> component("5.1"), component("attn_bias 3")
    ('L5H1', 'L3 attn bias')
    """
    if "." in name:
        return Node.parse(name).drawn
    kind, space, number = name.partition(" ")
    if space:
        return f"L{number} {'MLP' if kind == 'mlp' else kind.replace('_', ' ')}"
    return _NAMES.get(name, name)


def _short(value: float) -> str:
    """Return a value in at most five columns; nothing for what rounds to zero."""
    if not math.isfinite(value) or abs(value) < 0.005:
        return ""
    return format(value, "+.2f" if abs(value) < 10 else "+.0f").replace("-", "−")


def _picture(result: DLAResult) -> page.Picture:
    view = _View(result)
    text = coloured_text.spans(result.tokens, ring=result.position)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, view.notes, text=text)


html, svg = page.pictures(_picture)
