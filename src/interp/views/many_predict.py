"""The picture of predictions over prompts: how often the answer is on top, how likely it is, and a row per prompt."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.views import many
from interp.views.kit import bars, draw, frame, page, table
from interp.views.kit.text import visible

if TYPE_CHECKING:
    from interp.methods._shared.many.predict_result import PredictManyResult

_TITLE = "Next token over prompts"
_ROWS, _TAIL, _TOKEN, _TOP = 40, 48, 20, 8
_COLUMNS = ("prompt", "ends in", "likeliest", "p", "answer", "its p", "rank")


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: PredictManyResult) -> None:
        self.result = result
        self.asked = bool(result.asked.any())

    @cached_property
    def facts(self) -> str:
        return many.facts(self.result)

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The means as bars and each prompt's probability as a dot; what is likeliest over all prompts."""
        result = self.result
        counts = [bars.Bar(visible(token, _TOKEN), count / result.n) for token, count, _ in result.tops[:_TOP]]
        more = len(result.tops) - _TOP
        some = f", the {_TOP} commonest of {len(result.tops)}" if more > 0 else ""
        caption = f"Likeliest token: its share of the prompts{some}"
        likeliest: page.Stack = [(caption, bars.bars(counts, 1e-3, neutral=True))]
        if not self.asked:
            return [likeliest]
        accuracy, found = result.accuracy, result.spread
        assert accuracy is not None
        low, high = (float(end) for end in result.accuracy_interval)
        first, last = (float(np.clip(end, 0, 1)) for end in found.interval)
        rows = [
            bars.Bar("on top", accuracy, low, high),
            bars.Bar("mean probability", float(found.mean), first, last),
        ]
        sure = "thin line: 95 % interval"
        said = draw.words(["on top: the share of prompts whose likeliest token is the answer"])
        means = draw.stack([(0, bars.bars(rows, 1e-3, neutral=True)), (0, said)])
        dots = many.each(result.probability, found, (0.0, 1.0))
        return [[(f"The answer; {sure}", means), ("Its probability in each prompt; stroke: the mean", dots)], likeliest]

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        entropy = result.mean_of(result.entropy)
        pieces: list[page.Piece] = []
        if result.accuracy is not None:
            low, high = result.accuracy_interval
            right = int((result.rank[result.asked] == 0).sum())
            pieces = [
                ("on top in ", f"{right} of {int(result.asked.sum())}", False),
                (f"95 % interval [{low:.0%}, {high:.0%}]", "", True),
                ("mean probability ", many.said(result.spread).removeprefix("+"), False),
            ]
        return [*pieces, (f"mean entropy {many.said(entropy).removeprefix('+')} nats", "", True)]

    def rows(self) -> list[list[object]]:
        """A row per prompt."""
        result = self.result
        found: list[list[object]] = []
        for n in range(min(result.n, _ROWS)):
            text = "".join(result.prompts[n])
            row: list[object] = [
                int(result.numbers[n]),
                f"…{text[-_TAIL:]}" if len(text) > _TAIL else text,
                result.names[int(result.ids[n, 0])],
                float(result.probabilities[n, 0]),
            ]
            if self.asked:
                own = result.answers[n]
                more = f" and {len(own) - 1} more" if len(own) > 1 else ""
                chance = float(result.probability[n])
                row += [own[0] + more if own else "", chance if math.isfinite(chance) else math.nan]
                row.append(int(result.rank[n]))
            found.append(row)
        return found


def html(result: PredictManyResult) -> str:
    """Return the means, each prompt as a dot, and below them a table with a row per prompt."""
    view = _View(result)
    columns = "".join(f"<div>{page.captioned(stack)}</div>" for stack in view.stacks)
    names = _COLUMNS if view.asked else _COLUMNS[:4]
    listed = table.table(list(names), view.rows(), result.n)
    body = f'<div class="interp-columns">{columns}</div><div style="margin-top:14px">{listed}</div>'
    foot = page.said(view.foot)
    return frame.html(_TITLE, view.facts, body, foot=foot, notes=result.notes, css=table.CSS)


def svg(result: PredictManyResult, theme: str = "light") -> str:
    """Return the means and each prompt as a dot as a standalone SVG document in one theme."""
    view = _View(result)
    return page.svg(page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes), theme)
