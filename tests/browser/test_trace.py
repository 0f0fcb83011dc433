"""The attribution graph in a notebook: thinned, walked through, questioned, changed in the model, grouped, linked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator

from browser.attention import Viewer, contrasts
from browser.conftest import HOSTILE, PROMPT
from browser.lab import ROOT, Notebook, Server, serious, write

LOAD = f"""\
import sys
%load_ext interp
import interp
sys.path.append({str(ROOT / "tests")!r})
interp.load()
interp.features_load("bundled")"""
ATTENTION = f"%%interp attention -o att\n{PROMPT}"
TRACE = f'%%interp trace --target " Mary" --against " John" -o g\n{PROMPT}'
CHECKED = "checked = g.validate(6)\nchecked"
LARGE = "from views.traces import random\nlarge = random(26, 60, 700, 2900)\nlarge"
STRANGE = f"""\
from dataclasses import replace
from interp.results import Provenance
from views.traces import planted
strings = tuple({HOSTILE!r})
strange = replace(planted(tokens=strings[:5]), labels={{"0.7": strings[1], "1.7": strings[5]}}, notes=(strings[0],))
strange.groups["<img src=x onerror='window.ran=9'>"] = ("embed@4", "0.error@4")
replace(strange, provenance=Provenance(model=strings[1]))"""
CELLS = [LOAD, ATTENTION, TRACE, CHECKED, LARGE, STRANGE]
_FRAMES = """() => {
  window.frames_ = [];
  let last = performance.now();
  const next = () => {
    const now = performance.now();
    window.frames_.push(now - last);
    last = now;
    window.ends_ = requestAnimationFrame(next);
  };
  window.ends_ = requestAnimationFrame(next);
}"""
# Sizes of all that is written, as it is seen.
_SIZES = """frame => [...frame.querySelectorAll("*:not(style)")]
  .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => [parseFloat(getComputedStyle(e).fontSize), e.textContent.slice(0, 30)])"""


class Graph:
    """The graph in the output of a cell; `name` is its result in the kernel."""

    def __init__(self, notebook: Notebook, source: str, name: str) -> None:
        self.notebook = notebook
        self.name = name
        self.frame: Locator = notebook.cell(CELLS.index(source)).locator("section.interp-frame")
        self.frame.wait_for()
        self.frame.scroll_into_view_if_needed()
        self.area = self.frame.locator(".interp-graph")
        self.sheet = self.frame.locator(".interp-sheet")
        self.slider = self.frame.locator(".interp-head input[type=range]")
        self.card = self.frame.locator(".interp-inspector")

    def said(self) -> str:
        return re.sub(r"\s+", " ", self.frame.locator(".interp-foot [role=status]").inner_text())

    def count(self) -> str:
        return self.frame.locator(".interp-count").first.inner_text()

    def value(self, code: str) -> Any:
        return self.notebook.kernel.value(code)

    def places(self) -> dict[str, tuple[float, float]]:
        """Return the middle of each node's mark on the sheet, in CSS pixels, as the kernel has sent it."""
        graph = self.value(f"{{**{self.name}.widget.graph, 'drawing': list({self.name}.widget.drawing)}}")
        nodes, edges = graph["counts"]
        whole = np.frombuffer(bytes(graph["drawing"]), "<u2", offset=12 * nodes + 8 * edges)[: 9 * nodes]
        return {
            name: (x / 8, y / 8) for name, (x, y, *_) in zip(graph["names"], whole.reshape(-1, 9).tolist(), strict=True)
        }

    def called(self, name: str) -> str:
        graph = self.value(f"{self.name}.widget.graph")
        return dict(zip(graph["names"], graph["called"], strict=True))[name]

    def click(self, name: str, **given: Any) -> None:
        x, y = self.places()[name]
        self.sheet.click(position={"x": x, "y": y}, **given)

    def show(self, value: int) -> None:
        self.slider.evaluate("(e, value) => { e.value = value; e.dispatchEvent(new Event('input')); }", value)


@pytest.fixture(scope="module")
def opened(server: Server, chrome: Browser, front_end: str) -> Iterator[Notebook]:
    context = chrome.new_context(viewport={"width": 1500, "height": 1100}, service_workers="block")
    notebook = Notebook(server, context, front_end, write(server, f"trace {front_end}.ipynb", CELLS))
    for source in (LOAD, ATTENTION, TRACE):
        notebook.run(CELLS.index(source))
    yield notebook
    notebook.close()
    server.shut_down(notebook.name)
    context.close()


@pytest.fixture
def graph(opened: Notebook) -> Graph:
    opened.page.mouse.move(2, 2)
    opened.kernel.run("interp.selection.clear(); g.groups.clear()")
    found = Graph(opened, TRACE, "g")
    for _ in range(3):  # an edge, a node, pins
        found.area.press("Escape")
    found.show(84)
    opened.until(lambda: "of the influence" in found.said(), "nothing is chosen")
    return found


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, opened: Notebook) -> Iterator[str]:
    opened.theme(request.param)
    yield request.param
    opened.theme("light")


def feature(graph: Graph, opened: Notebook) -> str:
    """Return the most influential feature that is drawn."""
    return opened.kernel.value(f"next(n for n, _ in {graph.name}.top(50) if n in {graph.name}.widget.graph['names'])")


def test_the_slider_hides_edges_and_moves_no_node(graph: Graph, opened: Notebook) -> None:
    places = graph.places()
    total = opened.kernel.value("len(g.weights)")
    most = int(graph.slider.get_attribute("max") or 0)
    graph.show(most)
    opened.until(lambda: graph.count().startswith(f"{total:,} of {total:,}"), "all are shown")
    marks = graph.sheet.locator(".interp-over").first.locator("path").count()
    graph.show(10)
    opened.until(lambda: not graph.count().startswith(f"{total:,} of"), "fewer are shown")
    shown = int(graph.count().split(" ")[0])
    share = opened.kernel.value(f"float(sum(sorted(g.edge_influences.tolist())[-{shown}:]) / g.edge_influences.sum())")
    said = int(re.search(r"(\d+) %", graph.said()).group(1))  # type: ignore[union-attr]
    assert said <= round(100 * share) + 1, "no edges have more of the influence than the most influential"
    assert graph.sheet.locator(".interp-over").first.locator("path").count() < marks
    assert graph.places() == places


def test_a_node_s_card_and_the_selection(graph: Graph, opened: Notebook) -> None:
    name = feature(graph, opened)
    graph.click(name)
    called = graph.called(name)
    opened.until(lambda: graph.said().startswith(called), "it is spoken of")
    words = graph.card.inner_text()
    number = f"g.number({name!r})"
    effect = opened.kernel.value(f"float(g.effects[{number}])")
    assert f"{effect:+.3f}".replace("-", "−") in words
    layer, position = opened.kernel.value(f"[int(g.node_layers[{number}]), int(g.node_positions[{number}])]")
    place = {"layer": layer, "position": position}
    opened.until(lambda: place.items() <= opened.kernel.value("interp.selection.to_dict()").items(), "Python follows")
    lit = graph.card.locator(".interp-fires .interp-w")
    opened.until(lambda: lit.count() == len(opened.kernel.value("g.tokens")), "where it fires")
    fires = opened.kernel.value(f"g.fires[{number}].tolist()")
    coloured = [bool(word.evaluate("e => e.style.background")) for word in lit.all()]
    assert coloured == [value > 0 for value in fires]
    opened.kernel.run("interp.selection.clear()")
    opened.until(lambda: "of the influence" in graph.said(), "nothing is chosen")
    opened.kernel.run(f"interp.selection.set(layer={layer}, position={position})")
    opened.until(lambda: f" at {graph.called(name).partition(' at ')[2]}" in graph.said(), "and the graph follows")


def test_what_a_changed_feature_does_is_measured(graph: Graph, opened: Notebook) -> None:
    name = feature(graph, opened)
    graph.click(name)
    slider = graph.card.locator(".interp-strength input")
    slider.wait_for()
    slider.focus()
    opened.page.keyboard.press("Home")
    strength = graph.card.locator(".interp-strength")
    opened.until(lambda: "measured" in strength.inner_text(), "the model has answered")
    (said, foretold, measured) = opened.kernel.value(f"list(g.moved({name!r}, -1)[0])")
    assert said.startswith("logit:")
    words = strength.inner_text()
    for value in (foretold, measured):
        assert f"{value:+.3f}".replace("-", "−") in words, words
    assert "taken away" in words


def test_an_edge_s_heads_and_an_open_attention_view(graph: Graph, opened: Notebook) -> None:
    row = graph.card.locator(".interp-strongest button").first
    between = row.inner_text()
    row.click()
    opened.until(lambda: "Together" in graph.card.inner_text(), "its heads")
    rows = [line.split("\n") for line in graph.card.locator(".interp-strongest > div").all_inner_texts()]
    values = [float(value.replace("−", "-")) for _, value in rows]
    weight = re.search(r"Together ([+−][\d.]+)", graph.card.inner_text()).group(1)  # type: ignore[union-attr]
    assert sum(values) == pytest.approx(float(weight.replace("−", "-")), abs=0.01)
    assert graph.said().startswith(between)
    heads = graph.card.locator(".interp-strongest button")
    if heads.count():
        viewer = Viewer(opened, CELLS.index(ATTENTION))
        layer, head = map(int, re.fullmatch(r"L(\d+)H(\d+)", heads.first.inner_text()).groups())  # type: ignore[union-attr]
        heads.first.click()
        opened.until(lambda: viewer.shown() == [layer, head], "the attention view shows that head")
        assert "Together" in graph.card.inner_text(), "the card stays"
    graph.area.press("Escape")
    opened.until(lambda: "Most influential edges" in graph.card.inner_text(), "Escape lets go")


def test_hovering_lights_what_a_node_touches(graph: Graph, opened: Notebook) -> None:
    base, over = graph.sheet.locator(".interp-over").first, graph.sheet.locator(".interp-over").last
    x, y = graph.places()[feature(graph, opened)]
    graph.sheet.hover(position={"x": x, "y": y})
    opened.until(lambda: over.locator("path").count() > 2, "it is lit")
    assert float(base.evaluate("e => getComputedStyle(e).opacity")) < 0.3
    assert opened.kernel.value("interp.selection.layer") is None, "the pointer alone selects nothing"
    opened.page.mouse.move(2, 2)
    opened.until(lambda: over.locator("path").count() == 0, "and then no longer")


def test_keys_walk_pin_and_mark_and_not_the_notebook(graph: Graph, opened: Notebook) -> None:
    active = "() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    graph.area.focus()
    cells = opened.page.locator(".jp-Notebook .jp-Cell").count()
    before = opened.page.evaluate(active)
    opened.page.keyboard.press("ArrowUp")
    first = graph.said()
    seen = {first}
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowDown"):
        opened.page.keyboard.press(key)
        seen.add(graph.said())
    assert len(seen) >= 3
    opened.page.keyboard.press("p")
    base = graph.sheet.locator(".interp-over").first
    opened.page.keyboard.press("Escape")
    opened.until(lambda: base.evaluate("e => e.classList.contains('interp-dim')"), "what is not pinned is dim")
    opened.shot(graph.frame, f"{opened.front_end}-trace-pinned")
    opened.kernel.run("interp.selection.clear()")
    graph.frame.locator(".interp-features button").first.click()
    graph.area.focus()
    opened.page.keyboard.press("g")
    graph.frame.get_by_text("Group ▾").click()
    assert "1 node marked" in graph.frame.locator(".interp-menu").first.inner_text()
    graph.frame.get_by_text("Group ▾").click()
    graph.area.focus()
    opened.page.keyboard.press("g")
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate("() => document.activeElement.classList.contains('interp-inspector')")
    assert opened.page.locator(".jp-Notebook .jp-Cell").count() == cells, "no key is a command to the notebook"
    assert opened.page.evaluate(active) == before


def test_groups_are_pythons_and_survive_save_and_load(graph: Graph, opened: Notebook) -> None:
    names = graph.places()
    pair = [name for name, _ in opened.kernel.value("[list(t) for t in g.top(20)]") if name in names][:2]
    for name in pair:
        graph.click(name, modifiers=["Shift"])
    graph.frame.get_by_text("Group ▾").click()
    field = graph.frame.get_by_label("Name of the new group")
    field.fill("the names")
    field.press("Enter")
    opened.until(lambda: opened.kernel.value("list(g.groups)") == ["the names"], "Python has it")
    assert set(opened.kernel.value("g.groups['the names']")) == set(pair)
    opened.until(lambda: "the names (2)" in graph.sheet.inner_text(), "one pill is drawn")
    now = graph.places()
    assert {name: now[name] for name in names} == names, "no node moved"
    assert set(opened.kernel.value("interp.load_graph(g.save('grouped.json')).groups['the names']")) == set(pair)
    graph.click("the names")
    opened.until(lambda: "the names (2)" in graph.card.inner_text(), "its card")
    opened.shot(graph.frame, f"{opened.front_end}-trace-group")
    graph.card.get_by_role("button", name="Unfold").click()
    opened.until(lambda: "the names (2)" not in graph.sheet.inner_text(), "its nodes are drawn again")
    opened.kernel.run("del g.groups['the names']")
    opened.page.keyboard.press("Escape")
    opened.kernel.run(f"g.groups['ours'] = {pair!r}")
    opened.until(lambda: "ours (2)" in graph.sheet.inner_text(), "a group of Python's")


def test_the_table_is_the_graph(graph: Graph, opened: Notebook) -> None:
    graph.frame.get_by_text("Edges as a table").click()
    rows = graph.frame.locator("tbody tr")
    opened.until(lambda: rows.count() > 0, "the table is there")
    strongest = opened.kernel.value("[float(e.weight) for e in g.edges[:1]][0]")
    assert rows.first.locator("td").all_inner_texts()[2] == f"{strongest:+.3f}".replace("-", "−")
    assert rows.count() == int(graph.count().split(" ")[0])
    graph.frame.get_by_text("Edges as a table").click()


def test_what_is_saved(graph: Graph, opened: Notebook) -> None:
    shown = int(graph.count().split(" ")[0])
    for entry, suffix in (("Drawing (SVG)", "svg"), ("Picture (PNG)", "png"), ("Data (JSON)", "json")):
        with opened.page.expect_download() as download:
            graph.frame.get_by_text("Save ▾").click()
            graph.frame.get_by_text(entry).click()
        assert download.value.suggested_filename == f"trace.{suffix}"
        content = download.value.path().read_bytes()
        if suffix == "png":
            assert content[:4] == b"\x89PNG"
            assert len(content) > 20_000
        elif suffix == "svg":
            drawn = f"__import__('interp.views.trace', fromlist=['svg']).svg(g, 'light', edges={shown})"
            assert content.decode() == opened.kernel.value(drawn)
        else:
            data = json.loads(content)
            assert len(data["edges"]) == shown
            assert {"source", "target", "weight", "influence"} == set(data["edges"][0])


def test_axe_finds_nothing_serious(graph: Graph, opened: Notebook, theme: str) -> None:
    assert theme
    graph.click(feature(graph, opened))
    opened.until(lambda: "Leads to" in graph.card.inner_text(), "the card is there")
    graph.frame.get_by_text("Edges as a table").click()
    graph.frame.get_by_text("Group ▾").click()
    wrong = serious(opened, graph.frame)
    graph.frame.get_by_text("Group ▾").click()
    graph.frame.get_by_text("Edges as a table").click()
    opened.shot(graph.frame, f"{opened.front_end}-trace-card-{theme}")
    assert not wrong, "\n".join(wrong)


def test_every_text_is_readable(graph: Graph, theme: str) -> None:
    found = contrasts(graph.frame)
    assert len(found) > 15
    assert not [text for text in found if text[0] < 4.5], theme
    small = [text for text in graph.frame.evaluate(_SIZES) if text[0] < 9]
    assert not small


@pytest.mark.parametrize("width", [500, 800, 1120])
def test_it_fits_its_place_at_every_width(graph: Graph, opened: Notebook, theme: str, width: int) -> None:
    size = opened.page.viewport_size
    assert size is not None
    try:
        for _ in range(3):  # the notebook's margins depend on its width
            now = graph.frame.evaluate("e => e.offsetWidth")
            wide = opened.page.viewport_size
            assert wide is not None
            opened.page.set_viewport_size({**size, "width": wide["width"] + width - now})
            opened.page.wait_for_timeout(150)
        assert abs(graph.frame.evaluate("e => e.offsetWidth") - width) < 60
        over = graph.frame.evaluate(
            "f => [...f.querySelectorAll('*')].filter(e => e.checkVisibility() && !e.closest('.interp-sheet')"
            " && e.getBoundingClientRect().right > f.getBoundingClientRect().right + 1).map(e => e.outerHTML)"
        )
        assert not over, "it reaches over its frame"
        opened.shot(graph.frame, f"{opened.front_end}-trace-{theme}-{width}")
    finally:
        opened.page.set_viewport_size(size)


def test_what_was_measured_is_shown_live(opened: Notebook) -> None:
    opened.run(CELLS.index(CHECKED))
    checked = Graph(opened, CHECKED, "checked")
    words = checked.frame.locator(".interp-measured").text_content() or ""
    assert "6 features taken away and doubled in the model" in words
    assert "Pearson" in words
    assert checked.frame.locator(".interp-measured svg path").count() > 4
    opened.shot(checked.frame, f"{opened.front_end}-trace-measured")


def test_a_large_graph_is_walked_through_without_a_stall(opened: Notebook) -> None:
    opened.run(CELLS.index(LARGE))
    large = Graph(opened, LARGE, "large")
    large.show(300)
    total = opened.kernel.value("large.widget.graph['counts'][1]")
    opened.until(lambda: large.count().startswith(f"{total:,} of {total:,}"), "all are shown")
    assert total > 1500
    box = large.area.bounding_box()
    assert box is not None
    opened.page.evaluate(_FRAMES)
    for n in range(150):
        across, down = 0.1 + 0.8 * ((7 * n) % 150) / 150, 0.05 + 0.9 * n / 150
        opened.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
    frames = np.array(opened.page.evaluate("() => { cancelAnimationFrame(ends_); return frames_; }"))
    print(
        f"{len(frames)} frames, median {np.median(frames):.1f} ms, 95th percentile {np.quantile(frames, 0.95):.1f} ms"
    )
    assert len(frames) > 20, "it stands still"
    large.area.press("ArrowDown")
    for _ in range(30):
        large.area.press("ArrowLeft")
    x, y = large.places()[opened.kernel.value("large.widget.graph['names']")[0]]
    assert x > 0
    assert y > 0
    inside = (
        large.sheet.locator(".interp-over")
        .last.locator("path")
        .last.evaluate(
            "(e, area) => { const [a, b] = [e.getBoundingClientRect(), area.getBoundingClientRect()];"
            " return a.left >= b.left - 1 && a.right <= b.right + 1 && a.top > b.top - 1 && a.bottom < b.bottom + 1; }",
            large.area.element_handle(),
        )
    )
    assert inside, "what is chosen is in sight"
    opened.shot(large.frame, f"{opened.front_end}-trace-large")


def test_hostile_words_stay_text(opened: Notebook) -> None:
    opened.run(CELLS.index(STRANGE))
    strange = Graph(opened, STRANGE, "strange")
    strange.area.press("ArrowUp")
    strange.area.press("ArrowDown")
    strange.frame.get_by_text("Group ▾").click()
    strange.frame.get_by_text("Edges as a table").click()
    with opened.page.expect_download() as download:
        strange.frame.get_by_text("Save ▾").click()
        strange.frame.get_by_text("Drawing (SVG)").click()
    drawing = download.value.path().read_text()
    assert "<script" not in drawing
    assert "<img" not in drawing
    assert opened.page.evaluate("() => window.ran ?? null") is None
    made = "script, img, a, iframe, [onerror], [onload], [data-commandlinker-command]"
    assert strange.frame.locator(made).count() == 0
    said = strange.frame.evaluate("e => e.textContent")
    assert "<img" in said
    assert not set(said) & set("\u202e\x00\x1b"), "a character that is not seen"


def test_nothing_but_this_machine_is_contacted_and_no_message_is_large(opened: Notebook) -> None:
    assert opened.traffic.foreign() == []
    assert max(opened.traffic.received) < 500_000
    assert [error for error in opened.traffic.errors if "blob:" in error] == []
