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

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.results.over import OverResult

_NUMBERS, _BESIDE, _ROWS = 4, 2, 8  # charts of single numbers, those beside a table's, lines of rows
_WIDE, _LOW, _TALL = 380, 120, 310  # CSS pixels
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
    return f"{result.provenance.technique} over {result.counted}"


def _facts(result: OverResult) -> str:
    first, last = (result.steps[n] for n in _order(result)[[0, -1]])
    task = next((str(value) for name, value in result.provenance.arguments.items() if name == "task"), "")
    axis = "steps on a logarithmic axis" if result.numbered and _logarithmic(result) else ""
    return frame.facts(result, frame.visible_facts(f"{first} … {last}", 60), frame.visible_facts(task, 40), axis)


def _order(result: OverResult) -> NDArray[np.int64]:
    """Return the steps that worked, as they stand along the axis."""
    order = np.argsort(result.places, kind="stable")
    return order[[result.results[n] is not None for n in order]]


def _logarithmic(result: OverResult) -> bool:
    known = result.places[_order(result)]
    return bool(known.min() > 0 and known.max() / known.min() >= _SPREAD)


def _shares(result: OverResult) -> list[float] | None:
    """Return where along the axis each step is, in the axis' order; ``None`` where their names say no number."""
    at = result.places[_order(result)]
    if not result.numbered or len(at) == 1:
        return None
    at = np.log(at) if _logarithmic(result) else at
    return ((at - at[0]) / (at[-1] - at[0])).tolist()


def _labels(result: OverResult) -> list[str]:
    order = _order(result)
    if result.numbered:
        return [f"{result.places[n]:,.10g}" for n in order]
    return [frame.visible_facts(result.steps[n], _LABEL) for n in order]


def _drawn(result: OverResult) -> list[str]:
    """Return the single numbers that are drawn: the first of those that move, each once."""
    moved = {name: result.numbers[name] for name in result.moved()}
    found = [
        name
        for n, (name, values) in enumerate(moved.items())
        if not any(np.array_equal(values, other, equal_nan=True) for other in [*moved.values()][:n])
    ]
    return found[: _BESIDE if len(result.rows) else _NUMBERS]


def _named(result: OverResult, row: int) -> str:
    """Return what a row is called in a picture: a component as everywhere, else what its columns hold."""
    held = dict(zip(result.keys, result.rows[row], strict=True))
    if len(held) > 1:  # what is the same in all rows tells none from another
        alike = [n for n, values in enumerate(zip(*result.rows, strict=True)) if len(set(values)) == 1]
        held = {name: value for n, (name, value) in enumerate(held.items()) if n not in alike}
    head = held.pop("head", None) if "layer" in held else None
    words: list[str] = []
    for name, value in held.items():
        if name == "layer" and head is not None:
            words.append(f"L{value}H{head}")
        elif name in {"layer", "component", "node", "head", "writer", "reader"}:
            words.append(f"L{value}" if name == "layer" else _component(str(value)))
        else:
            words.append(value if isinstance(value, str) else f"{name} {value}")
    return frame.visible_facts(" ".join(words), 28)


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

    def chart(lines: Sequence[Curve], high: float) -> draw.Drawing:
        ends = _ends([line.values for line in lines])
        return curves.chart(labels, lines, ends, wide=_WIDE, high=high, places=places)

    found: list[page.Stack] = []
    rows = result.strongest(_ROWS)
    if rows:
        lines = [
            Curve(
                _named(result, row),
                result.values[row][order],
                f"var(--interp-k{n % themes.CLASSES})",
                dots=True,
                dashed=n >= themes.CLASSES,  # where colours begin anew
            )
            for n, row in enumerate(rows)
        ][::-1]
        which = f"the {len(rows)} largest" if len(rows) == _ROWS else f"all {len(rows)} that are not 0"
        count = f"{which}, of {len(result.rows):,}" if len(rows) < len(result.rows) else "all rows"
        found.append([(f"{result.measure.capitalize()}: {count}", chart(lines, _TALL))])
    single = [
        (
            name.replace("_", " ").capitalize(),
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
