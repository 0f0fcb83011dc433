"""Waiting is never silent: a line within half a second, which becomes the result and is never emptied."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

import interp
from interp.interface.session import session
from interp.magics import progress
from interp.magics.progress import Progress
from interp.results import Result

from .conftest import Page, made


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def slow(lend: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return ``slow(seconds, steps, fail)``: the next command takes so long, and says so in so many steps."""
    lend("gpt2")
    plain = session.call

    def of(seconds: float, steps: int = 0, fail: BaseException | None = None) -> None:
        def call(*given: Any, **named: Any) -> Any:
            for done in range(steps or 1):
                if steps and session.on_step is not None:
                    session.on_step(done, steps, "counting")
                time.sleep(seconds / (steps or 1))
            if fail is not None:
                raise fail
            return plain(*given, **named)

        monkeypatch.setattr(session, "call", call)

    return of


@pytest.fixture
def told(page: Page, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """Return what the page was told and when, in seconds since the fixture was made; an update is marked."""
    began, kept, plain = time.monotonic(), list[tuple[float, str]](), page.publish

    def publish(data: Any, *given: Any, update: bool = False, **named: Any) -> None:
        kept.append((time.monotonic() - began, ("update " if update else "") + str(data.get("text/plain"))))
        plain(data, *given, update=update, **named)

    monkeypatch.setattr(page, "publish", publish)
    return kept


def test_a_quick_command_shows_its_result_and_nothing_else(shell: Any, lend: Any, told: Any) -> None:
    lend("gpt2")
    shell.run_cell("%%interp predict\nAlice", store_history=True).raise_error()
    assert not any("update" in text for _, text in told)


def test_a_slow_one_says_so_within_half_a_second_and_becomes_its_result(
    shell: Any, slow: Any, told: Any, page: Page
) -> None:
    slow(2.6)
    shell.run_cell("%%interp predict -o p\nAlice", store_history=True).raise_error()
    times, texts = zip(*told, strict=True)
    began = times[0] - progress.FIRST
    assert times[0] - began <= 0.5
    assert texts[0].startswith("predict")
    assert max(b - a for a, b in pairwise(times)) < 2, "it is kept up to date"
    assert all(text.startswith("update ") for text in texts[1:])
    assert all(text.removeprefix("update ") for text in texts), "nothing is ever emptied"
    result = shell.user_ns["p"]
    assert page.shown() == [{"text/plain": result.text(), "text/html": result.html()}], (
        "one output, which is the result"
    )
    assert shell.user_ns["_"] is result
    page.clear_output()
    shell.run_cell("p", store_history=True).raise_error()
    assert len(page.shown()) + len(shell.user_ns["Out"]) >= 2, "later it is shown again"


def test_a_view_takes_the_place_of_the_line(shell: Any, slow: Any, page: Page) -> None:
    slow(0.7)
    shell.run_cell("%%interp attention -o a\nAlice met Bob", store_history=True).raise_error()
    picture, view = page.shown()
    assert shell.user_ns["a"].html() in picture["text/html"]
    assert view["text/plain"] == ""


def test_a_line_that_no_result_follows_says_how_it_ended(shell: Any, slow: Any, page: Page) -> None:
    slow(0.7, 5)
    shell.run_cell("%%interp predict;\nAlice", store_history=True).raise_error()
    (line,) = page.shown()
    assert re.fullmatch(r"predict: done in \d\.\d s", line["text/plain"])
    page.clear_output()
    slow(0.7, 5, fail=interp.errors.InputError("no such thing"))
    shell.run_cell("%%interp predict\nAlice")
    (line,) = page.shown()
    assert re.fullmatch(r"predict: stopped after 4 of 5, \d\.\d s", line["text/plain"])


def test_a_line_says_what_is_done_of_how_much_and_how_long_it_may_take(shell: Any) -> None:
    clock = Clock()
    line = Progress(shell, "patch", clock)
    assert line.early
    clock.now += 3
    assert not line.early
    assert line.line() == "patch · 3 s"
    line.step(10, 100, "patch")
    clock.now += 2
    assert line.line() == "patch (10/100) · 5 s"
    line.step(30, 100, "patch")
    assert line.line() == "patch (30/100) · 5 s · about 7 s left"
    line.step(0, 20, "validate")
    clock.now += 100
    line.step(1, 20, "validate")
    assert line.line() == "validate (1/20) · 105 s · about 32 min left"
    line.step(20, 20, "validate")
    assert line.line() == "validate (20/20) · 105 s", "the last one reaches its end"


def test_what_is_imported_before_a_command_begins_is_waited_for_too(shell: Any, told: Any) -> None:
    with Progress(shell, "load", began=time.monotonic() - progress.FIRST + 0.1):
        time.sleep(0.3)
    (at, line), *_ = told
    assert at < progress.FIRST, "the time before counts"
    assert line.startswith("load")


@pytest.mark.slow
def test_the_first_line_of_a_load_does_not_wait_for_torchs_library() -> None:
    """No thread runs while it is read; what can be imported without it comes first, long enough for the line."""
    code = "import sys, interp; interp.load(device='cpu'); print(*(list(sys.modules).index(m) for m in sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "transformers", "torch"], capture_output=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < after


def test_a_terminal_is_told_nothing(shell: Any, slow: Any, capsys: pytest.CaptureFixture[str]) -> None:
    slow(0.7, 3)
    shell.run_cell("%%interp predict\nAlice").raise_error()
    assert "counting" not in capsys.readouterr().out


def test_a_result_that_cannot_be_drawn_is_written(
    shell: Any, page: Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(Result, "html", lambda _: 1 / 0)
    with Progress(shell, "attention") as line:
        time.sleep(0.3)
        result = made(1, 2, 3)
        assert line.become(result)
    assert page.shown()[-1]["text/plain"] == result.text()
    assert "ZeroDivisionError" in caplog.text


# -- as a Python function --------------------------------------------------------------------------------------------


def test_a_call_in_python_says_how_far_it_is_too(shell: Any, slow: Any, page: Page) -> None:
    slow(0.8, 4)
    shell.run_cell("import interp; p = interp.predict('Alice')", store_history=True).raise_error()
    (line,) = page.shown()
    assert re.fullmatch(r"predict: done in \d\.\d s", line["text/plain"]), "what was kept is not shown"
    assert session.on_step is None
    page.clear_output()
    slow(0.8, 4, fail=KeyboardInterrupt())
    shell.run_cell("interp.predict('Alice')")
    (line,) = page.shown()
    assert re.fullmatch(r"predict: stopped after 3 of 4, \d\.\d s", line["text/plain"])


def test_where_a_cell_shows_what_a_call_has_made_it_takes_the_place_of_the_line(
    shell: Any, slow: Any, page: Page
) -> None:
    slow(0.7)
    shell.run_cell("import interp; p = interp.predict('Alice'); p", store_history=True).raise_error()
    result = shell.user_ns["p"]
    assert page.shown() == [{"text/plain": result.text(), "text/html": result.html()}]
    shell.run_cell("a = interp.predict('Bob'); display(a); b = interp.predict('Carol')").raise_error()
    first, *shown = page.shown()
    assert first["text/html"] == result.html()
    assert shown[0]["text/plain"] == shell.user_ns["a"].text()
    assert re.fullmatch(r"predict: done in \d\.\d s", shown[1]["text/plain"]), "the second call has a line of its own"
    page.clear_output()
    shell.run_cell("b", store_history=True).raise_error()
    assert not page.shown(), "later it is a value as any other"
    shell.run_cell("interp.attention('Alice met Bob')", store_history=True).raise_error()
    picture, view = page.shown()
    assert "<svg" in picture["text/html"]
    assert view["text/plain"] == ""


def test_the_calls_of_a_cell_share_one_line(shell: Any, slow: Any, page: Page, told: Any) -> None:
    slow(0.6)
    shell.run_cell("import interp\nfor _ in range(2): interp.predict('Alice')\n0;").raise_error()
    assert len(page.shown()) == 1
    ends = [line for _, line in told if "done in" in line]
    assert len(ends) == 2
    assert all(re.fullmatch(r"update predict: done in \d\.\d s", line) for line in ends)
    shell.run_cell("interp.predict('Alice');").raise_error()
    assert len(page.shown()) == 2, "another cell has one of its own"


def test_a_quick_call_and_one_inside_a_command_show_no_line_of_their_own(shell: Any, lend: Any, told: Any) -> None:
    lend("gpt2")
    shell.run_cell("import interp; p = interp.predict('Alice')").raise_error()
    assert told == []
    code = "def slowly(logits):\n    import time; time.sleep(0.2); interp.predict('Alice'); return logits[:, 7]"
    shell.run_cell(code).raise_error()
    shell.run_cell("%interp patch --task ioi --n 2 --metric slowly -o r", store_history=True).raise_error()
    assert len([line for _, line in told if line and not line.startswith("update ")]) == 1, "beside it is the view"
    assert not any("predict: done" in line for _, line in told)


def test_a_script_and_a_thread_say_nothing(slow: Any, shell: Any, told: Any) -> None:
    slow(0.6)
    code = "import interp, threading; t = threading.Thread(target=interp.predict, args=('Alice',)); t.start(); t.join()"
    shell.run_cell(code).raise_error()
    assert told == []
    lone = "import sys, interp; interp.predict; print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", lone], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"
