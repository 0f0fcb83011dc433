"""What is being looked at: one selection, shared by every open view and by Python.

``interp.selection`` moves when a view is clicked, and every view that holds what is selected moves when Python sets it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from interp.errors import InputError, closest

FIELDS = ("layer", "head", "query", "key", "position")


class Selection:
    """A layer, a head, a query and a key position, and a token position; ``None`` where nothing is selected.

    Layers and heads are the model's own numbers, positions count from 0.

    Examples
    --------
    >>> chosen = Selection()
    >>> stop = chosen.observe(lambda s: print(s.layer, s.head))
    >>> chosen.set(layer=5, head=1)
    5 1
    >>> stop()
    """

    layer: int | None
    head: int | None
    query: int | None
    key: int | None
    position: int | None

    def __init__(self) -> None:
        self.__dict__.update(dict.fromkeys(FIELDS))
        self._observers: list[Callable[[Selection], object]] = []

    def set(self, **fields: int | None) -> None:
        """Set some of the fields, and keep the others; whoever observes is told once, if anything changed.

        Parameters
        ----------
        fields
            ``layer``, ``head``, ``query``, ``key``, ``position``: a whole number from 0, or ``None``.

        Raises
        ------
        InputError
            An unknown field or a value that is not such a number; nothing is set then.

        Examples
        --------
        >>> interp.selection.set(layer=5, head=1, query=14)
        >>> interp.selection.head
        1
        """
        checked = checked_fields(fields)
        if any(getattr(self, name) != value for name, value in checked.items()):
            self.__dict__.update(checked)
            self._notify()

    def clear(self) -> None:
        """Select nothing."""
        self.set(**dict.fromkeys(FIELDS))

    def to_dict(self) -> dict[str, int | None]:
        """Return the five fields.

        Examples
        --------
        >>> Selection().to_dict()
        {'layer': None, 'head': None, 'query': None, 'key': None, 'position': None}
        """
        return {name: getattr(self, name) for name in FIELDS}

    def observe(self, callback: Callable[[Selection], object]) -> Callable[[], None]:
        """Call `callback` with this selection after every change; the function that is returned ends that."""
        # A cell of its own, so that one callback observed twice is two observations.
        entry: Callable[[Selection], object] = lambda selection: callback(selection)  # noqa: E731
        self._observers.append(entry)

        def unsubscribe() -> None:
            if entry in self._observers:
                self._observers.remove(entry)

        return unsubscribe

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self.set(**{name: value})

    def __repr__(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in self.to_dict().items() if value is not None)
        return f"Selection({chosen})"

    def _notify(self) -> None:
        failure: Exception | None = None
        for observer in tuple(self._observers):
            try:
                observer(self)
            except Exception as error:  # One observer's fault must not leave the others behind.
                failure = failure or error
        if failure is not None:
            raise failure


def checked_fields(fields: Mapping[str, Any]) -> dict[str, int | None]:
    """Return `fields` with whole numbers or ``None``, or say which of them cannot be used."""
    checked: dict[str, int | None] = {}
    for name, value in fields.items():
        if name not in FIELDS:
            raise InputError(f"a selection has no {name!r}{closest(name, FIELDS)}; it has {', '.join(FIELDS)}")
        checked[name] = None if value is None else _whole(name, value)
    return checked


def _whole(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or number < 0:
        raise InputError(f"{name} must be a whole number from 0, or None, not {value!r:.40}")
    return number


selection = Selection()
