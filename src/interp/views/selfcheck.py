"""The picture of a selfcheck: each method's edge AUROC on each compiled model, as a bar from chance to certainty."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import draw, page
from interp.views.kit.draw import Drawing, number

if TYPE_CHECKING:
    from interp.methods._shared.circuit.selfcheck_result import SelfcheckResult

_TITLE = "Selfcheck"
# Wider than many a notebook: it is scrolled rather than shrunk until its print cannot be read.
_CSS = """
.interp-frame .interp-columns>div{overflow-x:auto}
.interp-frame .interp-columns .interp-svg{max-width:none}
"""
_ROW, _GROUP, _HEAD = 19, 9, 40
_MODEL, _ABLATION = 84, 84
_TRACK, _CELL, _COUNT = 52, 122, 62
_STRONG = ' style="font-size:11.5px;fill:var(--interp-fg)"'


def _facts(result: SelfcheckResult) -> str:
    several = "s" if len(result.programs) > 1 else ""
    return f"{len(result.programs)} compiled model{several} · {result.pairs} pairs each · seed {result.seed}"


def _stacks(result: SelfcheckResult) -> list[page.Stack]:
    caption = "Edge AUROC, bars from 0.5 to 1; a line marks what a method has to reach"
    return [[(caption, _table(result))]]


def _foot(result: SelfcheckResult) -> list[page.Piece]:
    misses = len(result.misses())
    there = int(np.isfinite(result.auroc).sum())
    return [
        ("below what they have to reach: ", str(misses) if there else "–", False),
        ("seconds: ", f"{np.nansum(result.seconds):.1f}", False),
        ("left out: edges that carry the same after the ablation", "", True),
    ]


def _table(result: SelfcheckResult) -> Drawing:
    start = _MODEL + _ABLATION
    counts = start + _CELL * len(result.methods)
    body = [
        draw.text(0, _HEAD - 12, "model"),
        draw.text(_MODEL, _HEAD - 12, "ablation"),
        draw.text(counts + _COUNT - 8, 12, "edges", anchor="end"),
    ]
    for n, method in enumerate(result.methods):
        least = result.bars[method]
        body.append(draw.text(start + n * _CELL, 12, method, "m", more=' style="font-size:11px"'))
        said = f"has to reach {least:.2f}" if least else "0.5 by chance" if method == "random" else "no bar"
        body.append(draw.text(start + n * _CELL, _HEAD - 12, said))
    for n, name in enumerate(("true", "false", "left out")):
        body.append(draw.text(counts + (n + 1) * _COUNT - 8, _HEAD - 12, name, anchor="end"))
    width = counts + 3 * _COUNT
    y = float(_HEAD)
    for p, program in enumerate(result.programs):
        body.append(f'<path class="interp-base" d="M0 {number(y - 3)}H{number(width)}"/>')
        body.append(draw.text(0, y + 14, program, "m", more=' style="font-size:11px"'))
        for a, ablation in enumerate(result.ablations):
            body.append(draw.text(_MODEL, y + 14, ablation, more=_STRONG))
            for m, method in enumerate(result.methods):
                body.append(_cell(start + m * _CELL, y, float(result.auroc[p, a, m]), result.bars[method]))
            for n, edges in enumerate((result.true, result.false, result.undefined)):
                body.append(
                    draw.text(counts + (n + 1) * _COUNT - 8, y + 14, str(int(edges[p, a])), "t", "end", 0, _STRONG)
                )
            y += _ROW
        y += _GROUP
    body.append(f'<path class="interp-base" d="M0 {number(y - 3)}H{number(width)}"/>')
    body.append(draw.text(0, y + 14, "seconds, in all"))
    for m in range(len(result.methods)):
        spent = f"{np.nansum(result.seconds[..., m]):.1f}"
        body.append(draw.text(start + m * _CELL + _TRACK + 42, y + 14, spent, "t", "end", more=_STRONG))
    return Drawing(width, y + _ROW, "".join(body))


def _cell(x: float, y: float, value: float, least: float) -> str:
    """Return one AUROC: its bar on a track from 0.5, what it has to reach as a line, its number."""
    top, thick = y + 6, 8
    track = f'<rect class="interp-tile" x="{number(x)}" y="{number(top)}" width="{_TRACK}" height="{thick}" rx="1.5"/>'
    if not math.isfinite(value):
        return track + draw.text(x + _TRACK + 42, y + 14, "–", "t", "end")
    wide = max(0.0, value - 0.5) * 2 * _TRACK
    colour = "muted" if not least else "accent" if value >= least else "nan"
    bar = (
        f'<rect style="fill:var(--interp-{colour})" x="{number(x)}" y="{number(top)}" width="{number(wide)}" '
        f'height="{thick}" rx="1.5"/>'
        if wide >= 0.5
        else ""
    )
    at = number(x + (least - 0.5) * 2 * _TRACK)
    line = (
        f'<path style="stroke:var(--interp-fg);stroke-opacity:0.7" d="M{at} {number(top - 2)}v{thick + 4}"/>'
        if least
        else ""
    )
    # What is written as 1 is 1: the rest is cut.
    shown = f"{math.floor(1000 * value + 1e-9) / 1000:.3f}"
    return track + bar + line + draw.text(x + _TRACK + 42, y + 14, shown, "t", "end", more=_STRONG)


def _picture(result: SelfcheckResult) -> page.Picture:
    return page.Picture(_TITLE, _facts(result), _stacks(result), _foot(result), result.notes, css=_CSS)


html, svg = page.pictures(_picture)
