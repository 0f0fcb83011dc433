"""Probes in a pool: the activations of texts have the same bits whoever runs a shard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from engine.pool.test_neurons import TEXTS
from engine.pool.test_pool import Backwards
from interp.engine.pool.here import Here
from interp.engine.readouts import text_passes

LABELS = ["a", "b", "c", "b", "a"] * 12
ASKED: list[dict[str, Any]] = [{}, {"site": "mlp_out", "position": "mean", "at": (1, 2), "layer": 1}]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("asked", ASKED, ids=["last", "some"])
def test_any_number_of_workers_gives_the_same_bits(
    family: str,
    asked: dict[str, Any],
    lend: Any,
    session_with: Any,
    one: Any,
    two: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_passes, "TOKENS", 40)
    lend(family)
    texts, more = list(TEXTS.texts), {"folds": 2, "shuffles": 1}
    plain = interp.probe(texts, LABELS, **asked, **more)
    found = []
    for pool in (Here(), one, two, Backwards()):
        session_with(pool)
        found.append(interp.probe(texts, LABELS, **asked, **more))
    for other in found[1:]:
        assert other.coef.tobytes() == found[0].coef.tobytes()
        assert other.scores.tobytes() == found[0].scores.tobytes()
    np.testing.assert_allclose(plain.coef, found[0].coef, atol=1e-3)
    assert found[2].provenance.path == "forward in 7 shards on 2 processes"
    assert found[2].layers == ((1,) if "layer" in asked else ())
