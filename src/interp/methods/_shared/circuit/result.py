"""A circuit as data: scored edges from what writes to what reads, those that are kept, and the evidence for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from interp.errors import InputError
from interp.methods._shared import names
from interp.methods._shared.circuit.groups import Groups
from interp.methods._shared.circuit.packed import as_file
from interp.results import Result, resolve
from interp.results.effects import PairChecks
from interp.results.per_pair import PairTable
from interp.results.tables import frame_of, lines_of
from interp.sites import Site
from interp.spec import Node, Prompt

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd
    from numpy.typing import NDArray

    from interp.methods._shared.circuit.component import ComponentFunction
    from interp.methods._shared.circuit.report import CircuitReport
    from interp.results.tables import Float

METHODS = ("eap", "eap-ig", "acdc", "exact")
ABLATIONS = ("corrupted", "mean", "zero")
ONE_MEAN = "the mean over one corrupted prompt is that prompt's run: this is the corrupted ablation"
LESS_IS_BETTER = ("kl", "rank")  # metrics that grow where the answer is lost


class Edge(NamedTuple):
    """One edge: what writes, the input that reads (``"8.6.q"``, ``"8.mlp"``, ``"logits"``), and its score."""

    writer: str
    reader: str
    score: float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CircuitResult(Result):
    """Edges of a model's computational graph, scored for a task, and the circuit that the strongest of them make.

    Attributes
    ----------
    writers
        What writes to the residual stream, from the bottom to the top: ``"embed"``, ``"0.3"``, ``"0.mlp"`` …
    readers
        The inputs that read it: ``"0.3.q"``, ``"0.1.k"`` and ``"0.1.v"`` (numbers of KV heads), ``"0.mlp"``,
        ``"logits"``.
    exists
        ``bool [writer, reader]``: whether the writer writes below where the reader reads.
    scores
        ``float64 [writer, reader]``: what the metric loses when the edge alone is ablated (estimated, or exactly),
        mean over pairs: above 0 the edge helps, below 0 it works against the answer; the other way round for the
        metrics ``kl`` and ``rank``, which grow where the answer is lost. For ``acdc`` the largest
        threshold at which the edge survives, which is never negative. NaN where there is no edge.
    per_pair
        ``float32 [pair, writer, reader]``: the scores of each pair; no pairs for ``acdc``.
    per_node
        ``float32 [pair, writer]``: what the metric loses when all that a writer writes is ablated, for each pair:
        exactly for ``exact``, else the sum of its edges' estimates. No pairs where edges were ranked.
    by_position
        ``float32 [writer, reader, position]``: scores at each of the reader's positions, mean over pairs; no positions
        where they were summed.
    kept
        ``bool [writer, reader]``: the circuit's edges. All lie on a way from the embedding to the logits.
    method, steps
        ``eap``, ``eap-ig``, ``acdc`` or ``exact``; the points of the integral for ``eap-ig``, else 1.
    ablation
        What an ablated edge carries: what it carries in the ``corrupted`` prompt's run, its ``mean`` over the task's
        corrupted prompts at that position, or ``zero``.
    level
        ``edge``: edges were ranked; ``head``: heads and MLPs were, and all edges between those kept are kept.
    metric, task
        What was measured, on what.
    clean_metric, ablated_metric
        ``float64 [pair]``: of the whole model, and with every edge ablated.
    group_size
        How many query heads share a KV head; 1 without grouped queries.
    positions
        Token strings of the first clean prompt.
    checks
        The pairs, token by token, with warnings.
    labels
        Head → what it does, such as ``"previous-token"``, where that was measured.
    groups
        Super-nodes: a name and the nodes in it. They are yours to change, in Python or in the view, and are saved; as
        a dictionary they are a `Groups`.
    functions
        Node → what `function_of` has found so far.
    report
        The evidence, of a circuit that `validate` returned.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    exists: NDArray[np.bool_]
    scores: Float
    per_pair: NDArray[np.float32]
    by_position: NDArray[np.float32]
    kept: NDArray[np.bool_]
    method: str
    steps: int
    ablation: str
    level: str
    metric: str
    clean_metric: Float
    ablated_metric: Float
    group_size: int
    positions: tuple[str, ...]
    checks: PairChecks
    task: str = ""
    per_node: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    groups: MutableMapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    functions: dict[str, ComponentFunction] = field(default_factory=dict[str, Any])
    report: CircuitReport | None = None

    _html: ClassVar[str] = "interp.views.circuit:html"
    _svg: ClassVar[str | None] = "interp.views.circuit:svg"
    _reader: ClassVar[str | None] = "interp.methods._shared.circuit.file:fields_of"
    _check: ClassVar[str | None] = "interp.methods._shared.circuit.fitting:checked"
    _beside: ClassVar[frozenset[str]] = frozenset({"format", "edges"})
    _widget: ClassVar[str | None] = "interp.widgets.circuit:CircuitWidget"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", Groups(self.groups, (*self.writers, "logits")))

    def _pairs(self) -> PairTable | None:
        if len(self.per_pair):
            axes = {"pair": range(len(self.per_pair)), "writer": self.writers, "reader": self.readers}
            return PairTable(axes, {"score": self.per_pair}, exists=np.broadcast_to(self.exists, self.per_pair.shape))
        if len(self.per_node):
            axes = {"pair": range(len(self.per_node)), "writer": self.writers}
            return PairTable(axes, {"score": self.per_node})
        return None

    def summary(self) -> str:
        """Return how many edges of how many are kept, on what, by what."""
        where = f"{self.task}, " if self.task else ""
        count = len(self.checks.clean)
        return (
            f"{self.provenance.model}: {where}{int(self.kept.sum())} of {int(self.exists.sum()):,} edges, "
            f"{len(self.nodes)} nodes, {self.method}, {self.ablation} ablation, {count} pair{'s' if count != 1 else ''}"
        )

    @property
    def less_is_better(self) -> bool:
        """Whether the metric grows where the answer is lost, so that an edge that helps has a score below 0."""
        return self.metric in LESS_IS_BETTER

    @property
    def edges(self) -> list[Edge]:
        """The circuit's edges, the strongest first, either way."""
        return list(self.ranked(self.kept))

    def ranked(self, among: NDArray[np.bool_] | None = None) -> Iterator[Edge]:
        """Yield edges by the size of their score, the largest first: all of them, or those that `among` marks."""
        marked = self.exists if among is None else among & self.exists
        writer, reader = np.nonzero(marked)
        size = np.abs(np.nan_to_num(self.scores[writer, reader]))
        for n in np.argsort(-size, kind="stable"):
            yield Edge(self.writers[writer[n]], self.readers[reader[n]], float(self.scores[writer[n], reader[n]]))

    def reading(self, reader: str) -> tuple[str, ...]:
        """Return the nodes that an input belongs to: a query's head, all heads of a KV head, an MLP, the logits.

        Examples
        --------
        >>> result.reading("3.1.k"), result.reading("3.mlp")
        (('3.1',), ('3.mlp',))
        """
        return _reading(reader, self.group_size)

    @property
    def nodes(self) -> list[str]:
        """The circuit's nodes, from the bottom to the top: what writes along an edge that is kept, and the logits."""
        if not self.kept.any():
            return []
        writes = np.any(self.kept, axis=1)
        return [*(name for name, there in zip(self.writers, writes, strict=True) if there), "logits"]

    @property
    def heads(self) -> list[str]:
        """The circuit's heads, such as ``"18.6"``, from the bottom to the top."""
        return [name for name in self.nodes if Node.parse(name).kind == "head"]

    def connected(self, edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return those of some edges that lie on a way from the embedding to the logits, ``bool [writer, reader]``.

        A node that nothing reads has no effect, and one that reads nothing carries nothing of the prompt.

        Examples
        --------
        >>> bool((result.connected(result.kept) == result.kept).all())
        True
        """
        kept = np.zeros_like(edges)
        kept[self.joined(*np.nonzero(edges & self.exists))] = True
        return kept

    def joined(self, writer: NDArray[np.int64], reader: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return what `connected` does of edges that are given, and given back, as numbers of writers and readers."""
        joints = _joints(self.writers, self.readers, self.group_size)
        while True:
            into, out = np.zeros(len(self.readers), dtype=bool), np.zeros(len(self.writers), dtype=bool)
            into[reader] = out[writer] = True
            fed, used = joints.fed.copy(), joints.final.copy()
            fed[joints.nodes[into[joints.inputs]]] = True
            used[joints.inputs[out[joints.nodes]]] = True
            left = fed[writer] & used[reader]
            if left.all():
                return writer, reader
            writer, reader = writer[left], reader[left]

    def prune(self, threshold: float) -> CircuitResult:
        """Return the circuit of the edges whose score is `threshold` or more, either way, without dead ends.

        Edges choose it, whatever chose this one: its `level` is ``edge``.

        Examples
        --------
        >>> result.prune(0.05).heads
        ['0.0', ...]
        """
        strong = np.abs(np.nan_to_num(self.scores)) >= threshold
        return replace(
            self,
            kept=self.connected(strong),
            level="edge",
            per_node=self.per_node[:0, :0],
            groups=dict(self.groups),
            functions=dict(self.functions),
            report=None,
        )

    def graph(self) -> nx.DiGraph[str]:
        """Return the circuit as a networkx graph.

        Nodes are those of `nodes`. An edge has ``score`` (the sum over a head's inputs) and ``inputs``, each input's
        own: ``{"q": 0.2, "k": 0.1}``. A KV head's edge goes to each of its heads that is in the circuit.
        """
        import networkx as nx

        found: nx.DiGraph[str] = nx.DiGraph()
        found.add_nodes_from(self.nodes)
        for edge in self.edges:
            kind = Node.parse(edge.reader).kind
            for node in self.reading(edge.reader):
                if node not in found:
                    continue
                held = found.get_edge_data(edge.writer, node) or {"score": 0.0, "inputs": {}}
                inputs = {**held["inputs"], kind: edge.score}
                found.add_edge(edge.writer, node, score=held["score"] + edge.score, inputs=inputs)
        return found

    def _lines(self) -> list[str]:
        strongest = islice(self.ranked(self.kept), 8)
        rows = [(edge.writer, edge.reader, edge.score) for edge in strongest]
        return lines_of(("from", "to", "score"), rows)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per edge of the model, the strongest first: writer, reader, score, and whether it is kept."""
        rows = list(self.ranked())
        at = {name: n for n, name in enumerate(self.writers)}
        to = {name: n for n, name in enumerate(self.readers)}
        table = frame_of(rows, columns=["writer", "reader", "score"])
        table["kept"] = [bool(self.kept[at[edge.writer], to[edge.reader]]) for edge in rows]
        return table

    def validate(self, **options: Any) -> CircuitResult:
        """Return this circuit with its evidence as `report`; see `interp.validate`, whose options these are."""
        validated = resolve("interp.methods.circuits.validate:validated")
        return self._run(lambda model: validated(model, self, **options), "to validate a circuit")

    def function_of(self, node: str, top: int = 5) -> ComponentFunction:
        """Return what a head or an MLP of the circuit promotes, suppresses, reads and writes.

        Raises
        ------
        InputError
            There is no such node, or the model is gone.

        Examples
        --------
        >>> result.function_of("3.1").promotes[0]
        (' ...', ...)
        """
        from interp.methods._shared.circuit.component import function_of

        node = names.canonical(node)
        found = self._run(lambda model: function_of(model, self, node, top), f"what {node} does")
        self.functions[node] = found
        return found

    def pattern_of(self, head: str) -> NDArray[np.float32]:
        """Return whom a head looks at in the first clean prompt, ``float32 [query, key]``.

        Raises
        ------
        InputError
            It is no head, or the model is gone or busy.

        Examples
        --------
        >>> result.pattern_of("3.1").shape
        (16, 16)
        """
        node = names.head(head, refusal := f"{head!r} is not a head of this model; write layer.head, for instance 5.1")
        if node.name not in self.writers:
            raise InputError(refusal)
        prompt, site = Prompt(ids=self.provenance.prompts[0]), Site("pattern", node.layer).hook_name

        def pattern(model: Any) -> NDArray[np.float32]:
            held = model.activations(model.encode(prompt), [site])[site]
            return held[0, node.head].float().cpu().numpy()

        return self._run(pattern, "attention")

    def _saved(self) -> Any:
        return as_file(self)

    def _run(self, task: Callable[[Any], Any], what: str, instead: str = "") -> Any:
        return super()._run(task, what, instead or ", or take interp.validate(circuit).circuit")


@functools.lru_cache(maxsize=2**14)  # names are taken apart once, not for every circuit that is tried
def _reading(reader: str, group: int) -> tuple[str, ...]:
    return tuple(node.name for node in Node.parse(reader).writers(group)) or (reader,)


class _Joints(NamedTuple):
    """How ways go on from inputs to what their nodes write.

    Attributes
    ----------
    inputs, nodes
        ``int64 [joint]``: an input, and a writer that it belongs to.
    fed, final
        ``bool [writer]``, ``bool [reader]``: where ways begin and end.
    """

    inputs: NDArray[np.int64]
    nodes: NDArray[np.int64]
    fed: NDArray[np.bool_]
    final: NDArray[np.bool_]


@functools.lru_cache(maxsize=16)
def _joints(writers: tuple[str, ...], readers: tuple[str, ...], group: int) -> _Joints:
    row = {name: n for n, name in enumerate(writers)}
    both = [(n, row[node]) for n, name in enumerate(readers) for node in _reading(name, group) if node in row]
    inputs, nodes = np.array(both, dtype=np.int64).reshape(-1, 2).T
    fed, final = (np.array([name == end for name in names]) for names, end in ((writers, "embed"), (readers, "logits")))
    return _Joints(inputs, nodes, fed, final)
