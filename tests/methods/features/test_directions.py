"""A feature as a direction: what its dictionary writes, where that enters the residual stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IPython.core.completer import provisionalcompleter

import interp
from engine.features import made, naive
from interp.errors import InputError
from interp.sites import Site
from interp.spec import Intervention

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [5, 11, 23, 31, 8, 40]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("kind", "site"),
    [("stream", "resid_post"), ("attention", "resid_mid"), ("skip", "resid_post"), ("mlp", "resid_post")],
)
def test_steering_along_a_feature_adds_to_its_activation(family: str, kind: str, site: str, lend: Any) -> None:
    model = lend(family)
    one = made.every(model, 1)[kind]
    made.load(model, one)
    steered = interp.steer(IDS, direction="F1.3", strength=2.5, n=1, at="prompt", answer=7)
    assert (steered.site, steered.layer, steered.source) == (site, 1, "feature F1.3")
    np.testing.assert_allclose(steered.direction, one.decoders[0][3] / one.taken.scale, rtol=1e-6)
    if not one.taken.normed:
        more = Intervention(Site("features", 1), feature=3, mode="add", value=2.5)
        other = model.run(IDS, [more]).logits[0, -1].log_softmax(-1)[7]
        assert steered.values[1] == pytest.approx(float(other), abs=1e-4)
    assert any("scaled by each token" in note for note in steered.notes) == bool(one.taken.normed)
    assert not any("is used at" in note for note in steered.notes)
    elsewhere = interp.steer(IDS, direction="F1.3", layer=0, n=1)
    assert f"F1.3 writes at {site} of layer 1, and is used at {site} of layer 0" in elsewhere.notes


def test_a_features_direction_is_projected_out(lend: Any) -> None:
    model = lend("llama")
    one = made.every(model, 1)["stream"]
    made.load(model, one)
    pair = [(IDS, [5, 11, 29, 31, 8, 40], 7, 9)]
    named = interp.ablate(pairs=pair, direction="F1.3")
    given = interp.ablate(pairs=pair, direction=one.decoders[0][3].numpy(), layer=1)
    assert named.values.tolist() == given.values.tolist()
    assert named.values[0] != named.values[1]


def test_a_cell_names_a_feature_without_a_variable(shell: Any, lend: Any) -> None:
    model = lend("gpt2")
    one = made.every(model, 1)["stream"]
    made.load(model, one)
    shell.run_cell("%interp steer 'a b' --direction F1.3 --n 2 -o steered").raise_error()
    assert shell.user_ns["steered"].source == "feature F1.3"
    feature = int(naive.plain(model, IDS, one)[2].argmax())
    shell.run_cell(f"%interp ablate --feature F1.{feature} --task ioi --n 2 -o ablated")
    with provisionalcompleter():
        found = [one.text for one in shell.Completer.completions("%interp patch --site fe", 23)]
    assert found == ["features"]


def test_what_is_no_direction(lend: Any) -> None:
    model = lend("gpt2")
    with pytest.raises(InputError, match="no features are loaded"):
        interp.steer(IDS, direction="F1.3", n=1)
    made.load(model, made.every(model, 1)["heads"])
    with pytest.raises(InputError, match=r"F1\.3 writes at z, which is no vector of the residual stream; change"):
        interp.steer(IDS, direction="F1.3", n=1)
    with pytest.raises(InputError, match="no feature 99 in layer 1"):
        interp.steer(IDS, direction="F1.99", n=1)
    with pytest.raises(InputError, match="a direction is an array of numbers, not str"):
        interp.steer(IDS, direction="1.3", n=1)
