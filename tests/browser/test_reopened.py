"""A saved notebook that is opened again: no kernel, no live view, a picture all the same."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Locator

from browser.attention import contrasts
from browser.conftest import ATTENTION, CELLS, HOSTILE, STRANGE
from browser.lab import SHOTS, TIMEOUT, Notebook, Server

# How many different colours a picture has, and the one near its corner.
_COLOURS = """async png => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  const at = 4 * (8 * image.width + 8);
  return [new Set(new Uint32Array(data.buffer)).size, [...data.slice(at, at + 3)]];
}"""

# The text that is seen: innerText also tells what an element holds that is not.
_SEEN = "e => e.checkVisibility() ? e.innerText.trim() : ''"

_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def saved(viewer: Notebook) -> Any:
    viewer.run(CELLS.index(STRANGE))
    return viewer.save()


@pytest.fixture
def reopened(viewer: Notebook, server: Server, chrome: Browser, saved: Any) -> Iterator[Callable[..., Notebook]]:
    """Return ``reopened(trusted, kernel)``: the saved notebook in a new page."""
    context = chrome.new_context(viewport={"width": 1500, "height": 1100}, service_workers="block")
    opened: list[Notebook] = []

    def open_(*, trusted: bool, kernel: bool = False) -> Notebook:
        copy = nbformat.from_dict(saved)
        if not kernel:  # in a language that no kernel here speaks, so that none is started
            copy.metadata = {"kernelspec": {"name": "none", "display_name": "None", "language": "none"}}
        copy.metadata["title"] = f"{trusted} {kernel} {viewer.front_end}"  # a signature is of the content
        if trusted:
            server.sign(copy)
        name = f"again-{len(list(server.files.iterdir()))}.ipynb"
        nbformat.write(copy, server.files / name)
        opened.append(Notebook(server, context, viewer.front_end, name))
        if not kernel:
            opened[-1].without_kernel()
        return opened[-1]

    yield open_
    for notebook in opened:
        notebook.close()
        server.shut_down(notebook.name)
    context.close()


def shown(notebook: Notebook, source: str) -> Locator:
    """Return what the output of a cell shows, once its picture is there; it shows nothing else."""
    first, second = (notebook.output(CELLS.index(source)).nth(at) for at in (0, 1))
    output = first.locator("div.interp-frame")
    output.wait_for()
    output.scroll_into_view_if_needed()
    notebook.until(lambda: second.evaluate(_SEEN) == "", "the place of the live view is empty")
    assert notebook.output(CELLS.index(source)).count() == 2
    # At most an empty line: whoever does not trust the notebook has none of its styles.
    assert second.evaluate("e => e.getBoundingClientRect().height") < 40
    assert output.locator("canvas, button, select, input").count() == 0, "something that would need a kernel"
    return output


def painted(notebook: Notebook, output: Locator, name: str, dark: bool) -> bool:
    """Return whether there is a picture in the page's own theme."""
    shot = base64.b64encode(notebook.shot(output, name)).decode()
    colours, background = notebook.page.evaluate(_COLOURS, shot)
    return colours > 30 and (max(background) < 60 if dark else min(background) > 240)


def assert_inert(notebook: Notebook, output: Locator) -> None:
    assert notebook.page.evaluate("() => window.ran ?? null") is None
    foreign = "script, img:not(.interp-plain), a, iframe, [onerror], [onload], [data-commandlinker-command]"
    assert output.locator(foreign).count() == 0
    assert not set(output.evaluate("e => e.innerHTML")) & set("\u202e\x00\x1b"), "a character that is not seen"


@pytest.mark.parametrize("state", [False, True], ids=["no state", "state"])
def test_an_exported_page_shows_the_picture(server: Server, chrome: Browser, saved: Any, state: bool) -> None:
    """On a machine without a network, where a page that holds widgets' states asks for their scripts in vain."""
    notebook = nbformat.from_dict(saved)
    shown = notebook.cells[CELLS.index(ATTENTION)].outputs[1].data[_VIEW]
    if state:
        model = {"model_name": "AnyModel", "model_module": "anywidget", "model_module_version": "~0.11.*", "state": {}}
        held = {"version_major": 2, "version_minor": 0, "state": {shown["model_id"]: model}}
        notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": held}
    html, _ = HTMLExporter().from_notebook_node(notebook)
    assert (shown["model_id"] in html) == state
    path = server.files / f"exported-{state}.html"
    path.write_text(html)
    with chrome.new_context(viewport={"width": 1300, "height": 1000}) as context:
        page = context.new_page()
        page.goto(path.as_uri(), wait_until="commit", timeout=TIMEOUT * 1e3)
        outputs = page.locator(".jp-Cell").nth(CELLS.index(ATTENTION)).locator(".jp-OutputArea-child")
        picture = outputs.nth(0).locator("div.interp-frame")
        picture.wait_for(timeout=TIMEOUT * 1e3)
        assert "gpt2 · 20 tokens" in picture.inner_text()
        assert len(contrasts(picture)) > 15
        assert outputs.nth(1).evaluate(_SEEN) == ""
        picture.screenshot(path=SHOTS / f"exported-{state}.png")


def test_without_trust_and_kernel_it_shows_the_picture(reopened: Callable[..., Notebook], front_end: str) -> None:
    notebook = reopened(trusted=False)
    output = shown(notebook, ATTENTION)
    picture = output.locator("img")
    assert picture.get_attribute("alt") == "Attention: gpt2 · 20 tokens · 2 layers × 4 heads"
    assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") > 400
    assert painted(notebook, output, f"{front_end}-untrusted-light", dark=False)
    strange = shown(notebook, STRANGE)
    assert HOSTILE[1] in (strange.locator("img").get_attribute("alt") or "").replace("␣", " ")
    assert_inert(notebook, strange)
    notebook.theme("dark")
    try:
        assert painted(notebook, output, f"{front_end}-untrusted-dark", dark=True)
    finally:
        notebook.theme("light")
    assert notebook.traffic.kernels() == [], "a message to a kernel"
    assert notebook.traffic.foreign() == []


@pytest.mark.parametrize("kernel", [False, True], ids=["no kernel", "a new kernel"])
def test_its_author_sees_the_picture(reopened: Callable[..., Notebook], front_end: str, kernel: bool) -> None:
    notebook = reopened(trusted=True, kernel=kernel)
    if kernel:
        assert notebook.kernel, "it has come"
    output = shown(notebook, ATTENTION)
    assert "gpt2 · 20 tokens" in output.inner_text()
    for theme in ("light", "dark"):
        notebook.theme(theme)
        assert painted(notebook, output, f"{front_end}-author-{theme}", dark=theme == "dark")
        found = contrasts(output)
        assert len(found) > 15
        assert not [text for text in found if text[0] < 4.5]
    notebook.theme("light")
    strange = shown(notebook, STRANGE)
    assert HOSTILE[0] in strange.inner_text().replace("␣", " ")
    assert_inert(notebook, strange)
