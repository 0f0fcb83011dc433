"""Pictures of a DiffResult: what each component of one model does in another, and how far its weights have moved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.spec import Node
from interp.views.kit import bars, draw, figures, frame, heatmap, maps, page
from interp.views.kit import theme as themes
from interp.views.kit.heatmap import Cells
from interp.views.kit.text import signed

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from interp.methods._shared.diff_result import DiffResult

_TITLE = "What changed"
_TOP, _LISTED = 12, 12
_LEAST = 1e-6
_EDGES, _SCORES, _LINE = 8, 200, 16  # edges that are listed, where their scores end, and the height of a line
_SHOWN = 40  # characters of a prompt's end, and of what follows


def plotly(result: DiffResult, *, theme: str = "light", width: int = 900, height: int = 520) -> go.Figure:
    """Return two Plotly figures in one: the largest effects as bars with intervals, and layers × components."""
    from plotly.subplots import make_subplots

    cells = _cells(result, result.effect)
    listed = [row for row in result.top(_TOP) if row[1]][::-1]
    numbers = [result.components.index(name) for name, _, _ in listed]
    values = np.array([effect for _, effect, _ in listed])
    low, high = result.share_interval[:, numbers] * result.change
    figure: go.Figure = make_subplots(cols=2, column_widths=[0.45, 0.55], horizontal_spacing=0.12)
    figure.add_bar(
        x=values,
        y=[_named(name) for name, _, _ in listed],
        orientation="h",
        marker={"color": figures.sides(values, theme)},
        error_x=figures.whiskers(values, np.minimum(low, high), np.maximum(low, high), theme),
        hovertemplate="%{y}<br><b>%{x:+.4f}</b><extra></extra>",
        row=1,
        col=1,
    )
    end = heatmap.limit(cells.values[cells.done], _LEAST)
    figure.add_heatmap(
        z=np.where(cells.done, cells.values, np.nan),
        x=list(cells.columns),
        y=list(cells.rows),
        zmin=-end,
        zmax=end,
        colorscale=themes.scale(theme),
        colorbar={"thickness": 12, "title": {"text": frame.metric(result.metric)}},
        hoverongaps=False,
        hovertemplate="%{y} · %{x}<br><b>%{z:+.4f}</b><extra></extra>",
        row=1,
        col=2,
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_xaxes(type="category", title="head", row=1, col=2)
    return figures.styled(figure, _TITLE, _facts(result), theme, width, height)


def _named(name: str) -> str:
    """Return a component as it is drawn.

    Examples
    --------
    >>> _named("5.1"), _named("3.attn"), _named("unembed")
    ('L5H1', 'L3 attention', 'unembedding')
    """
    if name in {"embed", "unembed"}:
        return f"{name}ding"
    layer, _, kind = name.partition(".")
    return f"L{layer} attention" if kind == "attn" else Node.parse(name).drawn


def _cells(result: DiffResult, of: NDArray[np.float64]) -> Cells:
    """Layers × heads, with the rest of the attention and the MLP beside them."""
    heads = result.heads(of)
    depth = len(heads)
    columns = [*map(str, range(heads.shape[1]))]
    beside = [("attn", "att"), ("mlp", "MLP")] if result.what == "weights" else [("mlp", "MLP")]
    parts = [heads, *(np.array([[result.of(f"{n}.{kind}", of)] for n in range(depth)]) for kind, _ in beside)]
    values = np.concatenate(parts, 1)
    rows = [f"L{n}" for n in range(depth)]
    return Cells(values, np.isfinite(values), rows, [*columns, *(name for _, name in beside)])


def _facts(result: DiffResult) -> str:
    count, of = len(result.base_values), "text" if result.metric == "loss" else "prompt"
    number = f"{count} {of}{'s' * (count != 1)}"
    return frame.facts(
        result,
        f"{frame.visible_facts(result.tuned, 24)} put into {frame.visible_facts(result.base, 24)}",
        result.what,
        f"{frame.visible_facts(result.task, 40)}, {number}" if result.task else number,
        "loss, nats per token" if result.metric == "loss" else frame.metric(result.metric),
    )


def _stacks(result: DiffResult) -> list[page.Stack]:
    cells = _cells(result, result.effect)
    end = heatmap.limit(cells.values[cells.done], _LEAST)
    size = np.where(cells.done, np.abs(cells.values), -1.0)
    row, column = (int(n) for n in np.unravel_index(int(size.argmax()), size.shape))
    left = heatmap.margin(cells.rows)
    turned = frame.falls(result.metric)
    legend = ["the metric with the component, less without", "white: exactly what it was, or nearly"]
    picture = draw.stack(
        [
            (0, heatmap.heat(cells, end, (row, column) if size.max() > 0 else None)),
            (left, heatmap.scale(end, turned)),
            (left, draw.words(legend)),
        ]
    )
    found: list[page.Stack] = [[("Each component alone: a row per layer", picture)]]
    listed = [(name, effect, result.components.index(name)) for name, effect, _ in result.top(_TOP) if effect]
    if listed:
        low, high = result.share_interval * result.change
        shown = [
            bars.Bar(_named(name), effect, float(min(low[n], high[n])), float(max(low[n], high[n])))
            for name, effect, n in listed
        ]
        side = [("Largest effects", bars.bars(shown, _LEAST, turned))]
        if result.kept_share is not None and result.lost_share is not None:
            side.append(_kept(result, result.kept_share, result.lost_share))
        found.append(side)
    last: page.Stack = []
    moved = _cells(result, result.weight_change)
    if np.isfinite(moved.values).any():
        most = float(np.nanmax(moved.values)) or 1.0
        shown = maps.Map(
            "Weights moved", [f"‖ΔW‖ / ‖W‖, up to {most:.3g}"], moved.values, moved.rows, moved.columns, end=most
        )
        last.append(("", maps.draw_map(shown, maps.side_of(moved.values.shape, 2))))
    if result.continuations:
        last.append(("Both go on with (likeliest tokens)", _continued(result)))
    found += [last] if last else []
    if result.edges_kept is not None:
        found.append([(f"Edges that only one of two circuits of {result.edges_kept} has", _edges(result))])
    return found


def _edges(result: DiffResult) -> draw.Drawing:
    """Return the edges that were gained and lost, with their scores in both models, the largest change first."""
    body: list[str] = []
    y = 12.0
    muted, plain = (f' style="fill:var(--interp-{colour});font-size:11px"' for colour in ("muted", "fg"))
    for name, listed in (("gained", result.gained), ("lost", result.lost)):
        more = f", the first {_EDGES}" if len(listed) > _EDGES else ""
        body.append(draw.text(0, y, f"{name}: {len(listed)}{more}", more=muted))
        y += _LINE
        for one in listed[:_EDGES]:
            ends = f"{_named(one.writer)} → {_named(one.reader)}"
            body.append(draw.text(10, y, ends, more=plain))
            for at, value in ((_SCORES, one.base), (_SCORES + 72, one.tuned)):
                body.append(draw.text(at, y, signed(value), anchor="end", more=plain))
            body.append(draw.text(_SCORES + 8, y, "→", more=muted))
            y += _LINE
        y += 4
    unsure = len(result.edges) - len(result.gained) - len(result.lost)
    if unsure:
        body.append(draw.text(0, y, f"{unsure} more are too near the weakest to tell", more=muted))
        y += _LINE
    return draw.Drawing(_SCORES + 80, y - 8, "".join(body))


def _continued(result: DiffResult) -> draw.Drawing:
    lines: list[str] = []
    for prompt, *both in result.continuations:
        end = prompt if len(prompt) <= _SHOWN else f"…{prompt[-_SHOWN:]}"
        lines.append(frame.visible_facts(end, _SHOWN + 1))
        for name, text in zip((result.base, result.tuned), both, strict=True):
            lines.append(f"→ {frame.visible_facts(text, _SHOWN - 12).strip()} ({frame.visible_facts(name, 12)})")
    return draw.words(lines)


def _kept(result: DiffResult, share: float, lost: float) -> tuple[str, draw.Drawing]:
    """Return the set that suffices, four names to a line."""
    count = len(result.kept)
    names = [_named(name) for name in result.kept[:_LISTED]]
    lines = [", ".join(names[n : n + 4]) for n in range(0, len(names), 4)]
    lines[-1] += " …" * (count > len(names))
    lines.append(f"{'together they carry' if count > 1 else 'alone it carries'} {share:.0%} of the difference;")
    lines.append(f"without {'them' if count > 1 else 'it'}, {lost:.0%} of it is gone")
    return (f"{count} component{'s' * (count != 1)} that suffice{'s' * (count == 1)}", draw.words(lines))


def _foot(result: DiffResult) -> list[page.Piece]:
    if not math.isfinite(result.change):
        return [("nothing is computed yet", "", True)]
    pieces: list[page.Piece] = [
        (f"{result.base} ", signed(float(result.base_values.mean())), False),
        (f"{result.tuned} ", signed(float(result.tuned_values.mean())), False),
        ("difference ", signed(result.change), False),
    ]
    outside = [(name, result.of(name, result.effect)) for name in ("embed", "unembed") if name in result.components]
    return [*pieces, *((f"{_named(name)} {signed(value)}", "", True) for name, value in outside if value)]


def _picture(result: DiffResult) -> page.Picture:
    return page.Picture(_TITLE, _facts(result), _stacks(result), _foot(result), result.notes)


html, svg = page.pictures(_picture)
