"""What carries the difference of two models, in a pool: the same bits whoever has which prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.patching import difference
from interp.engine.pool.here import Here

from .test_pool import PAIRS, Backwards

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("family", "what"), [("llama", "weights"), ("gpt2", "activations")])
def test_any_number_of_workers_gives_the_same_bits(
    family: str,
    what: Any,
    folder: Any,
    clean_session: Any,
    lend: Any,
    session_with: Any,
    one: Any,
    two: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(difference, "ROWS", 14)
    other = clean_session.load(folder(family), name="other")
    with torch.no_grad():
        other.bridge.blocks[1].attn.o.weight.mul_(1.5)
    lend(family)
    found = []
    for pool in (None, Here(), Backwards(), one, two):
        session_with(pool)
        found.append(interp.diff(family, "other", pairs=PAIRS[:3], what=what, edges=20))
    plain, first, *others = found
    for name in ("values", "base_values", "tuned_values", "effect", "weight_change"):
        expected = getattr(first, name)
        assert all(np.array_equal(expected, getattr(each, name), equal_nan=True) for each in others), name
        assert np.allclose(expected, getattr(plain, name), atol=1e-4, equal_nan=True), name
    assert first.kept == plain.kept == others[-1].kept
    assert repr(first.edges) == repr(others[-1].edges)
    assert others[-1].provenance.path.endswith(" shards on 2 processes")
