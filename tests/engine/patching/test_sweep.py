"""Sweeps that are cut short, run out of memory or are interrupted: what is finished is right, and the rest is said."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import interp
from engine.model.test_interrupts import Alarm
from interp.engine import exactness, memory
from interp.engine.model import forward as passes
from interp.engine.model import hooks
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching import runs
from interp.engine.transformer import base_runs, incremental, network
from interp.engine.transformer.block import Block
from interp.errors import Interrupted
from interp.sites import SITES, Site
from interp.spec import Pair, Prompt
from sampled import spread, turns

pytestmark = pytest.mark.usefixtures("one_thread", "every_sweep_runs")

ONE = Pair(Prompt(ids=(5, 11, 23, 31, 8, 40)), Prompt(ids=(5, 11, 64, 31, 8, 40)), (7,), (9,))
FIRST = Pair(Prompt(ids=(50, 11, 23, 31, 8, 40)), Prompt(ids=(51, 11, 23, 31, 9, 40)), (7, 12), (9,))
SHORT = Pair(Prompt(ids=(5, 17, 3)), Prompt(ids=(6, 17, 3)), (30,), (31,))
BOUND = 5e-5
PATHS = ("replay", "hooked")

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
)
PYTHON = MemoryError()
SIGNS = {"cuda": CUDA, "cpu": CPU, "python": PYTHON}


class Failing:
    """A function that raises at given calls, and counts them."""

    def __init__(self, function: Callable[..., Any], at: Callable[[int], bool], error: BaseException) -> None:
        self.function = function
        self.at = at
        self.error = error
        self.calls = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.at(self.calls - 1):
            raise self.error
        return self.function(*arguments, **options)


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return which way the sweeps go, and make them go it, in waves and batches that are many and small."""
    monkeypatch.setattr(memory, "WAVE_ROWS", 12)
    if request.param == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    return request.param


def ask(**options: Any) -> Any:
    return interp.patch(**{"pairs": [ONE, FIRST], "site": "z", "by": "head-position"} | options)


def whole(result: Any, path: str) -> Any:
    assert result.provenance.path.startswith(path), result.provenance.path
    assert result.done.all()
    assert not any(note.startswith("partial") for note in result.notes)
    return result.per_pair


def seams(path: str) -> list[tuple[Any, str]]:
    """Return where memory can run out: (object, name of its function)."""
    if path == "replay":
        return [
            (incremental, "replay"),
            (runs, "Running"),
            (base_runs.Running, "_step"),
            (Block, "attend"),
            (incremental, "_mlp"),
        ]
    return [(passes, "forward"), (torch.nn.functional, "softmax")]


# -- waves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_small_waves_give_the_same(family: str, rows: int, lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend(family)
    for site in [site for site in SITES if Site(site, 0).hook_name in model.hook_names]:
        by = "head-position" if site in {"z", "q", "k", "v", "pattern"} else "position"
        asked = {"site": site, "by": "neuron" if site == "neuron" else by, "pairs": [ONE, FIRST]}
        at_once = whole(ask(**asked), "replay")
        with monkeypatch.context() as patch:
            patch.setattr(memory, "WAVE_ROWS", rows)
            assert np.abs(whole(ask(**asked), "replay") - at_once).max() < BOUND, site
        assert np.abs(at_once).max() > 0


def test_steps_are_told(lend: Any, path: str) -> None:
    model = lend("gpt2")
    seen: list[tuple[int, int]] = []
    watched: list[str] = []

    def watch(done: int, total: int, what: str) -> None:
        seen.append((done, total))
        watched.append(what)

    from interp.interface.session import session

    session.on_step = watch
    result = ask(pairs=[ONE, SHORT], by="head", layer=[0, 1])
    whole(result, path)
    size = 2 * model.geometry.n_layers * model.geometry.n_heads
    assert {total for _, total in seen} == {size}
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (size, size)
    assert set(watched) == {"patch"}
    assert len(seen) > 1


# -- the store -------------------------------------------------------------------------------------------------------


def test_base_runs_come_from_the_store(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    counted = Failing(runs.Running, lambda _: False, CUDA)
    monkeypatch.setattr(runs, "Running", counted)
    first = ask(site="z", by="head")
    assert counted.calls == 1  # all four prompts at once
    assert first.provenance.forwards >= 4
    counted.calls = 0
    for site in ("k", "resid_post", "neuron"):
        ask(site=site, by="layer")
        ask(site=site, by="layer", direction="noise")
    assert counted.calls == 0, "the base runs were run again"
    again = ask(site="z", by="head")
    assert again.provenance.forwards == 0
    assert np.array_equal(again.per_pair, first.per_pair)
    model.store.clear()
    assert np.array_equal(ask(site="z", by="head").per_pair, first.per_pair)
    assert counted.calls == 1


def test_base_runs_of_the_hooked_forward_come_from_the_store(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("llama")
    monkeypatch.setattr(network, "FAMILIES", {})
    first = ask(site="z", by="head")
    again = ask(site="z", by="head")
    # One batch of cells for each pair is all that is left to run.
    assert again.provenance.forwards == 2 < first.provenance.forwards
    assert np.array_equal(again.per_pair, first.per_pair)


# -- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", SIGNS)
def test_memory_runs_out_once_at_every_step(sign: str, path: str, lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    expected = whole(ask(), path)
    hooked = hooks.census(model.modules())
    injected = 0
    for owner, name in seams(path):

        def asked(k: int, owner: Any = owner, name: str = name) -> tuple[Any, int]:
            model.store.clear()
            exactness.forget(model)
            failing = Failing(getattr(owner, name), lambda call: call == k, SIGNS[sign])
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, lambda *a, f=failing, **b: f(*a, **b))
                return ask(), failing.calls

        _, steps = asked(-1)
        for k in spread(range(steps), 8 if sign == "cuda" else 4):
            result, _ = asked(k)
            assert np.abs(whole(result, path) - expected).max() < 1e-5, (name, k)
            assert result.clean_metric == pytest.approx(ask().clean_metric, abs=1e-5)
            injected += 1
    print(f"{path}, {sign}: memory ran out at {injected} different steps")
    assert injected > (12 if sign == "cuda" else 6)
    assert hooks.census(model.modules()) == hooked


def test_waves_are_halved_and_go_on_at_the_same_cell(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("llama")
    expected = whole(ask(), "replay")
    sizes: list[int] = []
    run = incremental.replay

    def limited(
        net: Any, bases: Any, joins: Any, positions: Any, finish: Any, first: int, before: Any, **more: Any
    ) -> None:
        rows = 0
        before(len(net.layers) - 1)

        def counting(layer: int, stage: str) -> Any:
            nonlocal rows
            joined = list(joins(layer, stage))
            rows += sum(len(j.cells) * (len(bases[j.base]) - j.start) for j in joined)
            return joined

        for layer in range(len(net.layers) + 1):
            counting(layer, "pre"), counting(layer, "mid")
        sizes.append(rows)
        if rows > 9:
            raise CUDA
        run(net, bases, joins, positions, finish, first=first, before=before, **more)

    monkeypatch.setattr(incremental, "replay", limited)
    assert np.abs(whole(ask(), "replay") - expected).max() < BOUND
    fits = next(n for n, size in enumerate(sizes) if size <= 9)
    assert fits > 1
    assert all(later <= earlier // 2 + 1 for earlier, later in itertools.pairwise(sizes[: fits + 1]))
    assert max(sizes[fits:]) <= 9, "a size that did not fit was tried again"


@pytest.mark.parametrize("sign", SIGNS)
def test_memory_for_not_even_one_cell(sign: str, path: str, lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    expected = whole(ask(), path)
    logits = model.run([1, 2, 3]).logits
    for stays in (0, 3, 6):
        owner, name = (incremental, "replay") if path == "replay" else (LoadedModel, "forward")
        failing = Failing(getattr(owner, name), lambda call, stays=stays: call >= stays, SIGNS[sign])
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *a, f=failing, **b: f(*a, **b))
            if path == "hooked":  # several batches, so that some are finished
                patch.setattr(memory, "free_bytes", lambda _: 200_000)
            result = ask()
        said = next(note for note in result.notes if note.startswith("partial: out of memory after "))
        assert "one cell at a time" in said
        done, total = said.split()[5].rstrip(",").split("/")
        assert int(total) == expected.size
        finished = np.isfinite(result.per_pair)
        assert finished.sum() == int(done) < expected.size
        assert np.abs(result.per_pair - expected)[finished].max(initial=0) < BOUND
        assert np.isnan(result.patched[~result.done]).all()
        assert np.isfinite(result.patched[result.done]).all()
        assert result.clean_metric == pytest.approx(ask().clean_metric, abs=1e-5)
        assert "NaN or infinite" not in " ".join(result.notes)
        result.text(), result.html(), result.to_frame()
    assert np.abs(whole(ask(), path) - expected).max() < 1e-5
    assert torch.equal(model.run([1, 2, 3]).logits, logits)


def test_another_error_stays_itself(path: str, lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("llama")
    expected = whole(ask(), path)
    owner, name = (incremental, "replay") if path == "replay" else (passes, "forward")
    failing = Failing(getattr(owner, name), lambda call: call == 1, RuntimeError("expected Half but found Float"))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *a, **b: failing(*a, **b))
        with pytest.raises(RuntimeError, match="expected Half"):
            ask()
    assert np.abs(whole(ask(), path) - expected).max() < 1e-5


# -- interrupts ------------------------------------------------------------------------------------------------------

TURNS = turns(250)  # for each family and path
# A busy machine may need more turns, up to MOST.
ENOUGH = {"landed": turns(75), "partial": turns(50), "with finished cells": turns(25)}
MOST = 4 * TURNS
QUESTIONS = [
    {"site": "z", "by": "head-position", "pairs": [ONE, FIRST]},
    {"site": "resid_pre", "by": "position", "pairs": [ONE, FIRST]},
    {"site": "v", "by": "head", "pairs": [ONE, SHORT], "metric": "kl"},
]


def _can_lock(model: LoadedModel) -> bool:
    taken = model.lock.acquire(blocking=False)
    if taken:
        model.lock.release()
    return taken


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts_in_collections")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_interrupts_leave_nothing_behind(family: str, path: str, lend: Any) -> None:
    model = lend(family)
    dice = random.Random(f"{family} {path}")
    handler, baseline = signal.getsignal(signal.SIGINT), hooks.census(model.modules())
    reference = torch.tensor([[3, 141, 59, 26, 53]])
    with torch.no_grad():
        logits = model.bridge(reference)
    expected = [whole(ask(**question), path) for question in QUESTIONS]
    metrics = [ask(**question).clean_metric for question in QUESTIONS]
    lasts = [_seconds(model, question) for question in QUESTIONS]
    alarm, before = Alarm(), signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, alarm.ring)
    seen = dict.fromkeys(ENOUGH, 0)
    turn = 0
    try:
        with ThreadPoolExecutor(1) as other:
            while turn < TURNS or (turn < MOST and any(seen[what] < count for what, count in ENOUGH.items())):
                turn += 1
                number = dice.randrange(len(QUESTIONS))
                if dice.random() < 0.5:
                    model.store.clear()
                    exactness.forget(model)
                delays = [dice.uniform(1e-5, 0.95 * lasts[number])]
                if dice.random() < 0.3:
                    delays.append(dice.choice([1e-5, 1e-4, 1e-3]))
                start = time.perf_counter()
                stopped = alarm.interrupted(delays, lambda n=number: ask(**QUESTIONS[n]))
                if stopped is not None:
                    seen["landed"] += 1
                else:  # the machine is faster than it was
                    lasts[number] = min(lasts[number], time.perf_counter() - start)
                if isinstance(stopped, Interrupted):
                    seen["partial"] += 1
                    seen["with finished cells"] += _is_right(stopped.result, expected[number], metrics[number])
                assert signal.getsignal(signal.SIGINT) is handler
                assert model._operation is None, f"turn {turn}: an account was left open"
                assert other.submit(_can_lock, model).result(), f"turn {turn}: the lock was left taken"
                assert hooks.census(model.modules()) == baseline, f"turn {turn}: a hook was left behind"
                assert torch.is_grad_enabled()
                if turn % 5 == 0:
                    with torch.no_grad():
                        assert torch.equal(model.bridge(reference), logits), f"turn {turn}: the logits moved"
                    start = time.perf_counter()
                    again = whole(ask(**QUESTIONS[number]), path)
                    lasts[number] = max(lasts[number], time.perf_counter() - start)  # or slower
                    assert np.array_equal(again, expected[number]), f"turn {turn}: the next sweep gave other numbers"
    finally:
        alarm.stop()
        signal.signal(signal.SIGALRM, before)
    print(f"{family}, {path}: of {turn} interrupts {', '.join(f'{count} {what}' for what, count in seen.items())}")
    assert all(seen[what] >= count for what, count in ENOUGH.items()), seen


def _seconds(model: LoadedModel, question: dict[str, Any]) -> float:
    taken: list[float] = []
    for _ in range(3):
        model.store.clear()
        exactness.forget(model)
        start = time.perf_counter()
        ask(**question)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[1]


def _is_right(result: Any, expected: np.ndarray, clean: float) -> bool:
    """Assert that a partial result is right as far as it goes; return whether it goes anywhere."""
    finished = np.isfinite(result.per_pair)
    note = next(note for note in result.notes if note.startswith("partial: interrupted after "))
    assert note.split()[3].rstrip(";") == f"{finished.sum()}/{expected.size}"
    assert np.abs(result.per_pair - expected)[finished].max(initial=0) < 1e-5
    assert np.array_equal(result.done, finished.all(axis=0))
    assert np.isnan(result.patched[~result.done]).all()
    # The metric of the whole pairs is either what it is or not known.
    assert np.isnan(result.clean_metric) or result.clean_metric == pytest.approx(clean, abs=1e-5)
    return bool(finished.any())
