"""Interventions on features: what a naive hooked forward gives, and nothing at all where nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from engine.features import made, naive
from interp.errors import InputError
from interp.sites import Site
from interp.spec import Intervention

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [5, 11, 23, 31, 8, 40]
FAMILIES = ("gpt2", "llama", "neox", "gemma2")
KINDS = ("stream", "before", "attention", "heads", "mlp", "neurons", "transcoder", "skip", "clt")
BOUND = 5e-5


def on(layer: int, feature: Any = None, **more: Any) -> Intervention:
    return Intervention(Site("features", layer), feature=feature, **more)


def strongest(model: Any, one: Any, position: int = 2) -> int:
    """Return the feature that is most active at a position."""
    values = naive.plain(model, IDS, one)[position]
    assert values.max() > 0
    return int(values.argmax())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_interventions_are_the_naive_forward(family: str, kind: str, lend: Any) -> None:
    model = lend(family)
    one = made.every(model, 0)[kind]
    made.load(model, one)
    feature = strongest(model, one)

    def column(change: Callable[[Tensor], Tensor], where: Any = slice(None)) -> naive.Edit:
        def edit(now: Tensor) -> Tensor:
            now[where, feature] = change(now[where, feature])
            return now

        return edit

    asked: dict[str, tuple[Intervention, naive.Edit]] = {
        "zero": (on(0, feature, mode="zero"), column(torch.zeros_like)),
        "add": (on(0, feature, mode="add", value=1.5, position=-1), column(lambda a: a + 1.5, -1)),
        "scale": (on(0, feature, mode="scale", value=-2.0), column(lambda a: a * -2)),
        "set": (on(0, feature, value=range(6)), column(lambda a: torch.arange(6.0).to(a))),
        "all": (on(0, mode="zero", position=2), lambda now: now.index_fill(0, torch.tensor([2]), 0.0)),
    }
    plain = model.run(IDS).logits[0]
    for name, (intervention, edit) in asked.items():
        found = model.run(IDS, [intervention]).logits[0]
        assert (found - naive.hooked(model, IDS, [(one, edit)])).abs().max() <= BOUND, name
        assert (found - plain).abs().max() > 10 * BOUND, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_feature_set_to_its_own_value_changes_no_bit(family: str, kind: str, lend: Any) -> None:
    model = lend(family)
    one = made.every(model, 0)[kind]
    made.load(model, one)
    feature = strongest(model, one)
    run = model.run(IDS)
    own = one.encode(read(run, one, model)).column(feature)
    for change in (
        [on(0, feature, value=own)],
        [on(0, mode="scale", value=1.0)],
        [on(0, feature, mode="add", value=0)],
    ):
        assert torch.equal(model.run(IDS, change).logits, run.logits)


def read(run: Any, one: Any, model: Any) -> Tensor:
    held = run.activations[one.reads.hook(model)][0]
    return held.flatten(1)


def test_several_at_once_are_made_of_the_activations_before_any_of_them(lend: Any) -> None:
    model = lend("llama")
    low, high = made.every(model, 0)["stream"], made.every(model, 1)["transcoder"]
    made.load(model, low, high)
    two = naive.plain(model, IDS, low)[2].topk(2).indices.tolist()
    three = strongest(model, high)

    def doubled(now: Tensor) -> Tensor:
        now[:, two[0]] = 0.0
        now[:, two[1]] = now[:, two[1]] * 2
        return now

    def gone(now: Tensor) -> Tensor:
        now[:, three] = 0.0
        return now

    asked = [on(1, three, mode="zero"), on(0, two[0], mode="zero"), on(0, two[1], mode="scale", value=2)]
    found = model.run(IDS, asked).logits[0]
    # The naive forward encodes the higher layer's features in the run that the lower ones have changed.
    assert (found - naive.hooked(model, IDS, [(low, doubled), (high, gone)])).abs().max() <= BOUND
    again = model.run(IDS, asked[::-1]).logits[0]
    assert torch.equal(found, again)


@pytest.mark.parametrize("at", ["all", "prompt", "new"])
@pytest.mark.parametrize("kind", ["stream", "skip", "clt"])
def test_texts_are_those_that_are_read_anew_for_each_token(at: Any, kind: str, lend: Any) -> None:
    model = lend("llama")
    one = made.every(model, 0)[kind]
    made.load(model, one)
    feature = strongest(model, one)
    change = on(0, feature, mode="add", value=6.0)
    made_text = interp.generate(IDS, n=4, interventions=[change, on(0, mode="scale", value=0.5, position=1)], at=at)
    ids = list(IDS)
    for token, logprob in zip(made_text.ids.tolist(), made_text.logprobs.tolist(), strict=True):
        there = {"all": slice(None), "prompt": slice(0, 6), "new": slice(6, None)}[at]

        def edit(now: Tensor, there: slice = there) -> Tensor:
            now[there, feature] += 6.0
            now[1] *= 0.5
            return now

        logs = naive.hooked(model, ids, [(one, edit)])[-1].log_softmax(-1)
        assert int(logs.argmax()) == token
        assert float(logs[token]) == pytest.approx(logprob, abs=1e-4)
        ids.append(token)
    assert made_text.provenance.features == {"made": interp.model.feature_sets["made"].digest}


def test_another_set_of_features_is_another_text(lend: Any) -> None:
    model = lend("gpt2")
    made.load(model, made.every(model, 0)["stream"], name="one")
    change = [on(0, mode="scale", value=-9.0)]
    first = interp.generate(IDS, n=3, interventions=change)
    made.load(model, made.every(model, 0)["before"], name="two")
    other = interp.generate(IDS, n=3, interventions=change)
    named = interp.generate(IDS, n=3, interventions=[on(0, mode="scale", value=-9.0, features="one")])
    assert first.logprobs.tolist() == named.logprobs.tolist() != other.logprobs.tolist()


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: on(0, 3, mode="mean"), "features are not changed by mean; use replace, zero, add, scale"),
        (lambda: on(0, mode="add", value=1.0), "add is of one feature: say which, such as feature=417"),
        (lambda: Intervention(Site("z", 0), feature=3, mode="zero"), r"z has no features; use Site\('features', 0\)"),
        (lambda: on(0, [1, 2], mode="zero"), "one feature to an intervention"),
        (lambda: on(0, 3, head=1, mode="zero"), "features has no heads"),
        (lambda: Site("features", 0).hook_name, "have no hook of their own"),
    ],
)
def test_what_cannot_be_asked(ask: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ask()


def test_what_is_not_there(lend: Any) -> None:
    model = lend("gpt2")
    with pytest.raises(InputError, match="no features are loaded for"):
        model.run(IDS, [on(0, 3, mode="zero")])
    made.load(model, made.every(model, 0)["stream"])
    refused = {
        "no feature 99 in layer 0; they are 0–23": on(0, 99, mode="zero"),
        "made has no features of layer 1": on(1, 3, mode="zero"),
        "no layer 7": on(7, 3, mode="zero"),
        "no position 50": on(0, 3, mode="zero", position=50),
        "no features are called 'mde'": on(0, 3, mode="zero", features="mde"),
        "does not fit feature 3 of layer 0: give a number, or 6 of them": on(0, 3, value=[1.0, 2.0]),
    }
    for said, change in refused.items():
        with pytest.raises(InputError, match=said):
            model.run(IDS, [change])
    made.load(model, made.sae(0, 32, "mlp_normed"))
    with pytest.raises(InputError, match="can be looked at but not changed: nothing in the model writes there"):
        model.run(IDS, [on(0, 3, mode="zero")])
