"""Values as dots along a scale."""

from __future__ import annotations

from collections.abc import Sequence

from interp.views.kit.draw import number

_STEP, _HIGH = 4, 16  # px between dots above each other, and how far they go up or down


def dots(places: Sequence[float], middle: float, colour: str, high: float = _HIGH) -> list[str]:
    """Return dots at `places` across that lie above each other where they would overlap, at most `high` away.

    Examples
    --------
    >>> len(dots([10, 10, 50], 20, "red"))
    3
    """
    body: list[str] = []
    taken: dict[int, int] = {}
    for place in sorted(places):
        column = round(place / 5)
        level = taken.get(column, 0)
        taken[column] = level + 1
        up = (level + 1) // 2 * (_STEP if level % 2 else -_STEP)
        y = middle + max(-high, min(high, up))
        body.append(f'<circle cx="{number(place)}" cy="{number(y)}" r="2.2" style="fill:{colour};fill-opacity:0.55"/>')
    return body
