"""An attribution graph whose super-nodes are drawn as one: where their pills lie, and what leads to them and on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.views.kit.text import columns, visible
from interp.views.trace_labels import labelled
from interp.views.trace_layout import (
    HALF,
    LEFT,
    LETTER,
    MARK,
    NEVER,
    PAD,
    SPACE,
    TITLE,
    Arrangement,
    first_shown,
)


def collapsed(drawn: Arrangement, groups: Mapping[str, Sequence[str]]) -> Arrangement:
    """Return the drawing with each of `groups` as one pill above the row of its most influential node.

    Edges between the same two nodes are joined, those within a group are not drawn.
    """
    if not groups:
        return drawn
    at = {name: number for number, name in enumerate(drawn.names)}
    now = np.arange(len(drawn.names))
    gone = np.zeros(len(now), bool)
    pills: list[tuple[str, str, float, float, float, list[int]]] = []
    for name, members in groups.items():
        inside = [at[member] for member in members if member in at]
        if not inside:
            continue
        best = max(inside, key=lambda number: drawn.influences[number])
        now[inside], gone[inside] = len(now) + len(pills), True
        said = f"{visible(name, TITLE).replace('␣', ' ')} ({len(inside)})"
        weight = drawn.influences[inside] + 1e-12
        place = float((drawn.x[inside] * weight).sum() / weight.sum())
        level = float(drawn.y[best]) - MARK - HALF - 3
        pills.append((name, said, place, level, LETTER * columns(said) + PAD, inside))
    x = _apart([(place, level, wide) for _, _, place, level, wide, _ in pills], drawn.width - LEFT + 10)
    joined: dict[tuple[int, int], list[int]] = defaultdict(list)
    for edge, (source, target) in enumerate(zip(now[drawn.sources], now[drawn.targets], strict=True)):
        if source != target:
            joined[int(source), int(target)].append(edge)
    edges = list(joined.values())
    ends = np.array(list(joined), int).reshape(-1, 2)
    first = first_shown(
        ends[:, 0], ends[:, 1], np.array([kind == "logit" for kind in drawn.kinds] + [False] * len(pills))
    )
    first[: len(gone)][gone] = NEVER
    inside = [members for *_, members in pills]

    def more(values: Any, added: Sequence[Any]) -> Any:
        return np.concatenate([values, np.array(added)])

    return labelled(
        replace(
            drawn,
            names=(*drawn.names, *(name for name, *_ in pills)),
            kinds=(*drawn.kinds, *["group"] * len(pills)),
            titles=(*drawn.titles, *(said for _, said, *_ in pills)),
            called=(*drawn.called, *(said for _, said, *_ in pills)),
            x=more(drawn.x, x),
            y=more(drawn.y, [level for _, _, _, level, _, _ in pills]),
            wide=more(drawn.wide, [wide for *_, wide, _ in pills]),
            layers=more(drawn.layers, [drawn.layers[members[0]] for members in inside]),
            positions=more(drawn.positions, [drawn.positions[members[0]] for members in inside]),
            activations=more(drawn.activations, [math.nan] * len(pills)),
            influences=more(drawn.influences, [drawn.influences[members].sum() for members in inside]),
            effects=more(drawn.effects, [drawn.effects[members].sum() for members in inside]),
            sources=ends[:, 0],
            targets=ends[:, 1],
            weights=np.array([drawn.weights[held].sum() for held in edges]),
            shares=np.array([drawn.shares[held].sum() for held in edges]),
            first=first,
            sides=np.zeros(len(first), int),
            until=np.zeros(len(first), int),
        )
    )


def _apart(pills: Sequence[tuple[float, float, float]], width: float) -> list[float]:
    """Return the places of pills (middle, height, width) moved so that none lies on another of its height."""
    found = [0.0] * len(pills)
    ends: dict[float, float] = {}
    for n in sorted(range(len(pills)), key=lambda n: pills[n][0]):
        place, level, wide = pills[n]
        least = ends.get(level, float(LEFT)) + wide / 2
        found[n] = max(least, min(place, width - wide / 2 - 2))
        ends[level] = found[n] + wide / 2 + SPACE
    return found
