"""The patching heatmap's kernel side: what it sends of a sweep, how exact, how large, and what it refuses."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from interp.errors import InputError
from interp.methods.patching.patch import PatchingResult
from interp.selection import selection
from interp.views.kit import heatmap
from interp.widgets.patching import PatchingWidget
from views.test_patching import SHAPES, partial, real_like, sweep

from .conftest import Wire, ask, deliver

LIMIT = 500_000


def unpack(form: dict[str, Any], data: bytes) -> dict[str, np.ndarray]:
    """Read a slice's bytes as the page does."""
    planes = np.frombuffer(data, "<f4").reshape(len(form["planes"]), *form["shape"])
    return dict(zip(form["planes"], planes, strict=True))


def shown(widget: PatchingWidget) -> dict[str, np.ndarray]:
    return unpack(widget.sweep["form"], widget.sweep["cells"])


def estimated(result: PatchingResult, verified: int) -> PatchingResult:
    estimate = result.effect * 1.25
    done = np.zeros(estimate.size, bool)
    done[np.argsort(-np.abs(estimate), axis=None)[:verified]] = True
    done = done.reshape(estimate.shape)
    held = {name: np.where(done, getattr(result, name), np.nan) for name in ("patched", "effect", "recovery")}
    return replace(result, estimate=estimate, method="attribution", done=done, **held)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_sent_as_it_is_and_fits(shape: str, wire: Wire) -> None:
    result = SHAPES[shape]()
    widget = PatchingWidget(result)
    assert max(wire.sizes()) < LIMIT
    form, planes = widget.sweep["form"], shown(widget)
    assert widget.sweep["total"] == result.done.size
    rows, columns = form["shape"]
    for row in range(rows):
        for column in range(columns):
            at: dict[str, int] = {form["axes"][0]: row}
            if form["axes"][1]:
                at[form["axes"][1]] = column
            if form["own"]:
                at[form["own"]] = int(planes["index"][row, column])
            cell = tuple(at[axis] for axis in result.axes)
            sent = planes["effect"][row, column]
            if not result.done[cell]:
                assert np.isnan(sent)
            elif np.isfinite(result.effect[cell]):
                assert sent == np.float32(result.effect[cell])
                np.testing.assert_equal(planes["low"][row, column], np.float32(result.interval[0][cell]))
            else:
                assert np.isinf(sent)


def test_three_axes_show_each_heads_strongest_position_and_any_slice_on_request(wire: Wire) -> None:
    result = partial(real_like("head-position", (12, 12, 15)), 1000)
    widget = PatchingWidget(result)
    best = np.where(result.done, np.abs(result.effect), -1).argmax(-1)
    np.testing.assert_array_equal(shown(widget)["index"], best)
    for hold, axis in (("layer", 0), ("head", 1), ("position", 2)):
        answer, (data,) = ask(widget, wire, "slice", hold=hold, index=5)
        expected = np.take(np.where(result.done, result.effect, np.nan), 5, axis)
        np.testing.assert_array_equal(unpack(answer["reply"], data)["effect"], expected.astype(np.float32))
        assert len(answer["reply"]["labels"]["rows"]) == expected.shape[0]
        assert len(answer["reply"]["labels"]["columns"]) == expected.shape[1]


def test_neurons_are_ranked_within_their_layer(wire: Wire) -> None:
    assert wire.sent == []
    result = sweep("neuron", (4, 500), site="neuron", planted={(2, 77): -0.5})
    planes = shown(PatchingWidget(result))
    order = np.argsort(-np.abs(result.effect), axis=1)[:, : planes["index"].shape[1]]
    np.testing.assert_array_equal(planes["index"], order)
    assert planes["index"][2, 0] == 77


@pytest.mark.usefixtures("wire")
def test_what_is_listed_is_the_strongest() -> None:
    result = real_like(pairs=8)
    listed = PatchingWidget(result).sweep["top"]["exact"]
    assert [tuple(entry["at"]) for entry in listed] == [
        tuple(int(part) for part in name.split(".")) for name, _, _ in result.top(10)
    ]
    assert [entry["effect"] for entry in listed] == [effect for _, effect, _ in result.top(10)]
    assert PatchingWidget(partial(real_like(), 0)).sweep["top"]["exact"] == []


@pytest.mark.usefixtures("wire")
def test_the_scale_is_that_of_the_static_picture() -> None:
    outlier = sweep(planted={(1, 1): 400.0, (2, 2): 0.4, (3, 3): -0.3})
    for result in (real_like(), outlier, real_like(direction="noise")):
        ends = PatchingWidget(result).sweep["form"]["ends"]["exact"]
        values = result.recovery - (1 if result.direction == "noise" else 0)
        assert ends["recovery"] == heatmap.limit(values, 1e-3, 0.5)
    # While more may come, a first small effect is not drawn as a large one.
    early = partial(sweep(planted={(0, 0): 0.02}), 12)
    assert PatchingWidget(early).sweep["form"]["ends"]["exact"] == {"recovery": 0.02, "effect": 0.1}
    assert PatchingWidget(early, running=True).sweep["form"]["ends"]["exact"] == {"recovery": 0.1, "effect": 0.5}
    marks = PatchingWidget(outlier).sweep["form"]["marks"]["exact"]
    assert marks["recovery"] == ["dotted: 1 cell beyond the scale, up to +400.0"]
    assert marks["effect"] == ["dotted: 1 cell beyond the scale, up to +2,000.0"]


@pytest.mark.usefixtures("wire")
def test_an_estimate_is_everywhere_and_the_exact_values_where_they_were_verified() -> None:
    result = estimated(real_like(), 12)
    widget = PatchingWidget(result)
    planes = shown(widget)
    np.testing.assert_array_equal(planes["estimate"], (result.estimate).astype(np.float32))  # type: ignore[union-attr]
    assert np.isfinite(planes["effect"]).sum() == 12
    assert widget.sweep["estimated"]
    assert len(widget.sweep["top"]["estimate"]) == 10
    assert widget.sweep["form"]["marks"]["exact"]["effect"] == ["grey: 132 cells not verified"]


def test_one_view_shows_a_sweep_as_it_goes_on(wire: Wire) -> None:
    whole = real_like()
    first = partial(whole, 10)
    widget = PatchingWidget(first)
    widget.show(first, running=True)
    assert widget.sweep["running"]
    for count in (37, 80, 144):
        wire.clear()
        widget.show(partial(whole, count), running=count < 144)
        gc.collect()
        assert widget.comm is not None, "the view went with a result that it had left"
        assert [set(state) for state in wire.updates()] == [{"sweep"}], "one message for one state"
        assert widget.sweep["done"] == count
        assert np.isfinite(shown(widget)["effect"]).sum() == count
    assert not widget.sweep["running"]


@pytest.mark.usefixtures("wire")
def test_results_that_were_left_are_let_go() -> None:
    whole = real_like()
    widget = PatchingWidget(partial(whole, 1))
    left = weakref.ref(widget.result)
    widget.show(whole)
    gc.collect()
    assert left() is None
    assert widget.result is whole
    with pytest.raises(InputError, match=r"other cells; result.widget"):
        widget.show(sweep(shape=(30, 9)))


@pytest.mark.usefixtures("wire")
def test_the_selection_goes_both_ways() -> None:
    widget = PatchingWidget(real_like(layers=tuple(range(4, 16))))
    selection.set(layer=9, head=3)
    assert (widget.selection["layer"], widget.selection["head"]) == (9, 3)
    selection.set(layer=2, head=99)
    assert widget.selection["layer"] == 9
    selection.clear()
    assert widget.selection["layer"] is widget.selection["head"] is None
    widget.selection = {"layer": 5, "head": 1}
    assert (selection.layer, selection.head) == (5, 1)


def test_a_click_selects(wire: Wire) -> None:
    widget = PatchingWidget(sweep("position", (4, 9), site="resid_pre"))
    answer, _ = ask(widget, wire, "select", layer=2, position=7, query=None, key=None)
    assert answer["reply"]["position"] == 7
    assert (selection.layer, selection.position) == (2, 7)
    assert "no position 9 in this sweep; positions are 0–8" in ask(widget, wire, "select", position=9)[0]["error"]
    assert "no layer 4" in ask(widget, wire, "select", layer=4)[0]["error"]


@pytest.mark.parametrize(
    ("method", "params", "why"),
    [
        ("slice", {"hold": "layer", "index": 0}, "one slice"),
        ("says", {"layer": 0, "head": 12}, "head cannot be 12"),
        ("says", {"layer": 0}, "expected layer, head"),
        ("says", {"layer": 0, "head": 0}, "needs the model; run the cell again"),
        ("picture", {"theme": "pink"}, "theme cannot be 'pink'"),
        ("stop", {}, "no method 'stop'"),
    ],
)
def test_what_cannot_be_is_answered_in_a_line(wire: Wire, method: str, params: Any, why: str) -> None:
    widget = PatchingWidget(real_like())
    answer, _ = ask(widget, wire, method, **params)
    assert why in answer["error"]
    assert "\n" not in answer["error"]


def test_a_page_sets_no_state(wire: Wire) -> None:
    widget = PatchingWidget(real_like())
    before = dict(widget.sweep)
    script = widget.get_state("_esm")
    wire.clear()
    deliver(widget, None, method="update")
    for content in (None, [], {"method": "slice"}, {"id": 5}, "x", {"id": "1", "method": "says", "params": None}):
        deliver(widget, content)
    cast(Any, widget.comm).handle_msg({"content": {"data": {"method": "update", "state": {"sweep": {}, "_esm": ""}}}})
    assert dict(widget.sweep) == before
    assert widget.get_state("_esm") == script
    assert all("error" in content for content, _ in wire.customs())


def test_the_picture_to_save_is_the_static_one(wire: Wire) -> None:
    result = real_like()
    answer, _ = ask(PatchingWidget(result), wire, "picture", theme="dark")
    assert answer["reply"]["svg"] == result.svg("dark")


@pytest.mark.usefixtures("wire")
def test_foreign_text_is_made_visible() -> None:
    tokens = ("<bos>", "\u202eevil", "</script>", "\x00", "\ud800")
    result = sweep("position", (2, 5), site="resid_pre", tokens=tokens, task="<img>\u202e", notes=("a\x1b[31m\u202eb",))
    state = PatchingWidget(result).sweep
    said = repr({name: value for name, value in state.items() if name != "cells"})
    assert not set("\u202e\x00\x1b\ud800") & set(said)
    assert "⟨U+202E⟩" in said
    assert "</script>" in said
