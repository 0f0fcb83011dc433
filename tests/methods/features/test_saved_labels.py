"""Labels in a file, and back: for the features that they are of, in any precision, and for no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine.features import held
from interp.engine.features.formats import saelens
from interp.engine.features.rules.language import Token
from interp.errors import InputError
from interp.methods._shared.feature_labels import NONE, FeaturesLabelResult
from methods.features.test_features_label import planted, texts


@pytest.fixture
def model(lend: Any) -> Any:
    return lend("llama")


@pytest.fixture
def place(model: Any, tmp_path: Path) -> Path:
    """A folder with planted features of two layers; the last of each is always active and has no rule."""
    own = tmp_path / "mine"
    for layer in (0, 1):
        one = planted(model, " Mary", " the") if layer == 0 else planted(model, " John", " store")
        at = replace(one.reads, layer=layer)
        saelens.write(own / f"layer_{layer}", replace(one, reads=at, writes=(at,)), said={"sample": ["The cat sat."]})
    return own


@pytest.fixture
def found(place: Path) -> FeaturesLabelResult:
    interp.features_load(place)
    return interp.features_label("0.*", texts())


def test_labels_in_a_sets_folder_are_loaded_with_it(model: Any, place: Path, found: FeaturesLabelResult) -> None:
    before = held.current(model).labels
    assert set(before) == {"0.0", "0.1", "0.2"}
    found.save(place / "labels.json")
    held.free(model, "mine")
    loaded = interp.features_load(place)
    after = held.current(model).labels
    assert after == before
    assert after["0.0"].text == "the token is “ Mary”"
    assert after["0.0"].scores == {"precision": 1.0, "recall": 1.0, "F1": 1.0}
    assert after["0.2"].text == NONE
    assert after["0.2"].rule is None
    assert not any("labels" in note for note in loaded.notes)
    # The dashboard of a feature and attribution graphs find them there.
    shown = interp.feature("0.1", texts())
    assert (shown.label, shown.label_scores["F1"]) == ("the token is “ the”", 1.0)
    assert "the token is" in shown.html()


def test_the_result_comes_back_with_rules_that_run(found: FeaturesLabelResult, tmp_path: Path) -> None:
    back = interp.load_labels(found.save(tmp_path / "l.json"))
    assert back.rule("0.0") == found.rule("0.0") == Token((" Mary",))
    assert back.rule("0.1").fires([" the", " Mary"]).tolist() == [True, False]
    assert back.rule("0.2") is None
    for name in ("features", "labels", "rules", "single", "tokens", "least", "encoders", "notes"):
        assert getattr(back, name) == getattr(found, name), name
    for name in ("scores", "single_f1", "shuffled_f1", "fired"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert back.to_frame().equals(found.to_frame())
    assert back.text() == found.text()


def test_a_file_elsewhere_and_some_of_the_layers(
    model: Any, place: Path, found: FeaturesLabelResult, tmp_path: Path
) -> None:
    path = found.save(tmp_path / "elsewhere.json")
    interp.features_load(place)
    assert held.current(model).labels == {}
    interp.features_load(place, layer=0, labels=str(path))
    assert set(held.current(model).labels) == {"0.0", "0.1", "0.2"}
    with pytest.raises(InputError, match="of layers 0, of which mine has none"):
        interp.features_load(place, layer=1, labels=str(path))
    both = interp.features_load(place) and interp.features_label("0.0,1.0", texts())
    both.save(tmp_path / "both.json")
    loaded = interp.features_load(place, layer=0, labels=str(tmp_path / "both.json"))
    assert set(held.current(model).labels) == {"0.0"}
    assert "1 labels in both.json are of layers that are not loaded" in loaded.notes


def test_labels_of_other_features_are_refused_in_a_line(
    model: Any, place: Path, found: FeaturesLabelResult, tmp_path: Path
) -> None:
    path = found.save(tmp_path / "l.json")
    found.save(place / "labels.json")
    other = planted(model, " house", " near")
    saelens.write(place / "layer_0", other, said={"sample": ["The cat sat."]})
    with pytest.raises(InputError, match=r"^the labels in l\.json are of other features of layer 0 than mine has"):
        interp.features_load(place, labels=str(path))
    loaded = interp.features_load(place)
    (note,) = [note for note in loaded.notes if "labels.json" in note]
    assert note.endswith("they are left out")
    assert held.current(model).labels == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_same_features_in_half_precision_are_the_same(
    model: Any, place: Path, found: FeaturesLabelResult, dtype: torch.dtype
) -> None:
    found.save(place / "labels.json")
    own = held.current(model)
    rough = replace(own, dictionaries=tuple(one.to(model.device, dtype) for one in own.dictionaries))
    from interp.methods._shared import feature_labels

    labels, notes = feature_labels.in_folder(rough, place)
    assert set(labels) == {"0.0", "0.1", "0.2"}
    assert notes == ()


def test_labels_of_what_was_trained_are_those_of_what_was_written(clean_session: Any, tmp_path: Path) -> None:
    model = clean_session.load()
    interp.features_train(texts(), layer=0, width=32, k=4, steps=5, out=str(tmp_path / "mine"))
    made = interp.features_label("0.*", texts())
    made.save(tmp_path / "mine" / "labels.json")
    held.free(model, "mine")
    loaded = interp.features_load(tmp_path / "mine")
    assert len(held.current(model).labels) == 32
    assert not any("labels" in note for note in loaded.notes)


def test_files_that_hold_no_labels(found: FeaturesLabelResult, tmp_path: Path) -> None:
    good = json.loads(found.save(tmp_path / "l.json").read_text("utf-8"))

    def changed(**given: Any) -> str:
        path = tmp_path / f"changed {len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(good | given), "utf-8")
        return str(path)

    rules = [{"kind": "shell", "of": "rm"}, None, None]
    own = good["interp"]
    exact = [one if one["at"] != ["rules"] else {"at": ["rules"], "value": rules} for one in own["exact"]]
    assert exact != own["exact"]
    for path, message in (
        (str(tmp_path / "none.json"), "none.json"),
        (changed(more=1), "an unknown more"),
        (changed(labels=good["labels"][:1]), "not of as many"),
        (changed(scores=[[1.0, 1.0]] * 3), "do not fit"),
        (changed(features=["5.0", "5.1", "5.2"]), "not of as many"),
        (changed(rules=rules, interp=own | {"exact": exact}), "damaged"),
        (changed(scores="x"), "damaged"),
    ):
        with pytest.raises(InputError, match=message) as refused:
            interp.load_labels(path)
        assert len(str(refused.value).splitlines()) == 1
    (tmp_path / "list.json").write_text("[]", "utf-8")
    with pytest.raises(InputError, match="no result's file"):
        interp.load_labels(tmp_path / "list.json")
