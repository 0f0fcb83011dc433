"""Pictures of an AblationResult: the metric or the loss without components, alone and together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.spec import Node
from interp.views.kit import bars, draw, figures, frame, page
from interp.views.kit.page import Piece, Stack
from interp.views.kit.text import signed

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from interp.methods.patching.ablate import AblationResult

_NAMES = {"loss": "loss, nats per token", "kl": "KL divergence, nats"}
_LEAST = 1e-4


def plotly(result: AblationResult, *, theme: str = "light", width: int = 760, height: int = 460) -> go.Figure:
    """Return what each ablation changes, with its interval, as Plotly bars beside what adding up would give."""
    import plotly.graph_objects as go

    several = len(result.components) > 1
    names = [*map(_named, result.components), *(["all together", "sum of each"] if several else [])]
    values, (low, high) = result.effect[1:], result.effect_interval[:, 1:]
    if several:
        values = np.append(values, result.additive - float(result.values[0]))
        low, high = (np.append(one, np.nan) for one in (low, high))
    figure = go.Figure()
    figure.add_bar(
        x=values,
        y=names,
        orientation="h",
        marker={"color": figures.sides(-values if frame.falls(result.metric) else values, theme)},
        error_x=figures.whiskers(values, low, high, theme),
        hovertemplate="without %{y}<br><b>%{x:+.4f}</b><extra></extra>",
    )
    figure.update_xaxes(title=f"change of {_quantity(result)}", showgrid=False, zeroline=True)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figures.styled(figure, "Ablation", _facts(result), theme, width, height)


def _named(name: str) -> str:
    if "->" in name:
        head, _, edge = name.rpartition(":")
        whose = Node.parse(head).drawn if "." in head else f"L{head.replace('-', '–')}" if head else ""
        return f"{whose} {edge.replace('->', ' → ')}".strip()
    if name.endswith(".direction"):
        return f"L{name.partition('.')[0]} direction"
    return Node.parse(name).drawn


def _quantity(result: AblationResult) -> str:
    return _NAMES.get(result.metric) or frame.metric(result.metric)


def _blocks(result: AblationResult) -> list[Stack]:
    count = len(result.components)
    turned = frame.falls(result.metric)
    done = np.array([bool(np.isfinite(row).all()) for row in result.per_prompt])
    names = ["nothing", *map(_named, result.components), *(["all together"] if count > 1 else [])]

    def bar(n: int, values: NDArray[np.float64], ends: NDArray[np.float64]) -> bars.Bar:
        there = bool(done[n]) or not _partial(result)
        return bars.Bar(names[n], float(values[n]), float(ends[0, n]), float(ends[1, n]), there)

    rows = [bar(n, result.values, result.value_interval) for n in range(len(names))]
    changes = [bar(n, result.effect, result.effect_interval) for n in range(1, len(names))]
    if count > 1:
        whole = bool(done.all()) or not _partial(result)
        low, high = (float(end) for end in result.additive_interval)
        rows.append(bars.Bar("all, if additive", result.additive, low, high, whole))
        expected = result.additive - float(result.values[0])
        changes.append(bars.Bar("sum of each", expected, done=whole))
        low, high = (float(end) for end in result.superadditive_interval)
        changes.append(bars.Bar("all − sum", result.superadditive, low, high, whole))
    cut = result.replacement.startswith("edges")
    lines = [] if cut else [f"in place of what is taken away: {result.replacement}"]
    if np.isfinite(result.value_interval).any():
        lines.append(f"thin line: 95 % interval over {_prompts(result)}")
    if not done.all() and _partial(result):
        lines.append("grey: not computed")
    first = bars.bars(rows, _LEAST, turned)
    said = draw.words(lines)
    return [
        [(f"Without …: {_quantity(result)}", draw.stack([(0, first), (0, said)]) if lines else first)],
        [("Change from the whole model", bars.bars(changes, _LEAST, turned))],
    ]


def _partial(result: AblationResult) -> bool:
    return any(note.startswith("partial") for note in result.notes)


def _facts(result: AblationResult) -> str:
    count, number = len(result.components), _prompts(result)
    what = _named(result.components[0]) if count == 1 else f"{count} components"
    return frame.facts(
        result,
        what,
        f"at {frame.visible_facts(result.at, 40)}" if result.at else "",
        "" if result.replacement.startswith("edges") else frame.ablation(result.mode),
        f"{frame.visible_facts(result.task, 40)}, {number}" if result.task else number,
        _quantity(result),
    )


def _prompts(result: AblationResult) -> str:
    count = result.per_prompt.shape[1]
    return f"{count} {'text' if result.metric == 'loss' else 'prompt'}{'s' * (count != 1)}"


def _foot(result: AblationResult) -> list[Piece]:
    if not math.isfinite(result.values[0]):
        return [("nothing is computed yet", "", True)]
    pieces: list[Piece] = [("unablated ", signed(float(result.values[0])), False)]
    last = _named(result.components[0]) if len(result.components) == 1 else "all"
    if math.isfinite(result.values[-1]):
        pieces.append((f"without {last} ", signed(float(result.values[-1])), False))
    if len(result.components) > 1 and math.isfinite(result.superadditive):
        pieces.append(("all − sum of each ", signed(result.superadditive), False))
        low, high = (float(end) for end in result.superadditive_interval)
        if math.isfinite(low):
            pieces.append((f"95 % interval [{signed(low)}, {signed(high)}]", "", True))
    return pieces


def _picture(result: AblationResult) -> page.Picture:
    return page.Picture("Ablation", _facts(result), _blocks(result), _foot(result), result.notes)


html, svg = page.pictures(_picture)
