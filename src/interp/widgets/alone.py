"""A live view as a page of its own: its script, its data and the answers to what it may ask, for who has no kernel."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.results import resolve
from interp.views.export import document
from interp.widgets._base import Widget, asset
from interp.widgets._rpc import Request

if TYPE_CHECKING:
    from interp.results import Result

_ROOM = 6_000_000  # bytes of answers, in base64: what does not fit is what the page says that it lacks
_FRONT_END = {"comm", "layout", "tabbable", "tooltip"}
# How a bundle ends: with what it exports.
_EXPORT = re.compile(r"export\{(\w+) as default\};?\s*$")
# What only makes exact what is there already, and what tells the kernel how many views there are.
_SILENT = ("line", "tile", "views")


def page(result: Result) -> str:
    """Return a result's live view as a complete HTML document: no kernel, nothing fetched, its own script alone runs.

    Where scripts do not run its picture is shown.

    Raises
    ------
    InputError
        The view's script was not built.
    """
    widget: Widget = resolve(type(result)._widget or "")(result)  # pyright: ignore[reportPrivateUsage]
    try:
        data = _json(_saved(widget)).replace("<", "\\u003c")
        script, css = asset(f"{widget.script}.js"), asset(f"{widget.script}.css")
    finally:
        widget.close()
    bundle, count = _EXPORT.subn(r"interpAlone.start(\1);", script)
    assert count == 1, "a bundle exports its view at its end"
    code = f"{asset('alone.js')}\n{bundle}"
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    body = (
        f'<style>{css.replace("</", "")}</style><main id="interp-view"></main><div>{result.html()}</div>'
        f'<script type="application/json" id="interp-data">{data}</script><script type="module">{code}</script>'
    )
    return document(result, body, script=f"'sha256-{digest}'")


def _saved(widget: Widget) -> dict[str, Any]:
    """Return what the page's script takes; see `js/src/host/alone.ts`."""
    traits = {name: getattr(widget, name) for name in widget.trait_names(sync=True) if name in _said(widget)}
    return {"traits": {**traits, "_style": ""}, "answers": _answers(widget), "silent": list(_SILENT)}


def _said(widget: Widget) -> set[str]:
    """Return the traits that are the view's own, not the front end's machinery."""
    return {name for name in widget.trait_names() if not name.startswith("_")} - _FRONT_END


def _answers(widget: Widget) -> dict[str, Any]:
    found: dict[str, Any] = {}
    room = _ROOM
    handlers = widget.handlers()
    for method, params in widget.questions():
        try:
            reply = handlers[method](params, Request("", _unheard))
            answer: dict[str, Any] = {"data": dict(reply.data), "buffers": list(reply.buffers)}
        except ValueError as error:  # the model is gone, or was changed: the page says so in this place
            answer = {"error": str(error)}
        room -= len(_json(answer))
        if room < 0:
            break
        found[_key(method, params)] = answer
    return found


def _unheard(message: dict[str, Any], buffers: list[bytes]) -> None:
    """Nobody waits for how far an answer is."""


def _key(method: str, params: Mapping[str, Any]) -> str:
    return f"{method} {json.dumps(params, sort_keys=True, separators=(',', ':'), ensure_ascii=False)}"


def _json(value: Any) -> str:
    """Return plain data as JSON of ASCII letters; bytes, wherever they are, in base64."""
    return json.dumps(value, separators=(",", ":"), default=lambda data: {"$bytes": base64.b64encode(data).decode()})
