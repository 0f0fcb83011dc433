"""Live views that were saved as pages: opened from a file without a network, they answer the pointer and the keys."""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

import interp
from interp.interface.session import session

PROMPT = "When Mary and John went to the store, John gave a drink to"
SCREENSHOTS = Path("build/screenshots")
MADE: dict[str, Callable[[], Any]] = {
    "attention": lambda: interp.attention(PROMPT),
    "patching": lambda: interp.patch(task="ioi", n=4, by="head-position"),
    "circuit": lambda: interp.circuit(task="ioi", n=4, edges=40),
    "feature": lambda: interp.feature("2.17", [PROMPT, "The cat sat on the mat and the cat ran."]),
    "trace": lambda: interp.trace(PROMPT, target=" Mary", against=" John"),
}


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Any]]:
    """Return what the pages are of."""
    before = dict(session.models), session.current
    interp.load(device="cpu", name="saved")
    interp.features_load("bundled")
    yield {name: make() for name, make in MADE.items()}
    interp.unload("saved")
    session.models.update(before[0])
    session.current = before[1]


@pytest.fixture
def page(chrome: Browser, results: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a result's page; what it complains of fails the test."""
    said: list[str] = []
    contexts: list[Any] = []

    def show(name: str, *, width: int = 1200, dark: bool = False) -> Page:
        file = results[name].save(tmp_path / f"{name}.html")
        context = chrome.new_context(
            offline=True, viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        opened = context.new_page()
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto(file.as_uri())
        opened.locator("section.interp-frame").wait_for()
        assert opened.locator(".interp-frame").count() == 1, "the picture has gone"
        return opened

    yield show
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("name", list(MADE))
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (500, False), (500, True)])
def test_it_is_drawn_without_a_word(page: Any, name: str, width: int, dark: bool) -> None:
    opened = page(name, width=width, dark=dark)
    opened.wait_for_timeout(200)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=SCREENSHOTS / f"saved-{name}-{'dark' if dark else 'light'}-{width}.png", full_page=True)
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("name", list(MADE))
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(page: Any, name: str, dark: bool) -> None:
    opened = page(name, dark=dark)
    # The page's own policy lets no script in but its own.
    found = opened.context.new_cdp_session(opened).send(
        "Runtime.evaluate",
        {
            "expression": importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
            + "\n;axe.run(document.querySelector('section.interp-frame'), { resultTypes: ['violations'] })",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )["result"]["value"]
    assert len(found["passes"]) > 5, "axe looked at nothing"
    assert [one["id"] for one in found["violations"] if one["impact"] in {"serious", "critical"}] == []


def test_attention_says_exact_numbers_and_goes_by_the_keys(page: Any, results: dict[str, Any]) -> None:
    opened, result = page("attention"), results["attention"]
    opened.get_by_label("Layer").select_option("0")
    opened.get_by_label("Head", exact=True).select_option("1")
    canvas = opened.get_by_role("application", name="Attention of L0H1")
    canvas.focus()
    for pressed in ("ArrowDown", "ArrowUp", "ArrowLeft"):  # from the last token on
        canvas.press(pressed)
    said = opened.get_by_role("status").inner_text()
    query, key = (int(number) for number in re.findall(r"\((\d+)\)", said))
    assert "≈" not in said
    assert float(said.rpartition(")")[2]) == pytest.approx(float(result.pattern[0, 1, query, key]), abs=6e-4)
    opened.locator(".interp-text .interp-w").nth(5).click()
    assert "what" in opened.locator(".interp-wide .interp-caption").inner_text()
    assert opened.get_by_role("button", name="Value-weighted").get_attribute("aria-disabled") is not None


def test_a_sweep_shows_its_other_planes(page: Any) -> None:
    opened = page("patching")
    before = opened.get_by_role("status").inner_text()
    plot = opened.get_by_role("application").first
    plot.focus()
    for pressed in ("ArrowRight", "ArrowDown"):
        plot.press(pressed)
    assert opened.get_by_role("status").inner_text() != before
    pickers = opened.get_by_role("combobox")
    for value in ("layer", "head", "position"):
        pickers.first.select_option(value)
        opened.wait_for_timeout(100)
        assert opened.get_by_role("alert").is_hidden()


def test_data_can_be_saved_from_a_saved_page(page: Any, results: dict[str, Any]) -> None:
    opened = page("patching")
    opened.get_by_text("Save ▾").click()
    with opened.expect_download() as download:
        opened.get_by_role("button", name="Data (JSON)").click()
    held = json.loads(download.value.path().read_text("utf-8"))
    effect = np.abs(results["patching"].effect).max(-1)
    np.testing.assert_allclose(np.abs(held["effect"]), effect, rtol=1e-5)


def test_a_circuit_has_fewer_edges_and_cards_of_its_nodes(page: Any) -> None:
    opened = page("circuit")
    before = opened.locator(".interp-foot").inner_text()
    slider = opened.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    assert opened.locator(".interp-foot").inner_text() != before
    slider.press("End")
    plot = opened.get_by_role("application")
    plot.focus()
    for _ in range(2):
        plot.press("ArrowDown")
    opened.wait_for_timeout(200)
    assert "promotes" in opened.locator(".interp-frame").inner_text().lower()
    assert opened.get_by_role("alert").is_hidden()


def test_what_needs_the_model_says_so(page: Any) -> None:
    opened = page("patching")
    alert = opened.get_by_role("alert")
    assert alert.is_hidden()
    opened.get_by_text("Save ▾").click()
    opened.get_by_role("button", name="Drawing (SVG)").click()
    alert.wait_for()
    assert "needs the model" in alert.inner_text()
    assert "A saved page, without its model" in page("feature").locator(".interp-frame").inner_text()
