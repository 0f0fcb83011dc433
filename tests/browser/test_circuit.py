"""The circuit graph in a notebook: thinned, walked through, questioned, grouped, linked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator

from browser.attention import Viewer, contrasts
from browser.conftest import HOSTILE
from browser.lab import ROOT, Notebook, Server, serious, write

LOAD = f"""\
import sys
%load_ext interp
import interp
sys.path.append({str(ROOT / "tests")!r})
interp.load()"""
ATTENTION = "%%interp attention -o att\nAlice and Bob went to the store. Bob gave a book to"
CIRCUIT = "%interp circuit --task induction --n 4 --edges 60 -o c"
LARGE = "from views.circuits import random\nlarge = random(30, 22, 3000)\nlarge"
STRANGE = f"""\
from dataclasses import replace
from interp.results import Provenance
from views.circuits import SMALL, planted
strings = tuple({HOSTILE!r})
labels = {{"2.1": strings[1], "1.0": strings[5]}}
strange = planted(SMALL, task=strings[1], notes=(strings[0], strings[6]), labels=labels)
strange.groups["<img src=x onerror='window.ran=9'>"] = ("1.0", "4.2")
replace(strange, provenance=Provenance(model=strings[1]))"""
PATCH = "%interp patch --task ioi --n 2 -o patched"
CELLS = [LOAD, ATTENTION, CIRCUIT, LARGE, STRANGE, PATCH]
_INK = """(canvas, points) => {
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const ratio = canvas.width / canvas.clientWidth;
  return points.map(([x, y]) => data[4 * (Math.round(y * ratio) * width + Math.round(x * ratio)) + 3]);
}"""
_PAINTED = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 3; i < data.length; i += 4) if (data[i]) count++;
  return count;
}"""
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


class Graph:
    """The graph in the output of a cell; `name` is its result in the kernel."""

    def __init__(self, notebook: Notebook, source: str, name: str) -> None:
        self.notebook = notebook
        self.name = name
        self.frame: Locator = notebook.cell(CELLS.index(source)).locator("section.interp-frame")
        self.frame.wait_for()
        self.frame.scroll_into_view_if_needed()
        self.plot = self.frame.locator(".interp-plot")
        self.edges, self.pills = (self.plot.locator("canvas").nth(n) for n in (1, 2))
        self.slider = self.frame.locator("input[type=range]")
        self.inspector = self.frame.locator(".interp-inspector")

    def said(self) -> str:
        return re.sub(r"\s+", " ", self.frame.locator(".interp-foot [role=status]").inner_text())

    def count(self) -> str:
        return self.frame.locator(".interp-count").inner_text()

    def places(self) -> dict[str, Any]:
        """Return the middle of each node's pill in the plot, in CSS pixels, as the kernel has sent it."""
        code = f"{{**{self.name}.widget.graph, 'drawing': list({self.name}.widget.drawing)}}"
        graph = self.notebook.kernel.value(code)
        nodes, edges, _ = graph["counts"]
        numbers = np.frombuffer(bytes(graph["drawing"]), "<u2", offset=4 * edges)[: 3 * nodes].reshape(-1, 3) / 8
        wide, high = graph["size"]
        width, height = self.plot.evaluate("e => [e.clientWidth, e.clientHeight]")
        scale = min(1.25, width / wide, 720 / high)
        left, top = (width - wide * scale) / 2, (height - high * scale) / 2
        return {
            name: {"x": left + x * scale, "y": top + y * scale}
            for name, (x, y, _) in zip(graph["nodes"], numbers.tolist(), strict=True)
        }

    def there(self, places: dict[str, Any]) -> set[str]:
        """Return the nodes whose pills are painted in their places."""
        points = [[at["x"], at["y"]] for at in places.values()]
        return {name for name, ink in zip(places, self.pills.evaluate(_INK, points), strict=True) if ink == 255}

    def show(self, value: int) -> None:
        self.slider.evaluate("(e, value) => { e.value = value; e.dispatchEvent(new Event('input')); }", value)


@pytest.fixture(scope="module")
def opened(server: Server, chrome: Browser, front_end: str) -> Iterator[Notebook]:
    context = chrome.new_context(viewport={"width": 1500, "height": 1100}, service_workers="block")
    notebook = Notebook(server, context, front_end, write(server, f"circuit {front_end}.ipynb", CELLS))
    for source in (LOAD, ATTENTION, CIRCUIT):
        notebook.run(CELLS.index(source))
    yield notebook
    notebook.close()
    server.shut_down(notebook.name)
    context.close()


@pytest.fixture
def graph(opened: Notebook) -> Graph:
    opened.page.mouse.move(2, 2)
    opened.kernel.run("interp.selection.clear(); c.groups.clear()")
    found = Graph(opened, CIRCUIT, "c")
    found.plot.press("Escape")
    found.plot.press("0")
    found.show(int(found.slider.get_attribute("max") or 0))
    opened.until(lambda: "each ±" in found.said(), "nothing is chosen")
    return found


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, opened: Notebook) -> Iterator[str]:
    opened.theme(request.param)
    yield request.param
    opened.theme("light")


def test_the_slider_hides_edges_and_moves_no_node(graph: Graph, opened: Notebook) -> None:
    places = graph.places()
    assert graph.there(places) == set(opened.kernel.value("c.nodes"))
    painted = graph.edges.evaluate(_PAINTED)
    total = opened.kernel.value("int(c.kept.sum())")
    assert graph.count() == f"{total} of {total}"
    graph.show(12)
    opened.until(lambda: graph.count() != f"{total} of {total}", "fewer are shown")
    shown = int(graph.count().split(" ")[0])
    assert 12 <= shown < total
    # What is left is the circuit of that threshold, where it was.
    least = float(re.search(r"±([\d.]+)", graph.said()).group(1))  # type: ignore[union-attr]
    left = set(opened.kernel.value(f"c.prune({least} - 5e-4).nodes"))
    assert graph.there(places) == left < set(places)
    assert graph.places() == places
    assert graph.edges.evaluate(_PAINTED) < 0.8 * painted
    for name in left:
        graph.plot.hover(position=places[name])
        called = re.sub(r"^(\d+)\.(\d+)$", r"L\1H\2", re.sub(r"^(\d+)\.mlp$", r"MLP \1", name))
        opened.until(lambda called=called: graph.said().startswith(called), f"it speaks of {name}")


def test_a_click_moves_python_and_an_open_attention_view(graph: Graph, opened: Notebook) -> None:
    viewer = Viewer(opened, CELLS.index(ATTENTION))
    places = graph.places()
    heads = opened.kernel.value("c.heads")
    for name in (heads[0], heads[-1]):
        graph.plot.click(position=places[name])
        at = dict(zip(("layer", "head"), map(int, name.split(".")), strict=True))
        opened.until(lambda at=at: at.items() <= opened.kernel.value("interp.selection.to_dict()").items(), "Python")
        opened.until(lambda at=at: viewer.shown() == [at["layer"], at["head"]], "the attention view follows")
        assert graph.said().startswith("L{layer}H{head}".format(**at))
    viewer.thumbnails.click(position=viewer.head_at(*map(int, heads[0].split("."))))
    opened.until(lambda: graph.said().startswith("L{}H{}".format(*heads[0].split("."))), "the graph follows")
    opened.kernel.run("interp.selection.clear()")
    opened.until(lambda: "each ±" in graph.said(), "nothing is chosen")


def test_a_click_moves_an_open_heatmap_and_an_open_attention_view(graph: Graph, opened: Notebook) -> None:
    opened.run(CELLS.index(PATCH))
    heatmap = opened.cell(CELLS.index(PATCH)).locator("section.interp-frame")
    heatmap.locator(".interp-plot svg").wait_for()
    ring = heatmap.locator(".interp-plot .interp-ring:not(.interp-hover)")
    viewer = Viewer(opened, CELLS.index(ATTENTION))
    assert not ring.is_visible(), "nothing is chosen yet"
    graph.frame.scroll_into_view_if_needed()
    said = heatmap.locator(".interp-foot")
    heads = opened.kernel.value("c.heads")
    seen: list[tuple[float, float]] = []
    for name in (heads[0], heads[-1]):
        graph.plot.click(position=graph.places()[name])
        layer, head = map(int, name.split("."))
        opened.until(lambda at=f"L{layer}H{head}": said.inner_text().startswith(at), "the heatmap speaks of it")
        opened.until(lambda at=[layer, head]: viewer.shown() == at, "the attention view shows it")
        effect = opened.kernel.value(f"float(patched.effect[{layer}, {head}])")
        assert f"effect {effect:+.3f}".replace("-", "−") in re.sub(r"\s+", " ", said.inner_text())
        box = ring.bounding_box()
        assert box is not None, "its cell is ringed"
        seen.append((box["x"], box["y"]))
        marked = heatmap.locator("[role=option][aria-selected=true]")
        assert marked.count() <= 1
        if marked.count():
            assert marked.inner_text().split()[0] == f"L{layer}H{head}"
    assert seen[0] != seen[1], "another cell for another head"
    graph.plot.press("Escape")
    opened.until(lambda: not ring.is_visible(), "the heatmap lets go as well")


def test_the_card_says_what_a_head_does(graph: Graph, opened: Notebook) -> None:
    name = opened.kernel.value("max(c.heads, key=lambda h: abs(sum(e.score for e in c.edges if e.writer == h)))")
    graph.plot.click(position=graph.places()[name])
    opened.until(lambda: "Promotes" in graph.inspector.inner_text(), "the kernel has said it")
    words = graph.inspector.inner_text()
    promotes = opened.kernel.value(f"c.functions[{name!r}].promotes")
    for token, value in promotes:
        assert token.replace(" ", "␣") in words
        assert f"{value:+.3f}".replace("-", "−") in words
    assert "Copying score" in words
    thumbnail = graph.inspector.locator("canvas")
    opened.until(lambda: thumbnail.is_visible(), "whom it looks at")
    pattern = np.array(opened.kernel.value(f"c.pattern_of({name!r}).tolist()"))
    side = thumbnail.evaluate("e => e.width")
    assert side == len(pattern)
    colours = thumbnail.evaluate("e => [...e.getContext('2d').getImageData(0, 0, e.width, e.width).data]")
    dark = -np.array(colours).reshape(side, side, 4)[..., :3].sum(-1)
    past = np.tri(side, dtype=bool)
    assert np.corrcoef(dark[past], pattern[past] ** 0.6)[0, 1] > 0.9, "the thumbnail is not the pattern"
    reads = opened.kernel.value(f"[e.score for e in c.edges if {name!r} in c.reading(e.reader)][0]")
    assert f"{reads:+.3f}".replace("-", "−") in words


def test_hovering_lights_the_ways_through_a_node(graph: Graph, opened: Notebook) -> None:
    lit = graph.plot.locator("canvas").nth(3)
    assert lit.evaluate(_PAINTED) == 0
    place = graph.places()[opened.kernel.value("c.heads[-1]")]
    graph.plot.hover(position=place)
    opened.until(lambda: lit.evaluate(_PAINTED) > 100, "the ways are lit")
    assert float(graph.edges.evaluate("e => getComputedStyle(e).opacity")) < 0.3
    assert opened.kernel.value("interp.selection.layer") is None, "the pointer alone selects nothing"
    opened.page.mouse.move(2, 2)
    opened.until(lambda: lit.evaluate(_PAINTED) == 0, "and then no longer")


def test_keys_walk_through_the_nodes_and_not_the_notebook(graph: Graph, opened: Notebook) -> None:
    active = "() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    graph.plot.click(position=graph.places()["logits"])
    before = opened.page.evaluate(active)
    assert graph.said().startswith("logits")
    seen = ["logits"]
    while seen[-1] != "embed" and len(seen) < 20:
        opened.page.keyboard.press("ArrowDown")
        seen.append(graph.said().split(" reads")[0].split(" writes")[0])
    assert seen[-1] == "embed"
    assert len(seen) >= 4
    opened.page.keyboard.press("ArrowUp")
    assert not graph.said().startswith("embed")
    opened.page.keyboard.press("Escape")
    opened.until(lambda: "each ±" in graph.said(), "Escape lets go")
    graph.slider.focus()
    value = graph.slider.input_value()
    opened.page.keyboard.press("ArrowLeft")
    assert graph.slider.input_value() != value
    assert opened.page.evaluate(active) == before


def test_zoom_and_pan(graph: Graph, opened: Notebook) -> None:
    places = graph.places()
    at = places["embed"]
    graph.plot.click(position={"x": 4, "y": 4})
    opened.page.keyboard.press("+")
    opened.until(lambda: "embed" not in graph.there({"embed": at}), "it is elsewhere")
    opened.page.keyboard.press("0")
    opened.until(lambda: graph.there(places) == set(places), "all are back")
    box = graph.plot.bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + 5, box["y"] + 30)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 25, box["y"] + 10, steps=4)
    opened.page.wait_for_timeout(100)
    opened.page.mouse.up()
    moved = {"embed": {"x": at["x"] + 20, "y": at["y"] - 20}}
    opened.until(lambda: graph.there(moved) == {"embed"}, "it went along")
    assert "each ±" in graph.said(), "a drag chooses nothing"
    opened.page.keyboard.press("0")
    top = opened.page.evaluate("() => document.activeElement.closest('.jp-Notebook') !== null")
    assert top


def test_groups_are_pythons_and_survive_save_and_load(graph: Graph, opened: Notebook) -> None:
    places = graph.places()
    pair = opened.kernel.value("c.heads[:2]")
    for name in pair:
        graph.plot.click(position=places[name], modifiers=["Shift"])
    graph.frame.get_by_text("Group ▾").click()
    field = graph.frame.get_by_label("Name of the new group")
    field.fill("early heads")
    field.press("Enter")
    opened.until(lambda: opened.kernel.value("list(c.groups)") == ["early heads"], "Python has it")
    assert opened.kernel.value("c.groups['early heads']") == pair
    opened.until(lambda: not graph.there(places) & set(pair) or "early heads" in graph.places(), "one pill is drawn")
    now = graph.places()
    assert {name: now[name] for name in places} == places, "no node moved"
    code = "interp.load_circuit(c.save('grouped.json')).groups"
    assert opened.kernel.value(f"dict({code})") == {"early heads": pair}
    name = graph.frame.get_by_label("Name of early heads")
    name.fill("the first")
    name.press("Enter")
    opened.until(lambda: opened.kernel.value("list(c.groups)") == ["the first"], "renamed")
    graph.frame.get_by_label("Name of the first").wait_for()
    graph.frame.get_by_role("button", name="Unfold").click()
    opened.until(lambda: set(pair) <= graph.there(places), "its nodes are drawn again")
    graph.frame.get_by_role("button", name="Ungroup").click()
    opened.until(lambda: opened.kernel.value("len(c.groups)") == 0, "gone")
    opened.page.keyboard.press("Escape")
    # And from Python to the page; what is loaded shows it as well.
    opened.kernel.run(f"c.groups['ours'] = {pair!r}; again = interp.load_circuit(c.save('grouped.json'))")
    opened.until(lambda: "ours" in graph.places(), "a group of Python's")
    assert opened.kernel.value("again.widget.groups") == {"ours": {"nodes": pair, "folded": True}}


def test_the_table_is_the_circuit(graph: Graph, opened: Notebook) -> None:
    graph.frame.get_by_text("Edges as a table").click()
    rows = graph.frame.locator("tbody tr")
    opened.until(lambda: rows.count() > 0, "the table is there")
    expected = opened.kernel.value("[list(e) for e in c.edges]")
    assert rows.count() == len(expected)
    first = rows.first.locator("td").all_inner_texts()
    assert first[:2] == expected[0][:2]
    assert first[2] == f"{expected[0][2]:+.3f}".replace("-", "−")
    press = graph.frame.get_by_role("button", name=re.compile("^score"))
    press.click()
    opened.until(lambda: rows.first.locator("td").all_inner_texts()[:2] == expected[-1][:2], "the weakest first")
    graph.frame.get_by_text("Edges as a table").click()


def test_what_is_saved(graph: Graph, opened: Notebook) -> None:
    shown, total = (int(count) for count in graph.frame.locator(".interp-count").inner_text().split(" of "))
    assert 0 < shown <= total == opened.kernel.value("int(c.kept.sum())")
    for entry, suffix in (("Drawing (SVG)", "svg"), ("Picture (PNG)", "png"), ("Data (JSON)", "json")):
        with opened.page.expect_download() as download:
            graph.frame.get_by_text("Save ▾").click()
            graph.frame.get_by_text(entry).click()
        assert download.value.suggested_filename == f"circuit.{suffix}"
        content = download.value.path().read_bytes()
        if suffix == "png":
            assert content[:4] == b"\x89PNG"
            assert len(content) > 20_000
        elif suffix == "svg":
            drawn = f"__import__('interp.views.circuit', fromlist=['svg']).svg(c, 'light', edges={shown})"
            assert content.decode() == opened.kernel.value(drawn)
        else:
            data = json.loads(content)
            assert len(data["edges"]) == shown
            assert {"writer", "reader", "score"} == set(data["edges"][0])


def test_axe_finds_nothing_serious(graph: Graph, opened: Notebook, theme: str) -> None:
    assert theme
    graph.plot.click(position=graph.places()[opened.kernel.value("c.heads[0]")])
    opened.until(lambda: "Promotes" in graph.inspector.inner_text(), "the inspector is there")
    graph.frame.get_by_text("Edges as a table").click()
    graph.frame.get_by_text("Group ▾").click()
    wrong = serious(opened, graph.frame)
    graph.frame.get_by_text("Group ▾").click()
    graph.frame.get_by_text("Edges as a table").click()
    assert not wrong, "\n".join(wrong)


def test_every_text_is_readable(graph: Graph, theme: str) -> None:
    found = contrasts(graph.frame)
    assert len(found) > 15
    assert not [text for text in found if text[0] < 4.5], theme


@pytest.mark.parametrize("width", [600, 1000, 1120])
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
        assert abs(graph.frame.evaluate("e => e.offsetWidth") - width) < 40
        over = graph.frame.evaluate(
            "f => [...f.querySelectorAll('*')].filter(e => e.checkVisibility()"
            " && e.getBoundingClientRect().right > f.getBoundingClientRect().right + 1).map(e => e.outerHTML)"
        )
        assert not over, "it reaches over its frame"
        opened.shot(graph.frame, f"{opened.front_end}-circuit-{theme}-{width}")
    finally:
        opened.page.set_viewport_size(size)


def test_a_large_circuit_is_walked_through_without_a_stall(opened: Notebook) -> None:
    opened.run(CELLS.index(LARGE))
    large = Graph(opened, LARGE, "large")
    large.show(300)
    total = opened.kernel.value("int(large.kept.sum())")
    opened.until(lambda: large.count() == f"{total:,} of {total:,}", "all are shown")
    assert total > 2500
    box = large.plot.bounding_box()
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
    opened.shot(large.frame, f"{opened.front_end}-circuit-large")


def test_hostile_words_stay_text(opened: Notebook) -> None:
    opened.run(CELLS.index(STRANGE))
    strange = Graph(opened, STRANGE, "strange")
    strange.plot.press("ArrowUp")
    strange.plot.press("ArrowUp")
    strange.frame.get_by_text("Group ▾").click()
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
