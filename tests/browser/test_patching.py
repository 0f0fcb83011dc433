"""The patching heatmap in a notebook: watched, stopped, questioned, linked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator

from browser.attention import Viewer, contrasts, luminance
from browser.conftest import HOSTILE
from browser.lab import ROOT, Notebook, Server, serious, write

LOAD = f"""\
import sys, time
%load_ext interp
import interp
from interp.engine import memory
sys.path.append({str(ROOT / "tests")!r})
interp.load()
memory.WAVE_ROWS = 60  # many small steps
def slow(logits):
    time.sleep(0.02 * len(logits))
    return logits[:, 5] - logits[:, 6]"""
ATTENTION = "%%interp attention -o att\nAlice and Bob went to the store. Bob gave a book to"
SLOW = "%interp patch --task ioi --n 8 --metric slow -o slowly"
STOPPED = "%interp patch --task ioi --n 30 --metric slow -o partial"
QUICK = "%interp patch --task ioi --n 8 -o quick"
SILENT = "%interp patch --task ioi --n 2 --metric slow -o silent;"
STRANGE = f"""\
from dataclasses import replace
from interp.results import Provenance
from views.test_patching import sweep
strings = tuple({HOSTILE!r})
strange = sweep("position", (2, len(strings)), site="resid_pre", tokens=strings, task=strings[1], notes=(strings[0],))
replace(strange, provenance=Provenance(model=strings[1]))"""
SHAPES = "from views.test_patching import SHAPES\nSHAPES['{}']()"
SPANS = """\
%%interp patch --site resid_pre --by span -o spans
clean: When [Mary]{IO} and [John]{S1} went to the store, [John]{S2} gave a drink to
corrupted: When [Mr Alice Smith]{IO} and [John]{S1} went to the store, [John]{S2} gave a drink to
answer: Mary
wrong: John"""
CELLS = [
    LOAD,
    ATTENTION,
    SLOW,
    STOPPED,
    QUICK,
    SILENT,
    STRANGE,
    *(SHAPES.format(n) for n in ("positions", "layers")),
    SPANS,
]
BOX = re.compile(r"M([\d.]+) ([\d.]+)h")


class Heatmap:
    """The heatmap in the output of a cell."""

    def __init__(self, notebook: Notebook, cell: int) -> None:
        self.notebook = notebook
        self.cell = notebook.cell(cell)
        self.frame: Locator = self.cell.locator("section.interp-frame")
        self.frame.wait_for()
        self.plot = self.frame.locator(".interp-plot")
        self.drawing = self.plot.locator("svg")

    def said(self) -> str:
        return re.sub(r"\s+", " ", self.frame.locator(".interp-foot").inner_text())

    def count(self) -> str:
        return self.frame.locator(".interp-count").inner_text()

    def running(self) -> bool:
        return "*" in self.cell.locator(".jp-InputPrompt").inner_text()

    def colours(self, rows: int, columns: int) -> np.ndarray[Any, Any]:
        """Return the colour of each cell, ``[row, column, rgb]``; −1 where it is of no colour."""
        # Below the cells is the bar of colours, a group of its own.
        paths = self.drawing.evaluate(
            "e => [...e.querySelectorAll('g:first-of-type > path[fill^=rgb]')]"
            ".map(p => ['fill', 'd'].map(n => p.getAttribute(n)))"
        )
        found = np.full((rows, columns, 3), -1)
        wide, high = self.pitch(rows, columns)
        for fill, shape in paths:
            for x, y in BOX.findall(shape):
                found[round(float(y) / high), round(float(x) / wide)] = [int(part) for part in re.findall(r"\d+", fill)]
        return found

    def pitch(self, rows: int, columns: int) -> tuple[float, float]:
        box = self.drawing.locator("g > rect[fill=none]").first
        return float(box.get_attribute("width") or 0) / columns, float(box.get_attribute("height") or 0) / rows

    def middle(self, row: int, column: int, rows: int, columns: int) -> Any:
        """Return the middle of a cell, from the corner of the plot."""
        wide, high = self.pitch(rows, columns)
        left = float((self.drawing.locator("g").first.get_attribute("transform") or "").split("(")[1].split(" ")[0])
        return {"x": left + (column + 0.5) * wide, "y": (row + 0.5) * high}


@pytest.fixture(scope="module")
def sweeps(server: Server, chrome: Browser, front_end: str) -> Iterator[Notebook]:
    context = chrome.new_context(viewport={"width": 1500, "height": 1100}, service_workers="block")
    opened = Notebook(server, context, front_end, write(server, f"sweeps {front_end}.ipynb", CELLS))
    for source in (LOAD, ATTENTION, QUICK):
        opened.run(CELLS.index(source))
    yield opened
    opened.close()
    server.shut_down(opened.name)
    context.close()


@pytest.fixture
def quick(sweeps: Notebook) -> Heatmap:
    sweeps.page.mouse.move(2, 2)
    sweeps.kernel.run("interp.selection.clear()")
    found = Heatmap(sweeps, CELLS.index(QUICK))
    found.frame.scroll_into_view_if_needed()
    sweeps.until(lambda: "strongest of 16" in found.said(), "nothing is chosen")
    return found


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, sweeps: Notebook) -> Iterator[str]:
    sweeps.theme(request.param)
    yield request.param
    sweeps.theme("light")


def begin(notebook: Notebook, source: str) -> Heatmap:
    """Run a cell and return its view as soon as it is there."""
    index = CELLS.index(source)
    notebook.cell(index).locator(".jp-InputArea-editor").click(position={"x": 40, "y": 8})
    notebook.page.keyboard.press("Control+Enter")
    return Heatmap(notebook, index)


def test_a_sweep_is_seen_half_painted_and_then_whole(sweeps: Notebook) -> None:
    sweeps.kernel.run("interp.model.store.clear()")  # a quick one over the same pairs was asked for before
    heatmap = begin(sweeps, SLOW)
    # Cells of the page's own colour are done too: with a metric like this one none of them is nothing.
    sweeps.until(lambda: re.match(r"(\d+) of 16 cells · \d+\.\d s", heatmap.count()), "it says how far it is")
    sweeps.until(lambda: 0 < int(heatmap.count().split(" ")[0]) < 16, "it is half done")
    drawn = heatmap.colours(4, 4)
    assert heatmap.running()
    bar = heatmap.frame.locator(".interp-progress > div")
    early = float(bar.evaluate("e => parseFloat(e.style.width)"))
    assert 0 < early < 100
    empty = (drawn[-1] == drawn[-1, -1]).all()
    assert empty, "the last layer is not computed yet, and flat"
    assert len(np.unique(drawn[0], axis=0)) > 1, "the first is"
    sweeps.shot(heatmap.frame, f"{sweeps.front_end}-sweep-running")
    sweeps.until(lambda: not heatmap.running(), "the sweep ends")
    sweeps.until(lambda: not heatmap.frame.locator(".interp-count").is_visible(), "the view is that of the whole sweep")
    assert_painted(heatmap.colours(4, 4), sweeps.kernel.value("slowly.recovery.tolist()"))
    number = re.search(r"\d+", heatmap.cell.locator(".jp-InputPrompt").inner_text())
    assert number is not None
    assert sweeps.kernel.value(f"Out[{number.group()}] is slowly and bool(slowly.done.all())")
    assert heatmap.cell.locator(".interp-frame").count() == 2, "one view and its picture"
    assert heatmap.cell.locator(".interp-frame:visible").count() == 1, "of which one is shown"
    assert sweeps.kernel.value("slowly.widget.comm is not None and slowly.widget._views") == 1


def test_stop_keeps_what_is_finished(sweeps: Notebook) -> None:
    heatmap = begin(sweeps, STOPPED)
    sweeps.until(lambda: re.match(r"[1-9]\d* of 16 cells", heatmap.count()), "a part is done")
    assert heatmap.running()
    heatmap.frame.get_by_role("button", name="Stop").click()
    sweeps.until(lambda: not heatmap.running(), "it stops")
    sweeps.until(lambda: "stopped" in heatmap.count(), "the view says so")
    done = sweeps.kernel.value("int(partial.done.sum())")
    assert 0 < done < 16
    assert heatmap.count() == f"{done} of 16 cells · stopped"
    assert "interrupted after" in heatmap.frame.inner_text()
    assert "KeyboardInterrupt: " in heatmap.cell.inner_text()
    assert "Traceback" not in heatmap.cell.inner_text()
    assert heatmap.cell.locator(".interp-frame:visible").count() == 1
    assert heatmap.frame.get_by_role("button", name="Stop").count() == 0
    sweeps.shot(heatmap.frame, f"{sweeps.front_end}-sweep-stopped")
    # The next forward is that of before.
    assert sweeps.kernel.value("len(interp.model.user_hooks())") == 0


def test_silence_shows_no_view(sweeps: Notebook) -> None:
    index = CELLS.index(SILENT)
    sweeps.run(index)
    assert sweeps.kernel.value("bool(silent.done.all())")
    assert sweeps.cell(index).locator(".interp-frame").count() == 0


def assert_painted(colours: Any, values: Any) -> None:
    """Assert that cells have the colours of their values: red towards, blue against, stronger where they are larger."""
    values = np.array(values)
    red, blue = colours[..., 0].astype(int), colours[..., 2].astype(int)
    clear = np.abs(values) > 0.02 * np.abs(values).max()
    assert clear.sum() > 3
    assert ((red > blue) == (values > 0))[clear].all()
    for side in (values > 0, values < 0):
        order = np.argsort(np.abs(values[side & clear]))
        light = luminance(colours[side & clear][order])
        assert (np.diff(light) <= 1e-6).all(), "a larger value is not a stronger colour"


def test_the_cells_are_painted_as_the_data_says(quick: Heatmap, sweeps: Notebook) -> None:
    values = np.array(sweeps.kernel.value("quick.recovery.tolist()"))
    assert_painted(quick.colours(4, 4), values)
    with pytest.raises(AssertionError):
        assert_painted(quick.colours(4, 4), values.T)


def test_a_click_moves_python_and_an_open_attention_view(quick: Heatmap, sweeps: Notebook) -> None:
    viewer = Viewer(sweeps, CELLS.index(ATTENTION))
    for layer, head in ((2, 3), (0, 1)):
        quick.plot.click(position=quick.middle(layer, head, 4, 4))
        at = {"layer": layer, "head": head}
        sweeps.until(lambda at=at: at.items() <= sweeps.kernel.value("interp.selection.to_dict()").items(), "Python")
        sweeps.until(lambda at=at: viewer.shown() == [at["layer"], at["head"]], "the attention view follows")
        assert f"L{layer}H{head}" in quick.said()


def test_python_moves_the_view_and_the_list_goes_along(quick: Heatmap, sweeps: Notebook) -> None:
    name, _, recovery = sweeps.kernel.value("quick.top(1)[0]")
    layer, head = map(int, name.split("."))
    sweeps.kernel.run(f"interp.selection.set(layer={layer}, head={head})")
    chosen = quick.frame.locator("[role=option][aria-selected=true]")
    sweeps.until(lambda: chosen.count() == 1, "the list marks it")
    assert chosen.inner_text().split()[0] == f"L{layer}H{head}"
    assert f"recovery {recovery:+.3f}".replace("-", "−") in quick.said()
    ring = quick.plot.locator(".interp-ring:not(.interp-hover)").bounding_box()
    plot = quick.plot.bounding_box()
    assert ring is not None
    assert plot is not None
    middle = quick.middle(layer, head, 4, 4)
    assert abs(ring["x"] + ring["width"] / 2 - plot["x"] - middle["x"]) < 2
    assert abs(ring["y"] + ring["height"] / 2 - plot["y"] - middle["y"]) < 2


def test_the_line_below_says_the_exact_numbers(quick: Heatmap, sweeps: Notebook) -> None:
    quick.plot.hover(position=quick.middle(1, 2, 4, 4))
    low, high = sweeps.kernel.value("quick.interval[:, 1, 2].tolist()")
    effect = sweeps.kernel.value("float(quick.effect[1, 2])")
    sweeps.until(lambda: quick.said().startswith("L1H2"), "it speaks of what is under the pointer")
    numbers = [float(n.replace("−", "-")) for n in re.findall(r"[+−]\d+\.\d+", quick.said())]
    for value in (effect, low, high):
        assert min(abs(value - n) for n in numbers) < 6e-4, (value, quick.said())
    assert sweeps.kernel.value("interp.selection.layer") is None, "the pointer alone selects nothing"


def test_a_double_click_says_what_the_patched_model_says(quick: Heatmap, sweeps: Notebook) -> None:
    quick.plot.dblclick(position=quick.middle(2, 0, 4, 4))
    answer = quick.frame.locator(".interp-said")
    sweeps.until(lambda: "unpatched" in answer.inner_text(), "it is said")
    expected = sweeps.kernel.value("quick.likeliest((2, 0))")
    words = answer.inner_text().split()
    for token, before, after in expected:
        assert token.replace(" ", "␣") in words
        assert f"{before:.3f}" in words
        assert f"{after:.3f}" in words


def test_keys_move_the_cell_and_not_the_notebook(quick: Heatmap, sweeps: Notebook) -> None:
    active = "() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    quick.plot.click(position=quick.middle(1, 1, 4, 4))
    before = sweeps.page.evaluate(active)
    for key, name in (("ArrowRight", "L1H2"), ("ArrowDown", "L2H2"), ("Home", "L2H0"), ("End", "L2H3")):
        sweeps.page.keyboard.press(key)
        assert quick.said().startswith(name)
    sweeps.page.keyboard.press("Enter")
    sweeps.until(lambda: "L2H3 patched" in quick.frame.inner_text(), "Enter asks")
    sweeps.page.keyboard.press("Escape")
    sweeps.until(lambda: "strongest of" in quick.said(), "Escape lets go")
    assert sweeps.page.evaluate(active) == before


def test_axe_finds_nothing_serious(quick: Heatmap, sweeps: Notebook, theme: str) -> None:
    assert theme
    quick.plot.click(position=quick.middle(2, 0, 4, 4))
    quick.frame.get_by_text("Save", exact=False).first.click()
    wrong = serious(sweeps, quick.frame)
    quick.frame.get_by_text("Save", exact=False).first.click()
    assert not wrong, "\n".join(wrong)


def test_every_text_is_readable(quick: Heatmap, theme: str) -> None:
    found = contrasts(quick.frame)
    assert len(found) > 15
    assert not [text for text in found if text[0] < 4.5], theme


@pytest.mark.parametrize("width", [600, 1000, 1120])
@pytest.mark.parametrize("shape", ["positions", "layers"])
def test_it_fits_its_place_at_every_width(sweeps: Notebook, shape: str, width: int) -> None:
    index = CELLS.index(SHAPES.format(shape))
    if not sweeps.cell(index).locator("section.interp-frame").count():
        sweeps.run(index)
    frame = sweeps.cell(index).locator("section.interp-frame")
    frame.wait_for()
    size = sweeps.page.viewport_size
    assert size is not None
    try:
        for _ in range(3):  # the notebook's margins depend on its width
            now = frame.evaluate("e => e.offsetWidth")
            wide = sweeps.page.viewport_size
            assert wide is not None
            sweeps.page.set_viewport_size({**size, "width": wide["width"] + width - now})
            sweeps.page.wait_for_timeout(150)
        assert abs(frame.evaluate("e => e.offsetWidth") - width) < 40
        over = frame.evaluate(
            "f => [...f.querySelectorAll('*')].filter(e => e.checkVisibility()"
            " && e.getBoundingClientRect().right > f.getBoundingClientRect().right + 1).map(e => e.outerHTML)"
        )
        assert not over, "it reaches over its frame"
        sweeps.shot(frame, f"{sweeps.front_end}-{shape}-{width}")
    finally:
        sweeps.page.set_viewport_size(size)


def test_hostile_tokens_stay_text(sweeps: Notebook) -> None:
    sweeps.run(CELLS.index(STRANGE))
    strange = Heatmap(sweeps, CELLS.index(STRANGE))
    for at in range(len(HOSTILE)):
        strange.plot.click(position=strange.middle(1, at, 2, len(HOSTILE)))
    with sweeps.page.expect_download() as download:
        strange.frame.get_by_text("Save", exact=False).first.click()
        strange.frame.get_by_text("Drawing (SVG)").click()
    drawing = download.value.path().read_text()
    assert "<script" not in drawing
    assert "<img" not in drawing
    assert sweeps.page.evaluate("() => window.ran ?? null") is None
    made = "script, img, a, iframe, [onerror], [onload], [data-commandlinker-command]"
    assert strange.frame.locator(made).count() == 0
    said = strange.frame.evaluate("e => e.textContent")
    assert "<img" in said
    assert not set(said) & set("\u202e\x00\x1b"), "a character that is not seen"


def test_nothing_but_this_machine_is_contacted_and_no_message_is_large(sweeps: Notebook) -> None:
    assert sweeps.traffic.foreign() == []
    assert max(sweeps.traffic.received) < 500_000
    assert [error for error in sweeps.traffic.errors if "blob:" in error] == []


def test_spans_are_named_joined_and_asked(sweeps: Notebook) -> None:
    sweeps.run(CELLS.index(SPANS))
    heatmap = Heatmap(sweeps, CELLS.index(SPANS))
    heatmap.frame.scroll_into_view_if_needed()
    sweeps.until(lambda: "strongest of 16" in heatmap.said(), "nothing is chosen")
    drawn = heatmap.frame.locator(".interp-extras svg").first.text_content() or ""
    assert [name for name in ("IO", "S1", "S2", "END") if name in drawn] == ["IO", "S1", "S2", "END"]
    effect = float(sweeps.kernel.value("float(spans.recovery[2, 3])"))
    heatmap.drawing.click(position=heatmap.middle(2, 3, 4, 4))
    sweeps.until(lambda: heatmap.said().startswith("L2 END"), "the cell that was clicked is named by its span")
    assert f"{effect:+.3f}".replace("-", "−") in heatmap.said()
    heatmap.drawing.dblclick(position=heatmap.middle(1, 0, 4, 4))
    sweeps.until(lambda: "L1 IO patched: what the model says" in heatmap.frame.inner_text(), "it was asked")
    for width in (1500, 700):
        sweeps.page.set_viewport_size({"width": width, "height": 1100})
        sweeps.until(lambda: heatmap.frame.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), f"it fits {width}")
        sweeps.shot(heatmap.frame, f"spans {sweeps.front_end} {width}")
    sweeps.page.set_viewport_size({"width": 1500, "height": 1100})
