"""A cell's output in VS Code: one for each result, which is never emptied, and never lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from interp.magics import progress
from interp.widgets._base import Shown

from .conftest import Page, deliver, made

VIEW = "application/vnd.jupyter.widget-view+json"
FORGETS = 0.4  # seconds after a cell is cleared within which what is shown first is forgotten


@pytest.fixture
def code(shell: Any, page: Page, monkeypatch: pytest.MonkeyPatch) -> Page:
    """Return VS Code's page: no update reaches an output that came just after the cell was cleared."""
    shell.user_ns["__vsc_ipynb_file__"] = "a.ipynb"
    plain, forgotten = page.publish, set[Any]()
    began = time.monotonic()

    def publish(data: Any, *given: Any, transient: Any = None, update: bool = False, **named: Any) -> None:
        name = (transient or {}).get("display_id")
        if not update and time.monotonic() - began < FORGETS:
            forgotten.add(name)
        if update:
            assert "".join(map(str, data.values())), "an output that is emptied keeps its row"
            assert name not in forgotten, "this update is lost"
        plain(data, *given, transient=transient, update=update, **named)

    monkeypatch.setattr(page, "publish", publish)
    return page


def test_a_result_is_one_output_with_its_picture(shell: Any, code: Page) -> None:
    result = shell.user_ns["result"] = made(1, 2, 3)
    shell.run_cell("result", store_history=True).raise_error()
    (shown,) = code.shown()
    assert shown[VIEW]["model_id"] == result.widget.model_id
    assert result.html() in shown["text/html"]
    assert shown["text/plain"] == result.text()


def test_a_slow_command_is_one_output_from_its_line_to_its_view(
    shell: Any, lend: Any, code: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.interface.session import session

    model = lend("gpt2")
    plain: Callable[..., Any] = session.call

    def call(*given: Any, **named: Any) -> Any:
        time.sleep(0.8)
        assert [data["text/plain"][:9] for data in code.shown()] == ["attention"]
        return plain(*given, **named)

    monkeypatch.setattr(session, "call", call)
    assert progress.FIRST > FORGETS
    shell.run_cell("%%interp attention -o a\nAlice met Bob", store_history=True).raise_error()
    (shown,) = code.shown()
    assert shown[VIEW]["model_id"] == shell.user_ns["a"].widget.model_id
    assert shown["text/plain"] == shell.user_ns["a"].text()
    assert model.name in shown["text/html"]


def test_without_the_widgets_script_the_picture_takes_the_place_of_the_error(code: Page) -> None:
    time.sleep(FORGETS)
    heard, silent = made(1, 2, 3), made(1, 2, 3)
    places = [Shown(result.widget, result, None) for result in (heard, silent)]
    deliver(heard.widget, {"id": "1", "method": "views", "params": {"count": 1}})
    for place in places:
        place.without_script()
    assert [VIEW in shown for shown in code.shown()] == [True, False]
    assert silent.html() in code.shown()[1]["text/html"]
