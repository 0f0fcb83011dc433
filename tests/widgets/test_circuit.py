"""The graph's kernel side: what it sends of a circuit, how large, groups both ways, and what it refuses."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from interp.errors import InputError
from interp.methods._shared.circuit.groups import Groups
from interp.methods._shared.circuit.result import CircuitResult
from interp.results import Provenance
from interp.selection import selection
from interp.views.circuit_layout import arrange
from interp.widgets._base import _off_screen
from interp.widgets.circuit import CircuitWidget
from views.circuits import SMALL, planted, random

from .conftest import Wire, ask, deliver

LIMIT = 500_000


def unpack(widget: CircuitWidget) -> dict[str, Any]:
    """Read the drawing's bytes as the page does."""
    pills, edges, curves = widget.graph["counts"]
    scores = np.frombuffer(widget.drawing, "<f4", edges)
    numbers = np.frombuffer(widget.drawing, "<u2", offset=4 * edges).tolist()
    at = 0

    def take(count: int) -> list[int]:
        nonlocal at
        at += count
        return numbers[at - count : at]

    found = {
        "places": [take(3) for _ in range(pills)],
        "edges": [(*take(3), float(score)) for score in scores],
        "curves": [],
    }
    for _ in range(curves):
        source, target, joined, count = take(4)
        found["curves"].append((source, target, take(joined), take(count)))
    assert at == len(numbers), "bytes that mean nothing"
    return found


def lines(widget: CircuitWidget) -> set[tuple[str, str, float]]:
    graph = widget.graph
    return {
        (graph["nodes"][writer], graph["readers"][reader], score)
        for writer, reader, _, score in unpack(widget)["edges"]
    }


@pytest.mark.usefixtures("wire")
def test_the_drawing_is_sent_as_it_is() -> None:
    result = random(12, 8, 200, group=2)
    drawn = arrange(result)
    widget = CircuitWidget(result)
    found = unpack(widget)
    assert widget.graph["nodes"] == list(drawn.nodes)
    assert lines(widget) == {(e.writer, e.reader, float(np.float32(e.score))) for e in result.edges}
    sent = np.array(found["places"]) / 8
    np.testing.assert_allclose(sent, np.stack([drawn.x, drawn.y, drawn.wide], 1), atol=1 / 16)
    assert [edge[2] for edge in found["edges"]] == drawn.upto.tolist()
    for curve, (source, target, edges, path) in zip(drawn.curves, found["curves"], strict=True):
        assert (source, target, tuple(edges)) == (curve.source, curve.target, curve.edges)
        np.testing.assert_allclose(np.array(path) / 8, curve.path.reshape(-1), atol=1 / 16)
    assert widget.graph["total"] == int(result.kept.sum())
    assert widget.graph["opens"] == drawn.opens


@pytest.mark.parametrize("edges", [20, 3000])
def test_no_message_is_large(wire: Wire, edges: int) -> None:
    widget = CircuitWidget(random(30, 20, edges))
    assert len(widget.graph["nodes"]) > 5
    assert max(wire.sizes()) < LIMIT


@pytest.mark.usefixtures("wire")
def test_an_empty_circuit_and_scores_without_a_number() -> None:
    assert unpack(CircuitWidget(planted({}))) == {"places": [], "edges": [], "curves": []}
    broken = CircuitWidget(planted({**SMALL, ("embed", "logits"): float("nan")}))
    assert sum(np.isnan(score) for *_, score in unpack(broken)["edges"]) == 1


def test_groups_are_one_thing_here_and_in_python(wire: Wire) -> None:
    result = planted(SMALL)
    widget = CircuitWidget(result)
    before = unpack(widget)
    wire.clear()
    result.groups["pair"] = ["2.1", "1.0"]
    ((_, data, buffers),) = wire.sent
    assert (set(data["state"]), data["buffer_paths"]) == ({"graph", "groups"}, [["drawing"]]), (
        "one message for one state"
    )
    assert buffers == [widget.drawing]
    assert widget.groups == {"pair": {"nodes": ["1.0", "2.1"], "folded": True}}
    assert widget.graph["nodes"][-1] == "pair"
    assert unpack(widget)["places"][:-1] == before["places"], "no node moves"
    answer, _ = ask(widget, wire, "rename", name="pair", to=" the pair ")
    assert answer["reply"] == {}
    assert dict(result.groups) == {"the pair": ("1.0", "2.1")}
    assert "reply" in ask(widget, wire, "fold", name="the pair", folded=0)[0]
    assert not widget.groups["the pair"]["folded"]
    assert unpack(widget) == before
    assert "reply" in ask(widget, wire, "group", name="others", nodes=["2.1", "4.2"])[0]
    assert dict(result.groups) == {"others": ("2.1", "4.2")}, "one left alone is no group"
    assert "reply" in ask(widget, wire, "ungroup", name="others")[0]
    assert dict(result.groups) == {}
    assert unpack(widget) == before


@pytest.mark.usefixtures("wire")
def test_every_view_of_a_circuit_has_its_groups() -> None:
    result = planted(SMALL)
    first, second = CircuitWidget(result), CircuitWidget(result)
    result.groups["pair"] = ("1.0", "2.1")
    assert first.groups == second.groups != {}
    first.close()
    del result.groups["pair"]
    assert second.groups == {}


def test_what_is_no_group_is_refused_in_a_line(wire: Wire) -> None:
    result = planted(SMALL)
    widget = CircuitWidget(result)
    result.groups["pair"] = ("1.0", "2.1")
    for method, params, why in (
        ("group", {"name": "", "nodes": ["1.0", "2.1"]}, "needs a name"),
        ("group", {"name": "5.1", "nodes": ["1.0", "2.1"]}, "is a node"),
        ("group", {"name": "a\u202eb", "nodes": ["1.0", "2.1"]}, "can be seen"),
        ("group", {"name": "x", "nodes": ["1.0", "1.0"]}, "two nodes"),
        ("group", {"name": "x", "nodes": ["1.0", "9.9"]}, "no node '9.9'"),
        ("group", {"name": "x", "nodes": "1.0"}, "nodes cannot be"),
        ("group", {"name": "x", "nodes": ["1.0"] * 1001}, "nodes cannot be"),
        ("group", {"name": 5, "nodes": []}, "name cannot be"),
        ("rename", {"name": "pear", "to": "x"}, "pair"),
        ("ungroup", {"name": "pear"}, "pair"),
        ("fold", {"name": "pear", "folded": 1}, "name cannot be"),
        ("function", {"node": "9.9"}, "node cannot be"),
        ("function", {"node": "1.0"}, "needs the model"),
        ("pattern", {"node": "logits"}, "not a head"),
        ("picture", {"theme": "pink", "edges": 1, "chosen": ""}, "theme cannot be"),
        ("picture", {"theme": "dark", "edges": 1, "chosen": "9.9"}, "no node '9.9'"),
    ):
        answer, _ = ask(widget, wire, method, **params)
        assert why in answer["error"], (method, params)
        assert "\n" not in answer["error"]
    assert dict(result.groups) == {"pair": ("1.0", "2.1")}
    with pytest.raises(InputError, match="in the group 'pair'"):
        result.groups["other"] = ("2.1", "4.2")


def test_groups_refuse_what_is_none() -> None:
    groups = Groups({"a": ("1.0", "2.1")}, ("1.0", "2.1", "4.2", "logits"))
    for name, members in (("b", ("4.2",)), ("logits", ("4.2", "logits")), ("b", ("4.2", "5.1"))):
        with pytest.raises(InputError):
            groups[name] = members
    groups["a"] = ("4.2", "1.0")
    assert groups["a"] == ("1.0", "4.2")
    assert replace(planted(SMALL), groups={"a": ("1.0", "2.1")}).groups == {"a": ("1.0", "2.1")}


def test_a_node_is_asked_what_it_does_and_whom_it_looks_at(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def function_of(self: CircuitResult, node: str, top: int = 5) -> Any:  # noqa: ARG001
        asked.append(node)
        promotes, suppresses = (("\u202emat", 3.45), ("<b>", 2.0)), ((" the", float("inf")),)
        return SimpleNamespace(label="induction", promotes=promotes, suppresses=suppresses, copying=float("nan"))

    def pattern_of(self: CircuitResult, head: str) -> Any:  # noqa: ARG001
        asked.append(head)
        return np.tril(np.ones((100, 100), np.float32)) / np.arange(1, 101, dtype=np.float32)[:, None]

    monkeypatch.setattr(CircuitResult, "function_of", function_of)
    monkeypatch.setattr(CircuitResult, "pattern_of", pattern_of)
    widget = CircuitWidget(planted(SMALL))
    answer, _ = ask(widget, wire, "function", node="2.1")
    assert answer["reply"] == {
        "label": "induction",
        "promotes": [["⟨U+202E⟩mat", 3.45], ["<b>", 2.0]],
        "suppresses": [["␣the", None]],
        "copying": None,
    }
    answer, (data,) = ask(widget, wire, "pattern", node="2.1")
    side = answer["reply"]["side"]
    cells = np.frombuffer(data, np.uint8).reshape(side, side)
    assert side == 64
    assert cells[0, 0] == 254
    assert (np.triu(cells, 1) == 0).all()
    assert asked == ["2.1", "2.1"]


@pytest.mark.usefixtures("wire")
def test_the_selection_goes_both_ways_and_is_the_models() -> None:
    widget = CircuitWidget(planted(SMALL))
    selection.set(layer=2, head=1)
    assert (widget.selection["layer"], widget.selection["head"]) == (2, 1)
    selection.set(layer=99, head=1)
    assert widget.selection["layer"] == 2, "another model's layer"
    widget.selection = {"layer": 1, "head": None}
    assert (selection.layer, selection.head) == (1, None)


def test_a_click_selects(wire: Wire) -> None:
    widget = CircuitWidget(planted(SMALL))
    assert "reply" in ask(widget, wire, "select", layer=4, head=2)[0]
    assert (selection.layer, selection.head) == (4, 2)
    assert "no layer 6 in this model; it has 0, 1, 2" in ask(widget, wire, "select", layer=6, head=0)[0]["error"]
    assert "heads are 0–3" in ask(widget, wire, "select", layer=1, head=4)[0]["error"]


def test_the_picture_to_save_is_what_is_shown(wire: Wire) -> None:
    result = planted(SMALL)
    widget = CircuitWidget(result)
    answer, _ = ask(widget, wire, "picture", theme="dark", edges=len(SMALL), chosen="")
    assert answer["reply"]["svg"] == result.svg("dark")
    result.groups["pair"] = ("1.0", "2.1")
    ask(widget, wire, "fold", name="pair", folded=0)
    answer, _ = ask(widget, wire, "picture", theme="dark", edges=3, chosen="2.1")
    assert "opacity:0.16" in answer["reply"]["svg"], "what does not touch it is dimmed"
    assert ">pair<" not in answer["reply"]["svg"]
    assert "3 of 9 edges" in answer["reply"]["svg"]


def test_a_page_sets_no_state(wire: Wire) -> None:
    result = planted(SMALL)
    widget = CircuitWidget(result)
    before = dict(widget.graph)
    wire.clear()
    for content in (None, [], {"method": "group"}, {"id": 5}, "x", {"id": "1", "method": "group", "params": None}):
        deliver(widget, content)
    state = {"groups": {"evil": ["1.0", "2.1"]}, "graph": {}, "_esm": ""}
    cast(Any, widget.comm).handle_msg({"content": {"data": {"method": "update", "state": state}}})
    assert dict(widget.graph) == before
    assert dict(result.groups) == {}
    assert all("error" in content for content, _ in wire.customs())


@pytest.mark.usefixtures("wire")
def test_views_that_are_closed_are_freed() -> None:
    _off_screen.clear()
    gc.collect()
    result = planted(SMALL)
    observed = len(selection._observers)
    widget = CircuitWidget(result)
    gone = weakref.ref(widget)
    widget.close()
    widget.close()
    assert len(selection._observers) == observed
    assert cast(Groups, result.groups)._observers == []
    del widget
    gc.collect()
    assert gone() is None


def test_a_circuit_that_is_gone_takes_its_view_along(wire: Wire) -> None:
    result = planted(SMALL)
    widget = CircuitWidget(result)
    gone = weakref.ref(result)
    for _ in range(8):  # what is off screen is held for a while
        CircuitWidget(planted({}))
    del result
    gc.collect()
    assert gone() is None
    assert widget.comm is None
    assert wire.sent


def test_foreign_text_is_made_visible_and_every_number_is_jsons(wire: Wire) -> None:
    name = "<img src=x>\u202e"
    result = planted(
        {**SMALL, ("embed", "logits"): float("nan"), ("1.0", "logits"): float("inf")},
        task="</script>\u202e",
        notes=("a\x1b[31m\u202eb",),
        labels={"2.1": "<b>\u202e", "9.9": "another model's"},
        provenance=Provenance(model=name, technique="circuit"),
    )
    CircuitWidget(result)
    words = ""
    for _, data, _ in wire.sent:
        state = {key: value for key, value in data.get("state", {}).items() if key not in {"_esm", "_css"}}
        words += json.dumps(state, allow_nan=False, ensure_ascii=False)
    assert not set("\u202e\x00\x1b") & set(words)
    assert "⟨U+202E⟩" in words
    assert "<img src=x>" in words
    assert "another model's" not in words


@pytest.mark.usefixtures("page", "clean_session")
def test_an_open_view_says_what_a_validation_found() -> None:
    import interp

    interp.load()
    circuit = interp.circuit(task="ioi", n=6, edges=40)
    view = circuit.widget
    assert "not validated" in str(view.graph["evidence"])
    report = interp.validate(circuit, n=6, random=0, top=0)
    assert f"{report.faithfulness:.2f}" in str(view.graph["evidence"])
    circuit.groups["two"] = circuit.writers[1:3]
    assert "not validated" not in str(view.graph["evidence"]), "nor after another change"
