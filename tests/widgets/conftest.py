"""A kernel without a front end: widgets open their comms here, and every message they send is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import comm
import numpy as np
import pytest
from comm.base_comm import BaseComm
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from interp.methods.heads.attention import AttentionResult, statistics
from interp.results import Provenance
from interp.selection import selection


@dataclass
class Wire:
    """What was sent: ``(message type, data, buffers)``; `told` is all of it, and through which of the `comms`."""

    sent: list[tuple[str, Any, list[bytes]]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    comms: WeakValueDictionary[str, BaseComm] = field(default_factory=WeakValueDictionary)

    def clear(self) -> None:
        self.sent.clear()

    def customs(self) -> list[tuple[Any, list[bytes]]]:
        return [(d["content"], b) for kind, d, b in self.sent if kind == "comm_msg" and d.get("method") == "custom"]

    def updates(self) -> list[dict[str, Any]]:
        return [d["state"] for kind, d, _ in self.sent if kind == "comm_msg" and d.get("method") == "update"]

    def sizes(self) -> list[int]:
        return [len(json.dumps(data).encode()) + sum(map(len, buffers)) for _, data, buffers in self.sent]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    kept = Wire()

    class Recorded(BaseComm):
        def publish_msg(self, msg_type: str, data: Any = None, *_: Any, buffers: Any = None, **__: Any) -> None:
            parts = [bytes(buffer) for buffer in buffers or []]
            kept.sent.append((msg_type, data, parts))
            given = {"comm": self.comm_id, "target": self.target_name, "data": data}
            kept.told.append({"type": msg_type, **given, "buffers": parts})
            kept.comms[self.comm_id] = self

    monkeypatch.setattr(comm, "create_comm", Recorded)
    return kept


class Page(DisplayPublisher):
    """Keeps what is published, as a notebook does: updates replace what they name."""

    def publish(self, data: Any, *_: Any, transient: Any = None, update: bool = False, **__: Any) -> None:
        name = (transient or {}).get("display_id")
        if update:
            self.outputs = [(n, data if n == name else old) for n, old in self.outputs]
        else:
            self.outputs.append((name, data))

    def clear_output(self, *_: Any, **__: Any) -> None:
        self.outputs = []

    def shown(self) -> list[Any]:
        return [data for _, data in self.outputs]


@pytest.fixture
def page(shell: InteractiveShell, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Page:  # noqa: ARG001
    """Yield the page of a shell that has a kernel."""
    page = Page(parent=shell)
    page.outputs = []
    monkeypatch.setattr(shell, "display_pub", page)
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    return page


@pytest.fixture(autouse=True)
def _clean_selection() -> Iterator[None]:
    selection.clear()
    yield
    selection.clear()


def patterns(layers: int, heads: int, tokens: int, *, causal: bool = True, seed: int = 0) -> np.ndarray:
    """Return random attention patterns: rows sum to 1, a causal one's future is 0."""
    scores = np.random.default_rng(seed).exponential(size=(layers, heads, tokens, tokens)).astype(np.float32)
    if causal:
        scores *= np.tri(tokens, dtype=np.float32)
    return scores / scores.sum(-1, keepdims=True)


def made(layers: Any, heads: Any, tokens: int, *, causal: bool = True, **given: Any) -> AttentionResult:
    """Return a result; `layers` and `heads` are counts or the model's numbers."""
    numbers = [tuple(range(n)) if isinstance(n, int) else tuple(n) for n in (layers, heads)]
    pattern = given.pop("pattern", None)
    if pattern is None:
        pattern = patterns(len(numbers[0]), len(numbers[1]), tokens, causal=causal)
    strings = given.pop("strings", tuple(f" t{n}" for n in range(tokens)))
    return AttentionResult(
        tokens=strings,
        layers=numbers[0],
        heads=numbers[1],
        pattern=pattern,
        stats=given.pop("stats", None) or statistics(pattern),
        causal=causal,
        provenance=Provenance(model="test"),
        **given,
    )


def ask(widget: Any, wire: Wire, method: str, identity: str = "1", **params: Any) -> tuple[Any, list[bytes]]:
    """Send a request as a page does and return its answer."""
    wire.clear()
    deliver(widget, {"id": identity, "method": method, "params": params})
    answers = [(content, buffers) for content, buffers in wire.customs() if content["id"] == identity]
    assert len(answers) == 1, "every request has one answer"
    return answers[0]


def deliver(widget: Any, content: Any, method: str = "custom", buffers: Any = ()) -> None:
    widget.comm.handle_msg({"content": {"data": {"method": method, "content": content}}, "buffers": list(buffers)})
