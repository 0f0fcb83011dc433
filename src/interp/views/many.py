"""What pictures of many prompts have in common: their facts, their intervals, and each prompt as a dot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.views.kit import bars, draw, frame
from interp.views.kit.curves import ticks
from interp.views.kit.dots import dots
from interp.views.kit.draw import ACCENT, Drawing, number
from interp.views.kit.text import signed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.methods._shared.many.result import ManyResult, Spread

_TALL, _BASE = 62, 34


def facts(result: ManyResult, *parts: str) -> str:
    """Return the line beside the title: over which prompts, how they were changed, and `parts`."""
    changes = result.interventions
    changed = f"{changes} intervention{'s' * (changes != 1)}" if changes else ""
    return frame.facts(result, frame.visible_facts(result.over, 80), *parts, changed)


def sure(spread: Spread) -> str:
    """Return what a caption says of the thin lines; nothing where there are none."""
    return "; thin line: 95 % interval" if np.isfinite(spread.interval).any() else ""


def bar(label: str, spread: Spread, at: Any) -> bars.Bar:
    """Return the mean of one value with its interval."""
    low, high = (float(end[at]) for end in spread.interval)
    return bars.Bar(label, float(spread.mean[at]), low, high)


def said(spread: Spread, at: Any = ()) -> str:
    """Return a mean and its standard error in words.

    Examples
    --------
    >>> from interp.methods._shared.many.result import spread
    >>> said(spread(np.array([1.0, 2.0, 3.0])))
    '+2.000 ± 0.577'
    """
    error = float(spread.standard_error[at])
    plus = f" ± {signed(error).removeprefix('+')}" if math.isfinite(error) else ""
    return signed(float(spread.mean[at])) + plus


def each(values: NDArray[np.float64], spread: Spread, ends: tuple[float, float], wide: float = 330) -> Drawing:
    """Return each prompt's value as a dot over an axis, below it the mean and its interval."""
    low, high = ends
    left = 8.0

    def x(value: float) -> float:
        return left + (min(high, max(low, value)) - low) / ((high - low) or 1.0) * (wide - 2 * left)

    finite = [float(value) for value in values if math.isfinite(value)]
    body = [f'<path class="interp-base" d="M{number(left)} {_BASE}H{number(wide - left)}"/>']
    for tick in ticks(low, high):
        at = number(x(tick))
        body.append(f'<path class="interp-base" d="M{at} {_BASE}v4"/>')
        body.append(draw.text(x(tick), _TALL - 2, f"{tick:g}".replace("-", "−"), anchor="middle"))
    body += dots([x(value) for value in finite], _BASE - 18, ACCENT, high=14)
    if math.isfinite(float(spread.mean)):
        middle = number(x(float(spread.mean)))
        strong = "stroke:var(--interp-fg);stroke-width:2"
        body.append(f'<path style="{strong}" d="M{middle} {_BASE - 5}v10"/>')
        if np.isfinite(spread.interval).all():
            first, last = (number(x(float(end))) for end in spread.interval)
            body.append(f'<path style="{strong}" d="M{first} {_BASE}H{last}"/>')
    return Drawing(wide, _TALL, "".join(body))


def ends_of(values: NDArray[np.float64], *, zero: bool = True) -> tuple[float, float]:
    """Return where an axis of values ends, with room beside the outermost."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    room = 0.05 * ((high - low) or 1.0)
    return low - room, high + room


def axis(names: Sequence[str], shown: int) -> range:
    """Return which of many names are drawn: the last ones."""
    return range(max(0, len(names) - shown), len(names))
