"""What a cell's output gets: the picture and the live view from a kernel, one mimebundle elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from interp.magics.progress import settle
from interp.methods.text.predict import PredictResult
from interp.results import Result
from interp.widgets._base import publish

from .conftest import Page, made

VIEW = "application/vnd.jupyter.widget-view+json"


def live(page: Page) -> list[str]:
    """Return the models of the views shown; each is right below a picture that its view hides."""
    outputs = page.shown()
    assert len(outputs) % 2 == 0
    models: list[str] = []
    for picture, view in zip(outputs[::2], outputs[1::2], strict=True):
        assert set(picture) == {"text/html", "text/plain"}
        assert picture["text/plain"].startswith("AttentionResult(")
        assert set(view) == {VIEW, "text/plain"}
        assert view["text/plain"] == "", "a front end without widgets must not say it twice"
        models.append(view[VIEW]["model_id"])
    return models


def run(shell: InteractiveShell, cell: str) -> None:
    shell.run_cell(cell, store_history=True).raise_error()


def test_a_cell_that_ends_in_a_result_shows_its_picture_and_its_view(shell: Any, page: Page) -> None:
    result = shell.user_ns["result"] = made(1, 2, 3)
    run(shell, "result")
    assert live(page) == [result.widget.model_id]
    picture = page.shown()[0]
    assert result.html() in picture["text/html"]
    assert picture["text/plain"] == result.text()
    assert shell.user_ns["_"] is result
    assert shell.user_ns["Out"][shell.execution_count - 1] is result


def test_the_view_knows_the_pictures_that_it_hides(page: Page) -> None:
    one, other = made(1, 2, 3), made(1, 2, 3)
    for result in (one, one, other):
        display(result)
    assert live(page) == [one.widget.model_id] * 2 + [other.widget.model_id]
    names = [re.match(r'<div class="([\w-]+)"><style>', p["text/html"])[1] for p in page.shown()[::2]]
    assert names[0] == names[1] != names[2]
    assert f".{names[0]}," in one.widget._style
    assert names[2] not in one.widget._style


def test_a_widget_as_a_cells_value_shows_the_same(shell: Any, page: Page) -> None:
    result = made(1, 2, 3)
    shell.user_ns["widget"] = result.widget
    run(shell, "widget")
    assert live(page) == [result.widget.model_id]


def test_a_semicolon_and_clear_output_leave_nothing(shell: Any, page: Page) -> None:
    shell.user_ns["result"] = made(1, 2, 3)
    run(shell, "result;")
    assert page.shown() == []
    run(shell, "from IPython.display import clear_output\nclear_output()\nresult")
    assert len(live(page)) == 1
    run(shell, "clear_output()")
    assert page.shown() == []


def test_a_view_shown_early_is_shown_once(shell: Any, page: Page) -> None:
    result, final = made(1, 2, 3), made(1, 2, 5)
    shown = publish(result.widget, result)
    shown.update(final)
    assert live(page) == [result.widget.model_id]
    assert final.html() in page.shown()[0]["text/html"]
    settle(shell, final)
    shell.user_ns["result"] = final
    run(shell, "result")
    assert live(page) == [result.widget.model_id], "the value of its own cell is not shown again"
    assert shell.user_ns["_"] is final
    run(shell, "result")
    assert live(page) == [result.widget.model_id, final.widget.model_id], "that of a later one is"


@pytest.mark.usefixtures("wire")
def test_without_a_kernel_there_is_no_live_view(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.user_ns["result"] = made(1, 2, 3)
    run(shell, "result")
    assert "AttentionResult(" in capsys.readouterr().out
    data, _ = shell.display_formatter.format(result)
    assert data == {"text/plain": result.text(), "text/html": result.html()}
    assert result._views.made is None, "a view that nobody can see was made"
    widget, _ = shell.display_formatter.format(result.widget)
    assert widget == data


def test_a_result_without_a_view_is_one_output(page: Page) -> None:
    assert PredictResult._widget is None
    assert Result._widget is None
    display(Result())
    (shown,) = page.shown()
    assert set(shown) == {"text/html", "text/plain"}
