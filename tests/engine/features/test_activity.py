"""One pass over texts: beside a loop over every token and feature, in any batches, stopped, and asked for again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.features import made
from interp.engine import memory
from interp.engine.features import activity as engine
from interp.engine.features import reading
from interp.engine.features.activity import Activity, count_pairs
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.kept import Kept, drawn
from interp.engine.features.places import captured
from interp.engine.features.reading import Read
from interp.spec import Prompt

FAMILIES = ("gpt2", "llama", "neox")
CONTEXT = 2


def texts(model: Any, count: int = 40) -> list[tuple[int, ...]]:
    draw = np.random.default_rng(0)
    size = min(model.geometry.d_vocab, 30)
    return [tuple(draw.integers(1, size, draw.integers(2, 12)).tolist()) for _ in range(count)]


def read(model: Any, one: Dictionary, prompts: Any, first: Any = None, *, key: Any = 0, feature: int = 3) -> Read:
    first = [0] * len(prompts) if first is None else first
    return model.operate(
        "test",
        {},
        lambda operation: engine.read(  # noqa: ARG005
            model, [(one, [feature])], prompts, first, key=key, context=CONTEXT, seed=5
        ),
    )


def naive(model: Any, one: Dictionary, prompts: Any, first: Any) -> list[tuple[int, int, torch.Tensor]]:
    """Return (text, position, activations of all features) of every token that counts."""
    found = []
    for number, ids in enumerate(prompts):
        values = captured(model, model.encode(Prompt(ids=ids)), [one.reads])[one.reads].float()
        dense = one.encode(values).dense()
        found += [(number, position, dense[position]) for position in range(first[number], len(ids))]
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["topk", "relu", "jumprelu"])
def test_the_pass_is_the_loop(family: str, kind: str, lend: Any) -> None:
    model = lend(family)
    one = made.random(1, model.geometry.d_model, **made.KINDS[kind])
    prompts = texts(model)
    first = [n % 2 for n in range(len(prompts))]
    (found,) = read(model, one, prompts, first, key=kind).activities
    every = naive(model, one, prompts, first)
    dense = torch.stack([row for _, _, row in every])
    active = dense > 0
    assert found.tokens == len(every)
    assert found.texts == len(prompts)
    assert torch.equal(found.counts, active.sum(0))
    torch.testing.assert_close(found.sums, dense.double().sum(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.most, dense.double().amax(0), rtol=1e-5, atol=1e-5)
    assert torch.equal(found.together, active.long().T @ active.long())
    assert torch.equal(found.bins.sum(1), found.counts)
    edges = found.edges
    for feature in range(one.width):
        expected, _ = np.histogram(dense[:, feature][active[:, feature]].double().numpy(), edges.numpy())
        np.testing.assert_array_equal(found.bins[feature].numpy(), expected)
        best = dense[:, feature].sort(descending=True).values[: engine.TOP]
        best = best[best > 0]
        held = found.top.values[feature][found.top.scores[feature].isfinite()]
        torch.testing.assert_close(held, best, rtol=1e-5, atol=1e-5)
        for value, place, around in zip(held, found.top.places[feature], found.top.around[feature], strict=False):
            at = [(text, position) for text, position, _ in every].index(tuple(place.tolist()))
            assert dense[at, feature] == pytest.approx(float(value), rel=1e-4, abs=1e-5)
            for step, near in zip(range(-CONTEXT, CONTEXT + 1), around.tolist(), strict=True):
                there = {(text, position): row for text, position, row in every}
                row = there.get((int(place[0]), int(place[1]) + step))
                assert np.isnan(near) if row is None else near == pytest.approx(float(row[feature]), rel=1e-4, abs=1e-5)


def test_a_sample_is_the_same_in_any_batches_and_all_there_is_where_it_has_room(
    lend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    one = made.random(0, model.geometry.d_model, **made.KINDS["relu"])
    prompts = texts(model, 60)
    (wide,) = read(model, one, prompts, key="wide").activities
    monkeypatch.setattr(memory, "ROWS", 16)
    monkeypatch.setattr(reading, "_CHUNK", 50)
    (narrow,) = read(model, one, prompts, key="narrow").activities
    assert int(wide.counts.max()) > engine.SAMPLE
    torch.testing.assert_close(wide.sample.scores, narrow.sample.scores)
    assert torch.equal(wide.sample.places, narrow.sample.places)
    assert torch.equal(wide.counts, narrow.counts)
    few = (wide.counts < engine.SAMPLE) & (wide.counts > 0)
    assert bool(few.any())
    for feature in few.nonzero()[:, 0].tolist():
        assert int(wide.sample.scores[feature].isfinite().sum()) == int(wide.counts[feature])


def test_tenths_are_those_of_all_activations() -> None:
    """The sample's tenths of 5,000 uniform activations lie where the activations' own do."""
    activity = Activity(1, 0, 3, torch.tensor([0]))
    values = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    starts = torch.arange(len(values) + 1)
    codes = Codes(starts, torch.zeros(len(values), dtype=torch.int64), values, 1)
    activity.add(codes, torch.arange(100), 0, 50)
    # Standard error of a decile of a sample of 100: at most 0.05.
    np.testing.assert_allclose(activity.deciles(0).numpy(), np.arange(1, 10) / 10, atol=0.15)
    assert activity.correlations(0) is not None


def test_drawn_numbers_are_uniform_and_follow_from_the_place() -> None:
    every = torch.arange(20_000)
    found = drawn(1, every, every % 7, every % 3)
    assert 0 <= float(found.min()) < 1e-3
    assert 1 - 1e-3 < float(found.max()) < 1
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    assert len(found.unique()) == len(found)
    assert torch.equal(drawn(1, every[5:9], every[5:9] % 7, every[5:9] % 3), found[5:9])
    assert not torch.equal(drawn(2, every, every % 7, every % 3), found)


@pytest.mark.parametrize("few", [1, 20])
def test_pairs_are_counted_alike_in_lists_and_by_products(few: int) -> None:
    draw = torch.Generator().manual_seed(few)
    dense = torch.rand(50, 24, generator=draw) * (torch.rand(50, 24, generator=draw) < few / 24)
    codes = Codes.of(dense)
    partners = torch.tensor([2, 5, 11])
    row_of = torch.full((24,), -1, dtype=torch.int64)
    row_of[partners] = torch.arange(3)
    found = torch.zeros(3, 24, dtype=torch.int64)
    count_pairs(codes, row_of, found)
    active = (dense > 0).long()
    assert torch.equal(found, active[:, partners].T @ active)


def test_the_best_are_kept_of_however_many() -> None:
    draw = torch.Generator().manual_seed(0)
    kept = Kept(3, 4, 1)
    features = torch.randint(0, 2, (500,), generator=draw)  # the third never comes
    scores = torch.rand(500, generator=draw, dtype=torch.float64)
    for some in torch.arange(500).split(37):
        kept.add(
            features[some],
            scores[some],
            scores[some].float(),
            lambda e, s=some: torch.stack([s[e], s[e]], -1),
            lambda e, s=some: scores[s[e]].float()[:, None],
        )
    for feature in range(2):
        own = scores[features == feature].sort(descending=True).values[:4]
        torch.testing.assert_close(kept.scores[feature], own)
        torch.testing.assert_close(scores[kept.places[feature, :, 0].long()], own)
    assert not bool(kept.scores[2].isfinite().any())


def test_a_second_look_runs_nothing_and_another_state_everything(folder: Any, clean_session: Any) -> None:
    clean_session.load(folder("gpt2"), name="own")
    model = clean_session.get()
    one = made.random(0, model.geometry.d_model)
    prompts = texts(model, 8)
    first = read(model, one, prompts, key="again")
    before = model.forwards
    second = read(model, one, prompts, key="again", feature=7)
    assert model.forwards == before
    assert second.activities[0] is first.activities[0]
    assert read(model, one, prompts, key="others").activities[0] is not first.activities[0]
    weight = model.hf_model.transformer.h[0].mlp.c_fc.weight
    with torch.no_grad():
        weight[0, 0] += 1
    assert read(model, one, prompts, key="again").activities[0] is not first.activities[0]


def test_of_a_wide_dictionary_pairs_of_what_is_asked_for_are_counted(
    lend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    one = made.random(0, model.geometry.d_model)
    prompts = texts(model, 8)
    (whole,) = read(model, one, prompts, key="whole").activities
    monkeypatch.setattr(engine, "PAIRED", 4)
    (found,) = read(model, one, prompts, key="wide", feature=3).activities
    assert found.correlations(4) is None
    np.testing.assert_array_equal(found.correlations(3), whole.correlations(3))
    (other,) = read(model, one, prompts, key="wide", feature=4).activities
    np.testing.assert_array_equal(other.correlations(4), whole.correlations(4))


def test_an_interrupt_keeps_what_is_done_and_is_not_taken_for_all(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    one = made.random(0, model.geometry.d_model)
    prompts = texts(model, 30)
    steps: list[int] = []

    def on_step(done: int, total: int, said: str = "") -> None:  # noqa: ARG001
        steps.append(done)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model, "on_step", on_step)
        found = read(model, one, prompts, key="stopped")
    assert isinstance(found.interrupt, KeyboardInterrupt)
    assert 0 < found.done < 30
    assert found.activities[0].texts == found.done
    whole = read(model, one, prompts, key="stopped")
    assert whole.interrupt is None
    assert whole.activities[0].texts == 30
