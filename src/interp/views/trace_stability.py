"""How much of an attribution graph other prompts' graphs have too, as dots: paraphrases, and controls beside them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import curves, dots, draw
from interp.views.kit.draw import ACCENT, FG, MUTED, Drawing, number
from interp.views.kit.text import minus

if TYPE_CHECKING:
    from interp.methods._shared.trace.result import TraceResult

_LEFT, _TRACK, _ROW = 74, 210, 46
_MEANING = (
    "influence: weighted Jaccard index by feature; found again: share of the influence",
    "top edges: Jaccard index of the 50 most influential; ranks: Spearman's correlation",
)
_UP = 8  # px from the middle of a row to the paraphrases' line above it, and to the controls' below


def caption(result: TraceResult) -> str:
    """Return what the drawing shows; an empty text where there is none."""
    held = result.stability
    if held is None:
        return ""
    several = "1 paraphrase" if len(held.paraphrases) == 1 else f"{len(held.paraphrases)} paraphrases"
    sure = "; line: 95 % interval" if len(held.paraphrases) > 3 else ""
    return f"Alike in graphs of {several}; grey: of {held.beside}; bar: mean{sure}"


def drawing(result: TraceResult) -> Drawing | None:
    """Return a row for each figure; ``None`` where none was asked for."""
    held = result.stability
    if held is None:
        return None
    values = np.concatenate([held.paraphrased, held.control])
    known = values[np.isfinite(values)]
    low = min(0.0, math.floor(2 * float(known.min(initial=0.0))) / 2)
    unit, down = _TRACK / (1.0 - low), len(held.figures) * _ROW

    def x(value: float) -> float:
        return _LEFT + (max(low, value) - low) * unit

    body: list[str] = []
    for tick in curves.ticks(low, 1.0):
        body.append(f'<path class="interp-base" d="M{number(x(tick))} 0V{down}"/>')
        body.append(draw.text(x(tick), down + 14, minus(f"{tick:g}"), anchor="middle"))
    wide = 0.0
    for n, figure in enumerate(held.figures):
        middle = (n + 0.5) * _ROW
        body.append(draw.text(0, middle + 4, figure, more=_size(FG)))
        rows = ((False, held.paraphrased, -_UP, ACCENT), (True, held.control, _UP, MUTED))
        for control, found, side, colour in rows:
            own, y = found[:, n], middle + side
            body += dots.dots([x(value) for value in own[np.isfinite(own)].tolist()], y, colour, _UP - 3)
            mean = held.of(figure, control=control)
            if math.isfinite(mean.mean):
                at = number(x(mean.mean))
                body.append(f'<path d="M{at} {number(y - 7)}v14" style="stroke:{colour};stroke-width:2"/>')
            if math.isfinite(mean.low):
                line = f"M{number(x(mean.low))} {number(y)}H{number(x(mean.high))}"
                body.append(f'<path d="{line}" style="stroke:{colour};stroke-width:1.2"/>')
            said = minus(mean.said)
            wide = max(wide, 6.0 * len(said))
            body.append(draw.text(_LEFT + _TRACK + 14, y + 4, said, more=_size(MUTED if control else FG)))
    body += [draw.text(0, down + 36 + 14 * n, line) for n, line in enumerate(_MEANING)]
    wide = max(_LEFT + _TRACK + 14 + wide, *(5.6 * len(line) for line in _MEANING))
    return Drawing(wide, down + 36 + 14 * len(_MEANING) - 8, "".join(body))


def _size(colour: str) -> str:
    return f' style="font-size:11px;fill:{colour}"'
