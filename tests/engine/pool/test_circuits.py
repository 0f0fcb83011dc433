"""Circuits in a pool: the same bits whoever runs a shard, and but for these what a circuit without one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import interp
from interp.engine import exactness, memory
from interp.engine.circuits import pooled as circuits
from interp.engine.patching import pooled
from interp.engine.pool.here import Here
from interp.errors import InputError, Interrupted
from interp.spec import Pair, Prompt

from .test_pool import PAIRS, Backwards, mine

THREE = PAIRS[:3]
LONGER = Pair(Prompt(ids=(5, 90, 33, 171, 7, 40, 2, 77)), PAIRS[0].corrupted, 14, 15)
SCORES = ("scores", "per_pair", "per_node", "kept")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled, "ROWS", 2500)
    monkeypatch.setattr(circuits, "ROWS", 250)
    monkeypatch.setattr(memory, "GRADIENT_ROWS", 14)


@pytest.fixture
def same(session_with: Any, one: Any, two: Any) -> Callable[..., Any]:
    """Return what compares a command's numbers in every pool, and returns its result on two workers."""

    def compare(ask: Callable[[], Any], names: tuple[str, ...]) -> Any:
        found: list[Any] = []
        for pool in (None, Here(), Backwards(), one, two):
            session_with(pool)
            found.append(ask())
        plain, first, *others = found
        for name in names:
            expected = np.asarray(getattr(first, name))
            assert all(np.array_equal(expected, getattr(other, name), equal_nan=True) for other in others), name
            assert np.allclose(expected, getattr(plain, name), atol=1e-4, equal_nan=True), name
        path = others[-1].provenance.path
        assert path.startswith(plain.provenance.path + " in ")
        assert path.endswith(" shards on 2 processes")
        return others[-1]

    return compare


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("llama", {"level": "head"}),
        ("gpt2", {"ablation": "mean"}),
        ("gpt2", {"ablation": "zero", "level": "head", "metric": "kl"}),
    ],
    ids=["corrupted", "mean", "zero"],
)
def test_exact_scores(family: str, asked: dict[str, Any], lend: Any, same: Any) -> None:
    lend(family)
    same(lambda: interp.circuit(pairs=THREE, method="exact", **asked), SCORES)


@pytest.mark.parametrize("method", ["exact", "eap-ig"])
def test_pairs_of_two_lengths(method: str, lend: Any, same: Any) -> None:
    lend("llama")
    same(lambda: interp.circuit(pairs=[LONGER, *THREE[:2]], method=method), SCORES)


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("gpt2", {"method": "eap"}),
        ("llama", {"positions": True, "metric": "kl"}),
        ("llama", {"steps": 5}),
        ("gpt2", {"ablation": "mean", "positions": True}),
        ("llama", {"ablation": "zero"}),
    ],
    ids=["eap", "positions", "steps", "mean", "zero"],
)
def test_estimates(family: str, asked: dict[str, Any], lend: Any, same: Any) -> None:
    lend(family)
    more = ("by_position",) if asked.get("positions") else ()  # added up over pairs, in the order of shards
    same(lambda: interp.circuit(pairs=THREE, edges=30, **asked), (*SCORES, "steps", *more))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_acdc(family: str, lend: Any, same: Any) -> None:
    lend(family)
    asked = {"method": "acdc", "among": 25, "steps": 2, "threshold": 0.001}
    found = same(lambda: interp.circuit(pairs=THREE, **asked), ("scores", "kept"))
    assert 0 < found.kept.sum() <= 25


@pytest.mark.parametrize(("family", "ablation"), [("llama", "corrupted"), ("gpt2", "mean")])
def test_validation(family: str, ablation: str, lend: Any, session_with: Any, same: Any) -> None:
    lend(family)
    session_with(None)
    circuit = interp.circuit(pairs=THREE, method="eap", edges=30, ablation=ablation)
    numbers = ("whole", "nothing", "alone", "without", "faithfulness_interval", "random", "curve", "marginal", "cpr")
    same(lambda: interp.validate(circuit, random=2, top=3), numbers)


def test_what_does_not_travel_is_refused(lend: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)
    for method in ("eap", "exact", "acdc"):
        with pytest.raises(InputError, match="the metric mine is a function of yours, and no code goes to workers"):
            interp.circuit(pairs=THREE, method=method, metric=mine)


def test_a_stop_keeps_the_pairs_that_are_done(lend: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        if done >= 2:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as stopped:
        interp.circuit(pairs=PAIRS, method="eap")
    clean_session.on_step = None
    part = stopped.value.result
    there = np.isfinite(part.per_pair).any((1, 2))
    assert 0 < there.sum() < len(PAIRS)
    session_with(Here())
    whole = interp.circuit(pairs=PAIRS, method="eap")
    assert np.array_equal(part.per_pair[there], whole.per_pair[there], equal_nan=True)


def test_what_workers_give_is_compared(lend: Any, session_with: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exactness.forget(lend("gpt2"))
    monkeypatch.setattr(exactness, "TOLERANCE", -1.0)  # nothing is near enough
    session_with(two)
    for method in ("eap", "acdc"):
        with pytest.raises(InputError, match="the forward without hooks differed"):
            interp.circuit(pairs=THREE, method=method)
    hooked = interp.circuit(pairs=THREE[:1], method="exact")
    assert hooked.provenance.path.startswith("hooked: ")
    assert hooked.provenance.path.endswith(" shards on 2 processes")
