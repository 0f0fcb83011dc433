"""Live views under VS Code's conditions: every saved format opens, no white frame, no key leaves a focused control."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser

from browser.lab import SHOTS
from browser.vscode import COLOURS, VIEW, CodePage
from interp.selection import selection
from views import features, traces
from views.circuits import random
from views.test_patching import SHAPES
from widgets.conftest import (
    Wire,
    made,
    wire,  # noqa: F401 (a fixture)
)

RESULTS: dict[str, Callable[[], Any]] = {
    "attention": lambda: made(2, 3, 5, strings=(" ␣日", " é", " $5", "</t>", "\\(x\\)")),
    "patching": SHAPES["usual"],
    "circuit": lambda: random(3, 4, 30),
    "trace": lambda: traces.measured(traces.random(4, 15, 50, 200)),
    "feature": features.random,
}
FORMATS = {
    "attention": ("PNG", "SVG"),
    "patching": ("PNG", "SVG"),
    "circuit": ("PNG", "SVG", "JSON"),
    "trace": ("PNG", "SVG", "JSON"),
    "feature": ("PNG", "SVG", "JSON"),
}
# What can be focused, also what cannot be used at the moment.
_PRESS = """(frame, [focusable, keys]) => {
  const controls = [...frame.querySelectorAll(focusable)].filter(e => !e.closest("[hidden]"));
  const lost = [];
  for (const control of controls) {
    const menu = control.closest("details");
    if (menu) menu.open = true;
    control.focus();
    if (document.activeElement !== control) lost.push(control.outerHTML);
    for (const key of keys)
      control.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, composed: true }));
  }
  return [controls.length, lost];
}"""
# Of what a view holds, with each of its menus and tables open: what does not fit into its own box.
_SPILLS = """frame => {
  const whole = e => e.scrollWidth <= e.clientWidth + 1 && e.scrollHeight <= e.clientHeight + 1;
  const describe = e =>
    `${e.scrollWidth}×${e.scrollHeight} in ${e.clientWidth}×${e.clientHeight}: ${e.outerHTML.slice(0, 100)}`;
  const spilt = [];
  for (const menu of frame.querySelectorAll("details")) {
    menu.open = true;
    const around = [".output", ".lm-Widget"].map(name => frame.closest(name));
    const boxes = [...around, ...menu.querySelectorAll("button, summary, .interp-menu > div")];
    spilt.push(...boxes.filter(e => e.clientWidth && !whole(e)).map(describe));
    const striped = e => getComputedStyle(e).backgroundColor !== "rgba(0, 0, 0, 0)";
    spilt.push(...[...menu.querySelectorAll("tr")].filter(striped).map(describe));
    menu.open = false;
  }
  return spilt;
}"""
FOCUSABLE = "button, select, input, textarea, summary, [tabindex='0']"


@pytest.fixture(params=list(RESULTS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def opened(chrome: Browser, wire: Wire, kind: str) -> Iterator[Callable[..., CodePage]]:  # noqa: F811
    pages: list[CodePage] = []
    held: list[Any] = []

    def open_(theme: str = "vscode-dark", **given: Any) -> CodePage:
        held.append(RESULTS[kind]())
        widget = held[-1].widget
        pages.append(CodePage(chrome, wire, theme, **given))
        pages[-1].show({VIEW: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}})
        pages[-1].frame.wait_for()
        return pages[-1]

    yield open_
    for page in pages:
        page.close()


def test_every_saved_format_opens(opened: Callable[..., CodePage], kind: str) -> None:
    view = opened()
    for name in FORMATS[kind]:
        view.frame.get_by_text("Save ▾").click()
        before = len(view.value("saved"))
        view.frame.get_by_role("button", name=f"({name})").click()
        view.page.wait_for_function(f"() => saved.length + refused.length > {before}")
        assert view.value("refused") == [], "VS Code opens no data link without base64"
        file, url = view.value("saved")[-1]
        assert file.endswith(f".{name.lower()}")
        data = base64.b64decode(url.partition(",")[2])
        if name == "PNG":
            assert data.startswith(b"\x89PNG")
        elif name == "SVG":
            assert ElementTree.fromstring(data.decode("utf-8")).tag.endswith("svg")
        else:
            held = json.loads(data.decode("utf-8"))
            assert held["exemplars" if kind == "feature" else "edges"]
    assert view.errors == [], "also of the content security policy"


@pytest.mark.parametrize("theme", COLOURS)
@pytest.mark.parametrize("width", [1000, 560])
def test_it_stands_on_the_editors_own_background(
    opened: Callable[..., CodePage], kind: str, theme: str, width: int
) -> None:
    view = opened(theme, width=width)
    boxes = view.page.locator(".cell-output-ipywidget-background")
    for n in range(2):
        seen = boxes.nth(n).evaluate("e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).paddingTop]")
        assert seen == ["rgba(0, 0, 0, 0)", "0px"]
    background, ink, border = COLOURS[theme]
    rgb = view.frame.evaluate("e => getComputedStyle(e).backgroundColor")
    assert rgb == "rgb({}, {}, {})".format(*bytes.fromhex(background[1:]))
    assert view.value("document.documentElement.scrollWidth") <= width
    if theme == "vscode-high-contrast":
        rgb = view.frame.evaluate("e => getComputedStyle(e).borderTopColor")
        assert rgb == "rgb({}, {}, {})".format(*bytes.fromhex(border[1:])), "the editor's own lines"
        pale = view.frame.locator(".interp-muted").first.evaluate("e => getComputedStyle(e).color")
        assert pale == "rgb({}, {}, {})".format(*bytes.fromhex(ink[1:])), "full ink"
    SHOTS.mkdir(parents=True, exist_ok=True)
    view.page.screenshot(path=SHOTS / f"{theme}-{kind}-{width}.png")


def test_a_click_draws_no_frame_and_the_keyboard_does(opened: Callable[..., CodePage]) -> None:
    """VS Code frames whatever has the focus."""
    view = opened()
    framed = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
    box = view.frame.locator(".interp-body [tabindex='0']:not(button)").first.bounding_box()
    assert box is not None
    view.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert view.value("document.activeElement.closest('section') !== null")
    assert not view.value(framed)
    view.page.keyboard.press("Tab")
    assert view.value("document.activeElement.closest('section') !== null")
    assert view.value(framed)


def test_no_key_leaves_what_is_focused(opened: Callable[..., CodePage]) -> None:
    view = opened()
    tried, lost = view.frame.evaluate(_PRESS, [FOCUSABLE, ["d", "d", "b", "x", "0", "Escape"]])
    assert tried > 4
    assert lost == [], "what cannot be used keeps the focus too"
    assert view.value("heard") == []
    view.frame.evaluate(
        "e => e.dispatchEvent(new KeyboardEvent('keydown', { key: 's', ctrlKey: true, bubbles: true }))"
    )
    assert view.value("heard") == ["s"], "the page's own keys are the page's"


def test_a_button_acts_once_for_one_press(opened: Callable[..., CodePage]) -> None:
    """VS Code presses a button itself where Enter or the space bar is pressed on it."""
    view = opened()
    view.frame.evaluate("""frame => {
      window.clicks = 0;
      frame.addEventListener("click", event => { clicks += event.detail === 0; event.stopPropagation(); }, true);
    }""")
    buttons = view.frame.locator("button:not([hidden], [hidden] *)").element_handles()
    for button in buttons:
        for key in ("Enter", " "):
            before = view.value("clicks")
            # A menu closes when another has the focus.
            button.evaluate("e => { const menu = e.closest('details'); if (menu) menu.open = true; e.focus(); }")
            view.page.keyboard.press(key)
            assert view.value("clicks") == before + 1
    assert buttons


@pytest.mark.parametrize("width", [1000, 560])
def test_what_opens_is_seen_in_whole(opened: Callable[..., CodePage], kind: str, width: int) -> None:
    """An output ends where its view does, and bare buttons, rows and cells have VS Code's styles."""
    view = opened(width=width)
    for head in (None, 1):
        selection.set(layer=head and 0, head=head)
        view.hear()
        view.page.wait_for_timeout(150)
        assert view.frame.evaluate(_SPILLS) == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    view.page.screenshot(path=SHOTS / f"vscode-dark-{kind}-{width}-chosen.png")


def test_a_menu_closes_when_the_focus_leaves_the_frame(opened: Callable[..., CodePage]) -> None:
    view = opened()
    menu = view.frame.locator("details.interp-menu").last
    for leave in ("dispatchEvent(new Event('blur'))", "document.body.dispatchEvent(new Event('pointerdown'))"):
        menu.locator("summary").click()
        view.page.wait_for_timeout(50)
        assert menu.evaluate("e => e.open")
        view.value(leave)
        assert not menu.evaluate("e => e.open")


def test_a_kernel_that_has_ended_is_said_with_what_to_do(opened: Callable[..., CodePage]) -> None:
    view = opened()
    view.value("window.ended = true")
    view.frame.get_by_text("Save ▾").click()
    view.frame.get_by_role("button", name="(SVG)").click()
    alert = view.frame.get_by_role("alert")
    alert.wait_for()
    assert "restarted: run its cell again" in alert.inner_text()
