"""Workers on Ray: a local one, and a cluster of two nodes with homes of their own, are what worker processes are."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp.engine.pool.here import Here
from interp.engine.pool.ray import Ray
from interp.errors import InputError

from . import everything
from .test_life import gone
from .test_pool import PAIRS, same

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_shards"),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'interp[ray]'"
    ),
]
PATIENCE = 90.0
CLUSTER = """
import json, os, sys
from ray._common.utils import get_default_ray_temp_dir
from ray.cluster_utils import Cluster
os.makedirs(get_default_ray_temp_dir(), exist_ok=True)  # where it writes the address
cluster = Cluster()
for node in json.loads(sys.argv[1]):
    for last in (False, False, True):
        try:
            cluster.add_node(**node)
            break
        except Exception:  # on a busy machine a start can take longer than Ray gives itself
            if last:
                raise
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def soon(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def below(process: int) -> list[psutil.Process]:
    """Return a process' descendants."""
    return psutil.Process(process).children(recursive=True)


@pytest.fixture(scope="module")
def local() -> Iterator[Ray]:
    """Return a pool of one worker, on a Ray of its own."""
    pool = Ray(count=1)
    pool.await_ready()
    processes = below(pool._bridge.process.pid)
    yield pool
    pool.close()
    assert all(gone(process.pid) for process in processes)
    assert not Path(pool._bridge.folder).exists()


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the homes of a cluster's two nodes."""
    return tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")


def started(command: list[str], environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    """Start a cluster, and return its process and its address; on a busy machine a start can hang, and is made anew."""
    for _ in range(3):
        cluster = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        said: queue.Queue[str] = queue.Queue()

        def read(stream: Any = cluster.stdout, said: queue.Queue[str] = said) -> None:
            for line in stream:
                if line.startswith("127.0.0.1:"):
                    said.put(line.strip())

        threading.Thread(target=read, daemon=True).start()
        try:
            return cluster, said.get(timeout=PATIENCE)
        except queue.Empty:
            for process in [*below(cluster.pid), psutil.Process(cluster.pid)]:
                process.kill()
            cluster.wait()
    raise AssertionError("no cluster of Ray's could be started")


@pytest.fixture(scope="module")
def address(homes: tuple[Path, Path]) -> Iterator[str]:
    """Return the address of a cluster of two nodes of two cores each, which share no cache."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, as Ray's sockets need
    nodes = [
        {
            "num_cpus": 2,
            "temp_dir": folder,
            "include_dashboard": False,
            "env_vars": {"HF_HOME": str(home), "INTERP_CACHE": str(home / "interp")},
        }
        for home in homes
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(interp.__file__).parents[1]),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_register_timeout_seconds": "300",
        "HF_HUB_OFFLINE": "1",
    }
    cluster, found = started([sys.executable, "-c", CLUSTER, json.dumps(nodes)], environment)
    yield found
    processes = below(cluster.pid)
    cluster.communicate()  # ends its input
    assert all(gone(process.pid) for process in processes)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def lab(address: str) -> Iterator[Ray]:
    """Return a pool of two workers, one on each node, which last."""
    pool = Ray(address, 2, name="lab")
    pool.await_ready()
    yield pool
    pool.close()


def cached(home: Path, folder: Path, *, flipped: bool = False) -> None:
    """Put a model into a hub's cache as ``lab/tiny``, with one weight that is another one where it is `flipped`."""
    commit = "0" * 40
    repository = home / "hub" / "models--lab--tiny"
    shutil.rmtree(repository, ignore_errors=True)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    there = repository / "snapshots" / commit
    shutil.copytree(folder, there)
    if flipped:
        weights = load_file(there / "model.safetensors")
        name = next(name for name in weights if "o_proj" in name)
        weights[name][0, 0] = torch.nextafter(weights[name][0, 0], torch.tensor(9.0))
        save_file(weights, there / "model.safetensors", metadata={"format": "pt"})


def test_the_local_one_listens_on_this_machine_alone(local: Ray) -> None:
    open_ = [
        connection.laddr.ip
        for process in [local._bridge.process.pid, *(one.pid for one in below(local._bridge.process.pid))]
        for connection in psutil.Process(process).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert open_
    assert {ip.removeprefix("::ffff:") for ip in open_} == {"127.0.0.1"}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("asked", [{"site": "z"}, {"site": "mlp_out", "by": "span", "metric": "loss"}])
def test_actors_give_the_same_bits(
    family: str, asked: dict[str, Any], lend: Any, session_with: Any, local: Ray, lab: Ray
) -> None:
    lend(family)
    found = []
    for pool in (Here(), local, lab):
        session_with(pool)
        found.append(interp.patch(pairs=PAIRS, **asked))
    for other in found[1:]:
        same(found[0], other)
    assert found[1].provenance.path.endswith(" on 1 Ray worker")
    assert " shards on 2 Ray workers at 127.0.0.1:" in found[2].provenance.path


@pytest.mark.usefixtures("clean_session")
def test_on_the_bundled_model(session_with: Any, local: Ray, lab: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.engine.patching.pooled.ROWS", 1000)
    interp.load()
    found = []
    for pool in (Here(), local, lab):
        session_with(pool)
        found.append(interp.patch(task="ioi", n=12))
    for other in found[1:]:
        same(found[0], other)
    assert [worker.held["bundled"] for worker in lab.workers()] == [interp.model.fingerprint()] * 2


@pytest.mark.usefixtures("clean_session")
def test_every_command_on_the_bundled_model(local: Ray, lab: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    everything.cut(monkeypatch)
    interp.load()
    interp.features_load("bundled")
    for name in everything.COMMANDS:
        before = [sum(worker.shards for worker in pool.workers()) for pool in (local, lab)]
        here, *there = (everything.asked(name, pool) for pool in (Here(), local, lab))
        assert all(here == other for other in there), name
        after = [sum(worker.shards for worker in pool.workers()) for pool in (local, lab)]
        assert all(last > first for first, last in zip(before, after, strict=True)), name
    assert all(worker.shards for worker in lab.workers())


def test_changed_weights_go_to_all_of_them_once(folder: Any, clean_session: Any, session_with: Any, lab: Ray) -> None:
    model = clean_session.load(folder("llama"), name="edited")
    with torch.no_grad():
        model.bridge.blocks[1].attn.o.weight.mul_(1.5)
    lab._bridge._stored.clear()
    found = []
    for pool in (Here(), lab):
        session_with(pool)
        found.append(interp.patch(pairs=PAIRS))
    same(*found)


def test_a_killed_actor_s_shard_runs_again(lend: Any, session_with: Any, local: Ray) -> None:
    lend("llama")
    session_with(Here())
    whole = interp.patch(pairs=PAIRS)
    (seat,) = local._seats
    killed = seat.worker.process
    plain = seat.send

    def send(head: Any, tensors: Any) -> None:
        plain(head, tensors)
        if head["do"] == "shard" and seat.worker.process == killed:
            os.kill(killed, signal.SIGKILL)

    seat.send = send  # type: ignore[method-assign]
    session_with(local)
    found = interp.patch(pairs=PAIRS)
    seat.send = plain  # type: ignore[method-assign]
    same(whole, found)
    assert "worker 1 ended at a shard, which then ran again elsewhere" in found.notes
    assert gone(killed)
    assert seat.worker.process != killed


def test_each_node_finds_its_own_files_and_a_pool_with_a_name_is_found_again(
    folder: Any,
    homes: tuple[Path, Path],
    clean_session: Any,
    session_with: Any,
    lab: Ray,
    address: str,
    monkeypatch: Any,
) -> None:
    home = homes[0].parent / "kernel"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    for place in (home, *homes):
        cached(place, folder("llama"))
    model = clean_session.load("lab/tiny", name="tiny")
    session_with(Here())
    whole = interp.patch(pairs=PAIRS * 4)
    session_with(lab)
    same(whole, interp.patch(pairs=PAIRS * 4))
    session_with(None)
    assert any(worker.held.get("tiny") == model.fingerprint() for worker in lab.workers())
    before = [(worker.process, dict(worker.held)) for worker in lab.workers()]

    lab.close()
    assert all(psutil.pid_exists(process) for process, _ in before)
    again = Ray(address, name="lab")
    try:
        again.await_ready()
        assert [worker.process for worker in again.workers()] == [process for process, _ in before]
        # One of them may have been loading still when it was let go of.
        assert all(
            held.items() <= worker.held.items() for worker, (_, held) in zip(again.workers(), before, strict=True)
        )
        session_with(again)
        same(whole, interp.patch(pairs=PAIRS * 4))

        for place in (home, homes[0]):
            cached(place, folder("gpt2"))
        cached(homes[1], folder("llama"), flipped=True)
        clean_session.load("lab/tiny", name="other")
        session_with(Here())
        whole = interp.patch(pairs=PAIRS * 4)
        session_with(again)
        for _ in range(50):  # until each has been asked
            same(whole, interp.patch(pairs=PAIRS * 4))
            session_with(again)
            if any(worker.state.startswith("is refused") for worker in again.workers()):
                break
        states = sorted(worker.state for worker in again.workers())
        assert states[0].startswith("is refused: its other is another one (fingerprint ")
        assert states[1] == "ready"
    finally:
        again.lasting = False
        again.close()
    assert all(gone(process) for process, _ in before)


def test_the_kernel_s_death_leaves_no_actor(address: str) -> None:
    code = (
        f"import time\nfrom interp.engine.pool.ray import Ray\npool = Ray({address!r}, 1)\npool.await_ready()\n"
        "print(pool._bridge.process.pid, pool.workers()[0].process, flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout is not None
        processes = [int(number) for number in kernel.stdout.readline().split()]
        assert len(processes) == 2
        kernel.kill()
    assert all(gone(process) for process in processes)


def test_what_cannot_be_had_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Ray cannot be used: nobody answers at 127\.0\.0\.1:9"):
        interp.connect("127.0.0.1:9")
    with pytest.raises(InputError, match=r"there is room for [0-4] workers at .*, which take a CPU each, not for 7"):
        interp.connect(address, 7)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(InputError, match=r"workers on Ray need Ray; type pip install 'interp\[ray\]'"):
        interp.connect("ray")
    assert interp.workers().rows == ()


def test_a_dead_head_is_one_line(lend: Any, session_with: Any, local: Ray) -> None:
    lend("llama")
    session_with(local)
    interp.patch(pairs=PAIRS)
    processes = below(local._bridge.process.pid)
    next(process for process in processes if process.name() == "gcs_server").kill()
    soon(lambda: bool(local._bridge.gone))
    session_with(local)
    with pytest.raises(InputError, match="no worker is left: worker 1 ended: Ray is gone, the one of this notebook; "):
        interp.patch(pairs=PAIRS)
    assert all(gone(process.pid) for process in processes)
