"""Pictures of a TraceResult: which features, at which tokens, made the model say that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from interp.errors import InputError, closest
from interp.views import trace_drawing as drawing
from interp.views import trace_report as report
from interp.views import trace_stability as stability
from interp.views.kit import bars, draw, frame, page, theme
from interp.views.kit.draw import Drawing, number
from interp.views.kit.page import Block, Piece
from interp.views.kit.text import escape, signed, visible
from interp.views.trace_groups import collapsed
from interp.views.trace_layout import Arrangement, arrange

if TYPE_CHECKING:
    from interp.methods._shared.trace.result import TraceResult

_CAPTION = "Attribution graph: tokens across, a row per layer, tokens' embeddings at the bottom"
_SPOKEN = 100  # tokens that are named
LISTED, _NAMED = 16, 10  # most influential edges of a page and of a standalone picture
KEY = (("round", "feature"), ("turned", "token"), ("square", "error: what an MLP writes and its features do not"))


def html(result: TraceResult) -> str:
    """Return the graph as a self-contained HTML fragment: the graph, its strongest edges, its scores and features."""
    view = _View(result)
    picture = view.picture
    foot = f'<span class="interp-line">{page.said(view.shown)}</span>'
    return frame.html(
        picture.title,
        report.facts(result),
        view.body,
        foot=f'<div class="interp-stacked">{foot}</div>',
        notes=picture.notes,
        plain=page.svg(picture, theme.AUTO),
        view="trace",
    )


def svg(
    result: TraceResult,
    theme: str = "light",
    *,
    edges: int | None = None,
    chosen: str | None = None,
    pinned: Sequence[str] = (),
    unfolded: Sequence[str] = (),
) -> str:
    """Return the same picture as a standalone SVG document in one theme.

    Parameters
    ----------
    edges
        How many of the most influential are drawn; as many as the live view opens with when not given.
    chosen
        A node: what does not touch it is dimmed.
    pinned
        Nodes: what is on no way through one of them is dimmed.
    unfolded
        Groups whose nodes are drawn one by one.

    Raises
    ------
    InputError
        There is no such theme, node or group.
    """
    return page.svg(_View(result, edges, chosen, tuple(pinned), tuple(unfolded)).picture, theme)


def spoken(result: TraceResult) -> str:
    """Return what the graph is for those who do not see it: what is drawn, and the tokens in full."""
    tokens = " ".join(visible(token, None) for token in result.tokens[:_SPOKEN])
    more = len(result.tokens) - _SPOKEN
    return f"{_CAPTION}: {tokens}" + (f" and {more:,} more" if more > 0 else "")


def meaning(result: TraceResult) -> list[str]:
    """Return what colours and widths mean, in lines."""
    what = report.said(result)
    logit = "logits" if len(result.outputs) > 1 else "logit"
    raised = f"raises {what}" if result.against is not None else f"raises the {logit} of {what}"
    return [
        f"red: {raised}; blue: lowers it",
        "an edge's colour: what it adds to where it leads; its width: its influence",
    ]


def notes(result: TraceResult) -> list[str]:
    """Return what is to be known before the picture is believed."""
    return [frame.visible_facts(note, 600) for note in dict.fromkeys(result.notes)]


@dataclass(frozen=True)
class _View:
    """What is drawn of a result."""

    result: TraceResult
    asked: int | None = None
    chosen: str | None = None
    pinned: tuple[str, ...] = ()
    unfolded: tuple[str, ...] = ()

    @cached_property
    def whole(self) -> Arrangement:
        return arrange(self.result)

    @cached_property
    def drawn(self) -> Arrangement:
        groups = self.result.groups
        for name in self.unfolded:
            if name not in groups:
                raise InputError(f"no group {name!r}{closest(name, groups)}")
        return collapsed(self.whole, {name: nodes for name, nodes in groups.items() if name not in self.unfolded})

    @cached_property
    def count(self) -> int:
        """How many edges are drawn."""
        return self.drawn.opens if self.asked is None else max(0, min(self.asked, len(self.drawn.sources)))

    @cached_property
    def graph(self) -> Drawing:
        drawn = self.drawn
        places = {name: number for number, name in enumerate(drawn.names)}
        for name in (*self.pinned, *([] if self.chosen is None else [self.chosen])):
            if name not in places:
                raise InputError(f"no node {name!r} in this drawing{closest(name, places)}")
        at = -1 if self.chosen is None else places[self.chosen]
        lit = None
        if self.pinned:
            lit = through(drawn, self.count, [places[name] for name in self.pinned])
        elif at >= 0:
            lit = {n for n in range(self.count) if at in (int(drawn.sources[n]), int(drawn.targets[n]))}
        return drawing.graph(drawn, self.count, drawing.ends(self.whole), at, lit)

    @property
    def shown(self) -> list[Piece]:
        """What is drawn, in words and an exact number."""
        drawn = self.drawn
        share = float(drawn.shares[: self.count].sum())
        edges = f"{self.count:,} of {len(drawn.sources):,} edges"
        more = f" (the most influential of {drawn.total:,})" if drawn.total > len(self.whole.sources) else ""
        return [
            (f"{edges}{more}, of the influence ", f"{100 * share:.0f} %", False),
            (f"{len(drawn.shown(self.count)):,} nodes", "", True),
        ]

    @property
    def picture(self) -> page.Picture:
        result = self.result
        facts = report.facts(result)
        pieces: list[Piece] = [*self.shown]
        pieces += [(f"{name} ", f"{value}", False) for name, value, _ in report.scores(result)]
        return page.Picture("Attribution graph", facts, self.stacks, pieces, notes(result))

    @cached_property
    def stacks(self) -> list[list[Block]]:
        if not self.count:
            return [[("no edge is in this graph", self.graph)]]
        rows = [bars.Bar(self.between(edge), float(self.drawn.weights[edge])) for edge in self.strongest[:_NAMED]]
        key = draw.stack([(0, bars.bars(rows, 1e-6)), (0, draw.words(meaning(self.result)))])
        stacks: list[list[Block]] = [[(_CAPTION, self.graph)], [("Most influential edges: weight", key)]]
        if self.result.top(1):
            stacks.append([(report.CAPTION, report.drawn_table(self.result))])
        if (measured := report.measured(self.result)) is not None:
            stacks.append([(report.caption(self.result), measured)])
        if (alike := stability.drawing(self.result)) is not None:
            stacks.append([(stability.caption(self.result), alike)])
        return stacks

    @property
    def strongest(self) -> list[int]:
        return drawing.strongest(self.drawn, self.count, LISTED)

    def between(self, edge: int) -> str:
        """Return the names of an edge's ends."""
        return " → ".join(self.drawn.called[int(end[edge])] for end in (self.drawn.sources, self.drawn.targets))

    @property
    def body(self) -> str:
        """The graph and what is said of it as markup for a page, laid out as the live view is."""
        graph = self.graph
        key = "".join(f'<i class="interp-{kind}"></i><span>{escape(name)}</span>' for kind, name in KEY)
        words = "".join(f"<span>{escape(line)}</span>" for line in meaning(self.result))
        end = float(self.drawn.shares[: self.count].max(initial=0.0)) or 1.0
        rows = "".join(self._edge(edge, end) for edge in self.strongest)
        scores = "".join(
            f'<p class="interp-q"><b>{escape(value)}</b>{escape(f"{name}: {said}")}</p>'
            for name, value, said in report.scores(self.result)
        )
        return (
            '<div class="interp-columns">'
            f'<div class="interp-part" style="--wide:{math.ceil(graph.width)}px">'
            f'<div class="interp-graph">{draw.inline(graph, spoken(self.result))}</div>'
            f'<div class="interp-legend interp-q">{key}{words}</div></div>'
            '<div class="interp-inspector"><div class="interp-name"><b>Most influential edges</b></div>'
            f'<div class="interp-strongest">{rows}</div></div></div>'
            f'<div class="interp-scores">{scores}</div>{self._below()}'
        )

    def _edge(self, edge: int, end: float) -> str:
        weight = float(self.drawn.weights[edge])
        part = number(float(self.drawn.shares[edge]) / end)
        colour = "towards" if weight > 0 else "against"
        return (
            f'<div style="--part:{part};--colour:var(--interp-{colour}-high)"><span class="interp-code">'
            f"{escape(self.between(edge))}</span><span>{signed(weight)}</span></div>"
        )

    def _below(self) -> str:
        parts: list[str] = []
        if self.result.top(1):
            caption = f'<div class="interp-caption"><span>{escape(report.CAPTION)}</span></div>'
            parts.append(f'<div class="interp-listed">{caption}{report.table(self.result)}</div>')
        for words, drawn in (
            (report.caption(self.result), report.measured(self.result)),
            (stability.caption(self.result), stability.drawing(self.result)),
        ):
            if drawn is not None:
                caption = f'<div class="interp-caption"><span>{escape(words)}</span></div>'
                parts.append(f'<div class="interp-measured">{caption}<div>{draw.inline(drawn, words)}</div></div>')
        return f'<div class="interp-columns interp-below">{"".join(parts)}</div>' if parts else ""


def through(drawn: Arrangement, count: int, nodes: Sequence[int]) -> set[int]:
    """Return the first `count` edges on a way through one of `nodes`: all that lead there, all that lead on."""
    found: set[int] = set()
    for start, end in ((drawn.sources, drawn.targets), (drawn.targets, drawn.sources)):
        seen, left = set(nodes), list(nodes)
        while left:
            node = left.pop()
            for edge in range(count):
                if int(start[edge]) == node:
                    found.add(edge)
                    if (other := int(end[edge])) not in seen:
                        seen.add(other)
                        left.append(other)
    return found
