"""Sweeps over features in a pool: dictionaries go there once, and which features there are is the kernel's word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from engine.features import made
from engine.pool.test_pool import PAIRS, same
from interp.engine import exactness
from interp.engine.patching import feature_plan, pooled
from interp.engine.patching.cases import Ids
from interp.engine.pool.here import Here

SOME = PAIRS[:3]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled, "ROWS", 700)


def load(model: Any, *kinds: str) -> None:
    """Load dictionaries of these kinds, of a layer each."""
    made.load(model, *(made.every(model, layer)[kind] for layer, kind in enumerate(kinds)))


@pytest.mark.parametrize(
    ("family", "kinds", "by", "hooked"),
    [
        ("llama", ("transcoder", "stream"), "feature", False),
        ("gpt2", ("clt", "heads"), "position", False),
        ("gpt2", ("clt", "clt"), "feature", True),
    ],
)
def test_patches_of_features(
    family: str,
    kinds: tuple[str, ...],
    by: Any,
    hooked: bool,
    lend: Any,
    everywhere: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = lend(family)
    load(model, *kinds)
    if hooked:
        exactness.forget(model)
        monkeypatch.setattr(exactness, "TOLERANCE", -1.0)  # nothing is near enough
    plain, *found = everywhere(lambda: interp.patch(pairs=SOME, site="features", by=by))
    for other in found[1:]:
        same(found[0], other)
        assert other.provenance.path.startswith("hooked: " if hooked else plain.provenance.path + " in ")
    assert found[2].provenance.path.endswith(" on 2 processes")
    assert np.abs(found[0].patched - plain.patched).max() < 1e-4
    assert np.ptp(plain.patched) > 1e-3


def test_mediation(lend: Any, everywhere: Any) -> None:
    model = lend("llama")
    load(model, "transcoder", "stream")
    names = interp.mediate(pairs=SOME, site="features").features
    first = [next(name[3:] for name in names if name.startswith(f"F{layer}.")) for layer in range(2)]
    asked = {"site": "features", "feature": ",".join(f"F{n}.{number}" for n, number in enumerate(first))}
    plain, *found = everywhere(lambda: interp.mediate(pairs=SOME, **asked))
    for other in found[1:]:
        for name in ("per_pair_indirect", "per_pair_direct", "per_pair_total"):
            assert np.array_equal(getattr(found[0], name), getattr(other, name), equal_nan=True)
    assert found[2].provenance.path.endswith(" on 2 processes")
    assert np.nanmax(np.abs(found[0].per_pair_direct - plain.per_pair_direct)) < 1e-4
    assert int(plain.done.sum()) == 2 < plain.done.size


@pytest.mark.parametrize(
    ("family", "from_", "to", "freeze"),
    [("llama", "F0.*,0.0", "1.0.v,logits", "heads"), ("gpt2", "F0.*", "F1.*", "all")],
)
def test_paths(family: str, from_: str, to: str, freeze: Any, lend: Any, everywhere: Any) -> None:
    load(lend(family), "transcoder", "transcoder")
    plain, *found = everywhere(lambda: interp.path(pairs=SOME, from_=from_, to=to, freeze=freeze))
    for other in found[1:]:
        same(found[0], other)
    assert found[2].provenance.path.endswith(" on 2 processes")
    assert np.nanmax(np.abs(found[0].patched - plain.patched)) < 1e-4
    assert {name[0] for name in plain.senders} >= {"F"}


def test_a_dictionary_goes_to_a_worker_once(lend: Any, session_with: Any, one: Any) -> None:
    model = lend("llama")
    load(model, "stream", "stream")
    session_with(one)
    interp.patch(pairs=PAIRS, site="features")
    (seat,) = one._seats
    held = dict(seat._assets)
    size = sum(tensor.nbytes for layer in range(2) for tensor in model.feature_sets["made"].at(layer).held)
    assert set(held) >= {model.feature_sets["made"].at(layer).digest for layer in range(2)}
    before = seat.worker.nbytes
    model.store.clear()
    interp.patch(pairs=PAIRS[:1], site="features")
    assert seat._assets == held
    assert seat.worker.nbytes - before < size


def test_the_kernel_says_which_features_there_are(lend: Any, monkeypatch: Any, session_with: Any) -> None:
    """A shard runs nothing to find them: at a threshold another number of threads finds others."""
    load(lend("llama"), "stream", "stream")
    session_with(Here())
    prompts: list[Ids] = []

    def counting(model: Any, ids: Any, dictionaries: Any) -> Any:
        prompts.append(ids)
        assert model.operation.pool is not None  # in a shard there is none
        return coded(model, ids, dictionaries)

    coded = feature_plan.coded
    monkeypatch.setattr(feature_plan, "coded", counting)
    assert interp.patch(pairs=PAIRS, site="features").done.all()
    assert len(prompts) == 2 * len(PAIRS)
