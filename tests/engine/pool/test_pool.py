"""Sweeps in a pool: the same bits whoever runs a shard and in whatever order, and no code that travels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine import exactness
from interp.engine.pool import messages
from interp.engine.pool.here import Here
from interp.engine.pool.protocol import Reply
from interp.errors import InputError, Interrupted
from interp.results.costs import lasting
from interp.spec import Pair, Prompt

PAIRS = [
    Pair(Prompt(ids=(5, 90, 33, 171, 40, 2, 77)), Prompt(ids=(5, 90, 61, 171, 40, 9, 77)), 14, 15),
    Pair(Prompt(ids=(8, 91, 30, 171, 40, 2, 77)), Prompt(ids=(8, 92, 61, 171, 40, 9, 77)), 14, 15),
    Pair(Prompt(ids=(8, 91, 30, 171, 40, 2, 78)), Prompt(ids=(8, 92, 30, 171, 40, 9, 78)), 24, 15),
    Pair(Prompt(ids=(5, 92, 33, 171, 40, 2, 77)), Prompt(ids=(5, 92, 61, 171, 40, 9, 77)), 14, 11),
    Pair(Prompt(ids=(5, 90, 33, 17, 40, 2, 77)), Prompt(ids=(5, 90, 61, 17, 44, 9, 77)), 14, 15),
]
ASKED: list[dict[str, Any]] = [
    {"site": "z"},
    {"site": "resid_pre", "by": "position", "direction": "noise", "metric": "kl"},
    {"site": "v", "by": "head-position", "metric": "prob"},
    {"site": "mlp_out", "by": "span", "metric": "loss"},
    {"site": "neuron", "by": "neuron", "layer": 1},
    {"site": "pattern", "by": "head"},
]

pytestmark = pytest.mark.usefixtures("small_shards")


class Backwards(Here):
    """The last shard comes first."""

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        return super().completed(list(futures)[::-1])


def same(first: Any, second: Any) -> None:
    for name in ("per_pair", "patched", "effect", "done"):
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True), name
    assert first.checks == second.checks


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked["site"])
def test_any_number_of_workers_gives_the_same_bits(
    family: str, asked: dict[str, Any], lend: Any, session_with: Any, one: Any, two: Any
) -> None:
    lend(family)
    plain = interp.patch(pairs=PAIRS, **asked)
    found = []
    for pool in (Here(), one, two, Backwards()):
        session_with(pool)
        found.append(interp.patch(pairs=PAIRS, **asked))
    for other in found[1:]:
        same(found[0], other)
    assert found[2].provenance.path.startswith(plain.provenance.path + " in ")
    assert found[2].provenance.path.endswith(" shards on 2 processes")
    assert np.abs(found[0].patched - plain.patched).max() < 1e-4
    assert found[0].done.all()


@pytest.mark.usefixtures("clean_session")
def test_on_the_bundled_model(session_with: Any, one: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.engine.patching.pooled.ROWS", 1000)
    interp.load()
    found = []
    for pool in (Here(), one, two, Backwards()):
        session_with(pool)
        found.append(interp.patch(task="ioi", n=12))
    for other in found[1:]:
        same(found[0], other)
    assert [worker.held["bundled"] for worker in two.workers()] == [interp.model.fingerprint()] * 2


@pytest.mark.parametrize("freeze", ["all", "heads", "none"])
def test_paths_have_the_same_bits_too(freeze: str, lend: Any, session_with: Any, one: Any, two: Any) -> None:
    lend("llama")
    asked = {"from_": "all", "to": "1.0.q,1.1.v,logits", "freeze": freeze}
    plain = interp.path(pairs=PAIRS, **asked)
    found = []
    for pool in (Here(), one, two, Backwards()):
        session_with(pool)
        found.append(interp.path(pairs=PAIRS, **asked))
    for other in found[1:]:
        same(found[0], other)
    assert found[2].provenance.path.endswith(" shards on 2 processes")
    assert np.nanmax(np.abs(found[0].patched - plain.patched)) < 1e-4


def test_activations_of_another_model(lend: Any, folder: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    other = clean_session.load(folder("llama"), name="other")
    with torch.no_grad():
        other.bridge.blocks[1].attn.o.weight.mul_(1.5)
    lend("llama")
    found = []
    for pool in (Here(), two):
        session_with(pool)
        found.append(interp.patch(pairs=PAIRS, site="attn_out", by="layer", from_model="other"))
    same(*found)
    assert np.abs(found[0].effect).max() > 0
    assert any({"llama", "other"} <= set(worker.held) for worker in two.workers())  # who had the shard


def test_a_forecast_says_whose_time_it_is(lend: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)
    found = interp.patch(pairs=PAIRS, dry_run=True)
    (note,) = [note for note in found.notes if "in this process alone" in note]
    assert f"cut into shards takes {lasting(found.seconds / 2)} or more on 2 processes: each works with one" in note
    session_with(None)
    assert not interp.patch(pairs=PAIRS, dry_run=True).notes


def test_what_is_known_is_not_asked_again(lend: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)
    first = interp.patch(pairs=PAIRS)
    before = sum(worker.shards for worker in two.workers())
    again = interp.patch(pairs=PAIRS)
    assert sum(worker.shards for worker in two.workers()) == before
    assert again.provenance.forwards == 0
    same(first, again)
    other = Pair(PAIRS[0].corrupted, PAIRS[0].clean, 14, 15)
    interp.patch(pairs=[*PAIRS, other])
    assert sum(worker.shards for worker in two.workers()) > before


def test_an_edited_model_goes_to_the_workers_as_it_is(
    folder: Any, clean_session: Any, session_with: Any, two: Any
) -> None:
    model = clean_session.load(folder("llama"), name="edited")
    session_with(Here())
    before = interp.patch(pairs=PAIRS)
    weight = model.bridge.blocks[1].attn.o.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
    here = interp.patch(pairs=PAIRS)
    session_with(two)
    same(here, interp.patch(pairs=PAIRS))
    assert not np.array_equal(here.patched, before.patched)
    with torch.no_grad():
        weight.copy_(kept)
    session_with(two)
    same(before, interp.patch(pairs=PAIRS))


def test_what_does_not_travel_is_refused_in_one_line(
    folder: Any, clean_session: Any, session_with: Any, two: Any
) -> None:
    model = clean_session.load(folder("llama"), name="own")
    session_with(two)
    shards = sum(worker.shards for worker in two.workers())
    with pytest.raises(InputError, match="the metric mine is a function of yours, and no code goes to workers"):
        interp.patch(pairs=PAIRS, metric=mine)
    handle = model.hf_model.register_forward_hook(nothing)
    with pytest.raises(InputError, match="hooks or functions of yours are on own, and no code goes to workers"):
        interp.patch(pairs=PAIRS)
    handle.remove()
    norm = model.bridge.blocks[0].ln1.original_component
    before = norm.variance_epsilon
    norm.variance_epsilon = 1e-3
    with pytest.raises(InputError, match="own was changed in more than the values of its weights"):
        interp.patch(pairs=PAIRS)
    norm.variance_epsilon = before
    assert interp.patch(pairs=PAIRS).done.all()
    assert sum(worker.shards for worker in two.workers()) > shards
    assert [worker.state for worker in two.workers()] == ["ready", "ready"]


def nothing(*_: Any) -> None:
    """Change nothing."""


def mine(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 0]


def test_here_the_user_s_own_functions_run(lend: Any, session_with: Any) -> None:
    lend("llama")
    session_with(Here())
    assert interp.patch(pairs=PAIRS, metric=mine).done.all()


def test_an_interrupt_keeps_the_part_and_lets_go_of_the_rest(
    lend: Any, clean_session: Any, session_with: Any, two: Any
) -> None:
    lend("llama")
    session_with(Here())
    whole = interp.patch(pairs=PAIRS * 4)
    session_with(two)
    steps: list[int] = []

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as stopped:
        interp.patch(pairs=PAIRS * 4)
    clean_session.on_step = None
    part = stopped.value.result
    assert "interrupted" in part.notes[0]
    assert 0 < part.provenance.forwards < whole.provenance.forwards
    same(whole, interp.patch(pairs=PAIRS * 4))


def test_a_wrong_forward_falls_back_to_hooks(
    lend: Any, session_with: Any, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exactness.forget(lend("gpt2"))
    monkeypatch.setattr(exactness, "TOLERANCE", -1.0)  # nothing is near enough
    session_with(two)
    found = interp.patch(pairs=PAIRS)
    assert found.provenance.path.startswith("hooked: the forward without hooks differed by ")
    assert found.provenance.path.endswith(" shards on 2 processes")
    session_with(Backwards())
    same(found, interp.patch(pairs=PAIRS))


def test_messages_carry_arrays_and_plain_data_alone() -> None:
    tensors = {"x": torch.tensor([[1.0, float("nan")]], dtype=torch.float64).T, "y": torch.tensor([True])}
    head, found = messages.unpacked(messages.packed({"cells": (1, 2), "é": None}, tensors))
    assert head == {"cells": [1, 2], "é": None}
    assert all(torch.equal(found[name].nan_to_num(7), tensors[name].nan_to_num(7)) for name in tensors)
    with pytest.raises(TypeError):
        messages.packed({"function": mine}, {})
