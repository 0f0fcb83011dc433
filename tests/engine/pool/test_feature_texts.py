"""Features over texts in a pool: the same bits whoever runs a shard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from engine.features import made
from engine.pool.test_neurons import TEXTS
from engine.pool.test_pool import Backwards
from interp.engine.features import activations, activity, reading
from interp.engine.pool.here import Here


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_any_number_of_workers_gives_the_same_bits(
    family: str, lend: Any, session_with: Any, one: Any, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK", 40)
    model = lend(family)
    made.load(model, *(made.every(model, layer)[kind] for layer, kind in ((0, "stream"), (1, "skip"))))
    found: list[tuple[Any, Any]] = []
    for pool in (None, Here(), one, two, Backwards()):
        session_with(pool)
        activity.forget(model)
        found.append((interp.feature("1.3", TEXTS), interp.features_label("0.3,1.3", TEXTS)))
    plain, first = found[:2]
    for other in found[2:]:
        for name in ("fired", "tokens_read", "texts", "mean", "most", "exemplars", "together"):
            assert getattr(other[0], name) == getattr(first[0], name), name
        assert other[0].histogram.tobytes() == first[0].histogram.tobytes()
        assert other[1].to_frame().equals(first[1].to_frame())
    assert found[3][0].provenance.path == "forward in 7 shards on 2 processes"
    assert plain[0].fired == first[0].fired > 0
    np.testing.assert_allclose(plain[0].mean, first[0].mean, rtol=1e-5)
    assert plain[1].to_frame().shape == first[1].to_frame().shape


def test_a_training_reads_from_workers_what_it_reads_here(
    lend: Any, session_with: Any, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_PARTS", 2)
    monkeypatch.setattr("interp.engine.memory.ROWS", 16)
    lend("llama")
    found = []
    for pool in (None, Here(), two, Backwards()):
        session_with(pool)
        found.append(interp.features_train(TEXTS, layer=1, width=16, k=4, steps=12, batch=32))
    plain, first = found[:2]
    for other in found[2:]:
        assert other.loss.tobytes() == first.loss.tobytes()
        assert other.fvu.tobytes() == first.fvu.tobytes()
    np.testing.assert_allclose(plain.loss, first.loss, rtol=1e-4)
    assert found[2].provenance.path == "forward on 2 processes"
