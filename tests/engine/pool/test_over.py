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
    "loss": lambda **more: interp.loss(CLEAN, **more),
    "circuit": lambda **more: interp.circuit(pairs=PAIRS, edges=10, **more),
}


def bits(result: Any) -> Any:
    found = harness.content(result, {"provenance", "results"})
    del found["numbers"]["seconds"]
    return found, [harness.content(one, {"provenance"}) for one in result.results if one is not None]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), [("patch", "gpt2"), ("circuit", "llama"), ("loss", "llama")])
def test_any_number_of_workers_gives_the_same_bits(
    name: str, family: str, run: Any, session_with: Any, one: Any, two: Any, clean_session: Any
) -> None:
    run(family)
    over = "checkpoint-20,run,checkpoint-3"
    plain = CALLS[name](over=over)
    found = []
    for pool in (Here(), one, two, Backwards()):
        session_with(pool)
        found.append(CALLS[name](over=over))
        assert list(clean_session.models) == ["run"]
    first = found[0]
    assert first.steps == plain.steps == tuple(over.split(","))
    assert first.provenance.path.endswith(" in 3 shards on this process")
    assert found[2].provenance.path.endswith(" in 3 shards on 2 processes")
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
    assert all(set(worker.held) <= {"run"} for worker in two.workers())
