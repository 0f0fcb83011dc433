"""Pictures of a HeadsResult: a small map of every score, and the heads of each class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.spec import Node
from interp.views.kit import frame, heatmap, maps, page, theme
from interp.views.kit.draw import Drawing
from interp.views.kit.maps import Map
from interp.views.kit.page import Piece
from interp.views.kit.text import head_label

if TYPE_CHECKING:
    from interp.methods.heads.heads import HeadsResult

_LISTED = 8
# Scores that are logits or go both ways from zero; the others are weights and shares, 0 … 1.
_LOGITS = frozenset({"anti_induction", "direct_effect", "s_inhibition", "backup"})
_SIGNED = _LOGITS | {"copying", "beyond_distance"}
_TITLES = {
    "copying": "copying Σλ/Σ|λ|",
    "position_only": "position only R²",
    "anti_induction": "anti-induction",
    "end_to_s2": "end → S2",
    "end_to_io": "end → IO",
    "s_inhibition": "S-inhibition",
    "beyond_distance": "above same distance",
}


def _facts(result: HeadsResult) -> str:
    layers, heads = next(iter(result.scores.values())).shape
    return frame.facts(result, f"{layers} layers × {heads} heads", result.kind, f"n = {result.n}")


def _groups(result: HeadsResult) -> list[tuple[str, list[Drawing]]]:
    shape = next(iter(result.scores.values())).shape
    side = maps.side_of((shape[0], shape[1]), len(result.scores))
    drawn = [maps.draw_map(_map(result, name), side) for name in result.scores]
    return [("score", drawn), ("heads" if result.spans else "class", _lists(result))]


def _map(result: HeadsResult, name: str) -> Map:
    values = result.scores[name]
    layers, heads = values.shape
    signed = name in _SIGNED
    end = heatmap.limit(values, 0.05) if signed and name != "copying" else 1.0
    marks = {
        (node.layer, node.head): _kind(result, label)
        for key, label in result.labels.items()
        if result.measured[label] == name
        for node in [Node.parse(key)]
    }
    return Map(
        _TITLES.get(name, name if result.spans else name.replace("_", " ")),
        _captions(result, name),
        values,
        [f"L{n}" for n in range(layers)],
        [str(n) for n in range(heads)],
        end=end,
        signed=signed,
        marks=marks,
    )


def _captions(result: HeadsResult, name: str) -> list[str]:
    values = np.where(np.isfinite(result.scores[name]), result.scores[name], -np.inf)
    layer, head = np.unravel_index(int(values.argmax()), values.shape)
    chance = float(np.nanmean(result.chance[name]))
    base = "0" if not chance else f"{chance:.2f}"
    return [
        f"{head_label(int(layer), int(head))} {values[layer, head]:.2f}{' logits' * (name in _LOGITS)}",
        f"chance {base}",
    ]


def _kind(result: HeadsResult, label: str) -> int:
    return list(result.criteria).index(label) % theme.CLASSES


def _lists(result: HeadsResult) -> list[Drawing]:
    drawn: list[Drawing] = []
    if result.spans:
        lines = [(Node.parse(name).drawn, _sure(result, name)) for name in result.top(n=_LISTED)]
        drawn.append(maps.listing("strongest heads", lines))
    for label in result.criteria:
        named = result.top(label)
        if not named:
            continue
        lines = [(Node.parse(name).drawn, _number(result, name)) for name in named[:_LISTED]]
        more = [(f"… {len(named) - _LISTED} more", "")] if len(named) > _LISTED else []
        drawn.append(maps.listing(f"{label} · {len(named)}", [*lines, *more], _kind(result, label)))
    return drawn


def _number(result: HeadsResult, name: str) -> str:
    score = result.measured[result.labels[name]]
    node = Node.parse(name)
    value = f"{result.of(name):.2f} ± {result.spread[score][node.layer, node.head]:.2f}"
    return value.replace("-", "−")


def _sure(result: HeadsResult, name: str) -> str:
    (score,) = result.scores
    node = Node.parse(name)
    low, high = result.interval[score][:, node.layer, node.head]
    return f"{result.of(name):.2f}" + (f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else "")


def _foot(result: HeadsResult) -> list[Piece]:
    pieces: list[Piece] = []
    if math.isfinite(result.losses[0]):
        first, repeat = result.losses
        pieces = [
            ("loss on random tokens ", f"{first:.2f} nats", False),
            ("on their repeat ", f"{repeat:.2f} nats", False),
        ]
    if result.spans:
        sure = "95 % interval over prompts; " if math.isfinite(next(iter(result.interval.values())).flat[0]) else ""
        even = "chance is even attention to what the queries see"
        return [
            ("attention, added up over the keys, mean over the queries and the prompts", "", True),
            (sure + even, "", True),
        ]
    says = f"above each map its largest; mean ± sd over prompts; a dot marks a head of a class; {theme.LIFT}"
    return [*pieces, (says, "", True)]


def _picture(result: HeadsResult) -> page.Picture:
    return page.Picture("Heads", _facts(result), [], _foot(result), result.notes, groups=_groups(result))


html, svg = page.pictures(_picture)
