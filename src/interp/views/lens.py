"""Pictures of a LensResult: each layer's likeliest token, and what becomes of the token that is followed."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.views.kit import coloured_text, curves, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.curves import Curve
from interp.views.kit.grid import Cell, grid
from interp.views.kit.text import escape, labels, signed, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods.readouts.lens import LensResult

_TOKEN, _SHORT = 9, 20
# What fits: positions beside each other, layers above each other.
_WIDE, _HIGH = 18, 42
_CHART, _LEAST = 320, 0.1
_TITLE = {"logit": "Logit lens", "tuned": "Tuned lens", "jacobian": "Jacobian lens"}
_WHERE = {"pre": "before", "mid": "in the middle of", "post": "after"}


def plotly(
    result: LensResult, *, show: str = "top", theme: str = "light", width: int = 900, height: int = 620
) -> go.Figure:
    """Return the lens as a Plotly heatmap with a menu: the likeliest tokens, or the target; drawn without a network.

    Parameters
    ----------
    show
        What is shown first: ``"top"``, ``"target"``, ``"entropy"``, ``"kl"`` or, with a wrong answer, ``"difference"``.
    """
    import plotly.graph_objects as go

    from interp.errors import InputError, closest
    from interp.views.attention_exports import sequential_scale

    names = {index: visible(name, _SHORT) for index, name in result.names.items()}
    target = visible(result.target[0], _SHORT)
    shown: dict[str, tuple[str, Any, Any, float | None]] = {
        "top": (
            "likeliest token",
            result.probabilities[..., 0],
            [[escape(names[int(i)]) for i in row] for row in result.ids[..., 0]],
            1.0,
        ),
        "target": (f"{target}: rank", result.target_probability, result.target_rank.astype(str).tolist(), 1.0),
        "entropy": ("entropy, nats", result.entropy, np.char.mod("%.1f", result.entropy).tolist(), None),
        "kl": ("divergence from the end, nats", result.kl, np.char.mod("%.1f", result.kl).tolist(), None),
    }
    if result.difference is not None:
        said = np.char.mod("%+.1f", result.difference).tolist()
        shown["difference"] = ("logit difference", result.difference, said, None)
    if show not in shown:
        raise InputError(f"show {show!r} is none of {', '.join(shown)}{closest(show, shown)}")
    x = [f"{n} {escape(visible(token, _SHORT))}" for n, token in zip(result.positions, result.tokens, strict=True)]
    y = [f"L{layer}" for layer in result.layers]
    hover = [
        [
            "<br>".join(
                [
                    *(
                        f"{p:.4f} {escape(names[int(i)])}"
                        for i, p in zip(result.ids[a, b], result.probabilities[a, b], strict=True)
                    ),
                    f"{escape(target)}: {result.target_probability[a, b]:.4f}, rank {result.target_rank[a, b]}",
                    f"entropy {result.entropy[a, b]:.3f}, divergence {result.kl[a, b]:.3f} nats",
                ]
            )
            for b in range(len(x))
        ]
        for a in range(len(y))
    ]
    figure = go.Figure()
    for name, (_, values, text, end) in shown.items():
        both = heatmap.limit(np.asarray(values, np.float64), _LEAST) if name == "difference" else None
        figure.add_heatmap(
            z=np.asarray(values, np.float32),
            x=x,
            y=y,
            text=text,
            texttemplate="%{text}" if len(x) <= 2 * _WIDE else "",
            customdata=hover,
            visible=name == show,
            colorscale=sequential_scale(theme) if both is None else themes.scale(theme),
            zmin=0 if both is None else -both,
            zmax=end if both is None else both,
            colorbar={"thickness": 12},
            hovertemplate="%{y} · %{x}<br>%{customdata}<extra></extra>",
        )
    menu = [
        {
            "label": escape(label),
            "method": "update",
            "args": [{"visible": [other == name for other in shown]}],
        }
        for name, (label, *_) in shown.items()
    ]
    figure.update_xaxes(type="category", showgrid=False, title="position", tickfont={"family": "monospace"})
    figure.update_yaxes(type="category", showgrid=False, title="layer")
    picker = [figures.menu(menu, list(shown).index(show), theme)]
    facts = _View(result).facts
    return figures.styled(figure, _TITLE[result.kind], facts, theme, width, height, updatemenus=picker)


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: LensResult) -> None:
        self.result = result
        count = len(result.positions)
        self.columns = range(max(0, count - _WIDE), count)
        # The last layer on top, and always there.
        depth = len(result.layers)
        self.rows = range(depth - 1, -1, -math.ceil(depth / _HIGH))

    @cached_property
    def target(self) -> str:
        return visible(self.result.target[0], _SHORT)

    @cached_property
    def wrong(self) -> str:
        return visible(self.result.wrong[0], _SHORT) if self.result.wrong is not None else ""

    @cached_property
    def settled(self) -> int | None:
        """The index of the first layer from which on the target is on top at the last position."""
        away = np.flatnonzero(self.result.target_rank[:, -1] != 0)
        first = int(away[-1]) + 1 if away.size else 0
        return first if first < len(self.result.layers) else None

    @cached_property
    def facts(self) -> str:
        result = self.result
        count, depth = len(result.positions), len(result.layers)
        which = f"layer {result.layers[0]}" if depth == 1 else f"{depth} layers"
        return frame.facts(
            result,
            f"{count} position{'s' * (count != 1)}",
            f"as the features {result.features} have it" if result.features else "",
            f"read {_WHERE[result.at]} {'each of ' * (depth > 1)}{which}",
        )

    @cached_property
    def spans(self) -> dict[str, list[int]]:
        """Which of the columns that are shown are of which span."""
        shown = {self.result.positions[n]: at for at, n in enumerate(self.columns)}
        found = {name: [shown[n] for n in own if n in shown] for name, own in self.result.spans.items()}
        return {name: own for name, own in found.items() if own}

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        where = visible(result.tokens[-1], _SHORT)
        last = f"L{result.layers[-1]}"
        pieces = [("", self.target, False), (f"followed; at position {result.positions[-1]}, {where}:", "", True)]
        if self.settled is None:
            pieces.append((f"not on top {_WHERE[result.at]} ", last, False))
        elif result.layers[self.settled] == result.layers[-1]:
            pieces.append((f"on top only {_WHERE[result.at]} ", last, False))
        else:
            pieces.append(("on top from ", f"L{result.layers[self.settled]}", False))
        rank = int(result.target_rank[-1, -1])
        over = []
        if result.difference is not None:
            over = [(f"{last} logit over {self.wrong} ", signed(float(result.difference[-1, -1])), False)]
        return [
            *pieces,
            (f"{last} probability ", f"{result.target_probability[-1, -1]:.3f}", False),
            ("rank ", str(rank) if rank >= 0 else "none", False),
            *over,
            (f"entropy {result.entropy[-1, -1]:.2f} nats", "", True),
            (f"divergence from the end {result.kl[0, -1]:.2f} nats at L{result.layers[0]}", "", True),
        ]

    @cached_property
    def notes(self) -> list[str]:
        result = self.result
        notes = list(result.notes)
        if len(self.columns) < len(result.positions):
            notes.append(
                f"the last {len(self.columns)} of {len(result.positions)} positions are drawn; --position chooses "
                "others, to_frame() and to_plotly() have all"
            )
        if len(self.rows) < len(result.layers):
            notes.append(f"every {-self.rows.step}. layer of {len(result.layers)} is drawn; to_frame() has all")
        return notes

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The two grids, each with its caption, and what the target has over the wrong answer."""
        return [*([block] for block in self.blocks), *self._difference()]

    def _difference(self) -> list[page.Stack]:
        """The logit difference at every position, and layer by layer at the last."""
        result = self.result
        if result.difference is None:
            return []
        end = heatmap.limit(result.difference, _LEAST)
        held = [[float(result.difference[a, b]) for b in self.columns] for a in self.rows]
        cells = [[Cell(_apart(value), value / end) for value in row] for row in held]
        tokens = labels([result.tokens[n] for n in self.columns], _TOKEN)
        drawn = grid(cells, [f"L{result.layers[n]}" for n in self.rows], tokens, signed=True, spans=self.spans)
        stacks: list[page.Stack] = [
            [(f"Logit of {self.target} less that of {self.wrong}; red is towards {self.target}", _keyed(drawn, end))]
        ]
        last = result.difference[:, -1]
        if len(last) > 1 and np.isfinite(last).any():
            low, high = min(0.0, float(np.nanmin(last))), max(0.0, float(np.nanmax(last)))
            room = 0.06 * max(_LEAST, high - low)
            curve = Curve("difference", last, draw.ACCENT, dots=True)
            none = Curve("0", np.zeros(len(last)), draw.MUTED, dashed=True)
            chart = curves.chart(
                [f"L{n}" for n in result.layers], [none, curve], (low - room, high + room), wide=_CHART
            )
            where = f"{result.positions[-1]}, {visible(result.tokens[-1], _SHORT)}"
            stacks.append([(f"The same, layer by layer at position {where}", chart)])
        return stacks

    @cached_property
    def blocks(self) -> list[page.Block]:
        """Return the two grids, each with its caption."""
        result = self.result
        rows = [f"L{result.layers[n]}" for n in self.rows]
        tokens = labels([result.tokens[n] for n in self.columns], _TOKEN)
        names = dict(zip(result.names, labels(list(result.names.values()), _TOKEN), strict=True))
        top = [[self._top(a, b, names) for b in self.columns] for a in self.rows]
        rank = [[self._rank(a, b) for b in self.columns] for a in self.rows]
        ring = None
        if self.settled is not None and self.settled in self.rows:
            ring = (list(self.rows).index(self.settled), len(self.columns) - 1)
        beside: list[page.Block] = []
        if result.whole_target_rank is not None:
            whole = [[self._rank(a, b, whole=True) for b in self.columns] for a in self.rows]
            beside = [(f"{self.target}: its rank in the stream itself", grid(whole, rows, tokens, spans=self.spans))]
        return [
            (
                f"Likeliest token: {themes.LIFT.replace('weight', 'probability')}",
                grid(top, rows, tokens, level=True, spans=self.spans),
            ),
            (
                f"{self.target}: its rank, 0 is the top; colour = its probability",
                grid(rank, rows, tokens, ring=ring, spans=self.spans),
            ),
            *beside,
        ]

    def _top(self, a: int, b: int, names: dict[int, str]) -> Cell:
        result = self.result
        value = float(result.probabilities[a, b, 0])
        return Cell(names[int(result.ids[a, b, 0])] if math.isfinite(value) else "", value)

    def _rank(self, a: int, b: int, *, whole: bool = False) -> Cell:
        result = self.result
        probability, ranks = result.target_probability, result.target_rank
        if whole and result.whole_target_probability is not None and result.whole_target_rank is not None:
            probability, ranks = result.whole_target_probability, result.whole_target_rank
        value, rank = float(probability[a, b]), int(ranks[a, b])
        return Cell(_brief(rank) if rank >= 0 else "", value)


def _keyed(drawn: draw.Drawing, end: float) -> draw.Drawing:
    """Return a grid of differences above the scale of its colours."""
    return draw.stack([(0, drawn), (0, heatmap.scale(end))])


def _apart(value: float) -> str:
    """Return a difference in at most five columns; nothing for what rounds to zero."""
    if not math.isfinite(value) or abs(value) < 0.05:
        return ""
    return format(value, "+.1f" if abs(value) < 100 else "+.0f").replace("-", "−")


def _brief(rank: int) -> str:
    """Return a rank in at most four columns."""
    if rank < 10_000:
        return str(rank)
    return f"{rank // 1000}k"


def _picture(result: LensResult) -> page.Picture:
    view = _View(result)
    text = coloured_text.spans(result.tokens, ring=len(result.tokens) - 1)
    return page.Picture(_TITLE[result.kind], view.facts, view.stacks, view.foot, view.notes, text=text)


html, svg = page.pictures(_picture)
