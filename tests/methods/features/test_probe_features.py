"""Probes of features: what is read is what is active, and the weights are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from engine.features import made, naive
from interp.engine.features.dictionary import Dictionary
from interp.errors import InputError
from interp.methods._shared.probe.features import read

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [f"a {word} {noun}" for word in ("great", "dull") for noun in ("film", "book", "song", "game", "play")]
LABELS = ["good"] * 5 + ["bad"] * 5


def expected(model: Any, one: Dictionary, position: str) -> Tensor:
    """Return activations, ``[text, width]``, by the naive encoder."""
    special = model.tokens.tokenizer.all_special_ids
    rows: list[Tensor] = []
    for text in TEXTS:
        ids = model.encode(interp.Prompt(text)).ids
        values = naive.plain(model, ids, one)
        plain = torch.tensor([index not in special for index in ids])
        rows.append(values[-1] if position == "last" else values[plain].mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("position", ["last", "mean"])
def test_what_is_read_is_what_is_active(family: str, position: str, lend: Any) -> None:
    model = lend(family)
    every = [made.every(model, 0)["stream"], made.every(model, 1)["skip"]]
    given = made.load(model, *every)
    encoded = [model.encode(interp.Prompt(text)) for text in TEXTS]
    found = read(model, [one.ids for one in encoded], given, position)
    assert found.layers == (0, 1)
    for layer, one in enumerate(every):
        dense = expected(model, one, position)
        active = dense.any(0).nonzero()[:, 0].tolist()
        assert found.names[layer] == tuple(f"{layer}.{feature}" for feature in active)
        np.testing.assert_allclose(found.values[layer][:, : len(active)], dense[:, active], atol=1e-5)
        assert not found.values[layer][:, len(active) :].any()


def test_a_probe_names_its_features(lend: Any) -> None:
    model = lend("llama")
    one = made.every(model, 1)["transcoder"]
    made.load(model, one)
    result = interp.probe(TEXTS, LABELS, site="features", position="mean", folds=5)
    assert (result.layers, result.best) == ((1,), 1)
    assert result.features[0] == tuple(f"1.{n}" for n in expected(model, one, "mean").any(0).nonzero()[:, 0].tolist())
    assert result.coef.shape == (1, 1, len(result.features[0]))
    assert result.to_frame()["layer"].tolist() == [1]
    (name, weight), *_ = result.top(3)
    place = result.features[0].index(name)
    assert weight == result.coef[0, 0, place] == result.coef[0, 0][np.abs(result.coef[0, 0]).argmax()]
    assert result.top(1, label="bad") == [(name, -weight)] or result.classes[1] == "bad"
    # The fitted probe is one of the activations as they are: it tells the texts that it was fitted to apart.
    logits = expected(model, one, "mean").double().numpy()[:, [int(n.split(".")[1]) for n in result.features[0]]]
    said = logits @ result.coef[0, 0] + result.intercept[0, 0] > 0
    assert [result.classes[int(one)] for one in said] == LABELS
    assert "L1" in result.text()
    assert "L1" in result.html()
    assert result.provenance.features == {"made": model.feature_sets["made"].digest}


def test_what_cannot_be_asked(lend: Any) -> None:
    model = lend("llama")
    with pytest.raises(InputError, match="no features are loaded"):
        interp.probe(TEXTS, LABELS, site="features")
    made.load(model, made.every(model, 1)["transcoder"])
    with pytest.raises(InputError, match="resid_post has none; add --site features"):
        interp.probe(TEXTS, LABELS, features="made")
    result = interp.probe(TEXTS, LABELS, site="features")
    with pytest.raises(InputError, match="no layer 0; layers are 1"):
        result.top(layer=0)
    with pytest.raises(InputError, match=r"which top\(\) names, and no direction"):
        interp.steer("a b", direction=result, layer=1, n=1)
    with pytest.raises(InputError, match="this is a probe of resid_post"):
        interp.probe(TEXTS, LABELS).top()
