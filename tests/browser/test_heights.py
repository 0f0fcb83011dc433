"""A live view is as high as the picture that it takes the place of: nothing below it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from browser.lab import ROOT, Notebook, Server, write
from browser.vscode import VIEW, CodePage
from views import features, traces
from views import test_patching as sweeps
from views.circuits import random
from widgets.conftest import (
    Wire,
    made,
    wire,  # noqa: F401 (a fixture)
)

NEAR = 4.0  # px that may be left
WIDTHS = (1400, 1000, 700)
TOKENS = (
    "<bos>",
    " When",
    " Mary",
    " and",
    " John",
    " went",
    " to",
    " the",
    " store",
    ",",
    " John",
    " gave",
    " a",
    " to",
)


def attention(layers: int, heads: int, count: int) -> Any:
    return made(
        layers, heads, count, strings=(TOKENS * 5)[:count], labels={"0.1": "induction", "1.1": "previous token"}
    )


CASES: dict[str, Callable[[], Any]] = {
    "attention of few tokens": lambda: attention(2, 4, 5),
    "attention of a sentence": lambda: attention(2, 4, 13),
    "attention of many heads": lambda: attention(12, 12, 15),
    "attention of many tokens": lambda: attention(12, 12, 60),
    "attention of many layers": lambda: attention(30, 9, 15),
    "attention of one head": lambda: made(1, 1, 8),
    "sweep": sweeps.SHAPES["usual"],
    "small sweep": lambda: sweeps.real_like(shape=(2, 4)),
    "sweep of many pairs": sweeps.SHAPES["many pairs"],
    "sweep of positions": sweeps.SHAPES["positions"],
    "sweep of layers": sweeps.SHAPES["layers"],
    "sweep by head and position": sweeps.SHAPES["head and position"],
    "sweep of neurons": sweeps.SHAPES["neurons"],
    "sweep of some neurons": sweeps.SHAPES["partial neurons"],
    "verified estimate of neurons": sweeps.SHAPES["verified estimate of neurons"],
    "verified estimate": sweeps.SHAPES["verified estimate"],
    "stopped sweep": sweeps.SHAPES["partial"],
    "sweep that has only begun": sweeps.SHAPES["nothing yet"],
    "circuit": lambda: random(3, 4, 30),
    "large circuit": lambda: random(12, 12, 150),
    "small circuit": lambda: random(2, 2, 6),
    "trace": lambda: traces.random(4, 15, 50, 200),
    "small trace": traces.planted,
    "measured trace": lambda: traces.measured(traces.random(4, 15, 50, 200)),
    "stable trace": lambda: traces.stable(traces.measured(traces.random(4, 15, 50, 200)), 8, 8),
    "large trace": lambda: traces.random(26, 60, 600, 3000, logits=10),
    "feature": features.planted,
    "large feature": features.random,
    "feature with an input that was found": features.optimised,
    "feature that is never active": features.silent,
    "feature without a direction": lambda: features.planted(direction=np.zeros(0, np.float32)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_view_in_vscode_is_as_high_as_its_picture(chrome: Browser, wire: Wire, case: str) -> None:  # noqa: F811
    result = CASES[case]()
    widget = result.widget
    page = CodePage(chrome, wire, "vscode-light", width=WIDTHS[0])
    try:
        for width in WIDTHS:
            page.page.set_viewport_size({"width": width, "height": 900})
            page.value("document.querySelector('.output_container').replaceChildren()")
            page.show({"text/html": result.html()})
            page.show({VIEW: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}})
            page.frame.wait_for()
            page.page.wait_for_timeout(100)
            picture, view = (
                page.page.locator(f"{kind}.interp-frame").evaluate(
                    "e => [e.offsetHeight, e.scrollWidth - e.clientWidth]"
                )
                for kind in ("div", "section")
            )
            assert abs(view[0] - picture[0]) <= NEAR, f"{view[0]} px live, {picture[0]} px before, at {width} px"
            assert view[1] <= 0, "something does not fit into the frame"
        assert page.errors == []
    finally:
        page.close()


IN_NOTEBOOK = [
    "attention of a sentence",
    "attention of many tokens",
    "sweep",
    "stopped sweep",
    "circuit",
    "large circuit",
    "measured trace",
    "large trace",
    "large feature",
]
SETUP = f"""\
import sys
sys.path.append({str(ROOT / "tests")!r})
from browser.test_heights import CASES
from interp.widgets._base import Shown
from IPython.display import HTML, display"""
# The picture alone, and a result as it is shown: the place of one is the place of the other.
BOTH = "result = CASES[{!r}]()\ndisplay(HTML(result.html()))\nshown = Shown(result.widget, result, None)"
_HEIGHT = "e => e.closest('.jp-OutputArea-child').getBoundingClientRect().height"


@pytest.fixture(scope="module")
def notebook(server: Server, chrome: Browser, front_end: str) -> Iterator[Notebook]:
    context = chrome.new_context(viewport={"width": WIDTHS[0], "height": 900}, service_workers="block")
    cells = [SETUP, *(BOTH.format(case) for case in IN_NOTEBOOK)]
    opened = Notebook(server, context, front_end, write(server, f"heights {front_end}.ipynb", cells))
    opened.run(0)
    yield opened
    opened.close()
    server.shut_down(opened.name)
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", IN_NOTEBOOK)
def test_a_view_in_a_notebook_is_as_high_as_its_picture(notebook: Notebook, case: str, width: int) -> None:
    notebook.page.set_viewport_size({"width": width, "height": 900})
    index = 1 + IN_NOTEBOOK.index(case)
    notebook.run(index)
    places = [notebook.cell(index).locator(f"{kind}.interp-frame").first for kind in ("div", "section")]
    for place in places:
        place.wait_for()
    notebook.page.wait_for_timeout(150)
    picture, view = (place.evaluate(_HEIGHT) for place in places)
    assert abs(view - picture) <= NEAR, f"{view} px live, {picture} px before, at {width} px"
