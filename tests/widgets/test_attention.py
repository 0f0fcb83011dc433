"""The attention viewer's kernel side: what it sends, how large, how exact, and what it refuses."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.errors import InputError
from interp.views import attention as pictures
from interp.widgets import _encode as encode
from interp.widgets._base import STATIC, asset
from interp.widgets.attention import AttentionWidget

from .conftest import Wire, ask, deliver, made

LIMIT = 500_000


def decode(data: bytes) -> np.ndarray:
    """Read uint8 weights as the page does."""
    steps = np.frombuffer(data, np.uint8)
    return np.where(steps < 255, steps / np.float32(254), np.nan)


def unpack(how: dict[str, Any], data: bytes) -> np.ndarray:
    """Read a head's bytes as the page does."""
    flat = np.frombuffer(data, "<f2").astype(np.float32) if how["type"] == "f2" else decode(data)
    side = how["side"]
    cells = np.zeros((side, side), np.float32)
    if how["triangle"]:
        cells[np.tril_indices(side)] = flat
    else:
        cells[:] = flat.reshape(side, side)
    return cells * how["scale"]


@pytest.mark.usefixtures("wire")
def test_first_paint_holds_every_thumbnail_and_the_chosen_head() -> None:
    result = made(2, 3, 15)
    widget = AttentionWidget(result)
    first = widget.meta["first"]
    assert widget.selection["layer"] == first["layer"]
    shown = unpack(first, widget.first)
    np.testing.assert_allclose(shown, result.pattern[first["layer"], first["head"]], atol=5e-4)
    thumbnails = decode(widget.atlas).reshape(2, 3, 15, 15)
    assert np.abs(thumbnails - result.pattern).max() <= 1 / 508 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "heads", "tokens", "causal"),
    [
        (12, 12, 512, True),
        (30, 9, 300, True),
        (12, 12, 1024, True),
        (6, 12, 690, False),
        (1, 1, 1, True),
        (48, 25, 64, True),
    ],
)
def test_no_message_is_above_the_limit(wire: Wire, layers: int, heads: int, tokens: int, causal: bool) -> None:
    one = made(1, 1, tokens, causal=causal).pattern
    pattern = np.broadcast_to(one, (layers, heads, tokens, tokens))
    stats = {"focus": np.ones((layers, heads), np.float32), "first_token": np.zeros((layers, heads), np.float32)}
    widget = AttentionWidget(made(layers, heads, tokens, causal=causal, pattern=pattern, stats=stats))
    sizes = wire.sizes()
    for method, params in (
        ("head", {}),
        ("tile", {"row": 0, "column": 0}),
        ("line", {"axis": "key", "index": tokens - 1}),
    ):
        answer, buffers = ask(widget, wire, method, layer=0, head=0, mode="pattern", **params)
        assert "reply" in answer
        assert buffers
        sizes += wire.sizes()
    ask(widget, wire, "atlas", mode="pattern")
    sizes += wire.sizes()
    assert max(sizes) < LIMIT
    side = widget.meta["side"]
    assert side == min(64, tokens, side)
    assert len(widget.atlas) == layers * heads * side**2
    # The atlas uses what it may: a side more would not fit, unless it is at its most.
    assert side in {64, tokens} or layers * heads * (side + 1) ** 2 > LIMIT - 110_000


@pytest.mark.parametrize(
    ("tokens", "causal"), [(1, True), (2, False), (15, True), (300, False), (512, True), (690, False)]
)
def test_a_head_arrives_as_it_is(wire: Wire, tokens: int, causal: bool) -> None:
    result = made((3, 7), (1, 4), tokens, causal=causal)
    widget = AttentionWidget(result)
    answer, (data,) = ask(widget, wire, "head", layer=7, head=4, mode="pattern")
    got = unpack(answer["reply"], data)
    exact = answer["reply"]["type"] == "f2"
    assert exact == (tokens < 600)
    error = np.abs(got - result.pattern[1, 1])
    assert error.max() <= (5e-4 if exact else 1 / 508 + 1e-6)
    line, (row,) = ask(widget, wire, "line", layer=7, head=4, mode="pattern", axis="query", index=tokens - 1)
    assert (np.frombuffer(row, "<f4") * np.float32(line["reply"]["scale"]) == result.pattern[1, 1, -1]).all()


def test_a_large_head_is_an_overview_with_exact_tiles(wire: Wire) -> None:
    result = made(1, 1, 1000)
    widget = AttentionWidget(result)
    answer, (data,) = ask(widget, wire, "head", layer=0, head=0, mode="pattern")
    overview = unpack(answer["reply"], data)
    assert overview.shape == (encode.OVERVIEW, encode.OVERVIEW)
    starts = [*encode.bins(1000, encode.OVERVIEW).tolist(), 1000]
    matrix = result.pattern[0, 0]
    for row, column in ((0, 0), (1, 0), (511, 0), (300, 299), (511, 511)):
        cell = matrix[starts[row] : starts[row + 1], starts[column] : starts[column + 1]]
        assert abs(overview[row, column] - cell.max()) <= 1 / 508 + 1e-6
    tile, (cells,) = ask(widget, wire, "tile", layer=0, head=0, mode="pattern", row=2, column=1)
    assert (tile["reply"]["rows"], tile["reply"]["columns"]) == (1000 - 2 * encode.TILE, encode.TILE)
    expected = matrix[2 * encode.TILE :, encode.TILE : 2 * encode.TILE]
    np.testing.assert_allclose(np.frombuffer(cells, "<f2").reshape(expected.shape), expected, atol=5e-4)


def test_bins_cover_every_token_once_and_the_first_alone() -> None:
    for tokens in (1, 2, 63, 64, 65, 100, 128, 511, 1024, 5000):
        for side in (1, 2, 55, 64):
            starts = encode.bins(tokens, side)
            assert len(starts) == min(tokens, side)
            assert (np.diff(starts) > 0).all()
            assert starts[0] == 0
            assert side < 2 or tokens < 2 or starts[1] == 1


def test_quantisation_is_off_by_half_a_step_at_most() -> None:
    values = np.random.default_rng(0).uniform(0, 7.5, 100_000).astype(np.float32)
    error = np.abs(encode.quantise(values, 7.5) / 254 * 7.5 - values)
    assert error.max() <= 7.5 / 508 * 1.0001
    assert error.max() > 7.5 / 600, "the bound is reached, so a coarser code would fail this test"


def test_pooling_keeps_the_largest_weight() -> None:
    matrix = np.zeros((1, 200, 200), np.float32)
    matrix[0, 150, 3] = 0.9
    small = encode.pool(matrix, 20)
    assert small.max() == np.float32(0.9)
    assert (small > 0).sum() == 1


def test_value_weighting_is_the_pattern_times_the_norms(wire: Wire) -> None:
    norms = np.random.default_rng(1).uniform(0.1, 9, (2, 2, 20)).astype(np.float32)
    asked: list[int] = []

    class WithNorms(type(made(1, 1, 1))):
        def value_norms(self) -> np.ndarray:
            asked.append(1)
            return norms

    plain = made(2, 2, 20)
    fields = ("tokens", "layers", "heads", "pattern", "stats")
    result = WithNorms(**{name: getattr(plain, name) for name in fields})
    widget = AttentionWidget(result)
    assert not asked, "norms are computed when they are asked for"
    answer, (data,) = ask(widget, wire, "head", layer=1, head=0, mode="weighted")
    expected = result.pattern[1, 0] * norms[1, 0][None, :]
    assert answer["reply"]["scale"] == pytest.approx(float(expected.max()))
    np.testing.assert_allclose(unpack(answer["reply"], data), expected, atol=float(expected.max()) * 5e-4)
    ask(widget, wire, "atlas", mode="weighted")
    assert asked == [1]


def test_a_refusal_of_the_model_is_the_line_that_is_shown(wire: Wire) -> None:
    widget = AttentionWidget(made(1, 1, 4))
    answer, _ = ask(widget, wire, "atlas", mode="weighted")
    assert answer["error"] == "value-weighted attention needs the model; run the cell again"


@pytest.mark.usefixtures("wire")
def test_unknown_keywords_fail() -> None:
    with pytest.raises(TypeError, match=r"no keyword 'atlass' \(did you mean atlas\?\)"):
        AttentionWidget(made(1, 1, 3), atlass=b"")
    with pytest.raises(TypeError, match="no keyword '_esm'"):
        AttentionWidget(made(1, 1, 3), _esm="x")


@pytest.mark.usefixtures("wire")
def test_sizes_that_do_not_agree_are_named() -> None:
    result = made(1, 1, 3)
    object.__setattr__(result, "layers", (0, 1))
    with pytest.raises(InputError, match="1 × 1 × 3 × 3, but layers × heads × tokens × tokens are 2 × 1 × 3 × 3"):
        AttentionWidget(result)


def test_hostile_tokens_travel_as_visible_text(wire: Wire) -> None:
    hostile = ("</script><script>x", "\u202eabc", "\0\x1b", "A" * 100_000)
    widget = AttentionWidget(made(1, 1, 4, strings=hostile, glyphs={0: "\u202e"}))
    assert widget.meta["tokens"][0] == "</script><script>x"
    assert "\u202e" not in str(widget.meta)
    assert "\\x00" not in repr(widget.meta)
    assert all(len(token) < 100 for token in widget.meta["tokens"])
    assert widget.meta["long"] == [3]
    full, _ = ask(widget, wire, "token", position=3)
    assert len(full["reply"]["text"]) == 100_000


@pytest.mark.usefixtures("wire")
def test_no_two_tokens_look_the_same() -> None:
    """A character in several tokens shows its bytes and itself; what shortening would make alike is numbered."""
    long = "A" * 500
    strings = ("\\xF0", "\\x9F", "\\xA4", "\\x97", " a", "\u00a0a", f"{long}b{long}", f"{long}c{long}")
    meta = AttentionWidget(made(1, 1, 8, strings=strings, glyphs=dict.fromkeys(range(4), "🤗"))).meta
    assert meta["tokens"][:4] == list(strings[:4])
    assert meta["glyphs"] == {"0": "🤗", "1": "🤗", "2": "🤗", "3": "🤗"}
    shown = [meta["axis"].get(str(n), token) for n, token in enumerate(meta["tokens"])]
    assert len(set(meta["tokens"])) == len(set(shown)) == len(strings)
    assert meta["long"] == [6, 7]


def test_broken_weights_are_named_and_the_rest_is_shown(wire: Wire) -> None:
    pattern = made(2, 2, 5).pattern.copy()
    pattern[1, 0, 3, 2] = np.nan
    result = made(2, 2, 5, pattern=pattern)
    widget = AttentionWidget(result)
    assert widget.meta["bad"] == [[1, 0]]
    answer, (data,) = ask(widget, wire, "head", layer=1, head=0, mode="pattern")
    assert np.isnan(unpack(answer["reply"], data)[3, 2])


@pytest.mark.parametrize("tokens", [690, 1000])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_broken_weights_stay_broken_where_they_are_rounded(wire: Wire, tokens: int, broken: float) -> None:
    pattern = made(1, 1, tokens, causal=False).pattern.copy()
    pattern[0, 0, 30, 2] = broken
    result = made(1, 1, tokens, causal=False, pattern=pattern)
    widget = AttentionWidget(result)
    answer, (data,) = ask(widget, wire, "head", layer=0, head=0, mode="pattern")
    assert answer["reply"]["type"] == "u1"
    got = unpack(answer["reply"], data)
    assert np.isnan(got).sum() == 1


def test_the_script_is_small_and_contacts_nothing() -> None:
    script, style = asset("attention.js"), asset("attention.css")
    assert len(script.encode()) < 34_000
    assert len(style.encode()) < 10_000
    addresses = (script + style).replace("http://www.w3.org/2000/svg", "")
    for word in (
        "http",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "innerHTML",
        "eval(",
        "importScripts",
        "@import",
        "url(",
    ):
        assert word not in addresses


@pytest.mark.parametrize("sheet", sorted(STATIC.glob("*.css")), ids=lambda path: path.name)
def test_a_style_sheet_touches_its_own_views_alone(sheet: Path) -> None:
    """A page has one sheet of styles for all: views of every kind, and the pictures of other results."""
    style = sheet.read_text()
    confined = f":where(.interp-{sheet.stem})"
    selectors = [one for group in re.findall(r"(?:^|(?<=[{}]))([^{}@]+)\{", style) for one in split(group)]
    assert len(selectors) > 50
    for selector in selectors:
        assert confined in selector, selector
        foreign = {name for name in re.findall(r"\.(-?[a-zA-Z_][\w-]*)", selector) if not name.startswith("interp-")}
        around = {"cell-output-ipywidget-background"}  # VS Code's white box, of no view but ours
        assert foreign <= {"vscode-dark", "vscode-light", "vscode-high-contrast"} | around, selector


def split(selectors: str) -> list[str]:
    """Return the selectors of a list: a comma inside parentheses is one selector's own."""
    parts = [""]
    for character in selectors:
        outside = parts[-1].count("(") == parts[-1].count(")")
        if character == "," and outside:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def test_the_saved_picture_is_the_static_one_of_what_is_shown(wire: Wire) -> None:
    norms = np.random.default_rng(1).uniform(0.1, 9, (2, 3, 9)).astype(np.float32)

    class WithNorms(type(made(1, 1, 1))):
        def value_norms(self) -> np.ndarray:
            return norms

    plain = made((4, 7), (0, 1, 5), 9)
    result = WithNorms(**{name: getattr(plain, name) for name in ("tokens", "layers", "heads", "pattern", "stats")})
    widget = AttentionWidget(result)
    asked = {"layer": 7, "head": 5, "token": 3}
    for theme in ("light", "dark"):
        answer, _ = ask(widget, wire, "picture", mode="pattern", theme=theme, **asked)
        assert answer["reply"]["svg"] == pictures.svg(result, theme, head=(1, 2), token=3)
    assert "L7H5" in answer["reply"]["svg"]
    answer, _ = ask(widget, wire, "picture", mode="weighted", theme="light", **asked)
    drawn = answer["reply"]["svg"]
    top = (result.pattern[1, 2] * norms[1, 2]).max()
    assert f"scale to {top:.3g}" in drawn
    edge = np.where(np.tri(9, k=-1).astype(bool), result.pattern[1, 2] * norms[1, 2], 0)[:, 1:].max()
    assert f">{edge:.3f}<" in drawn
    for wrong in ({"theme": "auto"}, {"token": 9}, {"layer": 0}):
        refused, _ = ask(widget, wire, "picture", **{"mode": "pattern", "theme": "light", **asked, **wrong})
        assert "error" in refused


@pytest.mark.usefixtures("wire")
def test_a_view_opens_on_a_head_that_looks_something_up() -> None:
    """Neither one that rests on the first token, nor on itself, nor on its neighbour, however sharp they are."""
    tokens = 12
    pattern = np.zeros((2, 2, tokens, tokens), np.float32)
    rows = np.arange(tokens)
    pattern[0, 0, rows, np.maximum(rows - 1, 0)] = 1
    pattern[0, 1, rows, rows] = 1
    pattern[1, 0, rows, 0] = 1
    pattern[1, 1, rows, np.maximum(rows - 4, 0)] = 0.6
    pattern[1, 1, rows, 0] += 0.4
    widget = AttentionWidget(made(2, 2, tokens, pattern=pattern))
    assert (widget.selection["layer"], widget.selection["head"]) == (1, 1)
    assert ">L1H1<" in made(2, 2, tokens, pattern=pattern).html(), "and so does its picture"


def test_a_closed_widget_is_freed(wire: Wire) -> None:
    result = made(2, 2, 30)
    widget = AttentionWidget(result)
    ask(widget, wire, "views", count=1)
    ask(widget, wire, "head", layer=0, head=0, mode="pattern")
    page = widget.comm
    held, shown = weakref.ref(widget), weakref.ref(result)
    # The page closes its end.
    page.handle_close({"content": {"data": {}}})
    del widget, result, page
    wire.clear()
    gc.collect()
    assert held() is None
    assert shown() is None


def test_a_result_on_screen_is_kept_and_one_off_screen_only_for_a_while(wire: Wire) -> None:
    result = made(1, 1, 8)
    widget = AttentionWidget(result)
    shown = weakref.ref(result)
    ask(widget, wire, "views", count=1)
    del result
    others = [AttentionWidget(made(1, 1, 3)) for _ in range(12)]
    gc.collect()
    assert shown() is not None
    assert "reply" in ask(widget, wire, "head", layer=0, head=0, mode="pattern")[0]
    ask(widget, wire, "views", count=0)
    others += [AttentionWidget(made(1, 1, 3)) for _ in range(12)]
    gc.collect()
    assert shown() is None
    assert widget.comm is None, "what nobody sees and nothing can answer for is closed"


def test_at_the_interpreters_end_nothing_is_closed(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = AttentionWidget(made(1, 1, 3))
    for _ in range(7):
        AttentionWidget(made(1, 1, 3))
    assert widget._weak_result() is not None
    monkeypatch.setattr("sys.is_finalizing", lambda: True)
    wire.clear()
    AttentionWidget(made(1, 1, 3))
    gc.collect()
    assert widget._weak_result() is None
    assert widget.comm is not None
    assert not [kind for kind, _, _ in wire.sent if kind == "comm_close"]


def test_a_thousand_cells_keep_a_handful_of_results(wire: Wire) -> None:
    alive = weakref.WeakSet[Any]()
    for _ in range(200):
        result = made(1, 1, 3)
        alive.add(result)
        AttentionWidget(result)
        wire.clear()
    del result
    gc.collect()
    assert len(alive) <= 8


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "x",
        7,
        {},
        {"id": None, "method": "head"},
        {"id": 5, "method": "head"},
        {"id": "", "method": "head"},
        {"id": "x" * 1000, "method": "head"},
        {"id": "1"},
        {"id": "1", "method": None},
        {"id": "1", "method": ["head"]},
        {"id": "1", "method": "__init__"},
        {"id": "1", "method": "head", "params": None},
        {"id": "1", "method": "head", "params": [0, 0]},
        {"id": "1", "method": "head", "params": {"layer": 0}},
        {"id": "1", "method": "head", "params": {"layer": 0, "head": 0, "mode": "pattern", "_esm": "x"}},
        {"id": "1", "method": "head", "params": {"layer": "0", "head": 0, "mode": "pattern"}},
        {"id": "1", "method": "head", "params": {"layer": True, "head": 0, "mode": "pattern"}},
        {"id": "1", "method": "head", "params": {"layer": -1, "head": 0, "mode": "pattern"}},
        {"id": "1", "method": "head", "params": {"layer": 99, "head": 0, "mode": "pattern"}},
        {"id": "1", "method": "head", "params": {"layer": 0, "head": 0, "mode": {}}},
        {"id": "1", "method": "tile", "params": {"layer": 0, "head": 0, "mode": "pattern", "row": 9, "column": 0}},
        {"id": "1", "method": "line", "params": {"layer": 0, "head": 0, "mode": "pattern", "axis": "x", "index": 0}},
        {"id": "1", "method": "select", "params": {"layer": 0, "_esm": "x"}},
        {"id": "1", "method": "select", "params": {"layer": 2.5}},
        {"id": "1", "method": "select", "params": {"query": 10**30}},
        {"id": "1", "method": "views", "params": {"count": -1}},
        {"id": "1", "method": "head", "params": {}, "extra": 1},
        {"id": "1", "method": "x" * 1_000_000},
        {"id": "1", "method": "head", "params": {"layer": "x" * 5_000_000, "head": 0, "mode": "pattern"}},
    ],
)
def test_a_malformed_message_is_answered_with_an_error(wire: Wire, content: Any) -> None:
    widget = AttentionWidget(made(2, 2, 6))
    before = widget.get_state()
    wire.clear()
    deliver(widget, content)
    ((answer, buffers),) = wire.customs()
    assert not buffers
    assert set(answer) == {"id", "error"}
    assert "\n" not in answer["error"]
    assert len(answer["error"]) < 400
    assert widget.get_state() == before
    assert "reply" in ask(widget, wire, "head", layer=0, head=0, mode="pattern")[0]


def test_buffers_from_the_page_are_refused(wire: Wire) -> None:
    widget = AttentionWidget(made(1, 1, 6))
    wire.clear()
    deliver(widget, {"id": "1", "method": "views", "params": {"count": 1}}, buffers=[bytes(50_000_000)])
    assert "error" in wire.customs()[0][0]


@pytest.mark.parametrize(
    "state", [{"_esm": "export default {}"}, {"layout": None}, {"meta": {}}, {"selection": {}}, {"x": 1}, None]
)
def test_the_page_cannot_set_state(wire: Wire, state: Any) -> None:
    widget = AttentionWidget(made(1, 1, 6))
    before = widget.get_state()
    wire.clear()
    widget.comm.handle_msg({"content": {"data": {"method": "update", "state": state}}, "buffers": []})
    assert widget.get_state() == before
    assert "error" in wire.customs()[0][0]
    for data in (None, [], {}, {"method": 5}):
        widget.comm.handle_msg({"content": {"data": data}, "buffers": []})
    assert "reply" in ask(widget, wire, "views", count=1)[0]
