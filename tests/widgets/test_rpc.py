"""The request layer alone: one answer to each request, progress, cancelling."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from interp.widgets._rpc import Reply, Request, Requests, Text, parameters


def served(handlers: Any) -> tuple[Requests, list[tuple[dict[str, Any], list[bytes]]]]:
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    return Requests(handlers, lambda message, buffers: sent.append((message, buffers))), sent


def test_a_reply_carries_its_buffers() -> None:
    requests, sent = served({"add": lambda params, _: Reply({"sum": params["a"] + params["b"]}, (b"xy",))})
    requests.receive({"id": "7", "method": "add", "params": {"a": 1, "b": 2}})
    assert sent == [({"id": "7", "reply": {"sum": 3}}, [b"xy"])]


def test_an_exception_is_an_error_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_params: Mapping[str, Any], _request: Request) -> Reply:
        raise KeyError("secret\ndetail")

    requests, sent = served({"broken": broken})
    with caplog.at_level(logging.ERROR):
        requests.receive({"id": "1", "method": "broken"})
    assert set(sent[0][0]) == {"id", "error"}
    assert sent[0][0]["error"].startswith("KeyError: ")
    assert caplog.records


def test_progress_then_the_reply() -> None:
    def slow(_params: Mapping[str, Any], request: Request) -> Reply:
        for done in range(3):
            request.progress(done, 3)
        return Reply({"ok": True})

    requests, sent = served({"slow": slow})
    requests.receive({"id": "1", "method": "slow"})
    assert [message for message, _ in sent] == [
        *({"id": "1", "progress": [done, 3]} for done in range(3)),
        {"id": "1", "reply": {"ok": True}},
    ]


def test_cancelling_ends_a_running_request_with_one_answer() -> None:
    def slow(_params: Mapping[str, Any], request: Request) -> Reply:
        for done in range(100):
            if done == 2:
                requests.receive({"id": "1", "cancel": True})
            request.progress(done, 100)
        return Reply()

    requests, sent = served({"slow": slow})
    requests.receive({"id": "1", "method": "slow"})
    assert [message for message, _ in sent] == [
        {"id": "1", "progress": [0, 100]},
        {"id": "1", "progress": [1, 100]},
        {"id": "1", "error": "cancelled"},
    ]
    requests.receive({"id": "1", "cancel": True})
    assert len(sent) == 3, "cancelling what has ended is no fault"


def test_an_id_in_use_is_refused_and_usable_afterwards() -> None:
    def outer(_params: Mapping[str, Any], _request: Request) -> Reply:
        requests.receive({"id": "1", "method": "outer"})
        return Reply()

    requests, sent = served({"outer": outer})
    requests.receive({"id": "1", "method": "outer"})
    assert [set(message) for message, _ in sent] == [{"id", "error"}, {"id", "reply"}]
    requests.receive({"id": "1", "method": "missing"})
    assert "no method 'missing'" in sent[-1][0]["error"]


def test_a_page_that_is_gone_does_not_raise() -> None:
    tried: list[Any] = []

    def gone(message: Any, _buffers: Any) -> None:
        tried.append(message)
        raise RuntimeError("closed")

    requests = Requests({"ping": lambda _params, _request: Reply()}, gone)
    requests.receive({"id": "1", "method": "ping"})
    assert tried[0] == {"id": "1", "reply": {}}, "the answer was tried"
    assert all(set(message) == {"id", "error"} for message in tried[1:])
    answered = len(tried)
    requests.receive({"id": "1", "method": "ping"})
    assert tried[answered] == {"id": "1", "reply": {}}, "the request has ended, and its id is free"


def test_parameters_are_exactly_those_expected() -> None:
    assert parameters({"b": "x", "a": 3}, a=range(5), b=("x", "y")) == [3, "x"]
    for wrong in ({"a": 5, "b": "x"}, {"a": 1, "b": "z"}, {"a": 1}, {"a": 1, "b": "x", "c": 0}, {"a": False, "b": "x"}):
        with pytest.raises(ValueError, match=r"cannot be|expected a, b"):
            parameters(wrong, a=range(5), b=("x", "y"))


def test_a_text_may_be_as_long_as_is_said() -> None:
    assert parameters({"a": "x" * 300}, a=Text(300)) == ["x" * 300]
    for wrong, allowed in (("x" * 301, Text(300)), ("x" * 300, str), (3, Text(300)), (["x"], Text(300))):
        with pytest.raises(ValueError, match="a cannot be"):
            parameters({"a": wrong}, a=allowed)
