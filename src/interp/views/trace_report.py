"""What is said of an attribution graph beside it: its scores, its strongest features, what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.views.kit import curves, draw, frame, heatmap
from interp.views.kit.draw import ACCENT, Drawing, number
from interp.views.kit.text import columns, escape, signed, visible
from interp.views.trace_layout import peak

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.methods._shared.trace.result import TraceResult

    Float = NDArray[np.float64]

FEATURES = 10  # of the table
_LABEL, _TOKEN = 60, 16
_POINTS = 1500
_SIDE, _LEFT, _LOW, _TOP = 170, 40, 34, 16  # of a scatter
CAPTION = "Most influential features; effect: what the logit would lose without it, by the graph"
_HEADINGS = ("feature", "label", "token", "activation", "effect", "influence")


class Score(NamedTuple):
    """A number and what it says, in a sentence."""

    name: str
    value: str
    said: str


class Row(NamedTuple):
    """A feature in the table, as it is shown."""

    name: str
    label: str
    token: str
    activation: str
    effect: str
    influence: str


def scores(result: TraceResult) -> list[Score]:
    """Return what the graph is worth, number by number."""
    nodes, edges = result.kept
    return [
        Score(
            "replacement", _two(result.replacement), "of the influence on the logits begins at tokens, not at errors"
        ),
        Score("completeness", _two(result.completeness), "of what leads into nodes is tokens and features, not errors"),
        Score("kept", f"{nodes:.2f} and {edges:.2f}", "of the nodes' and of the edges' influence is in this graph"),
        Score(
            "explored",
            f"{result.explored:,} of {result.active:,}",
            "active features have the edges into them; what leads into the others is unexplained",
        ),
        Score(
            "gap",
            _small(result.gap),
            "is the most that edges and biases miss of what they lead into",
        ),
        _stability(result),
    ]


def _stability(result: TraceResult) -> Score:
    """Return how much of the graph those of paraphrases have too, or how to find that out."""
    held = result.stability
    if held is None:
        return Score("stability", "not measured", "over paraphrases; interp.validate(g, paraphrases=[…]) measures it")
    own, other = (_two(held.of("influence", control=control).mean) for control in (False, True))
    return Score("stability", own, f"of the influence is alike in paraphrases' graphs, beside {other} in controls'")


def rows(result: TraceResult) -> list[Row]:
    """Return the most influential features."""
    found: list[Row] = []
    for name, influence in result.top(FEATURES):
        at = result.number(name)
        label = result.labels.get(name.partition("@")[0], "")
        said = visible(label, _LABEL).replace("␣", " ") if label else f"fires most at {peak(result, at, _TOKEN)}"
        position = int(result.node_positions[at])
        token = f"{visible(result.tokens[position], _TOKEN)} {position}"
        active = f"{float(result.activations[at]):.3g}"
        found.append(Row(name, said, token, active, signed(float(result.effects[at])), f"{influence:.3f}"))
    return found


def table(result: TraceResult) -> str:
    """Return the most influential features as markup for a page."""
    held = rows(result)
    head = "".join(f'<span class="interp-q" role="columnheader">{name}</span>' for name in _HEADINGS)
    body = "".join(
        '<div role="row">'
        + "".join(
            f'<span role="cell"{" class=interp-code" if n in {0, 2} else ""}>{escape(cell)}</span>'
            for n, cell in enumerate(row)
        )
        + "</div>"
        for row in held
    )
    return (
        f'<div class="interp-features" role="table" aria-label="Most influential features">'
        f'<div role="row">{head}</div>{body}</div>'
    )


def drawn_table(result: TraceResult) -> Drawing:
    """Return the most influential features as a drawing."""
    held = [Row(*_HEADINGS), *rows(result)]
    held = [row._replace(label=row.label if columns(row.label) <= 40 else f"{row.label[:38]}…") for row in held]
    wide = [max(columns(row[n]) for row in held) * 6.2 + 16 for n in range(len(_HEADINGS))]
    body: list[str] = []
    for n, row in enumerate(held):
        x = 0.0
        for column, cell in enumerate(row):
            colour = "var(--interp-fg)" if n else "var(--interp-muted)"
            more = f' style="font-size:{10 if column in {0, 2} and n else 11}px;fill:{colour}"'
            at, anchor = (x + wide[column] - 16, "end") if column > 2 else (x, "")
            body.append(draw.text(at, 11 + 19 * n, cell, "m" if column in {0, 2} and n else "t", anchor, more=more))
            x += wide[column]
        if n:
            body.append(f'<path class="interp-base" d="M0 {19 * n - 3}H{number(sum(wide) - 16)}"/>')
    return Drawing(sum(wide) - 16, 19 * len(held), "".join(body))


def measured(result: TraceResult) -> Drawing | None:
    """Return what the graph foretold of changed features against what the model did, features and logits apart."""
    check = result.check
    if check is None:
        return None
    logits = np.array([result.kinds[node] == "logit" for node in check.nodes])
    parts: list[Drawing] = []
    for name, chosen in (("features", ~logits), ("logits", logits)):
        where = check.downstream & chosen[None]
        correlation, signs, count = check.of(chosen)
        said = (
            [
                f"Pearson {_two(correlation)}, the sign agrees in {100 * signs:.0f} %",
                f"of n = {count:,} changes foretold",
            ]
            if count > 1
            else [f"n = {count}", ""]
        )
        told, found = check.foretold[where].astype(float), check.measured[where].astype(float)
        parts.append(_scatter(f"{name}: change measured", told, found, said))
    drawn = draw.row(parts, 22)
    return Drawing(math.ceil(drawn.width), math.ceil(drawn.height), drawn.body)


def _scatter(name: str, told: Float, found: Float, said: Sequence[str]) -> Drawing:
    """Return points of what was foretold, across, and measured, up; hollow where even the sign is another."""
    end = heatmap.limit(np.concatenate([told, found]), 1e-6, spread=1e9)
    unit = _SIDE / (2 * end)

    def place(across: float, up: float) -> tuple[str, str]:
        return number(_LEFT + (across + end) * unit), number(_TOP + (end - up) * unit)

    body: list[str] = []
    for tick in curves.ticks(-end, end):
        x, y = place(tick, tick)
        body.append(f'<path class="interp-base" d="M{x} {_TOP}v{_SIDE}M{_LEFT} {y}h{_SIDE}"/>')
        label = f"{tick:g}".replace("-", "−")
        body.append(draw.text(_LEFT - 5, float(y) + 3.5, label, anchor="end"))
        body.append(draw.text(float(x), _TOP + _SIDE + 13, label, anchor="middle"))
    (x0, y0), (x1, y1) = place(-end, -end), place(end, end)
    body.append(f'<path style="stroke:var(--interp-muted);stroke-dasharray:3 3" d="M{x0} {y0}L{x1} {y1}"/>')
    known = np.flatnonzero(np.isfinite(told) & np.isfinite(found))
    # More could not be told apart, and would not fit into a message.
    some = known[np.linspace(0, len(known) - 1, min(len(known), _POINTS)).astype(int)]
    agree, other = "", ""
    for point in some.tolist():
        x, y = place(float(told[point]), float(found[point]))
        if np.sign(told[point]) == np.sign(found[point]):
            agree += f"M{x} {y}h0"
        else:
            other += f"M{x} {y}m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
    dots = f"stroke:{ACCENT};stroke-width:5.5;stroke-linecap:round;stroke-opacity:0.6"
    body.append(f'<path style="fill:none;{dots}" d="{agree}"/>')
    body.append(f'<path style="fill:none;stroke:var(--interp-nan);stroke-width:1.4" d="{other}"/>')
    if len(some) < len(known):
        name = f"{name} ({len(some):,} drawn)"
    body.append(draw.text(_LEFT, 10, name))
    body.append(draw.text(_LEFT + _SIDE, _TOP + _SIDE + 27, "foretold", anchor="end"))
    more = ' style="font-size:11px;fill:var(--interp-fg)"'
    body += [draw.text(0, _TOP + _SIDE + 45 + 15 * n, line, more=more) for n, line in enumerate(said)]
    wide = max(_LEFT + _SIDE + 10, *(5.9 * columns(line) for line in said))
    return Drawing(wide, _TOP + _SIDE + _LOW + 30, "".join(body))


def caption(result: TraceResult) -> str:
    """Return what the scatter shows."""
    changed = len(set(result.check.changed.tolist())) if result.check is not None else 0
    what = "1 feature" if changed == 1 else f"{changed} features"
    return f"{what} taken away and doubled in the model; hollow: the other sign"


def _two(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _small(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.1e}".replace("e-", "e−")


def said(result: TraceResult) -> str:
    """Return what is traced, in words."""
    tokens = [visible(token, 16) for token, _, _ in result.outputs]
    some = ", ".join(tokens[:3]) + (f" and {len(tokens) - 3} more" if len(tokens) > 3 else "")
    return some if result.against is None else f"{some} over {visible(result.against[0], 16)}"


def facts(result: TraceResult) -> str:
    """Return the line beside the title: of what, in how many tokens, by which features."""
    at = f"{len(result.tokens):,} tokens"
    features = f"features {frame.visible_facts(result.features[0], 40)}"
    # A frame's facts are made visible once more, so that a space stands for itself here.
    what = said(result).replace("␣", " ").strip().replace("  ", " ")
    return frame.facts(result, what, at, features)
