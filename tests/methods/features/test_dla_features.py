"""Features' parts of a logit: with norms frozen they are slopes, and a perfect dictionary's are all of its place's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dictionaries
import interp
from engine.features import made, naive
from interp.engine.features import places
from interp.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [5, 11, 23, 31, 8, 40]
FAMILIES = ("gpt2", "llama", "neox", "gemma2")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("point", ["mlp_out", "z", "neuron", "attn_out"])
def test_all_of_a_perfect_dictionary_is_the_component(family: str, point: str, lend: Any) -> None:
    model = lend(family)
    made.load(model, dictionaries.perfect(places.widths(model)[point], 1, point), name="all")
    result = interp.dla(IDS, answer=7, wrong=9, features="all", top=10**6)
    if point in {"mlp_out", "neuron"}:
        expected = result.contributions["mlp 1"]
        if point == "neuron" and family in {"gpt2", "neox"}:  # the output's bias is no neuron's
            expected = sum(part for name, part in result.neurons if name.startswith("L1 "))
    else:
        expected = float(result.heads[1].sum())
        if point == "attn_out":
            expected += result.contributions.get("attn_bias 1", 0.0)
    assert sum(part for _, part in result.features) == pytest.approx(expected, abs=1e-4)
    assert abs(expected) > 1e-3
    sizes = [abs(part) for _, part in result.features]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["stream", "transcoder", "clt"])
def test_in_the_last_layer_a_part_is_the_slope_of_the_logit(family: str, kind: str, lend: Any) -> None:
    """Behind the last layer there is the final norm alone, with its scale as in this run."""
    model = lend(family)
    one = made.every(model, 1)[kind]
    made.load(model, one)
    result = interp.dla(IDS, answer=7, features="made", top=5)
    name, part = result.features[0]
    feature = int(name.split(".")[1])
    a = float(naive.plain(model, IDS, one)[-1, feature])
    weight = model.bridge.unembed.W_U[:, 7]
    gain = model.bridge.ln_final.original_component.weight
    end = model.activations_of(IDS, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"][0, -1]
    d = one.decoders[0][feature] / one.taken.scale

    def frozen(x: Tensor) -> Tensor:
        if family == "llama":
            return x / (end.square().mean() + 1e-6).sqrt()
        return (x - x.mean()) / (end.var(unbiased=False) + 1e-5).sqrt()

    with torch.no_grad():
        expected = float(a * (frozen(d) * gain) @ weight)
    assert part == pytest.approx(expected, rel=2e-3)
    assert "Largest features" in result.html()


def test_only_where_a_set_is_named(lend: Any) -> None:
    model = lend("llama")
    made.load(model, made.every(model, 0)["stream"])
    assert interp.dla(IDS, answer=7).features == ()
    with pytest.raises(InputError, match="no features are called"):
        interp.dla(IDS, answer=7, features="x")
