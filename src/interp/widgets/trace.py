"""The attribution graph: its most influential edges, what each node is, and what the model does without it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from interp.errors import InputError
from interp.views import trace as pictures
from interp.views import trace_drawing, trace_report, trace_stability
from interp.views.kit.frame import visible_facts
from interp.views.kit.text import visible
from interp.views.kit.theme import THEMES
from interp.views.trace_groups import collapsed
from interp.views.trace_layout import KINDS, Arrangement, arrange
from interp.widgets._encode import MESSAGE
from interp.widgets._grouping import GroupingWidget
from interp.widgets._rpc import Handler, Reply, Request, parameters

if TYPE_CHECKING:
    from interp.methods._shared.trace.result import TraceResult

_GRID = 8  # steps to a CSS pixel of the places that are sent
_TOKEN = 24
_HEADS = 6  # of an edge that are named
_CHANGES = range(-300, 301)  # percent of an activation


class TraceWidget(GroupingWidget):
    """An interactive view of a `TraceResult`.

    Parameters
    ----------
    result
        The graph. Its `groups` are shown and changed here; all else that is read of it are its arrays and words and, on
        demand, `moved()`.
    """

    script = "trace"
    graph = traitlets.Dict().tag(sync=True)
    drawing = traitlets.Bytes().tag(sync=True)

    def __init__(self, result: TraceResult, **traits: Any) -> None:
        self._counts = {
            "layer": result.n_layers,
            "head": result.n_heads,
            **dict.fromkeys(("position", "query", "key"), len(result.tokens)),
        }
        self._whole = self._drawn = arrange(result)
        super().__init__(result, **traits)

    def state(self, result: TraceResult, folded: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """Return what the page shows, as traits."""
        self._drawn = collapsed(self._whole, folded)
        return {"graph": _described(result, self._whole, self._drawn), "drawing": _packed(self._drawn)}

    def handlers(self) -> Mapping[str, Handler]:
        """Return the graph's requests."""
        return {
            **super().handlers(),
            "fires": self._on_fires,
            "edge": self._on_edge,
            "move": self._on_move,
            "picture": self._on_picture,
        }

    def questions(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return where each feature is active, and what heads carry of each edge."""
        for name, kind in zip(self._drawn.names, self._drawn.kinds, strict=True):
            if kind == "feature":
                yield "fires", {"node": name}
        names = self._drawn.names
        for source, target in zip(self._drawn.sources, self._drawn.targets, strict=True):
            yield "edge", {"source": names[int(source)], "target": names[int(target)]}

    def check_selection(self, chosen: Mapping[str, int | None]) -> None:
        """Raise InputError where `chosen` names a layer, a head or a position that the prompt's run does not have."""
        for name, index in chosen.items():
            if index is not None and index >= self._counts[name]:
                raise InputError(f"no {name} {index} in this graph; they are 0–{self._counts[name] - 1}")

    def _on_fires(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with a feature's activation at each token."""
        (node,) = parameters(params, node=self._whole.names)
        return Reply({}, (self.result.fires[self.result.number(node)].astype("<f4").tobytes(),))

    def _on_edge(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with what heads carry of an edge, or of those that a group joins."""
        source, target = parameters(params, source=self._drawn.names, target=self._drawn.names)
        result: TraceResult = self.result
        held = np.isin(result.edge_sources, self._inside(source)) & np.isin(result.edge_targets, self._inside(target))
        if not held.any():
            raise InputError("there is no such edge in this graph")
        heads, loadings = result.heads[held], result.loadings[held].astype(float)
        named = {int(head): float(loadings[heads == head].sum()) for head in np.unique(heads[heads >= 0]).tolist()}
        strongest = sorted(named, key=lambda head: -abs(named[head]))
        other = float(result.other[held].sum()) + sum(named[head] for head in strongest[_HEADS:])
        return Reply(
            {
                "weight": float(result.weights[held].sum()),
                "direct": float(result.direct[held].sum()),
                "heads": [[*divmod(head, result.n_heads), named[head]] for head in strongest[:_HEADS]],
                "other": other,
            }
        )

    def _on_move(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with what becomes of the logits where a feature's activation is changed by some percent of itself."""
        node, change = parameters(params, node=self._whole.names, change=_CHANGES)
        moves = self.result.moved(node, change / 100)
        titles = [said for said, kind in zip(self._whole.titles, self._whole.kinds, strict=True) if kind == "logit"]
        rows = zip(titles, moves, strict=True)
        return Reply({"moves": [[said, _number(one.foretold), _number(one.measured)] for said, one in rows]})

    def _on_picture(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the static picture of what a view shows."""
        theme, edges, chosen, pinned = parameters(params, theme=THEMES, edges=int, chosen=str, pinned=list)
        drawn = pictures.svg(
            self.result, theme, edges=edges, chosen=chosen or None, pinned=pinned, unfolded=self.unfolded
        )
        if len(drawn.encode()) > MESSAGE:
            raise InputError('this picture is too large for a message; result.save("trace.svg") writes it')
        return Reply({"svg": drawn})

    def _inside(self, node: str) -> list[int]:
        """Return the places in the result of a node's, or a group's nodes."""
        number = self._drawn.names.index(node)
        names = self.result.groups[node] if self._drawn.kinds[number] == "group" else (node,)
        return [self.result.number(name) for name in names]


def _described(result: TraceResult, whole: Arrangement, drawn: Arrangement) -> dict[str, Any]:
    """Return the small things that the page needs at once."""
    measured = (
        (trace_report.caption(result), trace_report.measured(result)),
        (trace_stability.caption(result), trace_stability.drawing(result)),
    )
    return {
        "facts": trace_report.facts(result),
        "about": {
            "model": visible_facts(result.provenance.model, 200),
            "target": trace_report.said(result),
            "features": visible_facts(result.features[0], 200),
        },
        "tokens": [visible(token, _TOKEN) for token in result.tokens],
        "names": list(drawn.names),
        "titles": list(drawn.titles),
        "called": list(drawn.called),
        "labels": {
            name: visible_facts(label, 200)
            for name in drawn.names
            if (label := result.labels.get(name.partition("@")[0]))
        },
        "rows": [[name, y] for name, y in drawn.rows],
        "axis": [[text, x] for text, x in drawn.axis],
        "size": [drawn.width, drawn.height, drawn.foot],
        "counts": [len(drawn.names), len(drawn.sources)],
        "total": drawn.total,
        "opens": drawn.opens,
        "ends": list(trace_drawing.ends(whole)),
        "meaning": pictures.meaning(result),
        "key": [list(pair) for pair in pictures.KEY],
        "scores": [list(score) for score in trace_report.scores(result)],
        "features": [list(row) for row in trace_report.rows(result)],
        "caption": trace_report.CAPTION,
        "measured": [[words, one.width, one.height, one.body] for words, one in measured if one is not None],
        "notes": pictures.notes(result),
    }


def _packed(drawn: Arrangement) -> bytes:
    """Return the numbers of the drawing.

    float32: activation, influence and effect of each node, weight and share of the influence of each edge. uint16: of
    each node x, y, width, kind, layer + 1, position, with how many edges it is shown, side and end of its title; of
    each edge its source and target.
    """
    kinds = [KINDS.index(kind) for kind in drawn.kinds]
    places = np.rint(np.stack([drawn.x, drawn.y, drawn.wide], 1) * _GRID)
    more = np.stack([kinds, drawn.layers + 1, drawn.positions, drawn.first, drawn.sides, drawn.until], 1)
    parts = [
        np.stack([drawn.activations, drawn.influences, drawn.effects], 1).astype("<f4"),
        np.stack([drawn.weights, drawn.shares], 1).astype("<f4"),
        np.concatenate([places, more], 1).astype("<u2"),
        np.stack([drawn.sources, drawn.targets], 1).astype("<u2"),
    ]
    return b"".join(part.tobytes() for part in parts)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
