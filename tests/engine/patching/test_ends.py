"""Where a sweep's interventions end is kept: asked again, or by another metric, nothing runs, and no bit is another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.transformer import incremental
from interp.errors import Interrupted
from interp.spec import Pair, Prompt

ONE = Pair(Prompt(ids=(5, 90, 33, 171, 40, 2, 77)), Prompt(ids=(5, 90, 61, 171, 40, 9, 77)), 14, 15)
OTHER = Pair(Prompt(ids=(8, 91, 30, 171, 40, 2, 77)), Prompt(ids=(8, 92, 61, 171, 40, 9, 77)), 14, 15)
TURNED = Pair(ONE.clean, ONE.corrupted, 77, 33)

SWEEPS = [("z", "head"), ("resid_pre", "position"), ("v", "head-position"), ("neuron", "neuron")]


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each wave."""
    seen: list[int] = []
    plain = incremental.replay

    def counted(*arguments: Any, **options: Any) -> None:
        seen.append(1)
        plain(*arguments, **options)

    monkeypatch.setattr(incremental, "replay", counted)
    return seen


def ask(pairs: list[Pair], site: str, by: str, **options: Any) -> Any:
    return interp.patch(pairs=pairs, site=site, by=by, **({"layer": 1} if by == "neuron" else {}), **options)


@pytest.mark.parametrize(("site", "by"), SWEEPS)
@pytest.mark.parametrize("family", ["llama", "neox"])
def test_asked_again_nothing_runs(family: str, site: str, by: str, lend: Any, waves: list[int]) -> None:
    lend(family)
    first = ask([ONE, OTHER], site, by)
    ran = len(waves)
    again = ask([ONE, OTHER], site, by)
    assert first.provenance.path == again.provenance.path
    assert len(waves) == ran > 0
    assert again.provenance.forwards == 0
    assert np.array_equal(first.per_pair, again.per_pair)
    assert again.done.all()


@pytest.mark.parametrize(("site", "by"), SWEEPS)
@pytest.mark.parametrize("metric", ["logit", "prob", "kl", "rank"])
def test_another_metric_and_other_answers_are_those_of_a_cold_sweep(
    metric: str, site: str, by: str, lend: Any, waves: list[int]
) -> None:
    model = lend("llama")
    cold = ask([TURNED], site, by, metric=metric)
    model.store.clear()
    ask([ONE], site, by)
    ran = len(waves)
    found = ask([TURNED], site, by, metric=metric)
    assert len(waves) == ran
    assert np.array_equal(found.per_pair, cold.per_pair, equal_nan=True)
    assert np.array_equal(found.patched, cold.patched, equal_nan=True)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_metric_that_is_stopped_leaves_what_is_done(calls: int, lend: Any, waves: list[int]) -> None:
    lend("llama")
    left = 10_000

    def slow(logits: torch.Tensor) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return logits[:, 14] - logits[:, 15]

    pairs = [ONE, OTHER, TURNED]
    whole = ask(pairs, "z", "head", metric=slow)
    ran, left = len(waves), 1 + 2 * len(pairs) + calls  # it is tried out, and the unpatched runs come first
    with pytest.raises(Interrupted) as stopped:
        ask(pairs, "z", "head", metric=slow)
    assert len(waves) == ran
    found = stopped.value.result.per_pair
    there = np.isfinite(found)
    assert there.any() == (calls > 0)
    assert not there.all()
    assert np.array_equal(found[there], whole.per_pair[there])


def test_what_differs_is_run(lend: Any, waves: list[int], folder: Any) -> None:
    model = lend("llama")
    ask([ONE], "z", "head")
    swap = Pair(ONE.corrupted, ONE.clean, 14, 15)
    other = interp.load(str(folder("llama")), name="another", device="cpu")
    with torch.no_grad():
        other.bridge.blocks[0].attn.o.original_component.weight.mul_(1.5)
    interp.use(model.name)
    asked = [
        lambda: ask([ONE, OTHER], "z", "head"),
        lambda: ask([OTHER], "z", "head"),
        lambda: ask([swap], "z", "head"),
        lambda: ask([ONE], "q", "head"),
        lambda: ask([ONE], "z", "position"),
        lambda: ask([ONE], "z", "head", layer=1),
        lambda: ask([ONE], "z", "head", from_model="another"),
        lambda: (interp.use("another"), ask([ONE], "z", "head"))[1],
    ]
    for call in asked:
        before = len(waves)
        call()
        assert len(waves) > before
    with torch.no_grad():
        other.bridge.blocks[0].attn.o.original_component.weight.mul_(1.5)
    before = len(waves)
    ask([ONE], "z", "head")
    assert len(waves) > before


def test_a_sweep_that_the_store_has_no_room_for_is_not_kept(lend: Any, waves: list[int]) -> None:
    model = lend("llama")
    ask([ONE], "z", "head")
    model.store.clear()
    model.store.set_budget(4_000)
    ask([ONE], "z", "head")
    before = len(waves)
    ask([ONE], "z", "head")
    assert len(waves) > before
