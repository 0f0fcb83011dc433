"""The faults as live views meet them: what a kernel sends to a page, and what a page may send back."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import json
import re
import sys
import weakref

import numpy as np
import pytest
import torch

from faults import harness
from faults.test_network import INSIDE, LOADS
from faults.test_text_in_pictures import FORBIDDEN, HIDDEN, MARKUP, read_html, read_svg
from interp.selection import selection
from interp.views.kit.text import visible
from sampled import turns
from widgets.conftest import ask, page, wire  # noqa: F401

ASKS = re.compile(r"https?:(?!//www\.w3\.org/2000/svg)|\bfetch\(|XMLHttpRequest|WebSocket|import\(")
VIEW = "application/vnd.jupyter.widget-view+json"


def returned(name):
    """Return the class of a command's result, of several the first."""
    function = inspect.unwrap(harness.commands()[name].function)
    first, *_ = inspect.signature(function).return_annotation.split(" | ")
    return getattr(sys.modules[function.__module__], first)


LIVE = [name for name in harness.bodied() if returned(name)._widget]
# Those that show a value of every layer, bad ones too: a graph cannot be made of what is no number.
LAYERED = [name for name in LIVE if "pattern" in returned(name).__annotations__]


def test_there_are_live_views():
    assert "attention" in LIVE


def state(wire):  # noqa: F811
    """Return every text of everything that was sent to pages, bytes aside."""
    words = []

    def walk(value):
        if isinstance(value, dict):
            for key, held in value.items():
                if key not in {"_esm", "_css"}:
                    walk(key)
                    walk(held)
        elif isinstance(value, list | tuple):
            for held in value:
                walk(held)
        elif isinstance(value, str):
            words.append(value)

    for _, data, _ in wire.sent:
        json.dumps(data, allow_nan=False)
        walk(data)
    return words


def shown(page):  # noqa: F811
    """Return the HTML of what a page shows, each read by a reader that refuses what could run or fetch."""
    found = [output["text/html"] for output in page.shown() if "text/html" in output]
    for html in found:
        text = read_html(html)
        assert FORBIDDEN.search(text) is None
    assert [VIEW in output for output in page.shown()] == [False, True] * len(found)
    return found


@pytest.mark.parametrize("text", [*MARKUP, *HIDDEN, "\ud800"])
@pytest.mark.parametrize("name", LIVE)
def test_rows_1_to_4_tokens_names_labels_and_notes(name, text, shell, lend, page, wire):  # noqa: F811
    lend("gpt2")
    result = harness.worked(harness.ask("python", shell, harness.valid(name)))
    own = {"glyphs": {0: text}} if hasattr(result, "glyphs") else {}
    result = dataclasses.replace(
        result,
        tokens=(text, *result.tokens[1:]),
        labels={"0.1": text},
        notes=(text,),
        **own,
        provenance=dataclasses.replace(result.provenance, model=text),
    )
    shell.user_ns["result"] = result
    shell.run_cell("result").raise_error()
    assert len(shown(page)) == 1
    sent = state(wire)
    assert any(visible(text, None)[:9] in words for words in sent)
    for words in sent:
        assert FORBIDDEN.search(words) is None, repr(words[:80])
    asked = {"layer": 0, "head": 1, "mode": "pattern", "token": 0} if own else {"edges": 9, "chosen": "", "pinned": []}
    saved, _ = ask(result.widget, wire, "picture", theme="dark", **asked)
    assert FORBIDDEN.search(read_svg(saved["reply"]["svg"])) is None
    if own:
        full, _ = ask(result.widget, wire, "token", position=0)
        assert FORBIDDEN.search(full["reply"]["text"]) is None


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", LAYERED)
def test_row_9_the_first_bad_layer_is_named_and_hatched(name, broken, shell, folder, clean_session, page, wire):  # noqa: F811
    model = clean_session.load(folder("gpt2"), name="gpt2")
    with torch.no_grad():
        model.bridge.blocks[1].attn.q.original_component.weight.data[0] = broken
    result = harness.worked(harness.ask("magic", shell, harness.valid(name)))
    meta = result.widget.meta
    bad = np.argwhere(~np.isfinite(result.pattern).all(axis=(2, 3)))
    assert len(bad)
    assert meta["bad"] == bad.tolist()
    assert meta["bad"][0][0] == 1
    assert any("layer 1" in note for note in meta["notes"])
    (html,) = shown(page)
    assert "hatch" in html
    assert "layer 1" in read_html(html)
    layer, head = meta["bad"][0]
    saved, _ = ask(result.widget, wire, "picture", layer=layer, head=head, mode="pattern", token=0, theme="light")
    assert "hatch" in re.sub("<style>.*?</style>", "", saved["reply"]["svg"], flags=re.DOTALL)


@pytest.mark.parametrize("name", LIVE)
def test_row_39_views_outlive_a_reload(name, shell, lend, wire):  # noqa: F811
    lend("gpt2")
    result = harness.worked(harness.ask("magic", shell, harness.valid(name)))
    widget = result.widget
    gc.collect()
    once = len(selection._observers)
    for cell in ("%load_ext interp", *["%reload_ext interp"] * 3, "%unload_ext interp"):
        shell.run_cell(cell).raise_error()
        assert len(selection._observers) == once, cell
        selection.set(layer=1, head=2)
        assert (widget.selection["layer"], widget.selection["head"]) == (1, 2)
        answer, _ = ask(widget, wire, "select", layer=0, head=0)
        assert "reply" in answer
        assert (selection.layer, selection.head) == (0, 0)
    widget.close()
    assert len(selection._observers) == once - 1


@pytest.mark.parametrize("name", LIVE)
def test_row_46_a_cell_that_ends_in_a_view_again_and_again(name, shell, lend, page, wire):  # noqa: F811
    model = lend("gpt2")
    result = harness.worked(harness.ask("magic", shell, harness.valid(name)))
    model.store.clear()
    gc.collect()
    before = {id(held) for held in gc.get_objects() if isinstance(held, torch.Tensor)}
    alive = weakref.WeakSet()
    for n in range(turns(1000)):
        copy = dataclasses.replace(result)
        alive.update((copy, copy.widget))
        if n % 20 == 0:
            copy._ipython_display_()
        page.outputs.clear()
        wire.clear()
    del copy
    gc.collect()
    assert len(alive) <= 16
    assert [held.shape for held in gc.get_objects() if isinstance(held, torch.Tensor) and id(held) not in before] == []


@pytest.mark.parametrize("name", LIVE)
def test_row_47_what_a_page_gets_asks_for_nothing(name, shell, lend, page, wire):  # noqa: F811
    lend("gpt2")
    harness.worked(harness.ask("magic", shell, harness.valid(name)))
    for html in shown(page):
        assert LOADS.search(INSIDE.sub("data:,", html)) is None
    (opened,) = [data["state"] for kind, data, _ in wire.sent if kind == "comm_open" and "_esm" in data["state"]]
    for text in (opened["_esm"], opened["_css"]):
        assert ASKS.search(text) is None
