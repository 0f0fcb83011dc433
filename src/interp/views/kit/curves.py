"""Lines over a common axis, such as a score over layers, each with its interval and its name at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.views.kit import cells, draw
from interp.views.kit.draw import Drawing, number
from interp.views.kit.text import columns

_HIGH, _LEFT, _TOP, _LINE = 230, 34, 8, 13
_INSET = 9  # room for a mark at the first and the last point
_TICKS = 5
_ROUND = (1, 2, 2.5, 5, 10)

Float = NDArray[np.float64]
Place = Callable[[int], float]
Height = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """A line.

    Attributes
    ----------
    label
        Its name, written at its end.
    values
        ``float64 [point]``; where one is not finite the line is broken.
    colour
        A CSS colour.
    low, high
        The ends of its interval, ``[point]``; ``None`` for none.
    dots
        Whether each point is marked.
    dashed
        Whether the line is dashed.
    """

    label: str
    values: Float
    colour: str
    low: Float | None = None
    high: Float | None = None
    dots: bool = False
    dashed: bool = False


def chart(
    points: Sequence[str],
    curves: Sequence[Curve],
    ends: tuple[float, float],
    *,
    wide: float = 560,
    high: float = _HIGH,
    ring: int | None = None,
    places: Sequence[float] | None = None,
) -> Drawing:
    """Return the lines, labelled below by `points`, from ``ends[0]`` at the bottom to ``ends[1]`` at the top.

    Parameters
    ----------
    points
        Labels along the axis.
    curves
        Drawn in this order: the last lies on top.
    ends
        The scale; what lies beyond it is cut off at its edge.
    wide, high
        Of the field, in CSS pixels.
    ring
        The point of the last curve to mark.
    places
        Where along the axis each point is, from 0 to 1, upwards; at equal distances when not given.

    Examples
    --------
    >>> chart(["L0", "L1"], [Curve("accuracy", np.array([0.5, 1.0]), "red")], (0, 1)).height
    262
    """
    low, top = ends
    alone = len(points) == 1
    shares = [n / max(1, len(points) - 1) for n in range(len(points))] if places is None else places
    across = _LEFT + _room(ticks(low, top))

    def x(n: int) -> float:
        return across + (wide / 2 if alone else _INSET + shares[n] * (wide - 2 * _INSET))

    def y(value: float) -> float:
        return _TOP + high * (1 - (min(top, max(low, value)) - low) / (top - low))

    body: list[str] = []
    for tick in ticks(low, top):
        at = number(y(tick))
        body.append(f'<path class="interp-base" d="M{number(across)} {at}h{number(wide)}"/>')
        body.append(draw.text(across - 6, y(tick) + 3.5, f"{tick:g}".replace("-", "−"), anchor="end"))
    room = 6 + 6 * max(columns(point) for point in points)
    shown: Sequence[int] = cells.ticks(len(points), (wide - 2 * _INSET) / max(1, len(points) - 1), room)
    if places is not None:
        shown = _apart([x(n) for n in range(len(points))], room)
    body += [draw.text(x(n), _TOP + high + 16, points[n], anchor="middle") for n in shown]
    for curve in curves:
        body.append(_band(curve, x, y))
        body.append(_line(curve, x, y))
    if ring is not None and math.isfinite(float(curves[-1].values[ring])):
        cx, cy = number(x(ring)), number(y(float(curves[-1].values[ring])))
        body.append(f'<circle cx="{cx}" cy="{cy}" r="5.5" style="fill:none;stroke:var(--interp-fg);stroke-width:1.5"/>')
    names = _names(curves, y, high)
    body += [
        draw.text(across + wide + 10, at + 4, curve.label, more=f' style="fill:{curve.colour};font-size:11px"')
        for curve, at in names
    ]
    right = max(6.3 * columns(curve.label) for curve in curves) + 12
    return Drawing(across + wide + right, _TOP + high + 24, "".join(body))


def _room(shown: Sequence[float]) -> float:
    """Return by how much the labels of a scale are wider than there is room for as a rule."""
    return max(0.0, 6.2 * max((len(f"{tick:g}") for tick in shown), default=0) + 8 - _LEFT)


def _apart(at: Sequence[float], room: float) -> list[int]:
    """Return which points' labels stand `room` apart: the last, and from the first on what fits before it."""
    found: list[int] = []
    for n, place in enumerate(at[:-1]):
        if (not found or place - at[found[-1]] >= room) and at[-1] - place >= room:
            found.append(n)
    return [*found, len(at) - 1]


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two ends.

    Examples
    --------
    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    step = next(n * power for n in _ROUND if n * power >= (high - low) / _TICKS * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [float(f"{n * step:.6g}") for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _runs(values: Float) -> list[list[int]]:
    """Return the stretches of points whose values are finite."""
    runs: list[list[int]] = [[]]
    for n, value in enumerate(values.tolist()):
        if math.isfinite(value):
            runs[-1].append(n)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _line(curve: Curve, x: Place, y: Height) -> str:
    """Return the line, broken where there is no value, and its dots."""
    spots = [[(number(x(n)), number(y(float(curve.values[n])))) for n in run] for run in _runs(curve.values)]
    shape = "".join("M" + "L".join(f"{across} {down}" for across, down in run) for run in spots)
    dash = "stroke-width:1.5;stroke-dasharray:5 4" if curve.dashed else f"stroke-width:{2 if curve.dots else 1.5}"
    line = f'<path style="fill:none;stroke:{curve.colour};{dash}" d="{shape}"/>'
    if not curve.dots:
        return line
    dots = (f'<circle cx="{a}" cy="{b}" r="2.5" style="fill:{curve.colour}"/>' for run in spots for a, b in run)
    return line + "".join(dots)


def _band(curve: Curve, x: Place, y: Height) -> str:
    """Return the interval: a band, or a stroke where there is a single point."""
    if curve.low is None or curve.high is None:
        return ""
    body = ""
    for run in _runs(curve.low + curve.high):
        upper = [(x(n), y(float(curve.high[n]))) for n in run]
        lower = [(x(n), y(float(curve.low[n]))) for n in reversed(run)]
        shape = "L".join(f"{number(across)} {number(down)}" for across, down in (*upper, *lower))
        style = f"fill:{curve.colour};fill-opacity:0.14"
        if len(run) == 1:
            style = f"stroke:{curve.colour};stroke-opacity:0.5;stroke-width:2"
        body += f'<path style="{style}" d="M{shape}z"/>'
    return body


def _names(curves: Sequence[Curve], y: Height, high: float) -> list[tuple[Curve, float]]:
    """Return where each curve's name stands: at its last value, apart from the other names."""
    held = [(curve, runs[-1][-1]) for curve in curves if (runs := _runs(curve.values))]
    wanted = sorted(((curve, y(float(curve.values[n]))) for curve, n in held), key=lambda item: item[1])
    placed: list[tuple[Curve, float]] = []
    for curve, at in wanted:
        placed.append((curve, max(at, placed[-1][1] + _LINE) if placed else at))
    # Names that were pushed out below move up again, with those above them.
    bottom = _TOP + high + _LINE
    for n in reversed(range(len(placed))):
        curve, at = placed[n]
        bottom = min(at, bottom - _LINE)
        placed[n] = curve, bottom
    return placed
