"""The picture of a LossResult: its means, the loss over positions, and texts in which surprise is loud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import bars, coloured_text, curves, draw, figures, frame, heatmap, page
from interp.views.kit import theme as themes
from interp.views.kit.curves import Curve
from interp.views.kit.draw import ACCENT, MUTED, Drawing
from interp.views.kit.text import escape, minus, signed, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.loss_result import LossResult

_TITLE = "Loss"
_WIDE, _SIDE = 520, 300  # the text; the chart
_ALONE, _EACH = 600, 160  # tokens of the only text, and of each of several
_WORST, _LISTED, _SHORT, _LABEL = 3, 10, 20, 26
_POINTS = 40  # of the chart: of more positions each is the mean of some
_LEAST = 0.1

Float = NDArray[np.float64]


def plotly(result: LossResult, *, theme: str = "light", width: int = 900, height: int = 420) -> go.Figure:
    """Return the loss over positions as a Plotly figure: a line for each text, the tokens to be read on it."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, held in enumerate(_texts(result)[:_LISTED]):
        names = [escape(visible(result.tokens[n], _SHORT)) for n in held]
        figure.add_scatter(
            x=np.arange(len(held)),
            y=result.loss[held.start : held.stop],
            name=f"text {number}",
            mode="lines+markers" if len(held) <= _ALONE else "lines",
            text=[
                f"{name}, rank {rank}" for name, rank in zip(names, result.rank[held.start : held.stop], strict=True)
            ],
            hovertemplate="position %{x}: %{text}<br><b>%{y:.4f} nats</b><extra>%{fullData.name}</extra>",
            line={"color": themes.colour("accent", theme)} if len(result.per_text) == 1 else {},
            showlegend=len(result.per_text) > 1,
        )
    figure.add_hline(y=result.mean, line={"color": themes.solid("muted", theme), "width": 1}, annotation_text="mean")
    figure.update_xaxes(title="position", showgrid=False, zeroline=False)
    figure.update_yaxes(title="loss, nats", rangemode="tozero")
    return figures.styled(figure, _TITLE, _View(result).facts, theme, width, height)


def _texts(result: LossResult) -> list[range]:
    """Return where each text's tokens are."""
    return [range(int(first), int(last)) for first, last in zip(result.starts, result.starts[1:], strict=False)]


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: LossResult, on_page: bool = False) -> None:
        self.result = result
        self.on_page = on_page
        self.texts = _texts(result)
        order = np.argsort(-np.nan_to_num(result.per_text, nan=-1.0), kind="stable")
        self.order: list[int] = order.tolist()

    @cached_property
    def facts(self) -> str:
        result = self.result
        count, changes = len(self.texts), result.interventions
        return frame.facts(
            result,
            f"{count:,} text{'s' * (count != 1)}"
            + (f" of {frame.visible_facts(result.source, 40)}" * bool(result.source)),
            f"{len(result.tokens):,} tokens",
            f"{changes} intervention{'s' * (changes != 1)}" if changes else "",
            f"beside {frame.visible_facts(result.against, 40)}" if result.against else "",
        )

    @cached_property
    def end(self) -> float:
        """Where the scale of colours ends."""
        return heatmap.limit(self.result.loss, 4.0)

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The text, beside it the means and the chart; of several these first, then the texts of the largest losses."""
        result = self.result
        sure = np.isfinite(result.mean_interval).any()
        over = f"; thin line: 95 % interval over {len(self.texts)} texts" if sure else ""
        side: list[page.Block] = [(f"Mean loss, nats a token{over}", self._means())]
        if len(self.texts) == 1:
            return [[*self._text(0), self._scale()], [*side, *self._over_positions()]]
        side.append((f"Texts by their mean loss{self._more}", self._ranked()))
        written = [block for number in self.order[:_WORST] for block in self._text(number)]
        return [[*side, *self._over_positions()], [*written, self._scale()]]

    @property
    def _more(self) -> str:
        left = len(self.texts) - _LISTED
        return f", the {_LISTED} largest" if left > 0 else ""

    def _means(self) -> Drawing:
        result = self.result
        own = np.isfinite(result.loss)
        counts = int(own.sum()), int((own & result.repeated).sum()), int((own & ~result.repeated).sum())
        rows: list[tuple[str, int, float | None, Float]] = [
            ("all tokens", counts[0], result.mean, result.mean_interval),
            ("repeated bigrams", counts[1], result.repeated_mean, result.repeated_interval),
            ("other tokens", counts[2], result.other_mean, result.other_interval),
        ]
        if result.against:
            other = result.against_loss[np.isfinite(result.against_loss)]
            mean = float(other.mean()) if len(other) else math.nan
            rows.insert(1, (f"all, in {frame.visible_facts(result.against, 12)}", len(other), mean, np.full(2, np.nan)))
        shown = [
            bars.Bar(f"{name} ({count:,})", value, float(ends[0]), float(ends[1]))
            for name, count, value, ends in rows
            if value is not None and (name != "other tokens" or result.repeated_mean is not None)
        ]
        return bars.bars(shown, _LEAST, neutral=True)

    def _over_positions(self) -> list[page.Block]:
        """The mean loss over positions, as far as half of the texts go."""
        result = self.result
        lengths = np.sort([len(held) for held in self.texts])
        last = int(lengths[(len(lengths) - 1) // 2])
        sums, counts = np.zeros(last), np.zeros(last)
        for held in self.texts:
            values = result.loss[held.start : held.stop][:last]
            known = np.isfinite(values)
            sums[: len(values)] += np.where(known, values, 0.0)
            counts[: len(values)] += known
        parts = np.array_split(np.arange(1, last), min(_POINTS, last - 1))
        if len(parts) < 2 or not counts.any():
            return []
        with np.errstate(invalid="ignore"):
            means = np.array([sums[part].sum() / counts[part].sum() for part in parts])
        top = max(_LEAST, float(np.nanmax(means)) * 1.08)
        lines = [
            Curve("mean", np.full(len(means), result.mean), MUTED, dashed=True),
            Curve("loss", means, ACCENT, dots=True),
        ]
        each = "" if len(parts) == last - 1 else f", {len(parts[0])} to a point"
        of = f", mean of {len(self.texts)} texts" if len(self.texts) > 1 else ""
        drawn = curves.chart([str(part[0]) for part in parts], lines, (0.0, top), wide=_SIDE)
        return [(f"Loss over positions{each}{of}", drawn)]

    def _ranked(self) -> Drawing:
        rows: list[bars.Bar] = []
        for number in self.order[:_LISTED]:
            label = f"{number} {frame.visible_facts(self._beginning(number), _LABEL)}"
            rows.append(bars.Bar(label, float(self.result.per_text[number])))
        return bars.bars(rows, _LEAST, neutral=True)

    def _beginning(self, number: int) -> str:
        """Return how a text begins, without what stands for its beginning."""
        held = self.texts[number]
        special = self.result.tokens[held.start].startswith("<")
        return "".join(self.result.tokens[n] for n in held[int(special) : 16]).strip()

    def _text(self, number: int) -> list[page.Block]:
        result = self.result
        held = self.texts[number][: _ALONE if len(self.texts) == 1 else _EACH]
        values = result.loss[held.start : held.stop]
        # The colours' own lift would make small losses louder; here they are to be quiet.
        colours = np.clip(values / self.end, 0, 1) ** (1 / themes.POWER)
        cut = f", its first {len(held)} tokens" if len(held) < len(self.texts[number]) else ""
        titles = [self._title(n) for n in held] if self.on_page else None
        tokens = [result.tokens[n] for n in held]
        name = f"Text {number}" if len(self.texts) > 1 else "The text"
        caption = f"{name}, {result.per_text[number]:.3f} nats a token{cut}; colour: the loss of each"
        drawn = [(caption, coloured_text.text(tokens, colours.tolist(), _WIDE, muted=1, titles=titles))]
        if result.against:
            gained = -result.difference[held.start : held.stop]
            end = heatmap.limit(-result.difference, 0.5)
            said = [signed(value) for value in gained.tolist()] if self.on_page else None
            coloured = coloured_text.text(tokens, (gained / end).tolist(), _WIDE, signed=True, muted=1, titles=said)
            parts = [(0, coloured), (0, heatmap.scale(end))]
            other = visible(result.against, _SHORT)
            drawn.append((f"The same: log-probability less that in {other}, nats; red is likelier", draw.stack(parts)))
        return drawn

    def _title(self, n: int) -> str:
        """Return what the pointer says of a token."""
        result = self.result
        if result.top_ids[n, 0] < 0:
            return "nothing predicts it"
        said = [f"loss {result.loss[n]:.4f}", f"p {math.exp(-result.loss[n]):.2g}", f"rank {result.rank[n]}"]
        if result.repeated[n]:
            said.append("a repeated bigram")
        likeliest = (f"{visible(name, _SHORT)} {chance:.3f}" for name, _, chance in result.top(n))
        return " · ".join([*said, f"likeliest: {', '.join(likeliest)}"])

    def _scale(self) -> page.Block:
        steps = np.linspace(0, 1, 64)
        wide = 3 * len(steps)
        body = [
            draw.cells(themes.level(steps ** (1 / themes.POWER))[None], 3, 8),
            draw.text(0, 20, "0"),
            draw.text(wide, 20, f"{self.end:g}", anchor="end"),
        ]
        beyond = "; more is as loud" if np.nanmax(self.result.loss, initial=0.0) > self.end else ""
        return f"Loss of a token, nats{beyond}", Drawing(wide, 22, "".join(body))

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        pieces: list[page.Piece] = [("perplexity ", _large(result.perplexity), False)]
        low, high = np.exp(result.mean_interval)
        if math.isfinite(low):
            pieces.append((f"95 % interval {_large(low)} to {_large(high)}", "", True))
        if result.repeated_mean is not None and result.other_mean is not None:
            gained = result.repeated_mean - result.other_mean
            pieces.append(("repeated bigrams less others ", signed(gained), False))
        if result.in_context is not None:
            pieces.append(("token 500 less token 50 ", signed(result.in_context), False))
            pieces += self._interval(result.in_context_interval)
        if math.isfinite(mean := _mean(result.difference)):
            pieces.append((f"less {visible(result.against, _SHORT)} ", signed(mean), False))
        for loss, token, number, at in result.surprises(1):
            where = f"at {at}" if len(self.texts) == 1 else f"text {number} at {at}"
            pieces.append((f"largest {visible(token, _SHORT)} ({where}) ", f"{loss:.3f}", True))
        return pieces

    @staticmethod
    def _interval(ends: Float) -> list[page.Piece]:
        low, high = ends.tolist()
        return [(minus(f"[{low:.3f}, {high:.3f}]"), "", True)] if math.isfinite(low) else []

    @cached_property
    def notes(self) -> Sequence[str]:
        notes = list(self.result.notes)
        most = _ALONE if len(self.texts) == 1 else _EACH
        if len(self.texts) > _WORST:
            notes.append(f"the {_WORST} texts of the largest mean loss are written out; to_frame() has every token")
        elif max(map(len, self.texts)) > most:
            notes.append(f"the first {most} tokens of a text are written out; to_frame() has all")
        return notes


def _large(value: float) -> str:
    return f"{value:.2f}" if not value >= 100 else f"{value:,.0f}"


def _mean(values: Float) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _picture(result: LossResult) -> page.Picture:
    view, paged = _View(result), _View(result, on_page=True)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, view.notes, paged.stacks)


html, svg = page.pictures(_picture)
