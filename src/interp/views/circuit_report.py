"""Pictures of a CircuitReport: what is said of a circuit, faithfulness over size, each pair and each random circuit."""

from __future__ import annotations

import math
import textwrap
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import curves, dots, draw, frame, page
from interp.views.kit.curves import Curve
from interp.views.kit.draw import ACCENT, FG, MUTED, Drawing, number
from interp.views.kit.text import minus

if TYPE_CHECKING:
    from interp.methods.circuits.validate import CircuitReport

    Float = NDArray[np.float64]

_TITLE = "Circuit report"
_WIDE = 520  # the chart
_TRACK, _ROW, _LEFT = 270, 52, 96  # the strips
_NAME, _VALUE, _COLUMNS, _LINE = 92, 172, 116, 16  # the words
_SAID = 600  # characters of a line's words
_ENDS = (-1.0, 2.0)  # faithfulness beyond these lies on the edge


class _View:
    """A report, and what of it is shown."""

    def __init__(self, result: CircuitReport) -> None:
        self.result = result

    @cached_property
    def facts(self) -> str:
        result = self.result
        return frame.facts(
            result,
            frame.visible_facts(result.task, 40),
            f"{result.edges:,} of {result.existing:,} edges",
            frame.method(result.method),
            frame.ablation(result.ablation),
            frame.metric(result.metric),
            f"n = {len(result.whole)}",
        )

    @cached_property
    def stacks(self) -> list[page.Stack]:
        """The words, the chart and the strips, each with its caption."""
        result = self.result
        band = "; band: 95 % interval over pairs" if np.isfinite(result.curve_interval).any() else ""
        chart = f"Faithfulness over the number of edges kept, ranked by {result.ranking}{band}"
        strips = "Of each pair, and of each random circuit; band: their mean ± sd"
        return [
            [("What there is to say of it; intervals: 95 %, over pairs", _words(result))],
            [(chart, self._chart())],
            [(strips, _strips(result))],
        ]

    def _chart(self) -> Drawing:
        result = self.result
        low, high = result.curve_interval
        own = int(np.nonzero(result.sizes == result.edges)[0][0])
        known = result.random[np.isfinite(result.random)]
        lines: list[Curve] = []
        if len(known) > 1:
            mean, sd = (np.full(len(result.sizes), float(value)) for value in (known.mean(), known.std(ddof=1)))
            lines.append(Curve(f"random, {result.edges:,}", mean, MUTED, mean - sd, mean + sd, dashed=True))
        lines.append(Curve("by score", result.curve, ACCENT, low, high, dots=True))
        shown = np.concatenate([result.curve, low, high, known])
        return curves.chart([f"{size:,}" for size in result.sizes], lines, _around(shown), wide=_WIDE, ring=own)

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer."""
        result = self.result
        said = {name: value for name, value, _ in result.says()}
        return [
            ("faithfulness ", _plain(said["faithfulness"]), False),
            ("without it ", _plain(said["completeness"]), False),
            ("random ", _plain(result.chance()), False),
            (f"f = (m − m(∅)) / (m(M) − m(∅)), ratio of means over {len(result.whole)} pairs", "", True),
        ]


def _plain(text: str) -> str:
    """Return text with true minus signs, and edges that are not broken at the end of a line."""
    return minus(text).replace(" → ", "\u00a0→\u00a0")


def _around(values: Float) -> tuple[float, float]:
    """Return the ends of a scale of faithfulness that holds 0, 1 and what there is, but nothing far out."""
    known = values[np.isfinite(values)]
    low, high = (min(0.0, *known), max(1.0, *known)) if len(known) else (0.0, 1.0)
    return max(_ENDS[0], math.floor(low * 10) / 10), min(_ENDS[1], math.ceil(high * 10) / 10)


def _words(result: CircuitReport) -> Drawing:
    """Return the report's lines: name, value, what it says."""
    body: list[str] = []
    y = 12.0
    for name, given, said in result.says():
        value = frame.visible_facts(given, 60)
        body.append(draw.text(0, y, name, more=_size(MUTED)))
        for n, part in enumerate(textwrap.wrap(_plain(value), 26)):
            body.append(draw.text(_NAME, y + n * _LINE, part, more=_size(FG, bold=True)))
        lines = textwrap.wrap(_plain(frame.visible_facts(said, _SAID)), _COLUMNS)
        body += [draw.text(_NAME + _VALUE, y + n * _LINE, line, more=_size(FG)) for n, line in enumerate(lines)]
        y += _LINE * max(1, len(lines), len(textwrap.wrap(value, 26))) + 5
    return Drawing(_NAME + _VALUE + 5.6 * _COLUMNS, y - 8, "".join(body))


def _size(colour: str, *, bold: bool = False) -> str:
    return f' style="font-size:11px;fill:{colour}{";font-weight:600" if bold else ""}"'


def _strips(result: CircuitReport) -> Drawing:
    """Return rows of dots along faithfulness: the circuit's pairs, those of the model without it, random circuits."""
    known = result.random[np.isfinite(result.random)]
    rows: list[tuple[str, Float, float, str]] = [
        ("the circuit", result.per_pair, result.faithfulness, ACCENT),
        ("without it", result.left_per_pair, result.left, FG),
    ]
    if len(known):
        rows.append(("random", known, float(known.mean()), MUTED))
    low, high = _around(np.concatenate([values for _, values, _, _ in rows]))
    unit = _TRACK / (high - low)

    def x(value: float) -> float:
        return _LEFT + (min(high, max(low, value)) - low) * unit

    down = len(rows) * _ROW
    body: list[str] = []
    if len(known) > 1:
        left, right = (x(float(known.mean() + side * known.std(ddof=1))) for side in (-1, 1))
        body.append(
            f'<rect x="{number(left)}" y="0" width="{number(max(1.0, right - left))}" height="{number(down)}" '
            f'style="fill:{MUTED};fill-opacity:0.16"/>'
        )
    for tick in curves.ticks(low, high):
        body.append(f'<path class="interp-base" d="M{number(x(tick))} 0V{number(down)}"/>')
        body.append(draw.text(x(tick), down + 14, _plain(f"{tick:g}"), anchor="middle"))
    for n, (label, values, mean, colour) in enumerate(rows):
        middle = (n + 0.5) * _ROW
        body.append(draw.text(0, middle + 4, label, more=_size(colour)))
        body += dots.dots([x(value) for value in values.tolist() if math.isfinite(value)], middle, colour)
        if math.isfinite(mean):
            at = number(x(mean))
            body.append(
                f'<path d="M{at} {number(middle - 18)}V{number(middle + 18)}" style="stroke:{colour};stroke-width:2"/>'
            )
    body.append(draw.text(x(0), down + 28, "all ablated", anchor="middle"))
    body.append(draw.text(x(1), down + 28, "whole model", anchor="middle"))
    return Drawing(_LEFT + _TRACK + 34, down + 32, "".join(body))


def _picture(result: CircuitReport) -> page.Picture:
    view = _View(result)
    return page.Picture(_TITLE, view.facts, view.stacks, view.foot, result.notes)


html, svg = page.pictures(_picture)
