"""Workers that end, are ended, or must not be asked: the same result or one line, and no process that stays."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp.engine.pool.here import Here
from interp.engine.pool.processes import Processes
from interp.errors import InputError

from .test_pool import PAIRS, same

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import kill_workers

pytestmark = [pytest.mark.usefixtures("small_shards"), pytest.mark.slow]
PATIENCE = 60.0  # seconds that a loaded machine may take to notice


def gone(process: int) -> bool:
    """Whether a process has ended within some seconds."""
    end = time.monotonic() + PATIENCE
    while psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_killed_at_random_moments(lend: Any, session_with: Any, two: Processes) -> None:
    lend("llama")
    session_with(Here())
    whole = interp.patch(pairs=PAIRS)
    session_with(two)
    interp.patch(pairs=PAIRS)  # the model is there
    draw = random.Random(0)
    kill_workers.killed.clear()
    for moment in ("answer", "both"):  # tools/kill_workers.py has more of them, a hundred times
        session_with(two)  # nothing is known
        timers = kill_workers.armed(two, moment, draw, 0.3)
        same(whole, interp.patch(pairs=PAIRS))
        for timer in timers:
            timer.join()
        assert all(gone(process) for process in kill_workers.killed)
        two.await_ready()
    assert len(kill_workers.killed) == 3
    assert not {*kill_workers.killed} & {worker.process for worker in two.workers()}


def test_a_shard_that_runs_elsewhere_is_said(lend: Any, session_with: Any, two: Processes, monkeypatch: Any) -> None:
    lend("llama")
    session_with(two)
    first = two._seats[0]
    plain, killed = first.say, []

    def say(head: Any, tensors: Any = None) -> None:
        plain(head, tensors)
        if head["do"] == "shard" and not killed:
            killed.append(first.worker.process)
            os.kill(first.worker.process, signal.SIGKILL)

    monkeypatch.setattr(first, "say", say)
    while not killed:  # the other one may be quicker
        session_with(two)
        found = interp.patch(pairs=PAIRS)
    assert "worker 1 ended at a shard, which then ran again elsewhere" in found.notes
    two.await_ready()


@contextlib.contextmanager
def limited(pool: Processes, what: int, amount: Callable[[psutil.Process], int]) -> Iterator[None]:
    """Let a pool's one worker have so much of something, and all that there is afterwards."""
    process = pool.workers()[0].process
    before = resource.prlimit(process, what)
    resource.prlimit(process, what, (amount(psutil.Process(process)), before[1]))
    yield
    if psutil.pid_exists(process):
        resource.prlimit(process, what, before)


@pytest.mark.usefixtures("clean_session")
def test_a_worker_out_of_memory_halves_and_goes_on(session_with: Any, one: Processes, monkeypatch: Any) -> None:
    monkeypatch.setattr("interp.engine.patching.pooled.ROWS", 10_000)
    interp.load()
    asked: dict[str, Any] = {"task": "ioi", "n": 12, "by": "head-position"}
    session_with(Here())
    whole = interp.patch(**asked)
    session_with(one)
    same(whole, interp.patch(**asked))
    session_with(one)
    # No more than it had; what it has got back from there may still do.
    with limited(one, resource.RLIMIT_AS, lambda process: process.memory_info().vms - 100_000_000):
        found = interp.patch(**asked)
    assert found.done.all()
    # Where what it had to give back was too little for a library to go on at all, it was started again.
    assert all("ended at a shard, which then ran again elsewhere" in note for note in found.notes)
    assert np.abs(found.per_pair - whole.per_pair).max() < 1e-4  # halves have other last bits


def test_no_disk_is_needed_there(lend: Any, session_with: Any, one: Processes) -> None:
    lend("llama")
    session_with(Here())
    whole = interp.patch(pairs=PAIRS)
    session_with(one)
    with limited(one, resource.RLIMIT_FSIZE, lambda _: 0):
        process = one.workers()[0].process
        same(whole, interp.patch(pairs=PAIRS))
        assert one.workers()[0].process == process


def test_a_full_disk_here_changes_nothing(folder: Any, clean_session: Any, session_with: Any, monkeypatch: Any) -> None:
    model = clean_session.load(folder("llama"), name="own", spill=0.05)
    session_with(Here())
    whole = interp.patch(pairs=PAIRS)
    tried: list[Any] = []

    def full(tensors: Any, path: Any, metadata: Any = None) -> None:  # noqa: ARG001
        tried.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("interp.engine.model.store.save_file", full)
    model.store.set_budget(2000)
    for _ in range(2):
        session_with(Here())
        same(whole, interp.patch(pairs=PAIRS))
    assert tried
    assert model.store.ledger().disk_bytes == 0


def test_another_weight_is_refused_by_name(folder: Any, tmp_path: Path, clean_session: Any, session_with: Any) -> None:
    there = tmp_path / "flipped"
    shutil.copytree(folder("llama"), there)
    clean_session.load(there)
    weights = load_file(there / "model.safetensors")
    name = next(name for name in weights if "o_proj" in name)
    weights[name][0, 0] = torch.nextafter(weights[name][0, 0], torch.tensor(9.0))
    save_file(weights, there / "model.safetensors.new", metadata={"format": "pt"})
    (there / "model.safetensors.new").rename(there / "model.safetensors")
    pool = Processes(1)
    process = pool.workers()[0].process
    try:
        session_with(pool)
        with pytest.raises(InputError, match=r"no worker is left: worker 1 is refused: its flipped is another one"):
            interp.patch(pairs=PAIRS)
        with pytest.raises(InputError, match="worker 1 is refused"):  # at once
            interp.patch(pairs=PAIRS)
    finally:
        pool.close()
    assert gone(process)


def test_the_kernel_s_death_leaves_no_worker() -> None:
    code = (
        "import time\nfrom interp.engine.pool.processes import Processes\npool = Processes(2)\n"
        "print(*[worker.process for worker in pool.workers()], flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout is not None
        workers = [int(number) for number in kernel.stdout.readline().split()]
        assert len(workers) == 2
        kernel.kill()
    assert all(gone(process) for process in workers)


def test_the_commands(shell: Any, lend: Any) -> None:
    from interp.interface.session import session

    lend("llama")
    table = shell.run_cell("%interp connect 1").result
    assert [row[:2] for row in table.rows] == [("worker 1", "ready")]
    process = int(table.rows[0][2])
    interp.patch(pairs=PAIRS)
    row = shell.run_cell("%interp workers").result.rows[0]
    assert int(row[4]) > 0
    assert row[5] == f"llama {session.get().fingerprint()[:8]} ✓"
    shell.run_cell("%interp connect here")
    assert gone(process)
    assert interp.workers().rows[0][0] == "here"
    assert interp.disconnect().title == interp.workers().title == "no workers: everything runs in this process"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("dask",), "'dask' is no kind of workers; use here, processes, ray, ray://host:port or a number"),
        (("rays",), "did you mean ray"),
        (("process",), "did you mean processes"),
        (("here", 2), "here is this process alone"),
        ((4, 2), "both say how many"),
        (("processes", 0), "0 is no number of workers"),
        (("-1",), "no kind of workers"),
    ],
)
def test_what_is_no_pool_is_refused(given: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        interp.connect(*given)
    assert interp.workers().rows == ()


@pytest.mark.parametrize(
    ("given", "more", "said"),
    [
        (("processes", 2), {"name": "lab"}, "--name is for workers on Ray"),
        (("here",), {"gpus": 1}, "--gpus is for workers on Ray"),
        (("ray",), {"name": "lab"}, "a name is for workers that stay in a cluster"),
        (("ray://head:10001",), {"gpus": -1}, "-1 is no part of the GPUs"),
    ],
)
def test_what_is_ray_s_is_refused_elsewhere(given: tuple[Any, ...], more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        interp.connect(*given, **more)
    assert interp.workers().rows == ()
