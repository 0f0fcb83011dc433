"""The quickstart, run cell by cell as its first reader would, in JupyterLab."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import nbformat
import numpy as np
import pytest
from playwright.sync_api import Browser

from browser.attention import Viewer, assert_painted
from browser.lab import ROOT, Notebook, Server

NAME = "demo/quickstart.ipynb"


@pytest.fixture(scope="module")
def quickstart(server: Server, chrome: Browser) -> Iterator[Notebook]:
    (server.files / "demo").mkdir()
    (server.files / "tools").symlink_to(ROOT / "tools")
    shutil.copy(ROOT / NAME, server.files / NAME)
    context = chrome.new_context(viewport={"width": 1480, "height": 1100}, service_workers="block")
    opened = Notebook(server, context, "JupyterLab", NAME)
    for index, cell in enumerate(nbformat.read(ROOT / NAME, as_version=4).cells):
        if cell.cell_type == "code":
            opened.run(index)
    yield opened
    opened.close()
    server.shut_down(NAME)
    context.close()


def attention_cell(notebook: nbformat.NotebookNode) -> int:
    return next(index for index, cell in enumerate(notebook.cells) if "interp attention" in cell.source)


def test_no_cell_ends_in_an_error(quickstart: Notebook) -> None:
    saved = quickstart.save()
    outputs = [output for cell in saved.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(outputs) > 4
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.output_type == "stream"] == []


def test_the_viewer_is_painted_as_the_data_says(quickstart: Notebook) -> None:
    viewer = Viewer(quickstart, attention_cell(nbformat.read(ROOT / NAME, as_version=4)))
    opening = viewer.shown()
    # The head that spreads its attention most has the most different colours.
    blurred = "divmod(int(att.stats['entropy'].argmax()), len(att.heads))"
    quickstart.kernel.run(f"(lambda l, h: interp.selection.set(layer=att.layers[l], head=att.heads[h]))(*{blurred})")
    quickstart.until(lambda: viewer.shown() != opening, "the viewer shows another head")
    weights = np.array(quickstart.kernel.value(f"att.head('{'.'.join(map(str, viewer.shown()))}').tolist()"))
    for theme in ("light", "dark"):
        quickstart.theme(theme)
        assert_painted(viewer.matrix_colours(len(weights)), weights, dark=theme == "dark")
    quickstart.theme("light")


def test_nothing_but_this_machine_is_contacted(quickstart: Notebook) -> None:
    assert quickstart.traffic.foreign() == []
    assert max(quickstart.traffic.received) < 500_000
