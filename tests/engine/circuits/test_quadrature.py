"""EAP-IG's integral: it converges without being told how many steps it needs, and says where it was told too few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.circuits import eap
from interp.errors import Interrupted

A = "When John and Mary went to the store, Mary gave a drink to"
B = "When John and Mary went to the store, John gave a drink to"


def scores(result: Any) -> Any:
    return np.nan_to_num(result.scores)


def off(found: Any, true: Any) -> float:
    return float(np.abs(scores(found) - scores(true)).max() / np.abs(scores(true)).max())


@pytest.fixture(scope="module", autouse=True)
def bundled() -> None:
    interp.load()


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["corrupted", "mean", "zero"])
def test_the_integral_converges_without_being_told_the_steps(ablation: Any, monkeypatch: Any) -> None:
    asked = {"answer": " John", "wrong": " Mary", "ablation": ablation}
    found = interp.circuit(A, B, **asked)
    assert not any("converged" in note for note in found.notes)
    assert 7 <= found.steps <= (255 if ablation == "zero" else 31)
    if ablation == "zero":  # a norm turns so sharply next to zero that 200 Gauss-Legendre points miss 3 % themselves
        monkeypatch.setattr(eap, "MOST", 1024)
        monkeypatch.setattr(eap, "_CLOSE", 1e-4)
        true = interp.circuit(A, B, **asked)
    else:
        true = interp.circuit(A, B, steps=60, **asked)
        assert not any("converged" in note for note in true.notes)
        assert (true.steps, interp.circuit(A, B, method="eap", **asked).steps) == (60, 1)
    assert off(found, true) <= 0.01


@pytest.mark.slow
def test_steps_that_are_too_few_are_taken_as_asked_and_said_by_how_much() -> None:
    asked = {"answer": " John", "wrong": " Mary"}
    few, true = interp.circuit(A, B, steps=5, **asked), interp.circuit(A, B, steps=60, **asked)
    assert few.steps == 5
    (note,) = [note for note in few.notes if "has not converged" in note]
    assert f"{off(few, true):.0%}"[:1] in note
    assert off(few, true) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("positions", [False, True])
def test_pairs_that_are_settled_are_left_and_the_parts_by_position_sum_to_the_scores(positions: bool) -> None:
    true = interp.circuit(task="ioi", n=3, steps=40)
    found = interp.circuit(task="ioi", n=3, positions=positions)
    assert off(found, true) <= 0.005
    if positions:
        assert np.allclose(np.nan_to_num(found.by_position.sum(-1)), scores(found), atol=1e-3)


def test_an_integral_that_does_not_converge_says_so(monkeypatch: Any) -> None:
    monkeypatch.setattr(eap, "MOST", 8)
    monkeypatch.setattr(eap, "_CLOSE", 1e-6)
    found = interp.circuit(A, B, answer=" John", wrong=" Mary")
    assert found.steps == 7
    assert any("has not converged after 7 gradients: scores may be off by" in note for note in found.notes)


def test_the_points_of_all_halvings_are_those_of_the_last() -> None:
    points, weights = eap._between(32, 1)
    assert torch.allclose(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    held = [eap._between(4, 1), *(eap._between(count) for count in (8, 16, 32))]
    everything = torch.cat([at for at, _ in held]).sort().values
    assert torch.allclose(everything, points)
    shares = torch.cat([weight * count / 32 for (_, weight), count in zip(held, (4, 8, 16, 32), strict=True)])
    assert torch.allclose(shares.sort().values, weights.sort().values)
    for power in range(4):
        assert float((weights * points**power).sum()) == pytest.approx(1 / (power + 1), abs=1e-5)


@pytest.mark.slow
def test_an_interrupt_keeps_the_pairs_that_are_done(monkeypatch: Any) -> None:
    run, ran = eap.EdgeProducts.run, []

    def stops(self: Any, points: Any) -> None:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(len(self.cases))
        run(self, points)

    whole = interp.circuit(task="ioi", n=4, steps=5)
    monkeypatch.setattr(eap.memory, "GRADIENT_ROWS", 1)  # a pair at a time
    monkeypatch.setattr(eap.EdgeProducts, "run", stops)
    with pytest.raises(Interrupted) as stopped:
        interp.circuit(task="ioi", n=4, steps=5)
    found = stopped.value.result
    assert "interrupted after 2/4 pairs" in found.notes[0]
    assert found.kept.any()
    known = np.isfinite(found.per_pair[:, whole.exists]).all(1)
    assert known.sum() == 2
    assert np.allclose(scores(found), np.nan_to_num(whole.per_pair[known].mean(0)), atol=1e-3)
