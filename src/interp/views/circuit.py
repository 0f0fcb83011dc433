"""Pictures of a CircuitResult: which heads and MLPs pass what to which, and the evidence that they do."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError, closest
from interp.views import circuit_layout as places
from interp.views.circuit_layout import HALF, Arrangement, Curve
from interp.views.kit import bars, draw, frame, heatmap, page, theme
from interp.views.kit.draw import Drawing, number
from interp.views.kit.page import Block, Piece
from interp.views.kit.text import escape, signed

if TYPE_CHECKING:
    from interp.methods._shared.circuit.result import CircuitResult, Edge

_PAINT: dict[str, float] = theme.PALETTE["circuit"]
STEPS = int(_PAINT["steps"])  # of a colour and a width, each way
FAINTEST = int(_PAINT["faintest"])  # the step of the weakest edge, so that it can be seen
WIDEST = _PAINT["widest"]  # CSS pixels
NODE = _PAINT["node"]  # of the strongest colour, so that a name can be read on it
_LISTED, _NAMED = 12, 10  # strongest edges of a standalone picture and of a page
_LEAST = 1e-6
_CAPTION = "Circuit: a row per layer, inputs at the bottom"


def html(result: CircuitResult) -> str:
    """Return the circuit as a self-contained HTML fragment: the graph, its strongest edges, its evidence."""
    view = _View(result)
    picture = view.picture
    if not view.count:
        return page.html(picture)
    foot = "".join(f'<span class="interp-line">{page.said(pieces)}</span>' for pieces in (view.shown, picture.foot))
    return frame.html(
        picture.title,
        facts(result),
        f'<div class="interp-columns">{view.columns}</div>',
        foot=f'<div class="interp-stacked">{foot}</div>',
        notes=picture.notes,
        plain=page.svg(picture, theme.AUTO),
        view="circuit",
    )


def svg(
    result: CircuitResult,
    theme: str = "light",
    *,
    edges: int | None = None,
    chosen: str | None = None,
    unfolded: Sequence[str] = (),
    evidence: Sequence[Piece] | None = None,
) -> str:
    """Return the same picture as a standalone SVG document in one theme.

    Parameters
    ----------
    edges
        How many of the strongest are drawn; as many as the live view opens with when not given.
    chosen
        A node: what does not touch it is dimmed.
    unfolded
        Groups whose nodes are drawn one by one.
    evidence
        Of a validation that came later; the result's own when not given.

    Raises
    ------
    InputError
        There is no such theme, node or group.
    """
    return page.svg(_View(result, edges, chosen, tuple(unfolded), evidence).picture, theme)


def facts(result: CircuitResult) -> str:
    """Return the line beside the title: of what, by what, on how much."""
    count = len(result.checks.clean)
    return frame.facts(
        result,
        frame.visible_facts(result.task, 40),
        frame.method(result.method),
        frame.ablation(result.ablation),
        f"{count:,} pair{'s' * (count != 1)}",
    )


def meaning(result: CircuitResult) -> list[str]:
    """Return what the colours' numbers mean, in lines."""
    if result.method == "acdc":
        return ["score: the largest threshold that the edge survives"]
    helps, harms = ("blue", "red") if result.less_is_better else ("red", "blue")
    return [
        f"score: what the {frame.metric(result.metric)} loses without the edge",
        f"{helps}: it helps; {harms}: it works against the answer",
    ]


def evidence(result: CircuitResult) -> list[Piece]:
    """Return the footer: the validation report's figures, or how to get them."""
    report = result.report
    if report is None:
        return [("not validated: %interp validate NAME", "", True)]
    ends = np.asarray(report.faithfulness_interval)
    between = f" [{_two(ends[0])}, {_two(ends[1])}]" if np.isfinite(ends).all() else ""
    found: list[Piece] = [
        ("faithfulness ", f"{_two(report.faithfulness)}{between}", False),
        ("matched random ", report.chance().replace("-", "−"), True),
        ("CPR ", _two(report.cpr), True),
        ("CMD ", _two(report.cmd), True),
    ]
    if len(report.stability):
        resamples = f"stability (Jaccard, {len(report.stability)} resamples) "
        found.append((resamples, _two(float(np.nanmean(report.stability))), True))
    if len(report.marginal_edges):
        spare, tested = len(report.removable), len(report.marginal_edges)
        found.append((f"removable edges {spare} of {tested} tested", "", True))
    found.append((f"{len(report.whole)} {report.pairs} pairs", "", True))
    return found


def _two(value: float) -> str:
    return "not reached" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def notes(result: CircuitResult) -> list[str]:
    """Return what is to be known before the picture is believed."""
    return [frame.visible_facts(note, 600) for note in dict.fromkeys((*result.notes, *result.checks.warnings))]


def ends(drawn: Arrangement) -> tuple[float, float]:
    """Return where the scales of edges and of nodes end."""
    scores = np.array([edge.score for edge in drawn.edges])
    totals = np.array(list(writes(drawn, len(drawn.edges)).values()))
    return heatmap.limit(scores, _LEAST), heatmap.limit(totals, _LEAST)


def writes(drawn: Arrangement, count: int) -> dict[int, float]:
    """Return node → the sum of what it writes along the first `count` edges; each edge counts once."""
    once: dict[int, set[int]] = defaultdict(set)
    for curve in drawn.curves:
        once[curve.source].update(edge for edge in curve.edges if edge < count)
    return {
        node: float(np.nansum([drawn.edges[edge].score for edge in sorted(held)]))
        for node, held in once.items()
        if held
    }


@dataclass(frozen=True)
class _View:
    """What is drawn of a result."""

    result: CircuitResult
    asked: int | None = None
    chosen: str | None = None
    unfolded: tuple[str, ...] = ()
    later: Sequence[Piece] | None = None

    @cached_property
    def whole(self) -> Arrangement:
        return places.arrange(self.result)

    @cached_property
    def drawn(self) -> Arrangement:
        groups = self.result.groups
        for name in self.unfolded:
            if name not in groups:
                raise InputError(f"no group {name!r}{closest(name, groups)}")
        folded = {name: members for name, members in groups.items() if name not in self.unfolded}
        return places.collapsed(self.whole, folded)

    @cached_property
    def count(self) -> int:
        """How many edges are drawn."""
        return self.whole.opens if self.asked is None else self.whole.shown(self.asked)

    @cached_property
    def facts(self) -> str:
        kept = int(self.result.kept.sum())
        edges = f"{kept:,} edge{'s' * (kept != 1)}" if self.count == kept else f"{self.count:,} of {kept:,} edges"
        return f"{facts(self.result)} · {edges}"

    @property
    def picture(self) -> page.Picture:
        found = evidence(self.result) if self.later is None else self.later
        return page.Picture("Circuit", self.facts, self.stacks, found, notes(self.result))

    @cached_property
    def ends(self) -> tuple[float, float]:
        return ends(self.whole)

    @property
    def shown(self) -> list[Piece]:
        """What is drawn, in words and an exact number."""
        sizes = [abs(edge.score) for edge in self.whole.edges[: self.count] if math.isfinite(edge.score) and edge.score]
        least = f"±{signed(min(sizes))[1:]}" if sizes else ""
        return [
            (f"{self.count:,} of {int(self.result.kept.sum()):,} edges, each ", least, False),
            ("or stronger", "", True),
        ]

    @property
    def columns(self) -> str:
        """The graph and its strongest edges as markup for a page, laid out as the live view is."""
        graph, end = self._graph(), self.ends[0]
        scale = min(_PAINT["largest"], _PAINT["high"] / graph.height)
        stops = (float(level) for level in heatmap.lifted(np.linspace(-1, 1, 17)))
        bar = f"linear-gradient(90deg,{','.join(map(_mixed, stops))})"
        rows = "".join(
            f'<div style="--part:{number(min(1.0, abs(np.nan_to_num(edge.score)) / end))};'
            f'--colour:{_mixed(math.copysign(1.0, np.nan_to_num(edge.score)))}"><span class="interp-code">'
            f"{escape(f'{edge.writer} → {edge.reader}')}</span><span>{signed(edge.score)}</span></div>"
            for edge in self.strongest[:_NAMED]
        )
        return (
            f'<div class="interp-part" style="--wide:{math.ceil(scale * graph.width)}px">'
            f"{draw.inline(graph, _CAPTION, scale)}"
            f'<div class="interp-legend interp-q"><span>−{end:g}</span><i style="background:{bar}"></i>'
            f"<span>+{end:g}</span><span>{escape(' · '.join(meaning(self.result)))}</span></div></div>"
            f'<div class="interp-inspector"><div class="interp-name"><b>Strongest edges</b></div>'
            f'<div class="interp-strongest">{rows}</div></div>'
        )

    @property
    def strongest(self) -> list[Edge]:
        return sorted(self.whole.edges[: self.count], key=lambda edge: -abs(np.nan_to_num(edge.score)))

    @cached_property
    def stacks(self) -> list[list[Block]]:
        if not self.count:
            return [[("no edge is in this circuit", Drawing(120, 8, ""))]]
        rows = [bars.Bar(f"{edge.writer} → {edge.reader}", edge.score) for edge in self.strongest[:_LISTED]]
        key = draw.stack(
            [
                (0, bars.bars(rows, _LEAST)),
                (0, heatmap.scale(self.ends[0])),
                (0, draw.words(meaning(self.result))),
            ]
        )
        return [[(_CAPTION, self._graph())], [("Strongest edges", key)]]

    def _graph(self) -> Drawing:
        drawn, count = self.drawn, self.count
        at = drawn.nodes.index(self.chosen) if self.chosen in drawn.nodes else -1
        if self.chosen is not None and at < 0:
            raise InputError(f"no node {self.chosen!r} in this drawing{closest(self.chosen, drawn.nodes)}")
        curves = [
            (curve, edges) for curve in drawn.curves if (edges := tuple(edge for edge in curve.edges if edge < count))
        ]
        shown = sorted({end for curve, _ in curves for end in (curve.source, curve.target)})
        body = [self._rows()]
        paths: dict[tuple[bool, int | None], list[str]] = defaultdict(list)
        for curve, edges in curves:
            score = sum(drawn.edges[edge].score for edge in edges)
            paths[at < 0 or at in (curve.source, curve.target), step(score, self.ends[0])].append(_path(curve))
        for (lit, level), shapes in sorted(paths.items(), key=lambda item: (item[0][0], abs(item[0][1] or 0))):
            body.append(_stroked("".join(shapes), level, lit))
        total = writes(drawn, count)
        body += [self._pill(node, total.get(node, 0.0), node == at) for node in shown]
        return Drawing(drawn.width, drawn.height, "".join(body))

    def _rows(self) -> str:
        lines = "".join(f"M38 {number(y)}H{number(self.drawn.width)}" for _, y in self.drawn.rows)
        dashed = f'<path style="stroke:var(--interp-line);stroke-dasharray:2 4" d="{lines}"/>'
        return dashed + "".join(draw.text(0, y + 3.5, name) for name, y in self.drawn.rows)

    def _pill(self, node: int, total: float, chosen: bool) -> str:
        drawn = self.drawn
        wide = drawn.wide[node]
        x, y = drawn.x[node] - wide / 2, drawn.y[node] - HALF
        shape = (
            f'x="{number(x)}" y="{number(y)}" width="{number(wide)}" height="{number(2 * HALF)}" rx="{number(HALF)}"'
        )
        colours, ink = heatmap.fills(NODE * total / self.ends[1], signed=True)
        fills = "".join(f'<rect {shape} style="fill:{css}{draw.faint(opacity)}"/>' for css, opacity in colours)
        edge = (
            "stroke:var(--interp-accent);stroke-width:2"
            if chosen
            else f"stroke:var(--interp-muted);stroke-width:{_PAINT['outline']}"
        )
        style = f' style="font-size:11px;fill:{ink}"'
        return (
            f'<rect {shape} style="fill:var(--interp-bg)"/>{fills}<rect {shape} style="fill:none;{edge}"/>'
            + draw.text(drawn.x[node], drawn.y[node] + 4, drawn.titles[node], "t", "middle", more=style)
        )


def step(score: float, end: float) -> int | None:
    """Return the step, −`STEPS` … `STEPS`, in whose colour and width an edge is drawn; None where it has no number.

    Examples
    --------
    >>> step(0.5, 0.5), step(-0.001, 0.5), step(math.nan, 1.0)
    (24, -7, None)
    """
    if not math.isfinite(score):
        return None
    size = float(heatmap.lifted(np.array([abs(score) / end]))[0])
    return int(math.copysign(max(FAINTEST, round(STEPS * size)), score))


def width(level: int) -> float:
    """Return how wide a step is drawn, in CSS pixels.

    Examples
    --------
    >>> width(24), round(width(5), 1)
    (6.0, 1.0)
    """
    thinnest = _PAINT["thinnest"]
    return thinnest + (WIDEST - thinnest) * (abs(level) / STEPS) ** _PAINT["growth"]


def _mixed(level: float) -> str:
    """Return the colour of a level, −1 … 1, as it is on the page's background."""
    shade = "var(--interp-bg)"
    for css, opacity in theme.paint(level):
        shade = f"color-mix(in srgb,{css} {number(100 * opacity)}%,{shade})" if opacity < 1 else css
    return shade


def _path(curve: Curve) -> str:
    first, *rest = (f"{number(x)} {number(y)}" for x, y in curve.path.tolist())
    return f"M{first}C{' '.join(rest)}"


def _stroked(shape: str, level: int | None, lit: bool) -> str:
    faint = "" if lit else ";opacity:0.16"
    if level is None:
        return f'<path style="fill:none;stroke:var(--interp-nan);stroke-dasharray:3 3{faint}" d="{shape}"/>'
    wide = f"stroke-width:{number(width(level))}{faint}"
    return "".join(
        f'<path style="fill:none;stroke:{css};stroke-opacity:{number(opacity)};{wide}" d="{shape}"/>'
        for css, opacity in theme.paint(level / STEPS)
    )
