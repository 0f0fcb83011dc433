"""Estimates from gradients in a pool: the same bits whoever differentiates, and what is verified of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from engine.features import made
from engine.pool.test_pool import PAIRS, mine
from interp.engine import exactness
from interp.engine.patching import attribution_pooled
from interp.errors import InputError, Interrupted
from interp.spec import Pair, Prompt

LONGER = Pair(Prompt(ids=(5, 90, 33, 171, 40, 2, 77, 8, 3)), Prompt(ids=(5, 90, 61, 171, 40, 9, 77, 8, 3)), 14, 15)
ASKED: list[dict[str, Any]] = [
    {"site": "z", "pairs": [*PAIRS, LONGER]},
    {"site": "mlp_out", "by": "position", "pairs": PAIRS, "metric": "kl", "steps": 3},
    {"site": "neuron", "by": "neuron", "pairs": PAIRS[:3], "direction": "noise", "verify": 2},
]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, small_shards: Any) -> None:  # noqa: ARG001
    monkeypatch.setattr(attribution_pooled, "ROWS", 28)  # two pairs, or the points of one


def compared(found: list[Any], *names: str) -> None:
    plain, *others = found
    for other in others:
        for name in ("estimate", "per_pair", "effect", *names):
            assert np.array_equal(getattr(others[0], name), getattr(other, name), equal_nan=True), name
        for site, values in plain.estimates.items():
            assert np.array_equal(others[0].estimates[site], other.estimates[site])
            assert np.abs(values - other.estimates[site]).max() < 1e-5
    assert np.abs(others[0].estimate - plain.estimate).max() < 1e-5
    assert np.ptp(plain.estimate) > 1e-4
    assert others[2].provenance.path.endswith(" on 2 processes")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked["site"])
def test_any_number_of_workers_gives_the_same_bits(
    family: str, asked: dict[str, Any], lend: Any, everywhere: Any
) -> None:
    lend(family)
    found = everywhere(lambda: interp.patch(method="attribution", **asked))
    compared(found)
    count = {"z": 4, "mlp_out": 5, "neuron": 2}[asked["site"]]
    assert found[3].provenance.path.startswith(f"gradients in {count} shards on 2 processes")
    assert int(found[3].done.sum()) == asked.get("verify", 0)


def test_with_hooks(lend: Any, everywhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exactness.forget(lend("gpt2"))
    monkeypatch.setattr(exactness, "TOLERANCE", -1.0)  # nothing is near enough
    found = everywhere(lambda: interp.patch(pairs=PAIRS, method="attribution"))
    compared(found)
    assert found[1].provenance.path.startswith("hooked: the forward without hooks differed by ")


@pytest.mark.parametrize("steps", [1, 2])
def test_of_features(steps: int, lend: Any, everywhere: Any) -> None:
    model = lend("llama")
    made.load(model, made.every(model, 0)["clt"], made.every(model, 1)["stream"])
    compared(
        everywhere(lambda: interp.patch(pairs=PAIRS, site="features", method="attribution", steps=steps, verify=1))
    )


def test_activations_of_another_model(lend: Any, folder: Any, clean_session: Any, everywhere: Any) -> None:
    other = clean_session.load(folder("llama"), name="other")
    other.bridge.blocks[1].attn.o.weight.data.mul_(1.5)
    lend("llama")
    asked: dict[str, Any] = {"site": "attn_out", "by": "layer", "from_model": "other"}
    compared(everywhere(lambda: interp.patch(pairs=PAIRS[:3], method="attribution", **asked)))


def test_an_interrupt_keeps_the_pairs_that_are_done(lend: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        if done:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as stopped:
        interp.patch(pairs=PAIRS, method="attribution")
    clean_session.on_step = None
    part = stopped.value.result
    assert "partial: interrupted after " in part.notes[0]
    assert 0 < len(part.per_pair) < len(PAIRS)
    assert np.isfinite(part.estimate).all()


def test_a_metric_of_the_user_s_own_is_refused(lend: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)
    with pytest.raises(InputError, match="the metric mine is a function of yours, and no code goes to workers"):
        interp.patch(pairs=PAIRS, method="attribution", metric=mine)
