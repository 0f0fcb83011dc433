"""Circuits in a pool: the same bits whoever runs a shard, and but for these those of a circuit without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from interp.engine.circuits import pooled
from interp.engine.pool.here import Here

from .test_pool import PAIRS, Backwards

LONGER = interp.Pair(interp.Prompt(ids=(5, 90, 33, 171, 7, 40, 2, 77)), PAIRS[0].corrupted, 14, 15)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, small_shards: None) -> None:  # noqa: ARG001
    monkeypatch.setattr(pooled, "ROWS", 150)


def in_pools(session_with: Any, ask: Any, *pools: Any) -> list[Any]:
    found = []
    for pool in (None, Here(), Backwards(), *pools):
        session_with(pool)
        found.append(ask())
    return found


def same(names: tuple[str, ...], plain: Any, *found: Any) -> None:
    for name in names:
        first = np.asarray(getattr(found[0], name))
        for other in found[1:]:
            assert np.array_equal(first, np.asarray(getattr(other, name)), equal_nan=True), name
        assert np.allclose(first, np.asarray(getattr(plain, name)), atol=1e-4, equal_nan=True), name


def of(circuit: Any) -> Any:
    return circuit.checks


SCORES = ("scores", "per_pair", "per_node", "kept")


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("llama", {}),
        ("llama", {"level": "head"}),
        ("gpt2", {"ablation": "mean"}),
        ("gpt2", {"ablation": "zero", "level": "head"}),
        ("llama", {"metric": "kl"}),
    ],
    ids=["corrupted", "heads", "mean", "zero", "kl"],
)
def test_exact_scores(family: str, asked: dict[str, Any], lend: Any, session_with: Any, one: Any, two: Any) -> None:
    lend(family)
    found = in_pools(session_with, lambda: interp.circuit(pairs=PAIRS, method="exact", **asked), one, two)
    same(SCORES, *found)
    assert all(each.checks == found[1].checks for each in found[2:])
    assert found[0].provenance.path == "replay"
    assert found[4].provenance.path.startswith("replay in ")
    assert found[4].provenance.path.endswith(" shards on 2 processes")


def test_exact_scores_of_pairs_of_two_lengths(lend: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    pairs = [LONGER, *PAIRS]
    same(SCORES, *in_pools(session_with, lambda: interp.circuit(pairs=pairs, method="exact"), two))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_acdc(family: str, lend: Any, session_with: Any, one: Any, two: Any) -> None:
    lend(family)
    asked = {"method": "acdc", "among": 40, "steps": 2, "threshold": 0.001}
    found = in_pools(session_with, lambda: interp.circuit(pairs=PAIRS, **asked), one, two)
    same(("scores", "kept"), *found)
    assert 0 < found[1].kept.sum() < 40
    assert found[4].provenance.path.endswith(" shards on 2 processes")


@pytest.mark.parametrize(("family", "ablation"), [("llama", "corrupted"), ("gpt2", "mean"), ("gpt2", "zero")])
def test_validation(family: str, ablation: str, lend: Any, session_with: Any, one: Any, two: Any) -> None:
    lend(family)
    circuit = interp.circuit(pairs=PAIRS, method="eap", edges=30, ablation=ablation)
    found = in_pools(session_with, lambda: interp.validate(circuit, random=3, top=5), one, two)
    numbers = ("whole", "nothing", "alone", "without", "faithfulness_interval", "random", "curve", "marginal", "cpr")
    same(numbers, *found)
    assert found[4].circuit.provenance.path == found[0].circuit.provenance.path
    assert found[4].provenance.path.endswith(" shards on 2 processes")
