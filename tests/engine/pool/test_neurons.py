"""Neurons over texts in a pool: the same bits whoever runs a shard, and what one pass over all texts gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from engine.pool.test_pool import Backwards
from interp.engine.pool.here import Here
from interp.engine.readouts import text_passes
from interp.errors import Interrupted
from interp.spec import Prompt, Texts

# Of several lengths, some of them equal texts, whose activations are equal.
TEXTS = Texts(tuple(Prompt(ids=tuple(range(5 + n % 7, 9 + n % 7 + n % 3))) for n in range(60)))
ASKED: list[dict[str, Any]] = [{}, {"lowest": True, "top": 70}]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_passes, "TOKENS", 40)


def same(first: Any, second: Any, *, sums: float = 0.0) -> None:
    for name in ("activations", "ids", "around", "place"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=sums, err_msg=name)
    assert all(np.allclose(first.stats[name], second.stats[name], atol=sums, rtol=0) for name in first.stats)
    assert (first.texts, first.tokens_read) == (second.texts, second.tokens_read)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("asked", ASKED, ids=["highest", "lowest"])
def test_any_number_of_workers_gives_the_same_bits(
    family: str, asked: dict[str, Any], lend: Any, session_with: Any, one: Any, two: Any
) -> None:
    lend(family)
    plain = interp.neurons("1.*", TEXTS, **asked)
    found = []
    for pool in (Here(), one, two, Backwards()):
        session_with(pool)
        found.append(interp.neurons("1.*", TEXTS, **asked))
    for other in found[1:]:
        same(found[0], other)
    same(plain, found[0], sums=1e-5)
    assert found[2].provenance.path == "forward in 7 shards on 2 processes"
    assert found[2].tokens_read > 200


def test_the_sample_is_the_same_however_texts_are_cut(
    lend: Any, session_with: Any, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend("llama")
    seen: list[Any] = []

    def laid_out(rows: Any, *_: Any) -> None:
        seen.append(rows)

    monkeypatch.setattr("interp.methods.readouts.neurons.embedder", lambda _: laid_out)
    for tokens, pool in ((40, None), (40, two), (90, None), (90, Backwards())):
        monkeypatch.setattr(text_passes, "TOKENS", tokens)
        session_with(pool)
        interp.neurons("1.*", TEXTS, cluster="umap", points=30)
    assert len(seen[0]) == 30
    for other in seen[1:]:
        np.testing.assert_allclose(seen[0], other, atol=1e-6)
    assert np.array_equal(seen[0], seen[1])


def test_an_interrupt_keeps_the_texts_before_it(lend: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    lend("llama")
    session_with(two)

    def stop(done: int, total: int, said: str) -> None:  # noqa: ARG001
        if done > 10:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as stopped:
        interp.neurons("0.1", TEXTS)
    clean_session.on_step = None
    part = stopped.value.result
    assert 10 < part.texts < 60
    assert f"interrupted after {part.texts} of 60 texts" in part.notes[0]
    same(part, interp.neurons("0.1", Texts(TEXTS.texts[: part.texts])))
