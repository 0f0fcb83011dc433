"""A sweep that is watched: one view from its first cells to its end, whatever ends it, at no cost to its numbers."""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from IPython.display import display

import interp
from interp.engine import memory
from interp.engine.patching import driver
from interp.engine.transformer import base_runs
from interp.errors import Interrupted
from interp.interface.session import session
from interp.magics import live, progress
from interp.methods.patching.patch import PatchingResult

from .conftest import Page, Wire

Watch = Callable[[Callable[[], Any]], object]
DRIVER: Any = driver.Driver
LIVE: Any = live.LiveView
VIEW = "application/vnd.jupyter.widget-view+json"
CELL = """%%interp patch -o r
clean: When Mary and John went to the store, John gave a drink to
corrupted: When Mary and John went to the store, Mary gave a drink to
answer: Mary
wrong: John"""
PAIR = {
    "clean": "When Mary and John went to the store, John gave a drink to",
    "corrupted": "When Mary and John went to the store, Mary gave a drink to",
    "answer": " Mary",
    "wrong": " John",
}


@pytest.fixture
def slowly(lend: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a model whose sweeps go step by step, each of which is worth showing."""
    monkeypatch.setattr(memory, "WAVE_ROWS", 12)
    monkeypatch.setattr(live, "_INTERVAL", 0.0)
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(live, "_SHARE", 0)
    return lend("gpt2")


@pytest.fixture
def partial(clean_session: Any) -> Iterator[Callable[[Watch], None]]:
    """Return ``partial(watch)``: what `watch` is offered while the following commands run."""

    def of(watch: Watch) -> None:
        clean_session.on_partial = watch

    yield of
    clean_session.on_partial = None


def views(page: Page) -> list[str]:
    return [data[VIEW]["model_id"] for data in page.shown() if VIEW in data]


def pictures(page: Page) -> list[str]:
    return [data["text/html"] for data in page.shown() if "text/html" in data]


def states(wire: Wire) -> list[dict[str, Any]]:
    return [state["sweep"] for state in wire.updates() if "sweep" in state]


def test_what_is_offered_is_the_sweep_so_far(slowly: Any, partial: Callable[[Watch], None]) -> None:
    offered: list[PatchingResult] = []
    partial(lambda make: offered.append(make()))
    whole = interp.patch(**PAIR)
    assert len(offered) > 2
    done = [int(result.done.sum()) for result in offered]
    assert done == sorted(done)
    assert 0 < done[-1] < whole.done.size
    for result in offered:
        # What was offered earlier stays as it was.
        np.testing.assert_array_equal(result.effect[result.done], whole.effect[result.done])
        assert np.isnan(result.effect[~result.done]).all()
        assert np.isnan(result.per_pair[0][~result.done]).all()
        assert result.checks.warnings == ()
        assert result.provenance.model == slowly.name
    assert not any(result.done.all() for result in offered), "what is whole is no part"


def test_being_watched_changes_nothing(slowly: Any, partial: Callable[[Watch], None]) -> None:
    alone = interp.patch(**PAIR)
    slowly.store.clear()
    partial(lambda make: make())
    watched = interp.patch(**PAIR)
    np.testing.assert_array_equal(watched.per_pair, alone.per_pair)
    assert watched.notes == alone.notes
    assert watched.provenance.forwards == alone.provenance.forwards


@pytest.mark.usefixtures("slowly")
def test_a_sweep_is_one_view_from_its_first_cells_to_its_end(shell: Any, page: Page, wire: Wire) -> None:
    shell.run_cell(CELL, store_history=True).raise_error()
    result = shell.user_ns["r"]
    assert views(page) == [result.widget.model_id], "it is shown once"
    assert len(pictures(page)) == 1
    assert result.html() in pictures(page)[0], "its picture is that of the end"
    assert shell.user_ns["_"] is result
    assert not any("patch (" in str(data) for data in page.shown()), "the view says how far it is, not a line too"
    sent = states(wire)
    assert [state["running"] for state in sent] == [True] * (len(sent) - 1) + [False]
    assert [state["done"] for state in sent] == sorted(state["done"] for state in sent)
    assert len({state["done"] for state in sent}) > 2
    assert sent[-1]["done"] == result.done.size
    gc.collect()
    assert result.widget.comm is not None
    page.clear_output()
    shell.run_cell("r", store_history=True).raise_error()
    assert views(page) == [result.widget.model_id], "later it is shown again"


@pytest.mark.usefixtures("slowly")
def test_a_result_that_was_not_its_cells_value_is_shown_later(shell: Any, page: Page) -> None:
    code = f"x = get_ipython().run_cell_magic('interp', 'patch', {CELL.partition(chr(10))[2]!r})"
    shell.run_cell(code, store_history=True).raise_error()
    assert len(views(page)) == 1
    page.clear_output()
    shell.run_cell("x", store_history=True).raise_error()
    assert len(views(page)) == 1


@pytest.mark.usefixtures("slowly")
def test_a_semicolon_shows_nothing(shell: Any, page: Page) -> None:
    shell.run_cell(CELL.replace("-o r", "-o r;"), store_history=True).raise_error()
    assert shell.user_ns["r"].done.all()
    assert views(page) == pictures(page) == []


@pytest.mark.usefixtures("slowly")
def test_a_terminal_shows_the_text(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell(CELL, store_history=True).raise_error()
    assert "PatchingResult(" in capsys.readouterr().out
    assert session.on_partial is None


@pytest.mark.usefixtures("slowly")
def test_an_interrupt_leaves_the_view_with_what_was_finished(
    shell: Any, page: Page, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, steps = DRIVER.step, []

    def step(job: Any) -> None:
        plain(job)
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(driver.Driver, "step", step)
    outcome = shell.run_cell(CELL, store_history=True)
    assert isinstance(outcome.error_in_exec, Interrupted)
    result = shell.user_ns["r"]
    assert 0 < result.done.sum() < result.done.size
    assert views(page) == [result.widget.model_id]
    assert result.html() in pictures(page)[0]
    last = states(wire)[-1]
    assert (last["running"], last["done"]) == (False, int(result.done.sum()))
    assert any("interrupted after" in note for note in last["notes"])
    page.clear_output()
    display(result)
    assert len(views(page)) == 1


@pytest.mark.usefixtures("slowly", "page")
def test_an_interrupt_while_the_view_is_told_waits_until_it_has_been(
    shell: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LIVE._show
    shown: list[int] = []

    def show(view: live.LiveView, result: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        plain(view, result)
        shown.append(int(result.done.sum()))

    monkeypatch.setattr(live.LiveView, "_show", show)
    outcome = shell.run_cell(CELL, store_history=True)
    assert isinstance(outcome.error_in_exec, Interrupted)
    assert len(shown) == 1
    assert states(wire)[-1]["done"] == shown[0]


@pytest.mark.usefixtures("slowly")
def test_a_view_that_fails_is_given_up_and_the_sweep_goes_on(
    shell: Any, page: Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fail(view: live.LiveView, result: Any) -> None:  # noqa: ARG001
        calls.append(1)
        raise OSError("the page is gone")

    monkeypatch.setattr(live.LiveView, "_show", fail)
    shell.run_cell(CELL, store_history=True).raise_error()
    assert calls == [1]
    assert "the page is gone" in caplog.text
    result = shell.user_ns["r"]
    assert result.done.all()
    assert views(page) == [result.widget.model_id], "it is shown as any result is"


@pytest.mark.usefixtures("slowly")
def test_a_command_that_fails_leaves_no_view_that_runs(
    shell: Any, page: Page, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, steps = DRIVER.step, []

    def step(job: Any) -> None:
        plain(job)
        steps.append(1)
        if len(steps) == 3:
            raise ZeroDivisionError

    monkeypatch.setattr(driver.Driver, "step", step)
    outcome = shell.run_cell(CELL, store_history=True)
    assert isinstance(outcome.error_in_exec, ZeroDivisionError)
    assert len(views(page)) == 1
    assert not states(wire)[-1]["running"]


def test_updates_are_at_most_ten_a_second(
    lend: Any, shell: Any, page: Page, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend("gpt2")
    monkeypatch.setattr(memory, "WAVE_ROWS", 12)
    clock = iter(n / 100 for n in range(10**6))
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock))
    offers: list[int] = []
    plain = live.LiveView.offer

    def offer(view: live.LiveView, make: Any) -> None:
        offers.append(1)
        plain(view, make)

    monkeypatch.setattr(live.LiveView, "offer", offer)
    shell.run_cell(CELL, store_history=True).raise_error()
    assert len(views(page)) == 1
    # The clock goes on by a hundredth of a second each time that it is looked at.
    assert len(states(wire)) < len(offers) / 5 + 3


def test_a_sweep_that_is_watched_goes_in_smaller_steps(
    lend: Any, partial: Callable[[Watch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    monkeypatch.setattr(memory, "WATCHED_ROWS", 12)
    steps: list[int] = []
    plain = DRIVER.step

    def step(job: Any) -> None:
        plain(job)
        steps.append(1)

    monkeypatch.setattr(driver.Driver, "step", step)
    alone = interp.patch(**PAIR)
    few = len(steps)
    partial(lambda make: make())
    model.store.clear()
    watched = interp.patch(**PAIR)
    assert len(steps) - few > 2 * few
    np.testing.assert_allclose(watched.per_pair, alone.per_pair, atol=1e-5)


@pytest.mark.usefixtures("slowly")
def test_a_view_is_told_how_far_it_is_before_there_is_a_cell(
    shell: Any, page: Page, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_INTERVAL", 0.02)
    plain = base_runs.chunked

    def slow(*given: Any) -> Any:
        time.sleep(0.2)
        return plain(*given)

    monkeypatch.setattr(base_runs, "chunked", slow)
    shell.run_cell(CELL, store_history=True).raise_error()
    said = [state["said"] for state in wire.updates() if "said" in state]
    assert any(re.fullmatch(r"patch: running 2 prompts unpatched, [12]/2 · \d s", line) for line in said), said
    assert views(page) == [shell.user_ns["r"].widget.model_id]
    assert not any("unpatched" in str(data) for data in page.shown()), "the view says it, not a line too"
    told = len(said)
    time.sleep(0.3)
    assert len([state for state in wire.updates() if "said" in state]) == told, "when it is over nothing is said"
    assert not any(thread.name == "interp-progress" for thread in threading.enumerate())
