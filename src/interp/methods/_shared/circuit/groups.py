"""Super-nodes of a circuit: named sets of its nodes, which a view follows and changes."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from interp.errors import InputError, closest

_LONGEST = 80


class Groups(UserDict[str, tuple[str, ...]]):
    """Name → nodes, as a dictionary that refuses what is no group; whoever observes is told of every change.

    Parameters
    ----------
    given
        The groups to begin with.
    nodes
        The nodes that there are.
    least
        How many nodes a group has at least.

    Examples
    --------
    >>> groups = Groups({}, ("5.1", "5.5", "logits"))
    >>> groups["induction"] = ["5.1", "5.5"]
    >>> groups["induction"]
    ('5.1', '5.5')
    """

    def __init__(self, given: Mapping[str, Iterable[str]], nodes: Collection[str], least: int = 2) -> None:
        self._nodes = nodes
        self._least = least
        self._observers: list[Callable[[], object]] = []
        super().__init__()
        for name, members in given.items():
            self[name] = members

    def __setitem__(self, name: str, members: Iterable[str]) -> None:
        held = self.checked(name, members)
        for node in held:
            owner = next((other for other, nodes in self.data.items() if node in nodes and other != name), None)
            if owner is not None:
                raise InputError(f"{node} is in the group {owner!r}; delete that, or leave it out of {name!r}")
        self.data[name] = held
        self._tell()

    def __delitem__(self, name: str) -> None:
        if name not in self.data:
            raise InputError(f"no group {name!r}{closest(name, self.data)}")
        del self.data[name]
        self._tell()

    def checked(self, name: str, members: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes of a group that could be, from the bottom to the top.

        Raises
        ------
        InputError
            A name that cannot be read or is a node's, a node that there is not, fewer than two of them.
        """
        if not name.strip() or len(name) > _LONGEST:
            raise InputError(f"a group needs a name of at most {_LONGEST} characters")
        if not name.isprintable():
            raise InputError("a group's name holds only characters that can be seen")
        if name in self._nodes:
            raise InputError(f"{name!r} is a node; give the group another name")
        wanted: list[Any] = [members] if isinstance(members, str) else list(members)
        for node in wanted:
            if node not in self._nodes:
                raise InputError(f"no node {node!r} in this model{closest(str(node), self._nodes)}")
        if len(set(wanted)) < self._least:
            raise InputError(f"a group needs {'two nodes' if self._least > 1 else 'a node'} or more")
        return tuple(node for node in self._nodes if node in wanted)

    def form(self, name: str, members: Iterable[str]) -> None:
        """Make a group of nodes, which leave the groups that they were in; one with too few left goes.

        Examples
        --------
        >>> groups = Groups({"a": ("5.1", "5.5")}, ("5.1", "5.5", "logits"))
        >>> groups.form("b", ("5.5", "logits"))
        >>> dict(groups)
        {'b': ('5.5', 'logits')}
        """
        held = self.checked(name, members)
        left = {other: tuple(n for n in nodes if n not in held) for other, nodes in self.data.items() if other != name}
        self.data = {**{other: nodes for other, nodes in left.items() if len(nodes) >= self._least}, name: held}
        self._tell()

    def rename(self, name: str, to: str) -> None:
        """Give a group another name, in its place."""
        if name not in self.data:
            raise InputError(f"no group {name!r}{closest(name, self.data)}")
        if to in self.data and to != name:
            raise InputError(f"there is a group {to!r} already")
        self.checked(to, self.data[name])
        self.data = {to if key == name else key: nodes for key, nodes in self.data.items()}
        self._tell()

    def observe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after every change; the function that is returned ends that."""
        self._observers.append(callback)

        def stop() -> None:
            if callback in self._observers:
                self._observers.remove(callback)

        return stop

    def _tell(self) -> None:
        for observer in tuple(self._observers):
            observer()
