"""A feature's direction added, as the dashboard asks: what `steer` and `generate` give, and the hooked run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import interp
from engine.features import made
from interp.errors import InputError
from interp.methods._shared.feature_result import FeatureResult
from interp.sites import Site
from interp.spec import Intervention
from views.features import planted, silent

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["Mary gave the drink to John", "The store is near the house and Mary went to the store"]
PROMPT = "When Mary and John"


def looked(model: Any, kind: str = "stream", layer: int = 0) -> FeatureResult:
    """Return a feature of a made dictionary, by the one that is most active."""
    made.load(model, made.every(model, layer)[kind])
    results = [interp.feature(f"{layer}.{n}", TEXTS, context=2) for n in range(6)]
    return max(results, key=lambda one: one.most)


@pytest.mark.parametrize("strength", [3.0, -5.0])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_it_is_what_steer_and_generate_give(family: str, strength: float, lend: Any) -> None:
    model = lend(family)
    result = looked(model)
    said = result.steered(PROMPT, strength, n=4, top=3)
    steered = interp.steer(PROMPT, direction=result, strength=strength, n=4)
    generated = interp.generate(PROMPT, n=4, interventions=[result.intervention(strength)])
    assert (said.plain.text, said.steered.text) == steered.continuations
    assert said.steered.text == generated.continuation
    assert said.steered.tokens == generated.generated == steered.generated[1]
    assert said.steered.stopped == generated.stopped
    assert said.stream == pytest.approx(steered.stream_norm)
    assert said.length == pytest.approx(abs(strength) * steered.norm, rel=1e-5)
    assert said.prompt == steered.tokens
    runs = [model.run(PROMPT, changes) for changes in ([], [result.intervention(strength)])]
    before, after = (run.logits[0, -1].float().softmax(-1) for run in runs)
    top = {*before.topk(3).indices.tolist(), *after.topk(3).indices.tolist()}
    order = sorted(top, key=lambda index: -float(after[index]))
    expected = [
        (model.tokens.string(n), pytest.approx(float(before[n])), pytest.approx(float(after[n]))) for n in order
    ]
    assert list(said.likeliest) == expected


@pytest.mark.parametrize("kind", ["stream", "attention", "skip"])
def test_it_is_the_features_activation_raised_where_that_is_a_fixed_direction(kind: str, lend: Any) -> None:
    model = lend("llama")
    result = looked(model, kind)
    number = int(result.name.partition(".")[2])
    raised = Intervention(Site("features", 0), feature=number, mode="add", value=2.5)
    after = model.run(PROMPT, [raised]).logits[0, -1].float().softmax(-1)
    said = result.steered(PROMPT, 2.5, n=1, top=1)
    assert said.likeliest[0][2] == pytest.approx(float(after.max()), abs=1e-5)


def test_nothing_added_changes_nothing(lend: Any) -> None:
    model = lend("gpt2")
    said = looked(model).steered(PROMPT, 0.0, n=3)
    assert said.plain == said.steered
    assert all(before == after for _, before, after in said.likeliest)


def test_what_is_not_given_is_the_strongest_place_and_four_times_the_largest(lend: Any) -> None:
    model = lend("gpt2")
    result = looked(model)
    said = result.steered(n=2)
    assert said.strength == 4 * result.most
    one = result.exemplars[0]
    assert "".join(said.prompt).endswith("".join(one.tokens[max(0, one.peak - 1) : one.peak + 1]))
    assert said == result.steered(result.opening, 4 * result.most, n=2)
    ids = [5, 11, 23]
    assert len(result.steered(ids, 1.0, n=1).prompt) == 3, "ids are a prompt as anywhere"


def test_what_cannot_be_is_refused_in_a_line(lend: Any) -> None:
    model = lend("gpt2")
    result = looked(model)
    for call, why in (
        (lambda: result.steered(PROMPT, float("nan")), "strength nan is not finite"),
        (lambda: result.steered(PROMPT, 1.0, n=0), "--n 0 generates nothing"),
        (lambda: result.steered(PROMPT, 1.0, top=0), "top=0 lists nothing"),
        (lambda: result.steered("", 1.0), "the prompt is empty"),
        (lambda: silent().steered(), "give steered a text to go on with"),
        (lambda: planted().steered(PROMPT), "steering needs the model; run the cell again"),
        (lambda: replace(result, direction=np.zeros(0, np.float32)).steered(PROMPT), "feature=7, mode='add'"),
    ):
        with pytest.raises(InputError, match=why.replace("(", r"\(").replace("7", r"\d+")):
            call()


def test_a_bidirectional_model_writes_nothing(lend: Any) -> None:
    result = replace(looked(lend("bert"), "stream"), direction=np.ones(8, np.float32))
    with pytest.raises(InputError, match="reads in both directions and generates nothing"):
        result.steered(PROMPT, 1.0)


def test_on_a_real_model_it_is_steer(smollm2: Any) -> None:
    one = made.random(11, smollm2.geometry.d_model, act=made.relu)
    made.load(smollm2, one)
    result = interp.feature("11.3", TEXTS, context=2)
    said = result.steered("The capital of France is", 400.0, n=4)
    steered = interp.steer("The capital of France is", direction=result, strength=400.0, n=4)
    assert (said.plain.text, said.steered.text) == steered.continuations
    assert said.plain.text != said.steered.text
