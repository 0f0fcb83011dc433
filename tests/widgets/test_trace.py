"""The attribution graph's kernel side: what it sends, how large, groups both ways, what it measures and refuses."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.methods._shared.trace.parts import TraceMove
from interp.methods._shared.trace.result import TraceResult
from interp.results import Provenance
from interp.selection import selection
from interp.views import trace_report, trace_stability
from interp.views.trace_layout import KINDS, arrange
from interp.widgets._base import _off_screen
from interp.widgets.trace import TraceWidget
from views.traces import HEADS, check, planted, random, stable

from .conftest import Wire, ask, deliver

LIMIT = 500_000


def unpack(widget: TraceWidget) -> dict[str, Any]:
    """Read the drawing's bytes as the page does."""
    nodes, edges = widget.graph["counts"]
    values = np.frombuffer(widget.drawing, "<f4", 3 * nodes + 2 * edges)
    whole = np.frombuffer(widget.drawing, "<u2", offset=values.nbytes)
    assert len(whole) == 9 * nodes + 2 * edges, "bytes that mean nothing"
    return {
        "values": values[: 3 * nodes].reshape(-1, 3),
        "edges": values[3 * nodes :].reshape(-1, 2),
        "places": whole[: 9 * nodes].reshape(-1, 9).astype(int),
        "ends": whole[9 * nodes :].reshape(-1, 2).astype(int),
    }


@pytest.mark.usefixtures("wire")
def test_the_drawing_is_sent_as_it_is() -> None:
    result = random(6, 20, 120, 600)
    drawn = arrange(result)
    widget = TraceWidget(result)
    found = unpack(widget)
    assert widget.graph["names"] == list(drawn.names)
    np.testing.assert_allclose(found["places"][:, :3] / 8, np.stack([drawn.x, drawn.y, drawn.wide], 1), atol=1 / 16)
    assert [KINDS[kind] for kind in found["places"][:, 3]] == list(drawn.kinds)
    expected = np.stack([drawn.layers + 1, drawn.positions, drawn.first, drawn.sides, drawn.until], 1)
    np.testing.assert_array_equal(found["places"][:, 4:], expected)
    np.testing.assert_array_equal(found["ends"], np.stack([drawn.sources, drawn.targets], 1))
    weights = [
        float(result.weights[(result.edge_sources == result.number(drawn.names[s])) & (result.edge_targets == t)][0])
        for s, t in ((int(s), result.number(drawn.names[int(t)])) for s, t in found["ends"][:20].tolist())
    ]
    assert found["edges"][:20, 0].tolist() == weights
    for column, values in enumerate((drawn.activations, drawn.influences, drawn.effects)):
        np.testing.assert_array_equal(found["values"][:, column], values.astype(np.float32))
    assert widget.graph["total"] == len(result.weights)
    assert widget.graph["opens"] == drawn.opens == 40


@pytest.mark.parametrize(("nodes", "edges"), [(60, 200), (3000, 20_000)])
def test_no_message_is_large(wire: Wire, nodes: int, edges: int) -> None:
    result = random(30, 60, nodes, edges)
    widget = TraceWidget(replace(result, check=check(result)))
    assert len(widget.graph["names"]) > 40
    assert max(wire.sizes()) < LIMIT


@pytest.mark.usefixtures("wire")
def test_no_numbers_of_nodes_and_edges_travel_as_text() -> None:
    """Lists of numbers are sent as bytes."""
    graph = TraceWidget(random(6, 20, 120, 600)).graph

    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        if not isinstance(value, list):
            return 0
        own = len(value) if all(isinstance(one, int | float) for one in value) else 0
        return max([own, *map(longest, value)])

    assert longest(graph) <= 3


@pytest.mark.usefixtures("wire")
def test_what_was_measured_is_sent_as_it_is_drawn() -> None:
    assert TraceWidget(planted()).graph["measured"] == []
    result = stable(replace(planted(), check=check(planted())))
    sent = TraceWidget(result).graph["measured"]
    drawn = trace_report.measured(result), trace_stability.drawing(result)
    assert [one[0] for one in sent] == [trace_report.caption(result), trace_stability.caption(result)]
    assert [one[1:] for one in sent] == [[one.width, one.height, one.body] for one in drawn if one is not None]


@pytest.mark.usefixtures("wire")
def test_an_empty_graph() -> None:
    widget = TraceWidget(planted(edges=[]))
    assert widget.graph["counts"] == [1, 0], "the logit alone"


def test_groups_are_one_thing_here_and_in_python(wire: Wire) -> None:
    result = planted()
    widget = TraceWidget(result)
    before = unpack(widget)
    wire.clear()
    result.groups["names"] = ["0.7@2", "embed@2"]
    ((_, data, buffers),) = wire.sent
    assert (set(data["state"]), data["buffer_paths"]) == ({"graph", "groups"}, [["drawing"]])
    assert buffers == [widget.drawing]
    assert widget.groups == {"names": {"nodes": ["embed@2", "0.7@2"], "folded": True}}
    assert widget.graph["names"][-1] == "names"
    np.testing.assert_array_equal(unpack(widget)["places"][:-1, :2], before["places"][:, :2], "no node moves")
    assert "reply" in ask(widget, wire, "rename", name="names", to=" the names ")[0]
    assert dict(result.groups) == {"the names": ("embed@2", "0.7@2")}
    assert "reply" in ask(widget, wire, "fold", name="the names", folded=0)[0]
    assert "the names" not in widget.graph["names"]
    assert "reply" in ask(widget, wire, "group", name="others", nodes=["0.7@2", "1.7@4"])[0]
    assert dict(result.groups) == {"the names": ("embed@2",), "others": ("0.7@2", "1.7@4")}
    assert "reply" in ask(widget, wire, "ungroup", name="others")[0]
    assert list(result.groups) == ["the names"]


def test_an_edge_is_split_by_its_heads(wire: Wire) -> None:
    result = planted()
    widget = TraceWidget(result)
    answer, _ = ask(widget, wire, "edge", source="0.7@2", target="1.7@4")
    found = answer["reply"]
    assert found["weight"] == pytest.approx(1.2)
    assert [head[:2] for head in found["heads"]] == [[0, 1], [0, 2], [1, 3]], "layer and head"
    assert HEADS == 4
    parts = found["direct"] + sum(share for *_, share in found["heads"]) + found["other"]
    assert parts == pytest.approx(found["weight"], rel=1e-5)


def test_the_edges_of_a_group_are_joined(wire: Wire) -> None:
    result = planted()
    result.groups["late"] = ["embed@4", "0.error@4"]
    widget = TraceWidget(result)
    found = ask(widget, wire, "edge", source="late", target="logit: Mary")[0]["reply"]
    assert found["weight"] == pytest.approx(0.3 - 0.5)
    parts = found["direct"] + sum(share for *_, share in found["heads"]) + found["other"]
    assert parts == pytest.approx(found["weight"], rel=1e-5)


def test_more_heads_than_are_named_are_counted_with_the_others(wire: Wire) -> None:
    base = planted()
    edges = len(base.weights)
    heads = np.tile(np.arange(8, dtype=np.int32), (edges, 1))
    loadings = np.tile(np.linspace(0.1, 0.8, 8, dtype=np.float32), (edges, 1))
    widget = TraceWidget(replace(base, heads=heads, loadings=loadings, other=np.full(edges, 0.05, np.float32)))
    found = ask(widget, wire, "edge", source="0.7@2", target="1.7@4")[0]["reply"]
    assert [4 * layer + head for layer, head, _ in found["heads"]] == [7, 6, 5, 4, 3, 2]
    assert found["other"] == pytest.approx(0.05 + 0.1 + 0.2)


def test_where_a_feature_fires(wire: Wire) -> None:
    result = planted()
    widget = TraceWidget(result)
    answer, (data,) = ask(widget, wire, "fires", node="0.7@2")
    assert answer["reply"] == {}
    np.testing.assert_array_equal(np.frombuffer(data, "<f4"), result.fires[result.number("0.7@2")])


def test_a_changed_feature_is_measured(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def moved(self: TraceResult, name: str, change: float) -> list[TraceMove]:  # noqa: ARG001
        asked.append((name, change))
        return [TraceMove("logit: Mary", -2.0, float("nan"))]

    monkeypatch.setattr(TraceResult, "moved", moved)
    widget = TraceWidget(planted())
    answer, _ = ask(widget, wire, "move", node="1.7@4", change=-50)
    assert answer["reply"] == {"moves": [["␣Mary 90 %", -2.0, None]]}
    assert asked == [("1.7@4", -0.5)]


def test_what_cannot_be_is_refused_in_a_line(wire: Wire) -> None:
    result = planted()
    widget = TraceWidget(result)
    for method, params, why in (
        ("group", {"name": "", "nodes": ["0.7@2", "1.7@4"]}, "needs a name"),
        ("group", {"name": "0.7@2", "nodes": ["0.7@2", "1.7@4"]}, "is a node"),
        ("group", {"name": "x", "nodes": ["9.9@9"]}, "no node '9.9@9'"),
        ("group", {"name": "x", "nodes": []}, "a node or more"),
        ("fold", {"name": "pear", "folded": 1}, "name cannot be"),
        ("fires", {"node": "9.9@9"}, "node cannot be"),
        ("edge", {"source": "1.7@4", "target": "0.7@2"}, "no such edge"),
        ("edge", {"source": "x", "target": "0.7@2"}, "source cannot be"),
        ("move", {"node": "1.7@4", "change": -100}, "needs the model"),
        ("move", {"node": "1.7@4", "change": 1000}, "change cannot be"),
        ("move", {"node": "1.7@4", "change": 0.5}, "change cannot be"),
        ("picture", {"theme": "pink", "edges": 1, "chosen": "", "pinned": []}, "theme cannot be"),
        ("picture", {"theme": "dark", "edges": 1, "chosen": "", "pinned": ["9.9@9"]}, "no node '9.9@9'"),
    ):
        answer, _ = ask(widget, wire, method, **params)
        assert why in answer["error"], (method, params, answer)
        assert "\n" not in answer["error"]
    assert dict(result.groups) == {}


@pytest.mark.usefixtures("wire")
def test_the_selection_goes_both_ways_and_is_the_prompts() -> None:
    widget = TraceWidget(planted())
    selection.set(layer=1, position=4)
    assert (widget.selection["layer"], widget.selection["position"]) == (1, 4)
    selection.set(layer=99, position=3)
    assert widget.selection["layer"] == 1, "another model's layer"
    assert widget.selection["position"] == 3
    widget.selection = {"layer": 0, "position": 2}
    assert (selection.layer, selection.position) == (0, 2)


def test_a_click_selects(wire: Wire) -> None:
    widget = TraceWidget(planted())
    assert "reply" in ask(widget, wire, "select", layer=1, head=2, query=4, key=2)[0]
    assert (selection.layer, selection.head, selection.query, selection.key) == (1, 2, 4, 2)
    assert "no layer 2 in this graph; they are 0–1" in ask(widget, wire, "select", layer=2)[0]["error"]
    assert "no position 5" in ask(widget, wire, "select", position=5)[0]["error"]


def test_the_picture_to_save_is_what_is_shown(wire: Wire) -> None:
    result = random(3, 9, 40, 150)
    widget = TraceWidget(result)
    answer, _ = ask(widget, wire, "picture", theme="dark", edges=40, chosen="", pinned=[])
    assert answer["reply"]["svg"] == result.svg("dark")
    feature = result.top(1)[0][0]
    answer, _ = ask(widget, wire, "picture", theme="dark", edges=150, chosen=feature, pinned=[])
    assert "opacity:0.14" in answer["reply"]["svg"]
    assert "150 of 150 edges" in answer["reply"]["svg"]


def test_a_page_sets_no_state(wire: Wire) -> None:
    result = planted()
    widget = TraceWidget(result)
    before = dict(widget.graph)
    wire.clear()
    for content in (None, [], {"method": "group"}, {"id": 5}, "x", {"id": "1", "method": "move", "params": None}):
        deliver(widget, content)
    state = {"groups": {"evil": ["0.7@2"]}, "graph": {}, "_esm": ""}
    widget.comm.handle_msg({"content": {"data": {"method": "update", "state": state}}})  # type: ignore[union-attr]
    assert dict(widget.graph) == before
    assert dict(result.groups) == {}
    assert all("error" in content for content, _ in wire.customs())


@pytest.mark.usefixtures("wire")
def test_views_that_are_closed_are_freed() -> None:
    _off_screen.clear()
    gc.collect()
    result = planted()
    observed = len(selection._observers)
    widget = TraceWidget(result)
    gone = weakref.ref(widget)
    widget.close()
    assert len(selection._observers) == observed
    assert result.groups._observers == []  # type: ignore[attr-defined]
    del widget
    gc.collect()
    assert gone() is None


def test_foreign_text_is_made_visible_and_every_number_is_jsons(wire: Wire) -> None:
    name = "<img src=x>\u202e"
    result = replace(
        planted(tokens=(name, "\x00", " Mary", "\x1b[31m", "</script>")),
        replacement=float("nan"),
        labels={"0.7": "<b>\u202e", "9.9": "another graph's"},
        notes=("a\x1b[31m\u202eb",),
        features=(name, ""),
        provenance=Provenance(model=name, technique="trace"),
    )
    TraceWidget(result)
    words = ""
    for _, data, _ in wire.sent:
        state = {key: value for key, value in data.get("state", {}).items() if key not in {"_esm", "_css"}}
        words += json.dumps(state, allow_nan=False, ensure_ascii=False)
    assert not set("\u202e\x00\x1b") & set(words)
    assert "⟨U+202E⟩" in words
    assert "<img src=x>" in words
    assert "another graph's" not in words
    assert "unknown" in words


@pytest.mark.usefixtures("page", "clean_session")
def test_an_open_graph_measures_in_the_model(wire: Wire) -> None:
    import interp

    interp.load()
    interp.features_load("bundled")
    graph = interp.trace("Alice met Bob. Bob met", target=" Alice", against=" Bob", nodes=0.5)
    view = graph.widget
    name, _ = graph.top(1)[0]
    ((said, foretold, measured),) = ask(view, wire, "move", node=name, change=-100)[0]["reply"]["moves"]
    assert said == "␣Alice − ␣Bob"
    assert foretold == pytest.approx(-float(graph.effects[graph.number(name)]), abs=1e-5)
    assert measured == pytest.approx(graph.moved(name, -1)[0].measured, abs=1e-5)
