"""Pictures of an OverResult: its numbers as curves over the steps, and the strongest rows of its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.spec import Node
from interp.views.kit import curves, draw, figures, frame, page
from interp.views.kit import theme as themes
from interp.views.kit.curves import Curve
from interp.views.kit.text import visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.results.over import OverResult

_NUMBERS, _ROWS = 4, 8  # charts of single numbers, lines of rows
_WIDE, _LOW, _TALL = 380, 120, 250  # CSS pixels
_SPREAD = 100.0  # the last place over the first, from which on the axis is logarithmic
_LABEL = 16

Float = NDArray[np.float64]


def plotly(result: OverResult, *, theme: str = "light", width: int = 900, height: int = 520) -> go.Figure:
    """Return the numbers and the strongest rows as Plotly lines over the steps."""
    import plotly.graph_objects as go

    order, figure = _order(result), go.Figure()
    at = result.places[order].tolist() if result.numbered else [result.steps[n] for n in order]
    shown = [(name, result.numbers[name]) for name in _drawn(result)]
    shown += [(_named(result, row), result.values[row]) for row in result.strongest(_ROWS)]
    for name, values in shown:
        figure.add_scatter(
            x=at,
            y=values[order],
            name=name,
            mode="lines+markers",
            hovertemplate=f"%{{x}}<br>{name} <b>%{{y:.4f}}</b><extra></extra>",
        )
    logarithmic = result.numbered and _logarithmic(result)
    figure.update_xaxes(type="log" if logarithmic else "linear" if result.numbered else "category", showgrid=False)
    return figures.styled(figure, _title(result), _facts(result), theme, width, height)


def _title(result: OverResult) -> str:
    return f"{result.provenance.technique} over {len(result.steps)} {result.varies}s"


def _facts(result: OverResult) -> str:
    first, last = (result.steps[n] for n in _order(result)[[0, -1]])
    task = next((str(value) for name, value in result.provenance.arguments.items() if name == "task"), "")
    return frame.facts(result, frame.visible_facts(f"{first} … {last}", 60), frame.visible_facts(task, 40))


def _order(result: OverResult) -> NDArray[np.int64]:
    return np.argsort(result.places, kind="stable")


def _logarithmic(result: OverResult) -> bool:
    known = result.places
    return bool(known.min() > 0 and known.max() / known.min() >= _SPREAD)


def _shares(result: OverResult) -> list[float] | None:
    """Return where along the axis each step is, in the axis' order; ``None`` where their names say no number."""
    if not result.numbered or len(result.steps) == 1:
        return None
    at = np.sort(result.places)
    at = np.log(at) if _logarithmic(result) else at
    return ((at - at[0]) / (at[-1] - at[0])).tolist()


def _labels(result: OverResult) -> list[str]:
    order = _order(result)
    if result.numbered:
        return [f"{result.places[n]:,.10g}" for n in order]
    return [visible(result.steps[n], _LABEL) for n in order]


def _drawn(result: OverResult) -> list[str]:
    """Return the single numbers that are drawn: those that move, the first that there are."""
    return result.moved()[:_NUMBERS]


def _named(result: OverResult, row: int) -> str:
    """Return what a row is called in a picture: a component as everywhere, else what its columns hold."""
    held = dict(zip(result.keys, result.rows[row], strict=True))
    head = held.pop("head", None) if "layer" in held else None
    words: list[str] = []
    for name, value in held.items():
        if name == "layer" and head is not None:
            words.append(f"L{value}H{head}")
        elif name in {"layer", "component", "node", "head", "writer", "reader"}:
            words.append(f"L{value}" if name == "layer" else _component(str(value)))
        else:
            words.append(value if isinstance(value, str) else f"{name} {value}")
    return visible(" ".join(words), 28)


def _component(name: str) -> str:
    try:
        return Node.parse(name).drawn
    except InputError:
        return name


def _ends(values: Sequence[Float]) -> tuple[float, float]:
    """Return the ends of a scale that holds some lines, with some room."""
    known = np.concatenate([one[np.isfinite(one)] for one in values])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - room, high + room


def _stacks(result: OverResult) -> list[page.Stack]:
    order, labels, places = _order(result), _labels(result), _shares(result)
    said = " (logarithmic)" if result.numbered and _logarithmic(result) else ""

    def chart(lines: Sequence[Curve], high: float) -> draw.Drawing:
        ends = _ends([line.values for line in lines])
        return curves.chart(labels, lines, ends, wide=_WIDE, high=high, places=places)

    found: list[page.Stack] = []
    rows = result.strongest(_ROWS)
    if rows:
        lines = [
            Curve(_named(result, row), result.values[row][order], f"var(--interp-class-{n})", dots=True)
            for n, row in enumerate(rows)
        ][::-1]
        count = f"the {len(rows)} largest of {len(result.rows):,}" if len(rows) < len(result.rows) else "all"
        found.append([(f"{result.measure} of each row, {count}{said}", chart(lines, _TALL))])
    single = [
        (
            f"{name.replace('_', ' ')}{said}",
            chart([Curve(_end(result, name), result.numbers[name][order], "var(--interp-accent)", dots=True)], _LOW),
        )
        for name in _drawn(result)
    ]
    found += [single[n : n + 2] for n in range(0, len(single), 2)]
    if not found:
        found.append([("", draw.words(["nothing differs between the steps: their results are the same"]))])
    return found


def _end(result: OverResult, name: str) -> str:
    """Return a line's last number, which stands at its end."""
    values = result.numbers[name][_order(result)]
    known = values[np.isfinite(values)]
    return f"{known[-1]:.3g}".replace("-", "−") if len(known) else ""


def _foot(result: OverResult) -> list[page.Piece]:
    pieces: list[page.Piece] = []
    for name in _drawn(result)[:2]:
        values = result.numbers[name][_order(result)]
        known = values[np.isfinite(values)]
        if len(known):
            ends = f"{known[0]:.4g} → {known[-1]:.4g}".replace("-", "−")
            pieces.append((f"{name.replace('_', ' ')} ", ends, False))
    failed = sum(map(bool, result.failures))
    if failed:
        pieces.append((f"{failed} of {len(result.steps)} failed", "", True))
    return pieces or [(f"{len(result.steps)} steps", "", True)]


def _picture(result: OverResult) -> page.Picture:
    return page.Picture(_title(result), _facts(result), _stacks(result), _foot(result), result.notes)


html, svg = page.pictures(_picture)
