"""A feature's dashboard in a notebook: its tenths, its tokens, its bars, and the model steered from there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator

from browser.attention import contrasts
from browser.conftest import HOSTILE
from browser.lab import ROOT, Notebook, Server, serious, write

LOAD = f"""\
import sys
%load_ext interp
import interp
sys.path.append({str(ROOT / "tests")!r})
interp.load()
interp.features_load("bundled")
names, things = ["Mary", "John", "Anna", "Tom", "Lucy"], ["drink", "ball", "book"]
texts = [
    f"When {{a}} and {{b}} went to the store, {{a}} gave a {{c}} to {{b}}. The cat sat on the mat."
    for a in names for b in names for c in things if a != b
]"""
FEATURE = "f = interp.feature('2.417', texts)\nf"
SLEEP = "import time; time.sleep(6)"
STRANGE = f"""\
from dataclasses import replace
from interp.results import Provenance
from views.features import planted
strings = tuple({HOSTILE!r})
strange = planted(tokens=strings, label=strings[1], source=strings[1], notes=(strings[0],))
strange = replace(strange, provenance=Provenance(model=strings[1]))
strange"""
CELLS = [LOAD, FEATURE, SLEEP, STRANGE]


class Dashboard:
    """The dashboard in the output of a cell; `name` is its result in the kernel."""

    def __init__(self, notebook: Notebook, source: str, name: str) -> None:
        self.notebook = notebook
        self.name = name
        self.frame: Locator = notebook.cell(CELLS.index(source)).locator("section.interp-frame")
        self.frame.wait_for()
        self.frame.scroll_into_view_if_needed()
        self.list = self.frame.get_by_role("listbox")
        self.bars = self.frame.get_by_role("slider", name="histogram")
        self.prompt = self.frame.get_by_label("text to go on with")
        self.strength = self.frame.get_by_role("slider", name="strength")
        self.answer = self.frame.locator(".interp-answer")

    def said(self) -> str:
        return re.sub(r"\s+", " ", self.frame.locator(".interp-foot [role=status]").inner_text())

    def tenth(self, name: str) -> None:
        self.frame.locator(".interp-segmented").get_by_text(name, exact=True).click()

    def activations(self) -> list[str]:
        return self.frame.locator(".interp-row .interp-v").all_inner_texts()

    def value(self, code: str) -> Any:
        return self.notebook.kernel.value(code)


@pytest.fixture(scope="module")
def opened(server: Server, chrome: Browser, front_end: str) -> Iterator[Notebook]:
    context = chrome.new_context(viewport={"width": 1500, "height": 1100}, service_workers="block")
    notebook = Notebook(server, context, front_end, write(server, f"feature {front_end}.ipynb", CELLS))
    for source in (LOAD, FEATURE):
        notebook.run(CELLS.index(source))
    yield notebook
    notebook.close()
    server.shut_down(notebook.name)
    context.close()


@pytest.fixture
def board(opened: Notebook) -> Dashboard:
    opened.page.mouse.move(2, 2)
    found = Dashboard(opened, FEATURE, "f")
    found.list.press("Escape")
    found.bars.press("Escape")
    opened.until(lambda: found.said().startswith("strongest: "), "nothing is held")
    return found


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, opened: Notebook) -> Iterator[str]:
    opened.theme(request.param)
    yield request.param
    opened.theme("light")


def test_it_shows_what_the_result_holds(board: Dashboard, opened: Notebook) -> None:
    top = opened.kernel.value("[f'{one.activation:.3g}' for one in f.exemplars if one.decile == 10][:9]")
    assert board.activations()[: len(top)] == top
    words = board.frame.inner_text()
    assert f"active at {board.value('f.density'):.2%} of tokens ({board.value('f.fired'):,})" in words
    drawn = board.frame.locator(".interp-drawn svg").all_text_contents()
    assert len(drawn) == 7
    names = board.value("[f.promoted[0][0], f.heads[0][0], f.near[0][0], f.together[0][0]]")
    assert all(any(name.replace(" ", "␣") in text for text in drawn) for name in names)
    opened.shot(board.frame, f"{opened.front_end}-feature")


def test_a_tenth_s_places(board: Dashboard, opened: Notebook) -> None:
    high = board.frame.evaluate("e => e.offsetHeight")
    board.tenth("4")
    expected = board.value("[f'{one.activation:.3g}' for one in f.exemplars if one.decile == 4]")
    assert expected
    assert board.activations() == expected
    assert board.frame.evaluate("e => e.offsetHeight") == high, "nothing below has moved"
    board.tenth("all")
    assert len(board.activations()) > len(expected)
    assert opened.kernel.value("interp.selection.to_dict()")["layer"] is None


def test_a_bar_shows_its_tenth(board: Dashboard, opened: Notebook) -> None:
    counts = board.value("f.histogram.tolist()")
    board.bars.press("Home")
    opened.until(lambda: board.said().startswith(f"{counts[0]} activation"), "the bar is spoken of")
    first = board.value("[f'{one.activation:.3g}' for one in f.exemplars if one.decile == 1]")
    assert board.activations() == first
    board.bars.press("ArrowRight")
    opened.until(lambda: board.said().startswith(f"{counts[1]} activation"), "the next one")
    board.bars.press("Escape")
    box = board.bars.locator("svg").bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 60)
    opened.until(lambda: board.said().startswith(f"{counts[-1]} activation"), "what is under the pointer")
    assert len(board.activations()) > 10, "pointing chooses nothing"
    opened.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + 60)
    opened.until(lambda: "strongest tenth" in board.frame.locator(".interp-places").inner_text(), "the click does")


def test_a_held_token_s_activation_is_said_exactly(board: Dashboard, opened: Notebook) -> None:
    board.list.focus()
    opened.page.keyboard.press("ArrowDown")
    token, value, text, place = board.value(
        "(lambda one: [one.tokens[one.peak], one.activation, one.text, one.position])(f.exemplars[0])"
    )
    said = f"{token.replace(' ', '␣')} activation {value:.3f} 100 % of its largest text {text}, position {place}"
    opened.until(lambda: board.said() == f"{said} in tenth 10", board.said())
    opened.page.keyboard.press("ArrowLeft")
    before = board.value("(lambda one: [one.tokens[one.peak - 1], one.around[one.peak - 1]])(f.exemplars[0])")
    opened.until(lambda: board.said().startswith(before[0].replace(" ", "␣")), "its neighbour")
    assert board.frame.locator(".interp-held").count() == 1
    cells = opened.page.locator(".jp-Notebook .jp-Cell").count()
    for key in ("b", "x", "d", "d"):
        opened.page.keyboard.press(key)
    assert opened.page.locator(".jp-Notebook .jp-Cell").count() == cells, "no key is a command to the notebook"


def test_steering_there_and_back(board: Dashboard, opened: Notebook) -> None:
    assert board.prompt.input_value() == board.value("f.opening")
    board.prompt.fill("When Mary and John went to the store,")
    board.prompt.press("Enter")
    opened.until(lambda: "as it is" in board.answer.inner_text(), "the model has answered")

    def written() -> list[str]:
        texts = board.frame.locator(".interp-written").all_text_contents()
        return [text.removeprefix("When Mary and John went to the store,") for text in texts]

    steered = "interp.steer('When Mary and John went to the store,', direction=f, strength={} * f.unit)"
    assert written() == [text.replace("\n", "↵") for text in board.value(f"list({steered.format(4)}.continuations)")]
    # Another strength is asked for by the slider alone.
    board.strength.focus()
    opened.page.keyboard.press("End")
    wanted = [text.replace("\n", "↵") for text in board.value(f"list({steered.format(10)}.continuations)")]
    opened.until(lambda: written() == wanted, "the strongest")
    assert wanted[0] != wanted[1]
    said = board.value(
        "[list(row) for row in f.steered('When Mary and John went to the store,', 10 * f.unit).likeliest]"
    )
    rows = board.frame.locator(".interp-next [role=row]").all_inner_texts()[1:]
    assert [re.split(r"\s+", row) for row in rows] == [
        [token.replace(" ", "␣"), f"{before:.3f}", f"{after:.3f}"] for token, before, after in said
    ]
    opened.shot(board.frame, f"{opened.front_end}-feature-steered")


def test_what_the_model_refuses_is_a_line(board: Dashboard, opened: Notebook) -> None:
    board.prompt.fill("")
    board.frame.get_by_role("button", name="Steer").click()
    alert = board.answer.get_by_role("alert")
    opened.until(lambda: "the prompt is empty" in alert.inner_text(), "it says so")
    board.prompt.fill("Alice met")
    board.prompt.press("Enter")
    opened.until(lambda: alert.count() == 0 and "Alice met" in board.answer.inner_text(), "and then answers")


def test_a_question_while_a_cell_runs_is_answered(board: Dashboard, opened: Notebook) -> None:
    """By its text, or by a line that the model is busy; never by hooks beside the cell's own."""
    board.prompt.fill("Bob met")
    opened.run(CELLS.index(SLEEP))
    board.prompt.press("Enter")
    opened.until(lambda: re.search("Bob met|busy", board.answer.inner_text()), "it is answered")


def test_the_tables_are_what_is_shown(board: Dashboard, opened: Notebook) -> None:
    board.tenth("4")
    board.frame.get_by_text("Places and histogram as tables").click()
    rows = board.frame.locator("tbody tr")
    opened.until(lambda: rows.count() > 0, "the tables are there")
    shown = board.value("[f'{one.activation:.3f}' for one in f.exemplars if one.decile == 4]")
    assert [row.locator("td").first.inner_text() for row in rows.all()[: len(shown)]] == shown
    assert rows.count() == len(shown) + board.value("f.widget.feature['bars'][0]")
    board.frame.get_by_text("Places and histogram as tables").click()


def test_what_is_saved(board: Dashboard, opened: Notebook) -> None:
    for entry, suffix in (("Drawing (SVG)", "svg"), ("Picture (PNG)", "png"), ("Data (JSON)", "json")):
        with opened.page.expect_download() as download:
            board.frame.get_by_text("Save ▾").click()
            board.frame.get_by_text(entry).click()
        assert download.value.suggested_filename == f"feature.{suffix}"
        content = download.value.path().read_bytes()
        if suffix == "png":
            assert content[:4] == b"\x89PNG"
            assert len(content) > 20_000
        elif suffix == "svg":
            assert content.decode() == opened.kernel.value("f.svg('light')")
        else:
            data = json.loads(content)
            assert data["exemplars"][0]["activation"] == pytest.approx(board.value("f.most"), rel=1e-6)
            assert sum(bar["count"] for bar in data["histogram"]) == board.value("f.fired")


def test_axe_finds_nothing_serious(board: Dashboard, opened: Notebook, theme: str) -> None:
    board.prompt.press("Enter")
    opened.until(lambda: "as it is" in board.answer.inner_text(), "the model has answered")
    board.tenth("7")
    board.list.press("ArrowDown")
    board.frame.get_by_text("Places and histogram as tables").click()
    board.frame.get_by_text("Save ▾").click()
    wrong = serious(opened, board.frame)
    board.frame.get_by_text("Save ▾").click()
    board.frame.get_by_text("Places and histogram as tables").click()
    opened.shot(board.frame, f"{opened.front_end}-feature-{theme}")
    assert not wrong, "\n".join(wrong)


def test_every_text_is_readable(board: Dashboard, theme: str) -> None:
    found = contrasts(board.frame)
    assert len(found) > 60
    assert not [text for text in found if text[0] < 4.5], theme


@pytest.mark.parametrize("width", [500, 700, 1120])
def test_it_fits_its_place_at_every_width(board: Dashboard, opened: Notebook, theme: str, width: int) -> None:
    size = opened.page.viewport_size
    assert size is not None
    try:
        for _ in range(3):  # the notebook's margins depend on its width
            now = board.frame.evaluate("e => e.offsetWidth")
            wide = opened.page.viewport_size
            assert wide is not None
            opened.page.set_viewport_size({**size, "width": wide["width"] + width - now})
            opened.page.wait_for_timeout(150)
        assert abs(board.frame.evaluate("e => e.offsetWidth") - width) < 60
        over = board.frame.evaluate(
            "f => [...f.querySelectorAll('*')].filter(e => e.checkVisibility() && !e.closest('.interp-centred')"
            " && e.getBoundingClientRect().right > f.getBoundingClientRect().right + 1).map(e => e.outerHTML)"
        )
        assert not over, "it reaches over its frame"
        opened.shot(board.frame, f"{opened.front_end}-feature-{theme}-{width}")
    finally:
        opened.page.set_viewport_size(size)


def test_hostile_words_stay_text(opened: Notebook) -> None:
    opened.run(CELLS.index(STRANGE))
    strange = Dashboard(opened, STRANGE, "strange")
    strange.list.press("ArrowDown")
    strange.frame.get_by_text("Places and histogram as tables").click()
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
