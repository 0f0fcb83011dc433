"""Estimated effects against exact ones: how far attribution patching was right where it was verified."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.spec import Node
from interp.views.kit import draw, figures
from interp.views.kit import theme as themes
from interp.views.kit.draw import Drawing, number
from interp.views.kit.text import columns, escape, signed

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.methods._shared.patching.result import PatchingResult

_SIDE, _DOT = 168, 3.2

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """The verified cells.

    Attributes
    ----------
    names
        As results name them.
    estimate, exact
        ``float64 [cell]``: effects.
    unsafe
        ``bool [cell]``: wrong sign, or off by more than a factor of two.
    """

    names: list[str]
    estimate: Float
    exact: Float
    unsafe: NDArray[np.bool_]


def points(result: PatchingResult) -> Points | None:
    """Return the cells that have an estimate and an exact effect; ``None`` where no cell has both."""
    found = result.agreement
    if found is None or result.estimate is None:
        return None
    both = result.done & np.isfinite(result.effect) & np.isfinite(result.estimate)
    names = [result.name(cell) for cell in np.argwhere(both).tolist()]
    return Points(names, result.estimate[both], result.effect[both], np.isin(names, found.unsafe))


def caption(result: PatchingResult) -> str:
    """Return what the scatter is called, with its rank correlation."""
    found = result.agreement
    if found is None:
        return ""
    ranks = (
        ""
        if math.isnan(found.rank_correlation)
        else f", rank correlation {found.rank_correlation:.2f}".replace("-", "−")
    )
    return f"Estimate against exact effect{ranks}"


def scatter(result: PatchingResult, unit: float = 1.0) -> Drawing | None:
    """Return a dot for each verified cell, its estimate to the right, its exact effect upwards.

    Both axes have one scale: a dot on the diagonal is a right estimate. Hollow dots are unsafe ones; the cell that is
    furthest from its estimate is ringed and named.

    Parameters
    ----------
    result
        A verified estimate; ``None`` is returned for any other result.
    unit
        What effects are divided by, such as the difference of clean and corrupted for recoveries.
    """
    found = points(result)
    if found is None:
        return None
    across, up = found.estimate / unit, found.exact / unit
    low, high = _range(np.concatenate([across, up]))
    left = math.ceil(max(columns(signed(end)) for end in (low, high)) * 6.2 + 6)

    def place(value: float) -> float:
        return (value - low) / (high - low) * _SIDE

    def dot(n: int) -> str:
        x, y = left + place(float(across[n])), _SIDE - place(float(up[n]))
        colour = "var(--interp-accent)"
        fill = f"fill:var(--interp-bg);stroke:{colour};stroke-width:1.5" if found.unsafe[n] else f"fill:{colour}"
        return f'<circle style="{fill}" cx="{number(x)}" cy="{number(y)}" r="{_DOT}"/>'

    zero = place(0.0)
    body = [
        f'<path class="interp-base" fill="none" d="M{left} 0h{_SIDE}v{_SIDE}h-{_SIDE}z"/>',
        f'<path class="interp-base" d="M{number(left + zero)} 0v{_SIDE}M{left} {number(_SIDE - zero)}h{_SIDE}"/>',
        f'<path style="stroke:var(--interp-muted);stroke-dasharray:3 3" d="M{left} {_SIDE}L{left + _SIDE} 0"/>',
        draw.text(left - 6, 8, signed(high), anchor="end"),
        draw.text(left - 6, _SIDE, signed(low), anchor="end"),
        draw.text(left, _SIDE + 13, signed(low)),
        draw.text(left + _SIDE, _SIDE + 13, signed(high), anchor="end"),
        draw.text(left + _SIDE / 2, _SIDE + 13, "estimate", anchor="middle"),
        draw.text(left - 6, _SIDE / 2 + 3, "exact", anchor="end"),
        *(dot(n) for n in np.argsort(found.unsafe, kind="stable").tolist()),
    ]
    worst = int(np.abs(across - up).argmax())
    x, y = left + place(float(across[worst])), _SIDE - place(float(up[worst]))
    ring = "fill:none;stroke:var(--interp-fg)"
    body.append(f'<circle style="{ring}" cx="{number(x)}" cy="{number(y)}" r="{2 * _DOT}"/>')
    lines = [f"{len(found.names)} verified; on the dashed line the estimate is right"]
    lines.append(f"ringed: furthest from it, {_label(result, found.names[worst])}")
    if found.unsafe.any():
        lines.append("hollow: wrong sign, or off by more than a factor of two")
    picture = Drawing(left + _SIDE + 2, _SIDE + 16, "".join(body))
    return draw.stack([(0, picture), (0, draw.words(lines))])


def plotly(result: PatchingResult, *, theme: str = "light", width: int = 560, height: int = 560) -> go.Figure:
    """Return the scatter as a Plotly figure; `result.to_plotly(kind="scatter")` calls it.

    Raises
    ------
    InputError
        No cell has both an estimate and an exact effect.
    """
    import plotly.graph_objects as go

    found = points(result)
    if found is None:
        raise InputError("nothing was verified; patch with method='attribution', verify=20 for this figure")
    low, high = _range(np.concatenate([found.estimate, found.exact]))
    line = {"color": themes.solid("muted", theme), "dash": "dash", "width": 1}
    figure = go.Figure()
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=line, hoverinfo="skip")
    figure.add_scatter(
        x=found.estimate,
        y=found.exact,
        mode="markers",
        text=[escape(_label(result, name)) for name in found.names],
        marker={
            "color": themes.colour("accent", theme),
            "size": 9,
            "symbol": ["circle-open" if flagged else "circle" for flagged in found.unsafe],
        },
        hovertemplate="%{text}<br>estimate %{x:+.4f}<br><b>exact %{y:+.4f}</b><extra></extra>",
    )
    figure.update_xaxes(title="estimated effect", range=[low, high])
    figure.update_yaxes(title="exact effect", range=[low, high], scaleanchor="x")
    return figures.styled(figure, caption(result), result.summary(), theme, width, height, showlegend=False)


def _range(values: Float) -> tuple[float, float]:
    """Return the ends of both axes: all values and zero, with room for the dots."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _label(result: PatchingResult, name: str) -> str:
    """Return a cell's name as it is drawn: ``"9.6 position 3"`` is L9H6."""
    head, _, rest = name.partition(" ")
    return f"{Node.parse(head).drawn}{f' {rest}' if rest else ''}" if "head" in result.axes else name
