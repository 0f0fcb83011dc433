"""An attribution graph as data: nodes of one prompt, the edges between them, and what both are worth."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.errors import InputError, closest, printable
from interp.methods._shared.circuit.groups import Groups
from interp.methods._shared.trace.parts import TraceCheck, TraceEdge, TraceMove, TraceNode, TraceStability
from interp.results import Result, resolve
from interp.results.tables import frame_of, lines_of

if TYPE_CHECKING:
    from pathlib import Path

    import networkx as nx
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float

KINDS = ("embedding", "feature", "error", "logit")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TraceResult(Result):
    """An attribution graph: what made the model say that, by features of its MLPs, at this one prompt.

    Attributes
    ----------
    tokens
        The prompt's token strings.
    kinds
        Of each node, ``embedding``, ``feature``, ``error`` (what an MLP writes and its features do not) or ``logit``.
    node_layers, node_positions, node_features
        ``int32 [node]``: −1 is the layer of embeddings, the number of layers that of logits; −1 is no feature.
    activations, preactivations
        ``float32 [node]``: of features; a logit's own value is its pre-activation. NaN elsewhere.
    influences
        ``float64 [node]``: on the logits, through all ways of the whole graph; a logit's is its weight.
    effects
        ``float64 [node]``: what the whole graph foretells that the logits, by their weights, would lose without the
        node; a logit's is its own value.
    fires
        ``float32 [node, position]``: a feature's activation at each token of this prompt; zeros where it is not active,
        and of what is no feature.
    outputs
        (token string, id, probability) of each logit node, in the order of the nodes.
    target
        (string, id) of the token that was asked for; ``None`` where the likeliest are traced.
    against
        (string, id) of the token whose logit is taken off the target's; ``None`` where logits are taken less the mean
        over the vocabulary.
    position
        Whose prediction is traced.
    most
        Into how many features edges were to be computed.
    edge_sources, edge_targets
        ``int32 [edge]``: nodes.
    weights
        ``float32 [edge]``: what the source adds to the target's pre-activation, or to the logit.
    edge_influences
        ``float64 [edge]``: share of what leads into the target, by the target's influence.
    direct
        ``float32 [edge]``: what of the weight has passed no head, but stayed at its position.
    heads, loadings
        ``int32 [edge, n]`` (layer · heads + head; −1 is none) and ``float32 [edge, n]``: the last heads that the edge
        passes with the largest shares of its weight.
    other
        ``float32 [edge]``: the shares of all other heads.
    n_layers, n_heads
        Of the model.
    replacement
        Share of the influence that begins at tokens, and not at errors.
    completeness
        Share of what leads into nodes that is not errors, by the nodes' influence.
    gap
        How far the edges into a node and its biases are from making it up, at worst, by the size of what is summed.
    active, explored
        How many features are active, at all positions together, and into how many of them edges were computed.
    kept
        (share of the nodes' influence, of the edges') that is in the graph.
    features
        Name and digest of the set of dictionaries.
    labels
        Feature (``2.417``) → what it is said to be.
    groups
        Super-nodes: a name and the nodes in it, in a `Groups`; yours to change.
    check, stability
        What was measured in the model, and how alike the graphs of other prompts are, of a graph that `validate`
        returned.
    """

    tokens: tuple[str, ...]
    kinds: tuple[str, ...]
    node_layers: NDArray[np.int32]
    node_positions: NDArray[np.int32]
    node_features: NDArray[np.int32]
    activations: NDArray[np.float32]
    preactivations: NDArray[np.float32]
    influences: Float
    effects: Float
    fires: NDArray[np.float32]
    outputs: tuple[tuple[str, int, float], ...]
    target: tuple[str, int] | None = None
    against: tuple[str, int] | None = None
    position: int
    most: int
    edge_sources: NDArray[np.int32]
    edge_targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    edge_influences: Float
    direct: NDArray[np.float32]
    heads: NDArray[np.int32]
    loadings: NDArray[np.float32]
    other: NDArray[np.float32]
    n_layers: int
    n_heads: int
    replacement: float
    completeness: float
    gap: float
    active: int
    explored: int
    kept: tuple[float, float]
    features: tuple[str, str]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    groups: MutableMapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    check: TraceCheck | None = None
    stability: TraceStability | None = None

    _html: ClassVar[str] = "interp.views.trace:html"
    _svg: ClassVar[str | None] = "interp.views.trace:svg"
    _reader: ClassVar[str | None] = "interp.methods._shared.trace.file:fields_of"
    _widget: ClassVar[str | None] = "interp.widgets.trace:TraceWidget"

    def __post_init__(self) -> None:
        if self.fires.shape[-1] != len(self.tokens):
            raise InputError(f"{len(self.tokens)} tokens do not fit {self.fires.shape[-1]} positions")
        object.__setattr__(self, "groups", Groups(self.groups, self.names, least=1))

    def summary(self) -> str:
        """Return what was traced, how large the graph is, and its scores."""
        said = " and ".join(repr(token) for token, _, _ in self.outputs[:2])
        said += " …" if len(self.outputs) > 2 else ""
        said += "" if self.against is None else f" against {self.against[0]!r}"
        return (
            f"{self.provenance.model}: {said}, {len(self.kinds)} nodes, {len(self.weights)} edges, "
            f"replacement {self.replacement:.2f}, completeness {self.completeness:.2f}"
        )

    def text(self) -> str:
        """Return the summary, and how stable the graph is over paraphrases where that was asked for."""
        own, *notes = super().text().split("\n")
        return "\n".join([own, *(() if self.stability is None else self.stability.lines()), *notes])

    def _lines(self) -> list[str]:
        return lines_of(("strongest", "influence"), self.top(5))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The nodes' names."""
        found, outputs = [], iter(self.outputs)
        for number, kind in enumerate(self.kinds):
            layer, position = int(self.node_layers[number]), int(self.node_positions[number])
            if kind == "embedding":
                found.append(f"embed@{position}")
            elif kind == "feature":
                found.append(f"{layer}.{int(self.node_features[number])}@{position}")
            elif kind == "error":
                found.append(f"{layer}.error@{position}")
            else:
                token, index, _ = next(outputs)
                name = f"logit:{printable(token)}"
                name += "" if self.against is None else f" against{printable(self.against[0])}"
                found.append(name if name not in found else f"{name} {index}")
        return tuple(found)

    @property
    def nodes(self) -> list[TraceNode]:
        """The nodes: embeddings, features and errors by layer and position, logits.

        Examples
        --------
        >>> result.nodes[0].kind
        'embedding'
        """
        columns = (self.node_layers, self.node_positions, self.node_features)
        numbers = (self.activations, self.preactivations, self.influences)
        return [
            TraceNode(name, kind, *(int(column[n]) for column in columns), *(float(column[n]) for column in numbers))
            for n, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True))
        ]

    @property
    def edges(self) -> list[TraceEdge]:
        """The edges, the most influential first."""
        order = np.argsort(-self.edge_influences, kind="stable")
        return [self.edge(int(number)) for number in order]

    def edge(self, number: int) -> TraceEdge:
        """Return an edge by its place in the arrays."""
        return TraceEdge(
            self.names[self.edge_sources[number]],
            self.names[self.edge_targets[number]],
            float(self.weights[number]),
            float(self.direct[number]),
            {
                f"{head // self.n_heads}.{head % self.n_heads}": float(share)
                for head, share in zip(self.heads[number].tolist(), self.loadings[number].tolist(), strict=True)
                if head >= 0
            },
        )

    def number(self, name: str) -> int:
        """Return a node's place in the arrays.

        Raises
        ------
        InputError
            It is not in the graph.
        """
        if name not in self.names:
            raise InputError(f"{name!r} is not in the graph{closest(name, self.names)}; names has all of them")
        return self.names.index(name)

    def token(self, position: int) -> str:
        """Return the token at a position."""
        return self.tokens[position]

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """Return the `n` features of the largest influence: (name, influence).

        Examples
        --------
        >>> len(result.top(3))
        3
        """
        of = [number for number, kind in enumerate(self.kinds) if kind == "feature"]
        order = sorted(of, key=lambda number: -self.influences[number])[:n]
        return [(self.names[number], float(self.influences[number])) for number in order]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per edge, the most influential first: source, target, weight, influence, direct, heads …"""
        order = np.argsort(-self.edge_influences, kind="stable")
        edges = [self.edge(int(number)) for number in order]
        table = frame_of(
            [(edge.source, edge.target, edge.weight) for edge in edges], columns=["source", "target", "weight"]
        )
        return table.assign(
            influence=self.edge_influences[order],
            direct=[edge.direct for edge in edges],
            heads=[dict(edge.heads) for edge in edges],
            other=self.other[order],
        )

    def nodes_frame(self) -> pd.DataFrame:
        """Return one row per node, with its token and its label."""
        table = frame_of(self.nodes, columns=list(TraceNode._fields))
        said = [self.labels.get(name.partition("@")[0], "") for name in self.names]
        return table.assign(token=[self.tokens[p] for p in self.node_positions.tolist()], label=said)

    def graph(self) -> nx.DiGraph[str]:
        """Return the graph for networkx: nodes with their fields, edges with ``weight`` and ``influence``."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node.name, **{key: value for key, value in node._asdict().items() if key != "name"})
        for number, (source, target) in enumerate(zip(self.edge_sources, self.edge_targets, strict=True)):
            edge = {"weight": float(self.weights[number]), "influence": float(self.edge_influences[number])}
            graph.add_edge(self.names[source], self.names[target], **edge)
        return graph

    def prune(self, nodes: float = 0.8, edges: float = 0.98) -> TraceResult:
        """Return the part of the graph with these shares of its own influence; scores stay those of the whole.

        Parameters
        ----------
        nodes, edges
            The largest are kept until they have this share of the sum over those that are here.

        Raises
        ------
        InputError
            A share that is not between 0 and 1.

        Examples
        --------
        >>> len(result.prune(0.5).kinds) <= len(result.kinds)
        True
        """
        for which, share in (("nodes", nodes), ("edges", edges)):
            if not 0 < share <= 1:
                raise InputError(f"{which} {share} is no share; use a number above 0 and up to 1, such as 0.8")
        ends = np.array([kind == "logit" for kind in self.kinds])
        keep = ends | _largest(np.where(ends, 0.0, self.influences), nodes)
        kept = keep[self.edge_sources] & keep[self.edge_targets]
        kept &= _largest(np.where(kept, self.edge_influences, 0.0), edges)
        while True:  # what has lost its edges loses those of others
            out = np.zeros(len(keep), bool)
            out[self.edge_sources[kept]] = True
            fed = np.array([kind in {"embedding", "error"} for kind in self.kinds])
            fed[self.edge_targets[kept]] = True
            alive = keep & (ends | (out & fed))
            if (alive == keep).all():
                break
            keep = alive
            kept &= keep[self.edge_sources] & keep[self.edge_targets]
        return self._only(keep, kept, (nodes * self.kept[0], edges * self.kept[1]))

    def _only(self, nodes: NDArray[np.bool_], edges: NDArray[np.bool_], kept: tuple[float, float]) -> TraceResult:
        place = np.cumsum(nodes) - 1
        arrays = ("layers", "positions", "features")
        values = ("activations", "preactivations", "influences", "effects", "fires")
        per_node = (*(f"node_{name}" for name in arrays), *values)
        per_edge = ("weights", "edge_influences", "direct", "heads", "loadings", "other")
        left = {name for name, stays in zip(self.names, nodes, strict=True) if stays}
        return replace(
            self,
            **{name: getattr(self, name)[nodes] for name in per_node},
            **{name: getattr(self, name)[edges] for name in per_edge},
            kinds=tuple(kind for kind, stays in zip(self.kinds, nodes, strict=True) if stays),
            edge_sources=place[self.edge_sources[edges]].astype(np.int32),
            edge_targets=place[self.edge_targets[edges]].astype(np.int32),
            groups={
                name: inside for name, held in self.groups.items() if (inside := tuple(n for n in held if n in left))
            },
            kept=kept,
            check=None,
            stability=None,
        )

    def validate(self, features: int = 20, **prompts: Any) -> TraceResult:
        """Return the graph with its strongest features changed in the real model, one by one; needs the model loaded.

        Parameters
        ----------
        features
            How many: each is taken away, and doubled.
        prompts
            `paraphrases`, `control` and `seed`, as ``interp.validate`` takes them: `stability` is then found, too.

        Raises
        ------
        InputError
            The model or its features are gone, busy, or have changed since; prompts that cannot be compared.
        """
        validated: Callable[..., TraceResult] = resolve("interp.methods._shared.trace.validated:validated")
        return self._run(lambda model: validated(model, self, features, **prompts), "validating")

    def moved(self, name: str, change: float) -> list[TraceMove]:
        """Return what becomes of the logits where a feature's activation is changed; needs the model loaded.

        Parameters
        ----------
        name
            A feature's node.
        change
            By which multiple of its activation: −1 takes it away, 1 doubles it.

        Returns
        -------
        list
            Of each logit: its name, its change as the graph foretells it, and as the model has it.
        """
        moved: Callable[..., list[TraceMove]] = resolve("interp.methods._shared.trace.checked:moved")
        return self._run(lambda model: moved(model, self, name, change), "measuring a change")

    def save_neuronpedia(self, path: str | os.PathLike[str], scan: str = "") -> Path:
        """Write the graph as Neuronpedia's JSON, which its graph view and circuit-tracer's read.

        Parameters
        ----------
        path
            Ends in .json; ``interp.load_graph`` reads it back.
        scan
            Neuronpedia's name of the model, such as ``gemma-2-2b``; the model's name here when not given.
        """
        return resolve("interp.methods._shared.trace.file:write_neuronpedia")(self, path, scan)


def _largest(scores: Float, share: float) -> NDArray[np.bool_]:
    """Return which are the largest that together have a share of the sum."""
    order = np.argsort(-scores, kind="stable")
    summed = np.cumsum(scores[order])
    count = int((summed < share * summed[-1] * (1 - 1e-12)).sum()) + 1 if len(scores) else 0
    found = np.zeros(len(scores), bool)
    found[order[:count]] = True
    return found & (scores > 0)
