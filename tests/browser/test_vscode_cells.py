"""A cell's outputs in VS Code: a row for each result and no other, whatever came just after the cell was cleared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.displaypub import DisplayPublisher
from playwright.sync_api import Browser

import interp
from browser.lab import SHOTS
from browser.vscode import COLOURS, CodePage
from interp.engine import memory
from interp.errors import InputError
from interp.interface.session import session
from interp.magics import live, progress
from interp.widgets._base import Shown
from views.test_patching import SHAPES
from widgets.conftest import (
    Wire,
    made,
    wire,  # noqa: F401 (a fixture)
)
from widgets.test_live import CELL as SWEEP

ATTENTION = "%%interp attention -o a\nAlice met Bob"
# What of a row can be seen: its text, and how much of it is drawn.
_SEEN = """row => {
  const drawn = [...row.querySelectorAll("canvas, svg, img, section, table, div")].filter(e => e.clientHeight > 8);
  return [row.innerText.trim(), drawn.length, row.clientHeight];
}"""
_LINES = """frame => {
  const pale = [...frame.querySelectorAll("*")]
    .find(e => /strongest of|mean entropy/.test(e.textContent) && !e.children.length);
  return [getComputedStyle(frame).borderTopColor, getComputedStyle(pale).color];
}"""


class Cell:
    """A cell that is run in a kernel of VS Code's, and the page that shows what it shows."""

    def __init__(self, shell: Any, wire: Wire, page: CodePage) -> None:  # noqa: F811
        self._shell, self._wire, self.page = shell, wire, page

    def run(self, source: str) -> list[tuple[str, int, int]]:
        """Run the cell, and return what is seen of its rows then."""
        self._wire.told.append({"type": "execute_input", "at": time.monotonic()})
        self._shell.run_cell(source, store_history=True)
        return self.rows()

    def rows(self) -> list[tuple[str, int, int]]:
        self.page.hear()
        self.page.page.wait_for_timeout(100)
        seen = [tuple(row.evaluate(_SEEN)) for row in self.page.rows.all()]
        assert all(text and drawn for text, drawn, _ in seen), "no row is empty"
        assert self.page.errors == []
        return seen


@pytest.fixture(params=COLOURS)
def theme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cell(
    shell: Any,
    wire: Wire,  # noqa: F811
    chrome: Browser,
    theme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cell]:
    class Told(DisplayPublisher):
        def publish(self, data: Any, *_: Any, transient: Any = None, update: bool = False, **__: Any) -> None:
            kind = "update_display_data" if update else "display_data"
            given = {"data": data, "id": (transient or {}).get("display_id")}
            wire.told.append({"type": kind, **given, "at": time.monotonic()})

        def clear_output(self, *_: Any, **__: Any) -> None:
            wire.told.append({"type": "clear_output"})

    monkeypatch.setattr(shell, "display_pub", Told(parent=shell))
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    shell.user_ns["__vsc_ipynb_file__"] = "a.ipynb"
    page = CodePage(chrome, wire, theme)
    yield Cell(shell, wire, page)
    page.close()


@pytest.fixture
def slow(lend: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return ``slow(seconds)``: commands take so long before they do anything, and then may `fail`."""
    lend("gpt2")
    plain = session.call

    def of(seconds: float, fail: BaseException | None = None) -> None:
        def call(*given: Any, **named: Any) -> Any:
            time.sleep(seconds)
            if fail is not None:
                raise fail
            return plain(*given, **named)

        monkeypatch.setattr(session, "call", call)

    return of


def shot(cell: Cell, name: str, theme: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    cell.page.page.screenshot(path=SHOTS / f"{theme}-cell-{name}.png")


def test_the_line_of_a_slow_command_becomes_its_result(cell: Cell, slow: Callable[..., None], theme: str) -> None:
    slow(1.2)
    for _ in range(2):
        ((text, _, height),) = cell.run(ATTENTION)
        assert cell.page.frame.count() == 1
        assert text.startswith("Attention")
        assert " s\n" not in text, "nothing of the line is left"
        assert height > 200
    shot(cell, "slow", theme)


def test_a_quick_result_stands_where_nothing_can_be_lost(cell: Cell, slow: Callable[..., None]) -> None:
    """What is shown while VS Code still clears the cell is shown once and for all."""
    slow(0)
    for _ in range(2):
        cell.run(ATTENTION)
        assert [row.locator("section.interp-frame").count() for row in cell.page.rows.all()] == [1]


def test_a_sweep_is_one_row_from_its_first_cells_to_its_end(
    cell: Cell, slow: Callable[..., None], theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "WAVE_ROWS", 12)
    monkeypatch.setattr(live, "_INTERVAL", 0.0)
    monkeypatch.setattr(live, "_SHARE", 0)
    slow(0.7)
    ((text, _, _),) = cell.run(SWEEP)
    assert cell.page.frame.count() == 1
    assert not cell.page.frame.get_by_role("button", name="Stop").is_visible()
    assert text.startswith("Activation patching")
    shot(cell, "sweep", theme)


def test_a_command_that_fails_leaves_one_line_that_says_so(cell: Cell, slow: Callable[..., None]) -> None:
    slow(0.7, InputError("no such thing"))
    ((text, _, _),) = cell.run("%%interp attention\nAlice")
    assert text.startswith("attention: stopped after")


def test_a_line_that_comes_too_early_would_stay(
    cell: Cell, slow: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is as strict as VS Code: this is what `progress.FIRST` is for."""
    monkeypatch.setattr(progress, "FIRST", 0.0)
    slow(0.7)
    ((text, _, _),) = cell.run(ATTENTION)
    assert text.startswith("attention ·")
    assert cell.page.frame.count() == 0


@pytest.mark.parametrize("kind", ["attention", "patching"])
def test_without_its_kernel_the_picture_is_shown(cell: Cell, theme: str, kind: str, wire: Wire) -> None:  # noqa: F811
    """Opened again and not run, a notebook has pictures where views were."""
    result = made(2, 3, 5) if kind == "attention" else SHAPES["usual"]()
    Shown(result.widget, result, None)
    wire.told[:] = [message for message in wire.told if not message["type"].startswith("comm")]
    ((text, _, height),) = cell.rows()
    assert cell.page.frame.count() == 0
    assert result.provenance.model in text
    assert height > 100
    if theme == "vscode-high-contrast":
        # In the editor's own lines and full ink, as live views are.
        seen = cell.page.rows.locator(".interp-frame").evaluate(_LINES)
        assert seen == ["rgb({}, {}, {})".format(*bytes.fromhex(part[1:])) for part in COLOURS[theme][:0:-1]]
    shot(cell, f"reopened-{kind}", theme)


def test_the_view_moves_with_what_is_selected_elsewhere(cell: Cell, slow: Callable[..., None]) -> None:
    slow(0)
    cell.run(ATTENTION)
    heads = cell.page.frame.locator("select")
    interp.selection.set(layer=1, head=1)
    cell.page.hear()
    cell.page.page.wait_for_function("() => document.querySelectorAll('section select')[0].value === '1'")
    heads.nth(0).select_option(index=0)
    cell.page.page.wait_for_timeout(200)
    assert interp.selection.layer == 0
