"""Claims and selfcheck in a pool: the same bits whoever has a shard and in whatever order they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch

import interp
from faults import harness
from interp.engine import exactness
from interp.engine.interchange import run as interchange
from interp.engine.pool.here import Here
from interp.engine.pool.protocol import Reply
from interp.errors import InputError, Interrupted
from interp.spec import Pair

WHOLE = "variable: v = the answer\ncarried by: {} at END\nswap v -> the answer becomes the other v"
STAYS = "variable: v = the answer\ncarried by: {} at END\nswap v -> the answer stays"
CONTROLS = "labels,model,random,below,above"


class Backwards(Here):
    """The last shard comes first."""

    def completed(self, futures: Iterable[Future[Reply]]) -> Iterator[Future[Reply]]:
        return super().completed(list(futures)[::-1])


@pytest.fixture(autouse=True)
def few_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the interchanges of tiny models, too."""
    monkeypatch.setattr(interchange, "SHARD", 20)
    monkeypatch.setattr(interchange, "_PROMPTS", 5)


def answered(model: Any, count: int = 12) -> list[Pair]:
    """Return prompts of a random model, with what it says itself as their answers."""
    drawn = torch.Generator().manual_seed(3)
    found: dict[int, list[tuple[int, ...]]] = {}
    for _ in range(200):
        length = int(torch.randint(5, 8, (1,), generator=drawn))
        ids = tuple(torch.randint(1, model.geometry.d_vocab, (length,), generator=drawn).tolist())
        with torch.no_grad():
            said = model.bridge.forward(torch.tensor([ids]), return_type="logits")[0, -1].argmax()
        found.setdefault(int(said), []).append(ids)
    turns = [(ids, said) for n in range(count) for said, own in found.items() for ids in own[n : n + 1]]
    return [Pair(ids, ids, said) for ids, said in turns[:count]]


_COST = {"provenance", "forwards", "seconds"}  # of a run, which says nothing of the model


def bits(result: Any) -> Any:
    return _plain(harness.content(result, {"provenance"}))


def _plain(value: Any) -> Any:
    """Return what a result holds, and those in it, without how they were made, and that a worker was slow."""
    if isinstance(value, dict):
        return {name: _plain(held) for name, held in value.items() if name not in _COST}
    if isinstance(value, list):
        return [_plain(held) for held in value if not str(held).startswith("worker ")]
    return value


@pytest.mark.parametrize(
    ("family", "text", "place", "more"),
    [
        ("llama", WHOLE, "resid_post layer 0", {}),
        ("gpt2", STAYS, "head 1.2", {"seed": 1}),
        ("llama", WHOLE, "resid_post layer 0", {"rank": 2, "controls": "labels,below"}),
    ],
    ids=["whole", "stays", "subspace"],
)
@pytest.mark.slow
def test_a_claim_has_the_same_bits_with_any_number_of_workers(
    family: str, text: str, place: str, more: dict[str, Any], lend: Any, session_with: Any, one: Any, two: Any
) -> None:
    model = lend(family)
    asked: dict[str, Any] = {"pairs": answered(model), "controls": CONTROLS, **more}
    plain = interp.claim(text.format(place), **asked)
    found = []
    for pool in (Here(), two) if more else (Here(), two, one, Backwards()):
        session_with(pool)
        exactness.forget(model)
        found.append(interp.claim(text.format(place), **asked))
    for other in found[1:]:
        assert bits(found[0]) == bits(other)
        assert found[0].provenance.forwards == other.provenance.forwards
    assert found[1].provenance.path.startswith(plain.provenance.path + " in ")
    assert found[1].provenance.path.endswith(" shards on 2 processes")
    assert found[1].controls == plain.controls
    assert found[1].control_missing == plain.control_missing
    assert (found[1].got, found[1].verdict) == (plain.got, plain.verdict)
    np.testing.assert_array_equal(found[1].control_accuracy, plain.control_accuracy)
    assert found[1].code() == plain.code()


def test_an_interrupt_keeps_the_controls_that_are_made(
    lend: Any, clean_session: Any, session_with: Any, two: Any
) -> None:
    pairs = answered(lend("llama"))
    text = WHOLE.format("resid_post layer 0")
    session_with(two)
    whole = interp.claim(text, pairs=pairs, controls=CONTROLS)
    session_with(two)

    def stop(done: int, total: int, said: str) -> None:
        if said == "claim: controls" and done == 2:
            assert total == 5
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.claim(text, pairs=pairs, controls=CONTROLS)
    clean_session.on_step = None
    part = caught.value.result
    assert len(part.controls) == 2
    known = dict(zip(whole.controls, whole.control_accuracy.tolist(), strict=True))
    assert part.control_accuracy.tolist() == [known[name] for name in part.controls]


def test_claims_are_tested_again_by_workers(folder: Any, clean_session: Any, session_with: Any, two: Any) -> None:
    other = clean_session.load(folder("gpt2"), name="other", device="cpu")
    clean_session.load(folder("llama"), name="llama", device="cpu")
    for place in ("resid_post layer 0", "head 1.2", "mlp 1"):
        model = "other" if place.startswith("head") else "llama"
        pairs = answered(clean_session.get(model))
        interp.claim(WHOLE.format(place), pairs=pairs, controls="labels,random", model=model)
    with torch.no_grad():
        other.bridge.blocks[1].attn.o.weight.mul_(1.5)
    plain = interp.claims()
    told: list[tuple[int, int, str]] = []
    found = []
    for pool in (Here(), two, Backwards()):
        session_with(pool)
        clean_session.on_step = lambda *step: told.append(step)
        found.append(interp.claims())
        clean_session.on_step = None
    assert bits(found[0]) == bits(found[1]) == bits(found[2])
    assert told[:4] == [(n, 3, "claims: on this process") for n in (0, 1, 2, 3)]
    assert found[1].provenance.path == "in 3 shards on 2 processes"
    for name in ("names", "models", "now", "changes", "missing"):
        assert getattr(found[1], name) == getattr(plain, name)
    np.testing.assert_array_equal(found[1].accuracy, plain.accuracy)
    assert found[1].notes == plain.notes
    session_with(None)
    given = WHOLE.replace("the answer becomes the other v", "given").format("mlp 0")
    interp.claim(given, pairs=answered(clean_session.get("llama")), becomes=becomes, controls="none", model="llama")
    session_with(two)
    with pytest.raises(InputError, match="a function does not go to workers: %interp disconnect runs this here"):
        interp.claims()


def becomes(base: Any, source: Any) -> Any:  # noqa: ARG001
    return source["answer"]


@pytest.mark.slow
def test_selfcheck_has_the_same_bits_with_any_number_of_workers(
    clean_session: Any, session_with: Any, two: Any
) -> None:
    plain = interp.selfcheck(program="induction", n=2)
    told: list[tuple[int, int, str]] = []
    found = []
    for pool in (Here(), two, Backwards()):
        session_with(pool)
        clean_session.on_step = lambda *step: told.append(step)
        found.append(interp.selfcheck(program="induction", n=2))
        clean_session.on_step = None
    for other in found[1:]:
        for name in ("auroc", "interval", "true", "false", "undefined"):
            np.testing.assert_array_equal(getattr(found[0], name), getattr(other, name), strict=True)
        assert found[0].hidden == other.hidden
    assert [step[:2] for step in told[:4]] == [(0, 18), (6, 18), (12, 18), (18, 18)]
    assert found[1].provenance.path == "in 3 shards on 2 processes"
    assert np.isfinite(found[1].seconds).all()
    np.testing.assert_allclose(found[0].auroc, plain.auroc, atol=0.01)
    np.testing.assert_array_equal(found[0].true, plain.true)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_session")
def test_an_investigation_has_the_same_bits_with_any_number_of_workers(session_with: Any, two: Any) -> None:
    interp.load()
    asked = {"candidates": 8, "verify": 20, "heads": 2}
    text = "When Mary and John went to the store, John gave a drink to"
    plain = interp.investigate(text, **asked)
    found = []
    for pool in (Here(), two):
        session_with(pool)
        found.append(interp.investigate(text, **asked))
    assert bits(found[0]) == bits(found[1])
    assert found[1].components == plain.components
    assert found[1].target == plain.target


def test_a_wrong_forward_falls_back_to_hooks(
    lend: Any, session_with: Any, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    exactness.forget(model)
    monkeypatch.setattr(exactness, "TOLERANCE", -1.0)  # nothing is near enough
    asked: dict[str, Any] = {"pairs": answered(model), "controls": "none"}
    text = WHOLE.format("resid_post layer 0")
    found = []
    for pool in (two, Backwards()):
        session_with(pool)
        found.append(interp.claim(text, **asked))
    assert found[0].provenance.path.startswith("hooked: the forward without hooks differed by ")
    assert found[0].provenance.path.endswith(" shards on 2 processes")
    assert bits(found[0]) == bits(found[1])
