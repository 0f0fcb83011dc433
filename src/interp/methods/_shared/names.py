"""How a line names parts of a model: heads, MLPs, what paths begin and end at, and cut edges of attention."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from interp.errors import InputError, closest
from interp.sites import find
from interp.spans import NAME
from interp.spec import FEATURE, Node, plain, resolve_indices

if TYPE_CHECKING:
    from interp.engine.features.held import FeatureSet
    from interp.engine.model.handle import Geometry

_END = rf"-?\d+|\*|{NAME.pattern}"
_CUT = re.compile(rf"(?:([^:]+):)?({_END})->({_END})")
_OF_LAYER = re.compile(r"F(\d{1,9})\.\*", re.IGNORECASE)
_SENDERS = ("all", "heads", "mlps", "embed")
_RECEIVERS = ("all", "q", "k", "v", "mlps", "logits")
_FEATURES = "features"


@dataclass
class Ends:
    """What paths begin or end at.

    Attributes
    ----------
    nodes
        What is named.
    chosen
        What of it is named one by one.
    layers
        The layers of which all features that are active in any prompt are meant.
    """

    nodes: list[Node] = field(default_factory=list[Node])
    chosen: set[Node] = field(default_factory=set[Node])
    layers: list[int] = field(default_factory=list[int])

    @property
    def featured(self) -> list[int]:
        """The layers that features are named of."""
        return sorted({*self.layers, *(node.layer for node in self.nodes if node.kind == "feature")})

    def takes(self, name: str, loaded: Callable[[], FeatureSet]) -> bool:
        """Take in a name of features, and return whether it was one."""
        if name == _FEATURES:
            self.layers += loaded().layers
        elif match := _OF_LAYER.fullmatch(name):
            self.layers.append(loaded().at(int(match[1])).layer)
        elif FEATURE.fullmatch(name):
            one, number = loaded().feature(name)
            self.add(Node("feature", one.layer, number))
        else:
            return False
        return True

    def add(self, node: Node) -> None:
        """Take in what is named by itself."""
        self.chosen.add(node)
        if node not in self.nodes:
            self.nodes.append(node)


@dataclass(frozen=True)
class Cut:
    """Edges of attention that are taken away together.

    Attributes
    ----------
    heads
        (layer, head) of those whose attention is cut; a head of ``None`` is every one of the layer.
    query
        The position that looks, or the name of a span of which every token does; ``None`` for every one after the key.
    key
        The position that it no longer sees, or a span's name.
    name
        How it is typed.
    """

    heads: tuple[tuple[int, int | None], ...]
    query: int | str | None
    key: int | str
    name: str


def words(given: Any, flag: str) -> list[str]:
    """Return the names in a text with commas, or in a list.

    Raises
    ------
    InputError
        There are none, or one is no text.

    Examples
    --------
    >>> words("9.9, 10.0", "--heads"), words(["9.9"], "--heads")
    (['9.9', '10.0'], ['9.9'])
    """
    parts: Iterable[Any] = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple):
        raise InputError(f"{flag} takes names, such as 1.0,2.0, not {type(given).__name__}")
    listed = [_dotted(part) for part in cast("Sequence[Any]", parts)]
    wrong = next((part for part in listed if not isinstance(part, str)), None)
    if wrong is not None:
        raise InputError(f"{flag} takes names, such as '1.0'; {wrong!r} is none")
    found = list(dict.fromkeys(part.strip() for part in listed if part.strip()))
    if not found:
        raise InputError(f"{flag} names nothing; type names with commas between them, such as 1.0,2.0")
    return found


def _dotted(part: Any) -> Any:
    """Return (layer, head) as it is typed."""
    pair = plain(part)
    if isinstance(pair, list | tuple) and all(isinstance(plain(n), int) for n in cast("Sequence[Any]", pair)):
        return ".".join(str(plain(n)) for n in cast("Sequence[Any]", pair))
    return part


def head(name: str, refusal: str) -> Node:
    """Return the head that `name` names.

    Raises
    ------
    InputError
        It names none, which `refusal` says.

    Examples
    --------
    >>> head("L5H1", "no head").name
    '5.1'
    """
    node = _parsed(name)
    if node is None or node.kind != "head":
        of_feature = f"{name!r} is a feature, and this is about heads; ablate takes it as --feature {name}"
        raise InputError(of_feature if FEATURE.fullmatch(name) else refusal)
    return node


def canonical(name: str) -> str:
    """Return a part's name as results spell it; what names no part as it is.

    Examples
    --------
    >>> canonical("L5H1"), canonical("m3"), canonical("x")
    ('5.1', '3.mlp', 'x')
    """
    node = _parsed(name)
    return name if node is None else node.name


def heads(given: Any, geometry: Geometry, flag: str = "--heads") -> list[Node]:
    """Return the heads that `given` names, ``"9.9,10.0"``.

    Raises
    ------
    InputError
        What is no head, or one that is not there.
    """
    return list(
        dict.fromkeys(
            _there(head(name, f"{flag} {name!r} is no head; type its layer and number, such as 1.0"), geometry)
            for name in words(given, flag)
        )
    )


def cuts(given: Any, geometry: Geometry, flag: str = "--knockout") -> list[Cut]:
    """Return the edges that `given` names, ``"9.9:14->2,9.9:*->2"``, of some layers ``"3-6:END->IO"`` or of all.

    Raises
    ------
    InputError
        What is no edge, a head that is not there, a query that sees nothing else or that cannot see the key.
    """
    found: list[Cut] = []
    for name in words(given, flag):
        match = _CUT.fullmatch(name.replace("→", "->").replace(" ", ""))
        refusal = f"{flag} {name!r} is no edge; type head:query->key, such as 1.0:14->2, 1.0:*->2 or 1.0:END->IO"
        if match is None:
            raise InputError(refusal)
        looks, query, key = match.groups()
        heads, called = _looking(looks, geometry, refusal)
        if key == "*":
            raise InputError(
                f"{flag} {name!r} cuts every key of the query: something must be left; name one key, such as 2"
            )
        ends = [int(end) if re.fullmatch(r"-?\d+", end) else end for end in (query, key)]
        at, seen = ends
        if geometry.causal and isinstance(at, int) and isinstance(seen, int) and 0 <= at < seen:
            raise InputError(
                f"{flag} {name!r} cuts nothing: position {at} does not see position {seen}, which is later"
            )
        found.append(Cut(heads, None if query == "*" else at, seen, f"{called}{query}->{key}"))
    return list(dict.fromkeys(found))


def _looking(looks: str | None, geometry: Geometry, refusal: str) -> tuple[tuple[tuple[int, int | None], ...], str]:
    """Return the heads that a typed head, some layers, or nothing means, and how a name begins that says so."""
    if looks is None:
        return tuple((layer, None) for layer in range(geometry.n_layers)), ""
    some = re.fullmatch(r"L?(\d{1,9})(?:[-–](\d{1,9}))?", looks, re.IGNORECASE)
    if some is None:
        node = _there(head(looks, refusal), geometry)
        return ((node.layer, node.head),), f"{node.name}:"
    first, last = int(some[1]), int(some[2] or some[1])
    layers = resolve_indices(range(first, last + 1), geometry.n_layers, "layer")
    return tuple((layer, None) for layer in layers), f"{first}-{last}:" if last > first else f"{first}:"


def senders(given: Any, geometry: Geometry, loaded: Callable[[], FeatureSet]) -> Ends:
    """Return what `given` names of what writes to the residual stream; features are of the set that is `loaded`.

    Raises
    ------
    InputError
        What is none, or not there.
    """
    found = Ends()
    for name in words(given, "--from"):
        if name in _SENDERS:
            found.nodes += _every(_SENDERS[1:] if name == "all" else (name,), geometry)
            continue
        if found.takes(name, loaded):
            continue
        node = _parsed(name)
        if node is not None and node.kind in {"q", "k", "v"}:
            raise InputError(f"--from {name!r} is an input; what writes is the head: type {name[:-2]}")
        if node is None or node.kind == "logits":
            near = closest(name, [*_SENDERS, _FEATURES])
            raise InputError(
                f"--from {name!r} is no sender{near}; type a head (5.1), an MLP (5.mlp), embed, heads, mlps or all, or "
                "a feature (F5.417), those of a layer (F5.*) or features"
            )
        found.add(_there(node, geometry))
    return found


def receivers(given: Any, geometry: Geometry, loaded: Callable[[], FeatureSet]) -> Ends:
    """Return what `given` names of what reads the residual stream; features are of the set that is `loaded`.

    Raises
    ------
    InputError
        What is none, or not there.
    """
    found = Ends()
    for name in words(given, "--to"):
        if name in _RECEIVERS:
            found.nodes += _every(_RECEIVERS[1:] if name == "all" else (name,), geometry)
            if name == "logits":
                found.chosen |= set(found.nodes[-1:])
        elif not found.takes(name, loaded):
            found.add(_input(name, geometry))
    return found


def _input(name: str, geometry: Geometry) -> Node:
    node = _parsed(name)
    if node is not None and node.kind == "head":
        _there(node, geometry)
        shared = f"{node.layer}.{node.head * geometry.n_kv_heads // geometry.n_heads}"
        raise InputError(
            f"--to {name!r} is a head, which has three inputs: type {node.name}.q, {shared}.k or {shared}.v"
        )
    if node is None or node.kind == "embed":
        near = closest(name, [*_RECEIVERS, _FEATURES])
        raise InputError(
            f"--to {name!r} is no receiver{near}; type a head's input (8.6.q), an MLP (8.mlp), logits, q, k, v, mlps "
            "or all, or a feature (F8.417), those of a layer (F8.*) or features"
        )
    return _there(node, geometry)


def _every(kinds: Sequence[str], geometry: Geometry) -> list[Node]:
    layers, found = range(geometry.n_layers), list[Node]()
    for kind in kinds:
        if kind in {"embed", "logits"}:
            found.append(Node(kind))
        elif kind == "mlps":
            found += [Node("mlp", layer) for layer in layers]
        else:
            count = geometry.n_kv_heads if kind in {"k", "v"} else geometry.n_heads
            one = "head" if kind == "heads" else kind
            found += [Node(one, layer, head) for layer in layers for head in range(count)]
    return found


def _parsed(name: str) -> Node | None:
    try:
        return Node.parse(str(name))
    except InputError:
        return None


def _there(node: Node, geometry: Geometry) -> Node:
    """Return `node`, which the model must have.

    Raises
    ------
    InputError
        The model has no such layer or head.
    """
    if node.kind in {"embed", "logits"}:
        return node
    resolve_indices(node.layer, geometry.n_layers, "layer")
    if node.kind != "mlp":
        shared = node.kind in {"k", "v"}
        count = geometry.n_kv_heads if shared else geometry.n_heads
        resolve_indices(node.head, count, "head", " (of keys and values)" if shared else "")
    return node


def heads_of_site(
    geometry: Geometry, site: str, head: Any, layer: Any
) -> tuple[tuple[int, ...], list[tuple[int, int]] | None]:
    """Return the layers, and the (layer, head) of a site's where some are named with ``--head``.

    Raises
    ------
    InputError
        A head or layer that is not there, both at once, or heads of a site that has none.
    """
    if head is None:
        return resolve_indices(layer, geometry.n_layers, "layer"), None
    if not find(site).headed:
        raise InputError(f"{site} has no heads; leave --head out, or use --site z, q, k, v or pattern")
    if layer is not None:
        raise InputError("--head names its layer already; leave --layer out")
    named = [(node.layer, node.head) for node in heads(head, geometry, "--head")]
    if find(site).kv_heads:
        for _, number in named:
            resolve_indices(number, geometry.n_kv_heads, "head", " (of keys and values)")
    return tuple(sorted({at for at, _ in named})), named
