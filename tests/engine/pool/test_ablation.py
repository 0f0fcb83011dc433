"""Ablations in a pool: the same bits whoever measures, whatever is taken away and whatever it becomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from engine.features import made
from engine.pool.test_pool import PAIRS
from interp.engine import exactness
from interp.engine.patching.moments import Filled, Moments
from interp.engine.pool.here import Here
from interp.errors import Interrupted
from interp.spec import Prompt, Texts

pytestmark = pytest.mark.usefixtures("small_shards")

TEXTS = Texts(tuple(Prompt(ids=tuple(range(3 + n, 11 + n + n % 3))) for n in range(6)))
ASKED: list[dict[str, Any]] = [
    {"heads": "0.1,1.0", "mode": "mean"},
    {"heads": "0.1", "mlps": [0, 1], "mode": "noise", "at": "1,2", "metric": "kl"},
    {"heads": "0.1", "knockout": "1.0:5->2,1.1:*->1", "mode": "resample"},
]


def same(first: Any, second: Any) -> None:
    assert np.array_equal(first.per_prompt, second.per_prompt)
    assert first.replacement == second.replacement


def compared(found: list[Any]) -> None:
    plain, *others = found
    for other in others[1:]:
        same(others[0], other)
        assert " in " in other.provenance.path
    assert others[2].provenance.path.endswith(" shards on 2 processes")
    assert np.abs(others[0].per_prompt - plain.per_prompt).max() < 1e-4
    assert np.ptp(plain.values) > 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked["mode"])
def test_any_number_of_workers_gives_the_same_bits(
    family: str, asked: dict[str, Any], lend: Any, everywhere: Any
) -> None:
    lend(family)
    compared(everywhere(lambda: interp.ablate(pairs=PAIRS, seed=3, **asked)))


def test_losses_of_texts_of_several_lengths(lend: Any, everywhere: Any) -> None:
    lend("llama")
    compared(everywhere(lambda: interp.ablate(TEXTS, heads="0.0,1.2", mode="mean")))


def test_features_and_directions(lend: Any, everywhere: Any) -> None:
    model = lend("gpt2")
    made.load(model, made.every(model, 0)["stream"], made.every(model, 1)["clt"])
    direction = np.linspace(-1, 1, model.geometry.d_model)
    strongest = [next(name for name in interp.patch(pairs=PAIRS, site="features", layer=n).features) for n in range(2)]
    asked = {"feature": ",".join(f"F{name}" for name in strongest), "direction": direction, "layer": 1}
    compared(everywhere(lambda: interp.ablate(pairs=PAIRS, mode="mean", **asked)))


def test_with_hooks(lend: Any, everywhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exactness.forget(lend("llama"))
    monkeypatch.setattr(exactness, "TOLERANCE", -1.0)  # nothing is near enough
    found = everywhere(lambda: interp.ablate(pairs=PAIRS, heads="0.1,1.0", mode="mean", metric="kl"))
    compared(found)
    assert found[1].provenance.path.startswith("hooked: the forward without hooks differed by ")


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked["mode"])
def test_a_sample_is_compared_with_hooks_here(
    asked: dict[str, Any], lend: Any, session_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What shards were told of their own samples is found anew, and agrees."""
    exactness.forget(lend("llama"))
    differences: list[float] = []
    plain = exactness.difference

    def noted(found: Any, expected: Any) -> float:
        differences.append(plain(found, expected))
        return differences[-1]

    monkeypatch.setattr(exactness, "difference", noted)
    session_with(Here())
    assert interp.ablate(pairs=PAIRS, seed=3, **asked).provenance.path.startswith("forward in ")
    assert len(differences) == exactness.SAMPLE
    assert max(differences) < 1e-5


def test_draws_are_those_of_a_call_without_shards(lend: Any, everywhere: Any) -> None:
    """Noise depends on a sample's number among all: the same prompt twice has two draws, wherever it is measured."""
    lend("llama")
    found = everywhere(lambda: interp.ablate(pairs=[PAIRS[0]] * 20, heads="0.1", mode="noise", seed=5))
    compared(found)
    assert len(set(found[1].per_prompt[1].round(6).tolist())) == 20


def test_what_is_known_is_not_asked_again(lend: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)
    first = interp.ablate(pairs=PAIRS, heads="0.1,1.0", mode="mean")
    again = interp.ablate(pairs=PAIRS, heads="0.1,1.0", mode="mean")
    assert again.provenance.forwards == 0
    same(first, again)


def test_an_interrupt_keeps_the_part(lend: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(Here())
    whole = interp.ablate(pairs=PAIRS * 3, heads="0.1,1.0")
    session_with(two)

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        if done:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as stopped:
        interp.ablate(pairs=PAIRS * 3, heads="0.1,1.0")
    clean_session.on_step = None
    part = stopped.value.result.per_prompt
    there = np.isfinite(part)
    assert 0 < there.sum() < there.size
    assert np.array_equal(part[there], whole.per_prompt[there])
    same(whole, interp.ablate(pairs=PAIRS * 3, heads="0.1,1.0"))


def test_moments_of_parts_are_those_of_all_values() -> None:
    values = torch.randn(60, 5, dtype=torch.float64).exp()
    pieces = [values[:1], values[1:1], values[1:40], values[40:]]
    found = Moments.together([Moments.of(piece, spread=True) for piece in pieces])
    assert found.count == 60
    assert found.deviation is not None
    assert torch.allclose(found.mean, values.mean(0), atol=1e-14, rtol=0)
    assert torch.allclose(found.deviation, values.std(0, correction=0), atol=1e-13, rtol=0)
    plain = Moments.together([Moments.of(piece, spread=False) for piece in pieces])
    assert plain.deviation is None
    assert torch.equal(plain.mean, found.mean)
    filled = [Filled(((Moments.of(piece, spread=False),),), (5,)) for piece in (values[:7], values[7:])]
    assert len({one.digest for one in (*filled, Filled.together(filled))}) == 3
