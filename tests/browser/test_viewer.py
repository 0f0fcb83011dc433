"""The attention viewer in a notebook: what it shows, what it tells Python, what Python tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator

from browser.attention import Viewer, assert_painted, contrasts, luminance
from browser.conftest import ATTENTION, BUSY, CELLS, HOSTILE, LARGE, MOVE, PASSING, STRANGE, TWICE
from browser.lab import Notebook, serious

LIMIT = 500_000  # bytes of a message


@pytest.fixture
def attention(viewer: Notebook) -> Viewer:
    """Return the viewer, with the first head and nothing else selected."""
    viewer.kernel.run("interp.selection.set(layer=0, head=0, query=None, key=None, position=None)")
    found = Viewer(viewer, CELLS.index(ATTENTION))
    viewer.until(lambda: found.shown() == [0, 0], "the viewer shows the first head")
    return found


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, viewer: Notebook) -> Iterator[str]:
    viewer.theme(request.param)
    yield request.param
    viewer.theme("light")


@pytest.fixture
def weights(viewer: Notebook) -> np.ndarray[Any, Any]:
    return np.array(viewer.kernel.value("att.pattern.tolist()"))


def selected(viewer: Notebook) -> dict[str, int | None]:
    return viewer.kernel.value("interp.selection.to_dict()")


def becomes(viewer: Notebook, **fields: int | None) -> None:
    viewer.until(lambda: fields.items() <= selected(viewer).items(), f"the selection is {fields} in Python")


def test_every_head_and_the_matrix_are_painted_as_the_data_says(attention: Viewer, weights: Any, theme: str) -> None:
    tokens = weights.shape[-1]

    def heads() -> Any:
        return np.array(
            [
                [attention.thumbnail_colours(*at, tokens) for at in row]
                for row in np.moveaxis(np.indices(weights.shape[:2]), 0, 2)
            ]
        )

    pictures = heads()
    assert_painted(pictures, weights, dark=theme == "dark")
    large = attention.matrix_colours(tokens)
    assert_painted(large, weights[0, 0], dark=theme == "dark")
    # One colour table: the same weight looks the same in the grid and in the matrix.
    assert np.abs(large - pictures[0, 0]).max() <= 8
    page = attention.frame.evaluate("e => getComputedStyle(e).backgroundColor")
    background = luminance(np.array([int(part) for part in re.findall(r"\d+", page)[:3]]))
    assert background < 0.1 if theme == "dark" else background > 0.9


def test_a_picture_of_other_weights_would_be_noticed(attention: Viewer, weights: Any) -> None:
    colours = attention.matrix_colours(weights.shape[-1])
    for wrong in (weights[0, 1], weights[1, 0], np.sqrt(weights[0, 0][::-1, ::-1])):
        with pytest.raises(AssertionError):
            assert_painted(colours, wrong)
    with pytest.raises(AssertionError):
        assert_painted(np.full_like(colours, 255), weights[0, 0])


def test_a_click_selects_in_python(attention: Viewer, viewer: Notebook, weights: Any) -> None:
    attention.thumbnails.click(position=attention.head_at(1, 2))
    becomes(viewer, layer=1, head=2, query=None)
    assert attention.shown() == [1, 2]
    attention.matrix.click(position=attention.cell_at(weights.shape[-1], 7, 3))
    becomes(viewer, layer=1, head=2, query=7, key=3, position=7)
    attention.tokens.nth(5).click()
    becomes(viewer, query=5, position=5)
    attention.frame.get_by_label("Head", exact=True).select_option("0")
    becomes(viewer, layer=1, head=0)


def test_python_moves_the_view(attention: Viewer, viewer: Notebook, weights: Any) -> None:
    viewer.run(CELLS.index(MOVE))
    viewer.until(lambda: attention.shown() == [1, 3], "the viewer shows layer 1, head 3")
    assert f"{weights[1, 3, 9, 4]:.2f}"[:4] in attention.said()
    viewer.kernel.run("interp.selection.set(query=None, key=None, position=None)")
    tokens = weights.shape[-1]

    def painted() -> bool:
        try:
            assert_painted(attention.matrix_colours(tokens), weights[1, 3])
        except AssertionError:
            return False
        return True

    viewer.until(painted, "the matrix is that of layer 1, head 3")
    ring = attention.frame.locator(".interp-ring:not(.interp-hover)")
    box, canvas = ring.bounding_box(), attention.thumbnails.bounding_box()
    assert box is not None
    assert canvas is not None
    at = attention.head_at(1, 3)
    assert abs(box["x"] + box["width"] / 2 - canvas["x"] - at["x"]) < 2
    assert abs(box["y"] + box["height"] / 2 - canvas["y"] - at["y"]) < 2


def test_arrow_keys_move_the_head_and_not_the_notebook(attention: Viewer, viewer: Notebook, weights: Any) -> None:
    active = "() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    attention.thumbnails.click(position=attention.head_at(0, 0))
    before = viewer.page.evaluate(active)
    for key, layer, head in (("ArrowRight", 0, 1), ("ArrowDown", 1, 1), ("ArrowRight", 1, 2), ("ArrowLeft", 1, 1)):
        viewer.page.keyboard.press(key)
        assert attention.shown() == [layer, head]
        becomes(viewer, layer=layer, head=head)
    attention.matrix.focus()
    last = weights.shape[-1] - 1
    viewer.page.keyboard.press("ArrowUp")
    becomes(viewer, query=last, key=last)
    viewer.page.keyboard.press("ArrowLeft")
    becomes(viewer, query=last, key=last - 1)
    viewer.page.keyboard.press("Escape")
    becomes(viewer, query=None, key=None)
    assert viewer.page.evaluate(active) == before
    assert viewer.page.locator(".jp-Notebook .jp-Cell").count() == len(CELLS)


def test_a_storm_of_keys_ends_at_one_place(attention: Viewer, viewer: Notebook) -> None:
    attention.thumbnails.click(position=attention.head_at(0, 0))
    for _ in range(40):
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            viewer.page.keyboard.press(key)
    viewer.page.keyboard.press("ArrowRight")
    becomes(viewer, layer=0, head=1)
    assert attention.shown() == [0, 1]


def test_the_line_below_says_the_exact_weight(attention: Viewer, viewer: Notebook, weights: Any) -> None:
    tokens = viewer.kernel.value("att.tokens")
    for query, key in ((3, 0), (7, 7), (len(tokens) - 1, 4)):
        attention.matrix.hover(position=attention.cell_at(len(tokens), query, key))
        viewer.until(
            lambda query=query, key=key: f"({query})" in attention.said() and f"({key})" in attention.said(),
            "it is said",
        )
        said = attention.said()
        assert "≈" not in said
        names = [f"{tokens[at].replace(' ', '␣')} ({at})" for at in (query, key)]
        assert said.startswith(" → ".join(names))
        assert abs(attention.weight() - weights[0, 0, query, key]) < 0.00075
    attention.matrix.hover(position=attention.cell_at(len(tokens), 2, 5))
    viewer.page.mouse.move(2, 2)
    assert selected(viewer)["query"] is None, "the pointer alone selects nothing"


def test_a_click_while_the_kernel_is_busy_waits_its_turn(attention: Viewer, viewer: Notebook) -> None:
    viewer.command("notebook:deselect-all")
    viewer.cell(CELLS.index(BUSY)).locator(".jp-InputArea-editor").click()
    viewer.page.keyboard.press("Control+Enter")
    prompt = viewer.cell(CELLS.index(BUSY)).locator(".jp-InputPrompt")
    viewer.until(lambda: "*" in prompt.inner_text(), "the cell runs")
    attention.thumbnails.click(position=attention.head_at(1, 1))
    assert attention.shown() == [1, 1], "the view moves at once"
    becomes(viewer, layer=1, head=1)
    viewer.until(lambda: "*" not in prompt.inner_text(), "the cell has run")
    assert attention.shown() == [1, 1]


def test_axe_finds_nothing_serious(attention: Viewer, viewer: Notebook, theme: str) -> None:
    assert theme
    attention.frame.get_by_text("Save", exact=False).first.click()
    attention.frame.locator("details.interp-data > summary").click()
    attention.tokens.nth(5).click()
    wrong = serious(viewer, attention.frame)
    attention.frame.locator("details.interp-data > summary").click()
    assert not wrong, "\n".join(wrong)


def test_every_text_is_readable(attention: Viewer, theme: str) -> None:
    found = contrasts(attention.frame)
    assert len(found) > 15
    assert not [text for text in found if text[0] < 4.5], theme


@pytest.mark.parametrize("width", [360, 600, 1000, 1120])
def test_it_fits_its_place_at_every_width(
    attention: Viewer, viewer: Notebook, weights: Any, theme: str, width: int
) -> None:
    size = viewer.page.viewport_size
    assert size is not None
    try:
        for _ in range(3):  # the notebook's margins depend on its width
            now = attention.frame.evaluate("e => e.offsetWidth")
            viewer.page.set_viewport_size({**size, "width": viewer.page.viewport_size["width"] + width - now})
            viewer.page.wait_for_function(
                "() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true))))"
            )
        assert abs(attention.frame.evaluate("e => e.offsetWidth") - width) < 40
        wide = attention.frame.evaluate(
            "f => [...f.querySelectorAll('*')].filter(e => e.checkVisibility()"
            " && e.getBoundingClientRect().right > f.getBoundingClientRect().right + 1"
            " && !e.closest('.interp-grid')).map(e => e.className || e.tagName)"
        )
        assert not wide, "it reaches over its frame"
        tokens = weights.shape[-1]
        attention.matrix.click(position=attention.cell_at(tokens, 9, 4))
        becomes(viewer, query=9, key=4)
        viewer.shot(attention.frame, f"{viewer.front_end}-{theme}-{width}")
    finally:
        viewer.page.set_viewport_size(size)


def test_hostile_tokens_stay_text(viewer: Notebook) -> None:
    viewer.run(CELLS.index(STRANGE))
    strange = Viewer(viewer, CELLS.index(STRANGE))
    for at in range(len(HOSTILE)):
        strange.tokens.nth(at).click()
        strange.matrix.hover(position=strange.cell_at(len(HOSTILE), at, 0))
    strange.frame.locator("details.interp-data > summary").click()
    for layer, head in ((0, 1), (1, 2)):
        strange.thumbnails.click(position=strange.head_at(layer, head))
    with viewer.page.expect_download() as download:
        strange.frame.get_by_text("Save", exact=False).first.click()
        strange.frame.get_by_text("Drawing (SVG)").click()
    drawing = download.value.path().read_text()
    assert "<script" not in drawing
    assert "<img" not in drawing
    assert viewer.page.evaluate("() => window.ran ?? null") is None
    made = "script, img, svg, a, iframe, [onerror], [onload], [data-commandlinker-command]"
    assert strange.frame.locator(made).count() == 0
    said = strange.frame.evaluate("e => e.textContent")
    for part in ("</script><script>window.ran", "<img", "data-commandlinker-command", "${window.ran"):
        assert part in said.replace("␣", " "), part
    assert not set(said) & set("\u202e\x00\x1b"), "a character that is not seen"


def test_of_picture_and_view_one_is_seen(viewer: Notebook) -> None:
    viewer.run(CELLS.index(TWICE))
    outputs = viewer.output(CELLS.index(TWICE))
    pictures, views = (outputs.locator(f"{tag}.interp-frame") for tag in ("div", "section"))

    def seen(which: Locator) -> list[bool]:
        return [which.nth(at).is_visible() for at in range(which.count())]

    def only(which: Locator, other: Locator) -> bool:
        return seen(which) == [True, True] and not any(seen(other))

    viewer.until(lambda: only(views, pictures), "the views are live, in both places")
    assert outputs.count() == 4
    # A picture that is drawn anew while the view is live is not seen either.
    viewer.kernel.run("shown.update(twice)")
    viewer.until(lambda: pictures.count() == 2, "both pictures are there")
    assert only(views, pictures)
    heights = "e => e.closest('.jp-OutputArea-child').getBoundingClientRect().height"
    assert [outputs.nth(at).evaluate(heights) for at in (0, 2)] == [0, 0]
    # Where the view goes, the picture stands in for it.
    viewer.kernel.run("twice.widget.close()")
    viewer.until(lambda: only(pictures, views), "the pictures stand in")
    viewer.shot(viewer.cell(CELLS.index(TWICE)), f"{viewer.front_end}-closed")


def test_a_view_that_is_gone_lets_go_of_its_data(viewer: Notebook) -> None:
    viewer.run(CELLS.index(PASSING))
    Viewer(viewer, CELLS.index(PASSING))
    # Others come and go; what is on screen stays whole.
    others = "import gc\nfor _ in range(9): made(2, 3, 5).widget\ngc.collect()"
    alive = "widget() is not None and widget()._views"
    viewer.until(lambda: viewer.kernel.value(alive) == 1, "the view has said that it is there")
    viewer.kernel.run(others)
    assert viewer.kernel.value(alive) == 1
    viewer.cell(CELLS.index(PASSING)).locator(".jp-InputArea-editor").click()
    viewer.page.keyboard.press("Escape")
    viewer.command("notebook:clear-cell-output")
    viewer.until(lambda: viewer.kernel.value(alive) == 0, "the view has said that it is gone")
    viewer.kernel.run(others)
    assert viewer.kernel.value("widget() is None")


def test_no_message_is_larger_than_every_front_end_can_take(viewer: Notebook) -> None:
    before = len(viewer.traffic.received)
    viewer.run(CELLS.index(LARGE))
    large = Viewer(viewer, CELLS.index(LARGE))
    large.thumbnails.click(position=large.head_at(3, 7))
    viewer.until(lambda: large.shown() == [3, 7], "the head is shown")
    readable = np.array(viewer.kernel.value("large.pattern[3, 7, 511, :64].tolist()"))
    large.tokens.nth(511).click()
    viewer.until(lambda: "≈" not in large.said() and "(511)" in large.said(), "the head has come in full")
    assert readable.max() <= large.weight() + 0.001
    received = viewer.traffic.received[before:]
    assert sum(received) > LIMIT, "the sizes were not seen"
    assert max(viewer.traffic.received) < LIMIT


def test_nothing_but_this_machine_is_contacted(viewer: Notebook) -> None:
    assert len(viewer.traffic.requests) > 20
    assert viewer.traffic.kernels()
    assert viewer.traffic.foreign() == []


def test_no_script_of_ours_failed(viewer: Notebook) -> None:
    assert [error for error in viewer.traffic.errors if "blob:" in error] == []
