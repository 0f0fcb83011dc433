"""The circuit graph: its strongest edges above a threshold, what each node does, and groups of nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from interp.errors import InputError
from interp.spec import Node
from interp.views import circuit as pictures
from interp.views.circuit_layout import Arrangement, arrange, collapsed
from interp.views.kit.frame import visible_facts
from interp.views.kit.text import visible
from interp.views.kit.theme import THEMES
from interp.widgets import _encode as encode
from interp.widgets._grouping import GroupingWidget
from interp.widgets._rpc import Handler, Reply, Request, parameters

if TYPE_CHECKING:
    from interp.methods._shared.circuit.result import CircuitResult
    from interp.views.kit.page import Piece

_GRID = 8  # steps to a CSS pixel of the places that are sent
_THUMBNAIL = 64  # cells a side of a head's pattern
_TOKEN = 24


class CircuitWidget(GroupingWidget):
    """An interactive view of a `CircuitResult`.

    Parameters
    ----------
    result
        The circuit. Its `groups` are shown and changed here; all else that is read of it are its edges and words and,
        on demand, `function_of()` and `pattern_of()`.
    """

    script = "circuit"
    graph = traitlets.Dict().tag(sync=True)
    drawing = traitlets.Bytes().tag(sync=True)

    def __init__(self, result: CircuitResult, **traits: Any) -> None:
        drawn = arrange(result)
        nodes = [Node.parse(name) for name in result.writers if name != "embed"]
        self._layers = {node.layer for node in nodes}
        self._heads = max((node.head for node in nodes if node.kind == "head"), default=-1) + 1
        self._nodes = drawn.nodes
        self._whole = drawn
        self._evidence: list[Piece] | None = None
        super().__init__(result, **traits)

    def handlers(self) -> Mapping[str, Handler]:
        """Return the graph's requests."""
        return {
            **super().handlers(),
            "function": self._on_function,
            "pattern": self._on_pattern,
            "picture": self._on_picture,
        }

    def questions(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return what each node does, and what each head looks at."""
        for node in self._nodes:
            if node == "logits":
                continue
            yield "function", {"node": node}
            if node != "embed" and Node.parse(node).kind == "head":
                yield "pattern", {"node": node}

    def check_selection(self, chosen: Mapping[str, int | None]) -> None:
        """Raise InputError where `chosen` names a layer or a head that the model does not have."""
        layer, head = chosen.get("layer"), chosen.get("head")
        if layer is not None and layer not in self._layers:
            raise InputError(f"no layer {layer} in this model; it has {', '.join(map(str, sorted(self._layers)))}")
        if head is not None and head >= self._heads:
            raise InputError(f"no head {head} in this model; heads are 0–{self._heads - 1}")

    def validated(self, circuit: CircuitResult) -> None:
        """Show the evidence of `circuit`, which is this one after `interp.validate`."""
        self._evidence = pictures.evidence(circuit)
        self.regroup()

    def state(self, result: CircuitResult, folded: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """Return what the page shows, as traits."""
        graph, drawing = _described(result, self._whole, collapsed(self._whole, folded))
        if self._evidence is not None:
            graph["evidence"] = [list(piece) for piece in self._evidence]
        return {"graph": graph, "drawing": drawing}

    def _on_function(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with what a node does: its label, the tokens that it promotes and suppresses, whether it copies."""
        (node,) = parameters(params, node=self._nodes)
        found = self.result.function_of(node)
        return Reply(
            {
                "label": visible_facts(found.label, 200),
                "promotes": [_valued(token, value) for token, value in found.promotes],
                "suppresses": [_valued(token, value) for token, value in found.suppresses],
                "copying": _number(found.copying),
            }
        )

    def _on_pattern(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with a thumbnail of a head's pattern on the first clean prompt."""
        (node,) = parameters(params, node=self._nodes)
        pattern = encode.pool(self.result.pattern_of(node), _THUMBNAIL)
        return Reply({"side": pattern.shape[-1]}, (encode.quantise(pattern, 1.0).tobytes(),))

    def _on_picture(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the static picture of what a view shows."""
        theme, edges, chosen = parameters(params, theme=THEMES, edges=int, chosen=str)
        drawn = pictures.svg(
            self.result,
            theme,
            edges=edges,
            chosen=chosen or None,
            unfolded=self.unfolded,
            evidence=self._evidence,
        )
        if len(drawn.encode()) > encode.MESSAGE:
            raise InputError('this picture is too large for a message; result.save("circuit.svg") writes it')
        return Reply({"svg": drawn})


def _described(result: CircuitResult, whole: Arrangement, drawn: Arrangement) -> tuple[dict[str, Any], bytes]:
    """Return the small things that the page needs at once, and the numbers of the drawing.

    The numbers are float32 scores, and uint16: x, y and width of each node; writer, reader and `upto` of each edge; of
    each curve its source and target, how many edges it joins and of how many numbers it is, these edges and numbers.
    """
    readers = list(dict.fromkeys(edge.reader for edge in drawn.edges))
    writer = {name: n for n, name in enumerate(drawn.nodes)}
    reader = {name: n for n, name in enumerate(readers)}
    edges = [
        (writer[edge.writer], reader[edge.reader], int(last))
        for edge, last in zip(drawn.edges, drawn.upto, strict=True)
    ]
    curves: list[int] = []
    for curve in drawn.curves:
        points = _on_grid(curve.path.reshape(-1)).tolist()
        curves += [curve.source, curve.target, len(curve.edges), len(points), *curve.edges, *points]
    parts = [
        np.array([edge.score for edge in drawn.edges], "<f4"),
        _on_grid(np.stack([drawn.x, drawn.y, drawn.wide], 1) if drawn.nodes else np.zeros((0, 3))),
        np.array(edges, "<u2"),
        np.array(curves, "<u2"),
    ]
    edge_end, node_end = pictures.ends(whole)
    graph = {
        "facts": pictures.facts(result),
        "about": {
            "model": visible_facts(result.provenance.model, 200),
            "task": visible_facts(result.task, 200),
            "method": result.method,
            "ablation": result.ablation,
            "metric": visible_facts(result.metric, 200),
        },
        "nodes": list(drawn.nodes),
        "titles": list(drawn.titles),
        "labels": {name: visible_facts(label, 200) for name, label in result.labels.items() if name in writer},
        "readers": readers,
        "rows": [[name, y] for name, y in drawn.rows],
        "size": [drawn.width, drawn.height],
        "counts": [len(drawn.nodes), len(edges), len(drawn.curves)],
        "total": int(result.kept.sum()),
        "opens": drawn.opens,
        "ends": [edge_end, node_end],
        "meaning": pictures.meaning(result),
        "evidence": [list(piece) for piece in pictures.evidence(result)],
        "notes": pictures.notes(result),
    }
    return graph, b"".join(part.tobytes() for part in parts)


def _on_grid(values: Any) -> Any:
    return np.rint(values * _GRID).astype("<u2")


def _valued(token: str, value: float) -> list[Any]:
    return [visible(token, _TOKEN), _number(value)]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
