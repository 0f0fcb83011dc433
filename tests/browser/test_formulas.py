"""Text stays text: a page that typesets formulas finds none in what is ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator

from browser.lab import ROOT, Notebook, Server, write

# Every delimiter of the typesetters, and what JupyterLab typesets without one.
FORMULAS = (
    r"It costs $5 and $6 or $x^2$ now",
    r"a \(x\) b \[x\] c $$x^2$$ d",
    r"\begin{equation}x\end{equation} and \ref{y}",
)
LOAD = f"""\
import sys
%load_ext interp
import interp
from dataclasses import replace
sys.path.append({str(ROOT / "tests")!r})
from interp.results import Provenance
from views.test_patching import sweep
interp.load(name="$x^2$")"""
# What is typeset where nobody says it may not be: the test looks at a page that does typeset.
CONTROL = r"""from IPython.display import HTML
HTML("<p>$x^2$</p>")"""
TEXTS = [f"%%interp attention -o att\n{text}" for text in FORMULAS]
PICTURES = [f"%%interp {name}\n{FORMULAS[0]}" for name in ("lens", "generate --n 4", "predict", "tokens")]
MADE = f"""\
words = tuple({FORMULAS!r})
patched = sweep("position", (2, len(words)), site="resid_pre", tokens=words, task=words[0], notes=words)
replace(patched, provenance=Provenance(model="$x^2$"))"""
COMMANDS = ["%interp status", "%interp models", "%interp help"]
CHART = "att.to_circuitsvis()"
CELLS = [LOAD, CONTROL, *TEXTS, *PICTURES, MADE, *COMMANDS, CHART]
OURS = range(CELLS.index(CONTROL) + 1, len(CELLS))


@pytest.fixture(scope="module")
def notebook(server: Server, chrome: Browser, front_end: str) -> Iterator[Notebook]:
    context = chrome.new_context(viewport={"width": 1200, "height": 1100}, service_workers="block")
    opened = Notebook(server, context, front_end, write(server, f"formulas {front_end}.ipynb", CELLS))
    for index in range(len(CELLS)):
        opened.run(index)
        assert "Error" not in opened.cell(index).locator(".jp-Cell-outputArea").inner_text()
    yield opened
    opened.close()
    server.shut_down(opened.name)
    context.close()


def typeset(place: Locator) -> list[str]:
    """Return what was taken for a formula."""
    return place.locator("mjx-container, mjx-merror, .MathJax, [data-mjx-error]").all_inner_texts()


def assert_text(opened: Notebook, control: Locator) -> None:
    control.locator("mjx-container").wait_for()
    for index in OURS:
        cell = opened.cell(index).locator(".jp-Cell-outputArea")
        cell.scroll_into_view_if_needed()
        assert typeset(cell) == [], CELLS[index]
        assert "Math input error" not in cell.inner_text()


def test_no_prompt_and_no_name_is_typeset(notebook: Notebook) -> None:
    views = [notebook.cell(CELLS.index(source)).locator("section.interp-frame") for source in (*TEXTS, MADE)]
    for view in views:
        view.wait_for(state="attached")
    assert_text(notebook, notebook.output(CELLS.index(CONTROL)))
    for text, view in zip(FORMULAS, views, strict=False):
        view.scroll_into_view_if_needed()
        notebook.until(lambda view=view: "$x^2$ · " in view.inner_text(), "the model's name is there as it is")
        seen = re.sub(r"\s", "", view.inner_text().replace("␣", ""))
        assert re.sub(r"\s", "", text) in seen or "\\" in seen
    notebook.shot(views[0], f"{notebook.front_end}-formulas")


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_nor_is_it_where_the_notebook_is_opened_again(
    notebook: Notebook, server: Server, chrome: Browser, trusted: bool, tmp_path: Path
) -> None:
    saved: Any = notebook.save()
    saved.metadata = {
        "kernelspec": {"name": "none", "display_name": "None", "language": "none"},
        "title": f"{tmp_path.name} {notebook.front_end}",  # a signature is of the content
    }
    if trusted:
        server.sign(saved)
    name = f"formulas-again-{notebook.front_end}-{trusted}.ipynb"
    nbformat.write(saved, server.files / name)
    with chrome.new_context(viewport={"width": 1200, "height": 1100}, service_workers="block") as context:
        opened = Notebook(server, context, notebook.front_end, name)
        opened.without_kernel()
        assert_text(opened, opened.output(CELLS.index(CONTROL)))
        picture = opened.cell(CELLS.index(TEXTS[0])).locator("div.interp-frame")
        opened.shot(picture, f"{notebook.front_end}-formulas-{'author' if trusted else 'untrusted'}")
        opened.close()
