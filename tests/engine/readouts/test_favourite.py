"""Inputs found by gradients: never worse than their start, the best there is where all can be tried, and refusals."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import interp
from engine.features import made
from interp.engine.features import held
from interp.engine.readouts.favourite import Aim, favourite
from interp.errors import InputError, Interrupted
from interp.spec import Prompt

FAMILIES = ("gpt2", "llama", "neox")
TEXTS = ["Mary gave the drink to John", "The store is near the house"]


def search(model: Any, aim: Aim, **more: Any) -> Any:
    asked = {"length": 3, "steps": 12, "seed": 0, **more}
    return model.operate("test", {}, lambda operation: favourite(model, aim, **asked))  # noqa: ARG005


def value(model: Any, aim: Aim, ids: tuple[int, ...]) -> float:
    """Return what a plain hooked run gives at the last token."""
    name = aim.place.hook(model)
    found = model.run(Prompt(ids=ids)).activations[name][0].flatten(1)
    return float(aim.of(found[-1:])[0])


def aims(model: Any) -> list[Aim]:
    width = model.geometry.d_model
    return [
        Aim.neuron(1, 5),
        Aim.feature(made.random(1, width), 3),
        Aim.feature(made.random(0, width, point="mlp_in", taken=made.by_layer), 4),
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", range(3))
def test_it_rises_and_its_value_is_the_hooked_runs(family: str, which: int, lend: Any) -> None:
    model = lend(family)
    aim = aims(model)[which]
    found = search(model, aim)
    assert len(found.values) == 13
    assert bool((np.diff(found.values) >= 0).all())
    assert found.values[-1] > found.values[0]
    assert value(model, aim, found.ids) == pytest.approx(found.values[-1], rel=1e-4, abs=1e-5)
    assert search(model, aim).ids == found.ids
    assert search(model, aim, seed=1).ids != found.ids


def test_one_token_is_the_best_of_all(lend: Any) -> None:
    """Of a single token, all that there are can be tried."""
    model = lend("llama")
    aim = Aim.neuron(0, 3)
    found = search(model, aim, length=1, steps=30)
    front = found.ids[:-1]
    special = set(model.tokens.tokenizer.all_special_ids)
    every = [n for n in range(model.geometry.d_vocab) if n not in special]
    best = max(value(model, aim, (*front, n)) for n in every)
    assert found.values[-1] == pytest.approx(best, rel=1e-4)


def test_no_special_token_is_taken(lend: Any) -> None:
    model = lend("gpt2")
    special = set(model.tokens.tokenizer.all_special_ids)
    for aim, seed in product(aims(model), range(3)):
        found = search(model, aim, seed=seed)
        assert not special.intersection(found.ids[-3:])


def test_a_models_gradients_stay_as_they_are(lend: Any) -> None:
    model = lend("gpt2")
    search(model, aims(model)[0])
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.hf_model.parameters())


def test_commands_show_it_beside_the_texts(lend: Any, tmp_path: Any) -> None:
    model = lend("gpt2")
    held.hold(model, held.FeatureSet("made", "here", "SAELens", (made.random(1, model.geometry.d_model),)))
    shown = interp.feature("1.3", TEXTS, optimise=True, length=4, steps=8)
    found = shown.favourite
    assert found is not None
    assert found.name == "1.3"
    assert len(found.tokens) == len(found.around) == len(found.ids)
    assert found.tokens == tuple(model.tokens.string(n) for n in found.ids)
    assert found.activation == found.around[-1]
    assert shown.provenance.path == "gradients"
    assert "an input found by gradients" in shown.text()
    shown.save(tmp_path / "feature.html")
    assert "an input found by gradients" in (tmp_path / "feature.html").read_text()
    neurons = interp.neurons("0.3,1.5", TEXTS, optimise=True, length=4, steps=8)
    assert [one.name for one in neurons.favourites] == ["0.3", "1.5"]
    for one in neurons.favourites:
        assert one.activation == pytest.approx(one.values[-1], rel=1e-3)
    neurons.save(tmp_path / "neurons.html")
    assert "An input found by gradients" in (tmp_path / "neurons.html").read_text()
    assert interp.neurons("0.3", TEXTS).favourites == ()
    assert interp.feature("1.3", TEXTS).favourite is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"length": 0}, "--length 0 is too few"),
        ({"steps": 0}, "--steps 0 is too few"),
        ({"length": 48}, "--length 48 and a BOS do not fit"),
        ({"lowest": True}, "leave --lowest out"),
        ({"which": "0.*"}, "of 16 neurons at most"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(call: dict[str, Any], said: str, lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=said.replace("*", r"\*")):
        interp.neurons(**{"which": "0.1", "texts": TEXTS, "optimise": True, **call})


def test_an_encoder_is_refused(lend: Any) -> None:
    lend("bert")
    with pytest.raises(InputError, match="leave --optimise out"):
        interp.neurons("0.1", TEXTS[:1], optimise=True)


def test_an_interrupt_keeps_what_was_found(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")

    def on_step(done: int, total: int, said: str = "") -> None:  # noqa: ARG001
        if ":" in said and done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(model, "on_step", on_step)
    with pytest.raises(Interrupted) as caught:
        interp.neurons("0.1,0.2", TEXTS, optimise=True, steps=9)
    result = caught.value.result
    assert len(result.favourites) == 1
    assert len(result.favourites[0].values) == 4
    assert "partial: interrupted after 3 of 9 steps of the search for an input" in result.notes
