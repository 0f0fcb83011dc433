"""Seven workers, more than there are cores, are what this process is, in every command that goes to a pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import interp
from interp.engine.pool.here import Here
from interp.engine.pool.processes import Processes

from . import everything

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seven() -> Iterator[Processes]:
    """Return a pool of seven workers."""
    pool = Processes(7)
    pool.await_ready()
    yield pool
    pool.close()


@pytest.mark.usefixtures("clean_session")
def test_on_the_bundled_model(seven: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    everything.cut(monkeypatch)
    interp.load()
    interp.features_load("bundled")
    for name in everything.COMMANDS:
        before = sum(worker.shards for worker in seven.workers())
        here, there = (everything.asked(name, pool) for pool in (Here(), seven))
        assert here == there, name
        assert sum(worker.shards for worker in seven.workers()) > before, name
    assert all(worker.shards for worker in seven.workers())


def test_on_smollm2(smollm2_folder: Any, clean_session: Any, seven: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    everything.cut(monkeypatch)
    clean_session.load(smollm2_folder, name="SmolLM2", device="cpu")
    for name in ("patch", "attribution", "mediate", "circuit-eap", "heads", "probe", "neurons"):
        more = everything.LARGER.get(name, {})
        here, there = (everything.asked(name, pool, **more) for pool in (Here(), seven))
        assert here == there, name
    assert {worker.held["SmolLM2"] for worker in seven.workers() if "SmolLM2" in worker.held} == {
        clean_session.get("SmolLM2").fingerprint()
    }
