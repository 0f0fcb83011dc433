"""What may stand in the plain data of messages between a kernel and its workers; whatever else comes in is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

Fields = Mapping[str, type]

# Lists are of strings: names of models, digests.
REQUESTS: Mapping[str, Fields] = {
    "load": {"name": str, "recipe": dict},
    "digests": {"name": str},
    "change": {"name": str},
    "asset": {"digest": str, "value": dict},
    "forget": {"digests": list},
    "shard": {"shard": int, "job": str, "head": dict, "models": list, "assets": list},
}
ANSWERS: Mapping[str, Fields] = {
    "ready": {"process": int, "versions": dict, "processor": str},
    "held": {"fingerprint": str},
    "digests": {"digests": dict},
    "kept": {},
    "forgotten": {},
    "done": {"head": dict},
    "cancelled": {},
    "refused": {"why": str},
    "memory": {"why": str},
    "unreadable": {"why": str},
    "failed": {"why": str},
}
# What may answer a request, beside that it could not be done.
FOLLOWING: Mapping[str, tuple[str, ...]] = {
    "load": ("held",),
    "digests": ("digests",),
    "change": ("held",),
    "asset": ("kept",),
    "forget": ("forgotten",),
    "shard": ("done", "cancelled"),
}


def kind(head: Mapping[str, Any], key: str, known: Mapping[str, Fields]) -> str:
    """Return what a message says that it is, by its field `key`, once it has all the fields of that.

    Raises
    ------
    ValueError
        It is no such message.

    Examples
    --------
    >>> kind({"do": "digests", "name": "m"}, "do", REQUESTS)
    'digests'
    >>> kind({"do": "load", "name": 3}, "do", REQUESTS)
    Traceback (most recent call last):
    ValueError: 'load' needs its name, as str
    """
    found = head.get(key)
    if not isinstance(found, str) or found not in known:
        raise ValueError(f"{found!r:.40} is none of {', '.join(known)}")
    for name, of in known[found].items():
        value = head.get(name)
        strings = value if isinstance(value, list) else []
        if not isinstance(value, of) or not all(isinstance(one, str) for one in cast("list[Any]", strings)):
            raise ValueError(f"{found!r} needs its {name}, as {of.__name__}")
    return found
