"""Pools that the tests of this folder share: a worker imports torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from interp.engine.patching import pooled
from interp.engine.pool.here import Here
from interp.engine.pool.processes import Processes


@pytest.fixture(scope="session")
def _pools() -> Iterator[tuple[Processes, Processes]]:
    pools = Processes(1), Processes(2)
    for pool in pools:
        pool.await_ready()
    yield pools
    for pool in pools:
        processes = [seat.process for seat in pool._seats]
        pool.close()
        assert all(process is None or process.returncode is not None for process in processes)


@pytest.fixture
def one(_pools: tuple[Processes, Processes]) -> Processes:
    """Return a pool of one worker."""
    return _pools[0]


@pytest.fixture
def two(_pools: tuple[Processes, Processes]) -> Processes:
    """Return a pool of two."""
    return _pools[1]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut sweeps of tiny models, too: some pairs go together, and the cells of one pair into several shards."""
    monkeypatch.setattr(pooled, "ROWS", 100)


@pytest.fixture
def session_with(clean_session: Any) -> Iterator[Any]:
    """Return a function that lets the session's commands run in a pool, which it does not own."""

    def use(pool: Any) -> None:
        clean_session.pool = pool
        for model in clean_session.models.values():
            model.store.clear()

    yield use
    clean_session.pool = None


@pytest.fixture
def everywhere(session_with: Any, one: Any, two: Any) -> Callable[[Callable[[], Any]], list[Any]]:
    """Return a function that makes a call without a pool, here in shards, on one worker, on two, and backwards."""

    from engine.pool.test_pool import Backwards

    def call(body: Callable[[], Any]) -> list[Any]:
        found = []
        for pool in (None, Here(), one, two, Backwards()):
            session_with(pool)
            found.append(body())
        return found

    return call
