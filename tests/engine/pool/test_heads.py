"""Scores of heads in a pool: groups of prompts are shards, and their scores have the same bits whoever runs one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from interp.engine import exactness
from interp.engine.pool.here import Here
from interp.errors import Interrupted
from interp.methods._shared.heads import roles, scores

from .test_pool import Backwards

NAMES = tuple(f" {name}" for name in ("Mary", "John", "Tom", "James", "Dan", "Sara", "Anna"))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_TOGETHER", 100)


def same(first: Any, second: Any, atol: float = 0.0) -> None:
    for kind in ("scores", "spread", "chance", "interval"):
        mine, theirs = getattr(first, kind), getattr(second, kind)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert np.allclose(mine[name], theirs[name], rtol=0, atol=atol, equal_nan=True), name
    assert np.allclose(first.losses, second.losses, rtol=0, atol=atol, equal_nan=True)
    assert first.labels == second.labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("llama", {"n": 6}),
        ("gpt2", {"n": 6, "seed": 3}),
        ("bert", {"n": 6}),
        ("llama", {"relation": "subject-verb", "n": 6}),
        ("gpt2", {"task": "ioi", "from_": "END", "to": "IO", "n": 6}),
        ("llama", {"task": "ioi", "n": 6}),
        ("gpt2", {"task": "ioi", "n": 6}),
    ],
    ids=["llama", "gpt2", "bert", "relation", "spans", "llama-roles", "gpt2-roles"],
)
def test_any_number_of_workers_gives_the_same_bits(
    family: str,
    asked: dict[str, Any],
    lend: Any,
    session_with: Any,
    one: Any,
    two: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Heads of a model that has learned nothing play parts by chance, so that all stages run.
    monkeypatch.setattr(roles, "_sure", lambda each, least=0.0: each.mean(0) > 0)  # noqa: ARG005
    lend(family, added=NAMES)
    plain = interp.heads(**asked)
    assert asked.get("task") is None or "from_" in asked or "backup" in plain.scores
    found = []
    for pool in (Here(), Backwards(), one, two):
        session_with(pool)
        found.append(interp.heads(**asked))
    same(plain, found[0], 1e-4)
    for other in found[1:]:
        same(found[0], other)
    assert found[3].provenance.path.startswith("replay in ")
    assert found[3].provenance.path.endswith(" shards on 2 processes")


def test_a_stop_keeps_the_prompts_that_are_done(lend: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as stopped:
        interp.heads(n=6)
    clean_session.on_step = None
    assert stopped.value.result.n == 2
    assert stopped.value.result.notes[0] == "partial: interrupted after 2 of 6 prompts"


def test_what_workers_give_is_compared(lend: Any, session_with: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exactness.forget(lend("gpt2"))
    monkeypatch.setattr(exactness, "TOLERANCE", -1.0)  # nothing is near enough
    session_with(two)
    found = interp.heads(n=6)
    assert found.provenance.path.startswith("hooked: the forward without hooks differed by ")
    assert found.provenance.path.endswith(" shards on 2 processes")
    session_with(Backwards())
    same(found, interp.heads(n=6))
