"""--over in a pool: each model on a worker, the same bits whoever has it and in whatever order they end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
import models
from faults import harness
from interp.engine.pool.here import Here
from interp.engine.pool.protocol import Reply
from interp.errors import InputError, Interrupted
from interp.interface import remote, shards

CLEAN = "When Mary and John went to the store, John gave a drink to"
OTHER = "When John and Mary went to the store, Mary gave a drink to"
PAIRS = [(CLEAN, OTHER, " Mary", " John"), (CLEAN[:20], OTHER[:20], " to", " the")]


class Backwards(Here):
    """The last shard comes first."""

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        return super().completed(list(futures)[::-1])


@pytest.fixture
def run(tmp_path: Path, clean_session: Any) -> Callable[..., Path]:
    """Return ``run(family)``: the folder of a training with checkpoints of weights alone, which is loaded as "run"."""

    def made(family: str = "gpt2") -> Path:
        plain = models.FAMILIES[family](len(models.tokenizer()))
        place = tmp_path / "training"
        for count in (3, 20):
            other = copy.deepcopy(plain)
            source = torch.Generator().manual_seed(count)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter += torch.randn(parameter.shape, generator=source) * 0.02
            other.save_pretrained(place / f"checkpoint-{count}")
        plain.save_pretrained(place)
        models.tokenizer().save_pretrained(place)
        clean_session.load(place, device="cpu", name="run")
        return place

    return made


CALLS: dict[str, Callable[..., Any]] = {
    "patch": lambda **more: interp.patch(pairs=PAIRS, **more),
    "circuit": lambda **more: interp.circuit(pairs=PAIRS, edges=10, **more),
}


def bits(result: Any) -> Any:
    found = harness.content(result, {"provenance", "results"})
    del found["numbers"]["seconds"]
    found["notes"] = [note for note in found["notes"] if not note.startswith("worker ")]  # that one was slow
    return found, [harness.content(one, {"provenance"}) for one in result.results if one is not None]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), [("patch", "gpt2"), ("circuit", "llama")])
def test_any_number_of_workers_gives_the_same_bits(
    name: str, family: str, run: Any, session_with: Any, one: Any, two: Any, clean_session: Any
) -> None:
    run(family)
    over = "checkpoint-20,run,checkpoint-3"
    plain = CALLS[name](over=over)
    found = []
    for pool in (Here(), two, one, Backwards()) if name == "patch" else (Here(), two):
        session_with(pool)
        found.append(CALLS[name](over=over))
        assert list(clean_session.models) == ["run"]
    first = found[0]
    assert first.steps == plain.steps == tuple(over.split(","))
    assert first.provenance.path.endswith(" in 3 shards on this process")
    assert found[1].provenance.path.endswith(" in 3 shards on 2 processes")
    for other in found[1:]:
        assert bits(first) == bits(other)
        assert first.provenance.forwards == other.provenance.forwards
        for a, b in zip(first.results, other.results, strict=True):
            assert (a.provenance.fingerprint, a.provenance.path) == (b.provenance.fingerprint, b.provenance.path)
            assert (a.provenance.arguments, a.notes) == (b.provenance.arguments, b.notes)
    np.testing.assert_allclose(first.values, plain.values, atol=1e-4)
    for a, b in zip(first.results, plain.results, strict=True):
        assert a.provenance.fingerprint == b.provenance.fingerprint
        assert a.provenance.arguments == b.provenance.arguments
        assert a.code() == b.code()
    assert first.code() == plain.code()
    assert not any(set(worker.held) & {"checkpoint-3", "checkpoint-20"} for worker in two.workers())


def test_what_fails_there_is_said_as_here(run: Any, session_with: Any, two: Any) -> None:
    """And of two models one is held, the other loaded."""
    place = run()
    asked: dict[str, Any] = {"pairs": PAIRS[:1], "over": "checkpoint-3,checkpoint-20", "tokens": 0}
    (place / "checkpoint-20" / "config.json").write_text("[1]")
    plain = interp.diff("run", **asked)
    session_with(two)
    found = interp.diff("run", **asked)
    assert found.failures == plain.failures
    assert "no model's configuration" in found.failures[1]
    assert [(one.base, one.tuned) for one in found.results if one is not None] == [("run", "checkpoint-3")]
    assert found.code() == plain.code()
    np.testing.assert_allclose(found.values, plain.values, atol=1e-4)
    with pytest.raises(InputError, match="layer 7"):
        interp.attention(CLEAN, layer=7, over="checkpoint-3")


def test_an_interrupt_keeps_what_is_done(run: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    run()
    session_with(two)
    told: list[tuple[int, int, str]] = []

    def stop(*step: Any) -> None:
        told.append(step)
        if step[0] == 1:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.loss(CLEAN, over="run,checkpoint-3,checkpoint-20")
    clean_session.on_step = None
    assert told == [(0, 3, "loss: on 2 processes"), (1, 3, "loss: on 2 processes")]
    part = caught.value.result
    assert len(part.steps) == 1
    assert part.notes[0] == "partial: stopped after 1 of 3"
    whole = interp.loss(CLEAN, over="run,checkpoint-3,checkpoint-20")
    assert whole.steps == ("run", "checkpoint-3", "checkpoint-20")
    assert whole.at(part.steps[0]).mean == part.results[0].mean


def test_what_does_not_travel_is_refused_and_runs_here_as_without_workers(
    run: Any, clean_session: Any, session_with: Any, two: Any
) -> None:
    run()
    model = clean_session.get("run")
    handle = model.hf_model.register_forward_hook(nothing)
    session_with(two)
    with pytest.raises(InputError, match="hooks or functions of yours are on run, and no code goes to workers"):
        interp.loss(CLEAN, over="run,checkpoint-3")
    session_with(Here())
    assert "shard" not in interp.loss(CLEAN, over="run").provenance.path
    handle.remove()
    asked: dict[str, Any] = {"pairs": PAIRS, "over": "checkpoint-3"}
    assert "shard" not in interp.patch(metric=mine, **asked).provenance.path
    session_with(two)
    with pytest.raises(InputError, match="a function does not go to workers: %interp disconnect"):
        interp.patch(metric=mine, **asked)
    model.bridge.tokenizer.add_tokens(["xyzzy"])
    found = interp.loss(CLEAN, over="run,checkpoint-3")
    assert found.failures[0].startswith("the tokenizer of run is another one than it was loaded with")
    assert not found.failures[1]  # weights without a tokenizer are lent the one that is here


def mine(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 0]


def nothing(*_: Any) -> None:
    """Change nothing."""


def test_workers_that_find_different_models_are_told_apart(run: Any, session_with: Any) -> None:
    run()
    pool = Here()
    session_with(pool)
    assert not any(interp.loss(CLEAN, over="checkpoint-3,run").failures)
    (known,) = shards._found[pool].items()
    shards._found[pool][known[0]] = "0" * 32
    found = interp.loss(CLEAN, over="checkpoint-3,run")
    assert found.failures[0].startswith("a worker found another checkpoint-3 (fingerprint ")
    assert not found.failures[1]


@pytest.mark.parametrize("name", ["load", "features-load", "features-train", "status", "no-such"])
def test_a_worker_runs_commands_that_leave_nothing_behind(name: str) -> None:
    asked: dict[str, Any] = {"body": (), "arguments": {}, "recipe": None, "tokenizer": {}, "reads": {}, "folder": "."}
    with pytest.raises(InputError, match="is no command that a worker runs"):
        remote.ran([], lambda: None, name=name, **asked)


def test_results_go_as_their_files(run: Any, session_with: Any, two: Any) -> None:
    """One circuit over checkpoints."""
    run()
    circuit = interp.circuit(pairs=PAIRS, edges=10)
    asked: dict[str, Any] = {"over": "run,checkpoint-3", "random": 2}
    plain = interp.validate(circuit, **asked)
    session_with(two)
    found = interp.validate(circuit, **asked)
    assert found.failures == plain.failures == ("", "")
    np.testing.assert_allclose(found.values, plain.values, atol=1e-3)
