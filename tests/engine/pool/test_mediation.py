"""Mediation in a pool: both ways of every pair, over all mediators of a site or over some heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from engine.pool.test_pool import PAIRS

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("llama", {"head": "0.1,1.0,1.3", "metric": "kl"}),
        ("gpt2", {"site": "mlp_out", "layer": "0-1"}),
    ],
    ids=["heads", "layers"],
)
def test_the_same_bits(family: str, asked: dict[str, Any], lend: Any, everywhere: Any) -> None:
    lend(family)
    plain, *found = everywhere(lambda: interp.mediate(pairs=PAIRS[:3], **asked))
    for name in ("per_pair_indirect", "per_pair_direct", "per_pair_total", "indirect_interval", "p"):
        values = [getattr(one, name) for one in found]
        for other in values[1:]:
            assert np.array_equal(values[0], other, equal_nan=True)
        if name.startswith("per_pair"):
            assert np.nanmax(np.abs(values[0] - getattr(plain, name))) < 1e-4
    assert found[2].provenance.path.endswith(" on 2 processes")
    assert np.array_equal(found[0].done, plain.done)
