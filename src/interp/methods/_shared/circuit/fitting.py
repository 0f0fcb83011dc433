"""Whether what a circuit's file holds fits together: checked when it is read, and not found out when it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.methods._shared.circuit.result import ABLATIONS, METHODS
from interp.spec import Node

if TYPE_CHECKING:
    from interp.methods._shared.circuit.report import CircuitReport
    from interp.methods._shared.circuit.result import CircuitResult

_WRITERS = frozenset({"embed", "head", "mlp"})
_READERS = frozenset({"q", "k", "v", "mlp", "logits"})
# Arrays of a packed file that compress better than this were made to fill the memory.
_RATIO, _SMALL = 64, 2**24


def require_room(data: dict[str, Any], size: int) -> None:
    """Refuse a file of `size` bytes whose packed arrays would take far more.

    Raises
    ------
    ValueError
        They would.
    """
    packed: Iterable[Any] = (held.get("shape") for held in data.values() if isinstance(held, dict) and "zlib" in held)
    asked = 0
    for shape in packed:
        entries = 1
        for length in shape if isinstance(shape, list) else ():
            entries *= max(1, length) if isinstance(length, int) else 1
        asked += entries
    if asked > max(_SMALL, _RATIO * size):
        raise ValueError(f"its arrays have {asked:,} entries in a file of {size:,} bytes, where fewer are due")


def checked(found: CircuitResult) -> CircuitResult:
    """Return a circuit whose names and arrays fit each other.

    Raises
    ------
    ValueError
        They do not.
    """
    shape, pairs = (len(found.writers), len(found.readers)), len(found.checks.clean)
    positions = len(found.positions) if found.by_position.shape[-1:] != (0,) else 0
    own = 0 if found.method == "acdc" else len(found.per_pair)
    sizes: dict[str, tuple[Any, Any]] = {
        "exists": (found.exists.shape, shape),
        "scores": (found.scores.shape, shape),
        "kept": (found.kept.shape, shape),
        "per_pair": (found.per_pair.shape, (own and pairs, *shape)),
        "per_node": (found.per_node.shape, (pairs, shape[0]) if found.level == "head" else (0, 0)),
        "by_position": (found.by_position.shape, (*shape, positions)),
        "clean_metric": (found.clean_metric.shape, (pairs,)),
        "ablated_metric": (found.ablated_metric.shape, (pairs,)),
    }
    for name, (is_, should) in sizes.items():
        _same(name, is_, should)
    if found.method not in METHODS or found.ablation not in ABLATIONS or found.level not in {"edge", "head"}:
        raise ValueError(f"there is no method {found.method!r} with {found.ablation!r} ablation by {found.level!r}")
    _names(found)
    _pairs(found)
    nodes = {*found.writers, "logits"}
    if unknown := next((node for node in (*found.labels, *found.functions) if node not in nodes), None):
        raise ValueError(f"it says what {unknown!r} does, which is no node of it")
    if found.report is not None:
        _report(found.report)
    return found


def _same(name: str, is_: Sequence[int], should: Sequence[int]) -> None:
    if tuple(is_) != tuple(should):
        raise ValueError(f"{name} is {' × '.join(map(str, is_))} where {' × '.join(map(str, should))} is due")


def _names(found: CircuitResult) -> None:
    """Refuse names that are no parts of one model, and edges that do not go up."""
    most = len(found.writers)
    if not 1 <= found.group_size <= most or found.steps < 1:
        raise ValueError(f"{found.group_size} heads cannot share keys, nor an integral have {found.steps} points")
    ends: list[list[tuple[int, int]]] = []
    for listed, kinds in ((found.writers, _WRITERS), (found.readers, _READERS)):
        nodes = [_node(name, kinds, most) for name in listed]
        if len(set(listed)) < len(listed):
            raise ValueError("a name comes twice")
        ends.append([_height(node) for node in nodes])
    for reader in found.readers:
        lost = [node for node in found.reading(reader) if node not in found.writers and node != "logits"]
        if lost:
            raise ValueError(f"{reader!r} belongs to {lost[0]!r}, which is no writer")
    if (found.kept & ~found.exists).any():
        raise ValueError("it keeps edges that are none")
    for writer, reader in zip(*found.exists.nonzero(), strict=True):
        if not ends[0][writer] < ends[1][reader]:
            raise ValueError(f"an edge goes down, from {found.writers[writer]!r} to {found.readers[reader]!r}")


def _node(name: str, kinds: frozenset[str], most: int) -> Node:
    try:
        node = Node.parse(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    if node.kind not in kinds or node.name != name or max(node.layer, node.head) >= most:
        raise ValueError(f"{name!r} is not what it should be; a name such as 5.1, 5.1.q or 5.mlp is due")
    return node


def _height(node: Node) -> tuple[int, int]:
    """Return where a node stands: what it reads lies below."""
    if node.kind == "embed":
        return (-1, 0)
    return (2**31, 0) if node.kind == "logits" else (node.layer, int(node.kind == "mlp"))


def _pairs(found: CircuitResult) -> None:
    held, count = found.checks, len(found.checks.clean)
    for name in ("corrupted", "differing", "answer", "wrong", "clean_metric", "corrupted_metric"):
        size = len(getattr(held, name))
        if size != count and (size or name not in {"clean_metric", "corrupted_metric"}):
            raise ValueError(f"checks.{name} is of {size} pairs where {count} are due")
    if held.spans and len(held.spans) != count:
        raise ValueError(f"checks.spans is of {len(held.spans)} pairs where {count} are due")
    for clean, corrupted, differing in zip(held.clean, held.corrupted, held.differing, strict=True):
        one_length = len(clean) == len(corrupted) or held.spans
        if not one_length or not all(0 <= at < len(clean) for at in differing):
            raise ValueError("a pair's prompts are not of one length, or differ where there is no token")
    for clean, corrupted, spans in zip(held.clean, held.corrupted, held.spans, strict=False):
        for own, other in spans.values():
            inside = all(0 <= at < len(clean) for at in own) and all(0 <= at < len(corrupted) for at in other)
            if not (own and other and inside):
                raise ValueError("a span has no token, or one that its prompt has not")


def _report(report: CircuitReport) -> None:
    pairs, points, marginal = len(report.whole), len(report.sizes), len(report.marginal_edges)
    sizes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("whole", "nothing", "alone", "without", "per_pair", "left_per_pair"), (pairs,)),
        **dict.fromkeys(("sizes", "curve"), (points,)),
        "curve_interval": (2, points),
        "marginal": (marginal,),
        "marginal_interval": (2, marginal),
        "random_sizes": (len(report.random),),
    }
    for name, should in sizes.items():
        _same(f"report.{name}", getattr(report, name).shape, should)
