"""A saved live view taken apart: the page around it, what it holds, and the one script that may run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SCRIPT = re.compile(r"<script( [^>]*)?>(.*?)</script>", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page without its scripts, its data, and its script; a page that is a picture has neither."""

    around: str
    data: Any = None
    code: str = ""

    @property
    def strings(self) -> list[str]:
        """All strings of the data, which the view shows as text."""
        return list(_strings(self.data))


def taken_apart(page: str) -> Page:
    """Return a page's parts, where it has no more than its data and the script that its policy names."""
    found = _SCRIPT.findall(page)
    around = _SCRIPT.sub("", page)
    assert "<script" not in around.lower()
    if not found:
        return Page(around)
    (kind, data), (module, code) = found
    assert (kind, module) == (' type="application/json" id="interp-data"', ' type="module"')
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith(f"; script-src 'sha256-{digest}'")
    assert page.index("Content-Security-Policy") < page.index("<script")
    return Page(around, json.loads(data), code)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        if value.keys() == {"$bytes"}:
            base64.b64decode(value["$bytes"], validate=True)
            return
        for name, held in value.items():
            yield name
            yield from _strings(held)
    elif isinstance(value, list):
        for held in value:
            yield from _strings(held)
