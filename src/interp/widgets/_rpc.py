"""Requests from a view: every one is answered, with a reply or an error.

A request is ``{"id": str, "method": str, "params": {…}}``; it is answered by ``{"id", "reply"}`` (with binary buffers)
or ``{"id", "error"}``, after any number of ``{"id", "progress": [done, total]}``. ``{"id", "cancel": true}`` ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from interp.errors import InputError, closest

_log = logging.getLogger(__name__)
_ID_LENGTH = 64
_TEXT, _LIST = 200, 1000  # the longest string and list of strings that a request holds

Send = Callable[[dict[str, Any], list[bytes]], None]


class Cancelled(Exception):
    """The view no longer wants the answer."""


@dataclass(frozen=True)
class Reply:
    """An answer: `data` is JSON, `buffers` travel beside it."""

    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    buffers: tuple[bytes, ...] = ()


class Request:
    """One request on its way, as a handler that takes long sees it."""

    def __init__(self, identity: str, send: Send) -> None:
        self.id = identity
        self.cancelled = False
        self._send = send

    def progress(self, done: int, total: int) -> None:
        """Tell the view how far this is; raises `Cancelled` once the view has asked to stop."""
        if self.cancelled:
            raise Cancelled
        self._send({"id": self.id, "progress": [done, total]}, [])


@dataclass(frozen=True)
class Text:
    """What a parameter of a request can be: a string of at most `longest` characters."""

    longest: int


Handler = Callable[[Mapping[str, Any], Request], Reply]


class Requests:
    """The kernel's end of a view's requests.

    Parameters
    ----------
    handlers
        Method → function of the parameters and the request. An exception it raises becomes the error reply.
    send
        Sends a message and its buffers to the view.
    """

    def __init__(self, handlers: Mapping[str, Handler], send: Send) -> None:
        self._handlers = handlers
        self._send = send
        self._running: dict[str, Request] = {}

    def receive(self, content: Any, buffers: Any = None) -> None:
        """Handle one message, whatever it holds; never raises."""
        identity: str | None = None
        try:
            message = cast("Mapping[str, Any]", content) if isinstance(content, dict) else {}
            given = message.get("id")
            if not isinstance(given, str) or not 0 < len(given) <= _ID_LENGTH:
                raise InputError("a request needs an id: a short string")
            identity = given
            if message.get("cancel") is True:
                if identity in self._running:
                    self._running[identity].cancelled = True
                return
            if identity in self._running:
                raise InputError("this id is in use")
            self._run(identity, message, buffers)
        except Exception as error:
            self._answer({"id": identity, "error": _line(error)})

    def _run(self, identity: str, message: Mapping[str, Any], buffers: Any) -> None:
        unknown = [str(key)[:40] for key in message if key not in {"id", "method", "params"}]
        method, params = message.get("method"), message.get("params", {})
        if unknown or buffers:
            raise InputError(f"a request holds id, method and params, not {', '.join([*unknown, 'buffers'][:3])}")
        if not isinstance(method, str) or method not in self._handlers:
            raise InputError(f"no method {str(method)[:40]!r}{closest(str(method)[:40], self._handlers)}")
        if not isinstance(params, dict):
            raise InputError("params must be an object")
        request = self._running[identity] = Request(identity, self._send)
        try:
            reply = self._handlers[method](cast("Mapping[str, Any]", params), request)
        except Cancelled:
            raise InputError("cancelled") from None
        finally:
            del self._running[identity]
        self._answer({"id": identity, "reply": dict(reply.data)}, list(reply.buffers))

    def _answer(self, message: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        try:
            self._send(message, buffers or [])
        except Exception:
            _log.exception("a view could not be answered")


def parameters(params: Mapping[str, Any], **expected: type | tuple[str, ...] | range | Text) -> list[Any]:
    """Return the values of `params` in the order of `expected`, or say what is wrong with them.

    Each expectation is ``int``, a range that holds it, the strings allowed, ``str``, a `Text` that may be longer, or
    ``list`` (of strings). Nothing else may be there.

    Examples
    --------
    >>> parameters({"layer": 3, "mode": "pattern"}, layer=range(12), mode=("pattern", "weighted"))
    [3, 'pattern']
    """
    if set(params) != set(expected):
        given = ", ".join(str(key)[:40] for key in list(params)[:8]) or "nothing"
        raise InputError(f"expected {', '.join(expected)}; got {given}")
    for name, allowed in expected.items():
        value = params[name]
        if isinstance(allowed, tuple):
            valid = isinstance(value, str) and value in allowed
        elif allowed is str:
            valid = _is_text(value)
        elif isinstance(allowed, Text):
            valid = _is_text(value, allowed.longest)
        elif allowed is list:
            valid = isinstance(value, list) and len(cast("list[Any]", value)) <= _LIST
            valid = valid and all(map(_is_text, cast("list[Any]", value)))
        else:
            valid = isinstance(value, int) and not isinstance(value, bool)
            valid = valid and (not isinstance(allowed, range) or value in allowed)
        if not valid:
            raise InputError(f"{name} cannot be {value!r:.40}")
    return [params[name] for name in expected]


def _is_text(value: Any, longest: int = _TEXT) -> bool:
    return isinstance(value, str) and len(value) <= longest


def _line(error: Exception) -> str:
    """Return the one line that a view shows for `error`; what is not the user's doing is logged in full."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, InputError):
        return text
    _log.error("a view's request failed", exc_info=error)
    return f"{type(error).__name__}: {text}"
