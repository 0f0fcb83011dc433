"""How a line names parts of a model: heads, MLPs, what paths begin and end at, and cut edges of attention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from interp.errors import InputError, closest
from interp.spec import Node, resolve_indices

if TYPE_CHECKING:
    from interp.engine.model.handle import Geometry

_HEAD = re.compile(r"(\d+)\.(\d+)")
_DRAWN = re.compile(r"[Ll](\d+)[Hh](?=\d)")  # as pictures write a head
_MLP = re.compile(r"(?:m|mlp)(\d+)|(\d+)\.mlp")
_INPUT = re.compile(r"(\d+)\.(\d+)\.([qkv])")
_CUT = re.compile(r"(\d+)\.(\d+):(\d+|\*)->(\d+|\*)")
_SENDERS = ("all", "heads", "mlps", "embed")
_RECEIVERS = ("all", "q", "k", "v", "mlps", "logits")


@dataclass(frozen=True)
class Cut:
    """An edge of one head's attention that is taken away.

    Attributes
    ----------
    layer, head
        The head.
    query
        The position that looks; ``None`` for every one after the key.
    key
        The position that it no longer sees.
    """

    layer: int
    head: int
    query: int | None
    key: int

    @property
    def name(self) -> str:
        """Return the edge as it is typed."""
        return f"{self.layer}.{self.head}:{'*' if self.query is None else self.query}->{self.key}"


def words(given: Any, flag: str) -> list[str]:
    """Return the names in a text with commas, or in a list; a head as it is drawn, L9H9, is 9.9.

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
        raise InputError(f"{flag} takes names, such as 9.9,10.0, not {type(given).__name__}")
    listed = cast("Sequence[Any]", parts)
    wrong = next((part for part in listed if not isinstance(part, str)), None)
    if wrong is not None:
        raise InputError(f"{flag} takes names, such as '9.9'; {wrong!r} is none")
    found = list(dict.fromkeys(_DRAWN.sub(r"\1.", part.strip()) for part in listed if part.strip()))
    if not found:
        raise InputError(f"{flag} names nothing; type names with commas between them, such as 9.9,10.0")
    return found


def heads(given: Any, geometry: Geometry, flag: str = "--heads") -> list[Node]:
    """Return the heads that `given` names, ``"9.9,10.0"``.

    Raises
    ------
    InputError
        What is no head, or one that is not there.
    """
    return [
        _head(name, geometry, f"{flag} {name!r} is no head; type its layer and number, such as 9.9")
        for name in words(given, flag)
    ]


def cuts(given: Any, geometry: Geometry, flag: str = "--knockout") -> list[Cut]:
    """Return the edges that `given` names, ``"9.9:14->2,9.9:*->2"``.

    Raises
    ------
    InputError
        What is no edge, a head that is not there, a query that sees nothing else or that cannot see the key.
    """
    found: list[Cut] = []
    for name in words(given, flag):
        match = _CUT.fullmatch(name.replace("→", "->").replace(" ", ""))
        if match is None:
            raise InputError(f"{flag} {name!r} is no edge; type head:query->key, such as 9.9:14->2 or 9.9:*->2")
        layer, head, query, key = match.groups()
        node = _at("head", layer, head, geometry)
        if key == "*":
            raise InputError(
                f"{flag} {name!r} cuts every key of the query: something must be left; name one key, such as 2"
            )
        if geometry.causal and query != "*" and int(query) < int(key):
            raise InputError(
                f"{flag} {name!r} cuts nothing: position {query} does not see position {key}, which is later"
            )
        found.append(Cut(node.layer, node.head, None if query == "*" else int(query), int(key)))
    return found


def senders(given: Any, geometry: Geometry) -> tuple[list[Node], set[Node]]:
    """Return what `given` names of what writes to the residual stream, and which of it is named one by one.

    Raises
    ------
    InputError
        What is none, or not there.
    """
    found: list[Node] = []
    chosen: set[Node] = set()
    for name in words(given, "--from"):
        if name in _SENDERS:
            found += _every(_SENDERS[1:] if name == "all" else (name,), geometry)
            continue
        if _INPUT.fullmatch(name):
            raise InputError(f"--from {name!r} is an input; what writes is the head: type {name[:-2]}")
        near = closest(name, _SENDERS)
        node = _mlp(name, geometry) or _head(
            name,
            geometry,
            f"--from {name!r} is no sender{near}; type a head (5.1), an MLP (5.mlp), embed, heads, mlps or all",
        )
        found.append(node)
        chosen.add(node)
    return found, chosen


def receivers(given: Any, geometry: Geometry) -> tuple[list[Node], set[Node]]:
    """Return what `given` names of what reads the residual stream, and which of it is named one by one.

    Raises
    ------
    InputError
        What is none, or not there.
    """
    found: list[Node] = []
    chosen: set[Node] = set()
    for name in words(given, "--to"):
        if name in _RECEIVERS:
            found += _every(_RECEIVERS[1:] if name == "all" else (name,), geometry)
            if name == "logits":
                chosen |= set(found[-1:])
            continue
        node = _mlp(name, geometry) or _input(name, geometry)
        found.append(node)
        chosen.add(node)
    return found, chosen


def _input(name: str, geometry: Geometry) -> Node:
    match = _INPUT.fullmatch(name)
    if match is not None:
        return _at(match[3], match[1], match[2], geometry)
    if _HEAD.fullmatch(name):
        head = _head(name, geometry, "")
        shared = f"{head.layer}.{head.head * geometry.n_kv_heads // geometry.n_heads}"
        raise InputError(f"--to {name!r} is a head, which has three inputs: type {name}.q, {shared}.k or {shared}.v")
    near = closest(name, _RECEIVERS)
    raise InputError(
        f"--to {name!r} is no receiver{near}; type a head's input (8.6.q), an MLP (8.mlp), logits, q, k, v, mlps or all"
    )


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


def _mlp(name: str, geometry: Geometry) -> Node | None:
    match = _MLP.fullmatch(name)
    if match is None:
        return None
    (layer,) = resolve_indices(int(match[1] or match[2]), geometry.n_layers, "layer")
    return Node("mlp", layer)


def _head(name: str, geometry: Geometry, refusal: str) -> Node:
    match = _HEAD.fullmatch(name)
    if match is None:
        raise InputError(refusal)
    return _at("head", match[1], match[2], geometry)


def _at(kind: str, layer: str, head: str, geometry: Geometry) -> Node:
    shared = kind in {"k", "v"}
    (at,) = resolve_indices(int(layer), geometry.n_layers, "layer")
    count = geometry.n_kv_heads if shared else geometry.n_heads
    (number,) = resolve_indices(int(head), count, "head", " (of keys and values)" if shared else "")
    return Node(kind, at, number)
