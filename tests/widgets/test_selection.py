"""One selection: Python, and every open view."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from interp.errors import InputError
from interp.selection import Selection, selection
from interp.widgets.attention import AttentionWidget

from .conftest import Wire, ask, deliver, made


def test_observers_hear_of_changes_once_and_until_they_stop() -> None:
    chosen, heard = Selection(), []
    stop = chosen.observe(lambda s: heard.append((s.layer, s.head)))
    chosen.set(layer=5, head=1)
    chosen.set(layer=5, head=1)
    chosen.layer = 6
    stop()
    stop()
    chosen.set(layer=7)
    assert heard == [(5, 1), (6, 1)]
    assert repr(chosen) == "Selection(layer=7, head=1)"


@pytest.mark.parametrize("wrong", [{"layr": 1}, {"layer": -1}, {"layer": True}, {"layer": 1.5}, {"layer": "1"}])
def test_what_is_no_selection_is_refused_whole(wrong: Any) -> None:
    chosen = Selection()
    with pytest.raises(InputError):
        chosen.set(head=3, **wrong)
    assert chosen.to_dict() == dict.fromkeys(("layer", "head", "query", "key", "position"))


def test_one_broken_observer_leaves_the_others_told() -> None:
    chosen, heard = Selection(), []

    def broken(_: Selection) -> None:
        raise RuntimeError("mine")

    chosen.observe(broken)
    chosen.observe(lambda s: heard.append(s.layer))
    with pytest.raises(RuntimeError, match="mine"):
        chosen.set(layer=1)
    assert heard == [1]


def test_a_click_reaches_python_and_the_other_views(wire: Wire) -> None:
    one, other = AttentionWidget(made(4, 4, 6)), AttentionWidget(made(4, 4, 9))
    answer, _ = ask(one, wire, "select", layer=3, head=2, query=5, key=1, position=5)
    assert answer == {"id": "1", "reply": selection.to_dict()}
    assert selection.to_dict() == {"layer": 3, "head": 2, "query": 5, "key": 1, "position": 5}
    assert one.selection == other.selection == selection.to_dict()
    # One update to each page, and none that answers another.
    assert len(wire.updates()) == 2


def test_python_moves_every_view(wire: Wire) -> None:
    views = [AttentionWidget(made(4, 4, 6)) for _ in range(3)]
    wire.clear()
    selection.set(layer=1, head=3)
    assert [(v.selection["layer"], v.selection["head"]) for v in views] == [(1, 3)] * 3
    assert len(wire.updates()) == 3
    views[0].selection = {"layer": 2}
    assert selection.layer == 2
    assert selection.head == 3
    assert views[2].selection["layer"] == 2


def test_heads_are_addressed_by_the_models_numbers(wire: Wire) -> None:
    part, whole = AttentionWidget(made((5,), (2, 7), 6)), AttentionWidget(made(8, 8, 20))
    ask(whole, wire, "select", layer=5, head=7)
    assert (part.selection["layer"], part.selection["head"]) == (5, 7)
    ask(whole, wire, "select", layer=3, head=7)
    assert (part.selection["layer"], part.selection["head"]) == (5, 7), "a view without the layer stays where it is"
    assert selection.layer == 3, "and does not pull the others back"
    ask(whole, wire, "select", query=15)
    assert part.selection["query"] is None or part.selection["query"] < 6
    assert (selection.layer, selection.query) == (3, 15)
    with pytest.raises(InputError, match="no layer 0 in this view; it holds 5"):
        part.selection = {"layer": 0}


@pytest.mark.usefixtures("wire")
def test_a_new_view_opens_on_what_is_selected() -> None:
    selection.set(layer=2, head=1)
    widget = AttentionWidget(made(4, 4, 6))
    assert (widget.selection["layer"], widget.selection["head"]) == (2, 1)
    AttentionWidget(made((9,), 2, 6))
    assert (selection.layer, selection.head) == (2, 1), "opening a view selects nothing"


@pytest.mark.usefixtures("wire")
def test_observers_that_set_the_selection_do_not_loop() -> None:
    AttentionWidget(made(4, 4, 6)), AttentionWidget(made(4, 4, 6))
    stop = selection.observe(lambda s: s.set(head=0))
    try:
        selection.set(layer=1, head=3)
    finally:
        stop()
    assert (selection.layer, selection.head) == (1, 0)


def test_a_storm_is_the_first_and_the_last(wire: Wire) -> None:
    widget = AttentionWidget(made(4, 4, 1000, pattern=made(1, 1, 1000).pattern.repeat(4, 0).repeat(4, 1)))
    heard: list[int | None] = []
    stop = selection.observe(lambda s: heard.append(s.query))

    async def storm() -> None:
        for query in range(1000):
            deliver(widget, {"id": f"{query}", "method": "select", "params": {"query": query}})
        await asyncio.sleep(0.2)

    wire.clear()
    try:
        asyncio.run(storm())
    finally:
        stop()
    assert heard == [0, 999]
    assert widget.selection["query"] == 999
    assert len(wire.updates()) == 2
    replies = [content["reply"]["query"] for content, _ in wire.customs()]
    assert replies == list(range(1000)), "each event is answered with what is selected"


def test_a_closed_view_follows_no_more(wire: Wire) -> None:
    widget = AttentionWidget(made(4, 4, 6))
    widget.close()
    widget.close()
    before = dict(widget.selection)
    selection.set(layer=(before["layer"] + 1) % 4, head=3)
    assert widget.selection == before
    held = weakref.ref(widget)
    del widget
    wire.clear()
    gc.collect()
    assert held() is None
