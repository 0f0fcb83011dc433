"""Labels that are programs: planted rules come out, noise gets none, and labels are where commands look for them."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch

import interp
from engine.features import made
from interp.engine.features import held
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.places import Place
from interp.engine.features.rules.language import Token
from interp.errors import InputError, Interrupted
from interp.methods.features.features_label import NONE
from interp.views import features_label as view

WORDS = [" Mary", " John", " the", " store", " gave", " drink", " to", " house", " near", " and"]


def texts(count: int = 60) -> list[str]:
    draw = np.random.default_rng(0)
    return ["The" + "".join(draw.choice(WORDS, 12)) for _ in range(count)]


def planted(model: Any, *tokens: str) -> Dictionary:
    """Return an SAE of the input of a model that turns by positions: a feature per token, and one that is never off."""
    words = model.hf_model.get_input_embeddings().weight.detach()
    ids = [model.tokens.tokenizer(token, add_special_tokens=False)["input_ids"][0] for token in tokens]
    rows = words[ids] / words[ids].norm(dim=1, keepdim=True)
    along = words @ rows.T
    own = along[ids, range(len(ids))]
    along[ids, range(len(ids))] = float("-inf")
    threshold = torch.cat([(along.max(0).values + own) / 2, torch.tensor([0.0])])
    rows = torch.cat([rows, torch.zeros_like(rows[:1])])
    bias = torch.zeros(len(rows))
    bias[-1] = 1.0
    place = Place(0, "resid_pre")
    return Dictionary("sae", place, (place,), rows, bias, (rows,), (None,), act=Act("jumprelu", threshold=threshold))


def hold(model: Any, one: Dictionary) -> None:
    held.hold(model, held.FeatureSet("made", "here", "SAELens", (one,)))


def test_planted_tokens_are_their_labels(lend: Any) -> None:
    model = lend("llama")
    hold(model, planted(model, " Mary", " the"))
    result = interp.features_label("0.0,0.1", texts())
    assert result.features == ("0.0", "0.1")
    assert result.labels == ("the token is “ Mary”", "the token is “ the”")
    assert result.single == result.labels
    np.testing.assert_array_equal(result.scores, 1.0)
    np.testing.assert_array_equal(result.single_f1, 1.0)
    assert bool((result.shuffled_f1 < 0.4).all())
    assert result.rule("0.1") == Token((" the",))
    assert result.rule("0.1").fires(["the", " the"]).tolist() == [False, True]
    labels = held.current(model).labels
    assert labels["0.0"].text == "the token is “ Mary”"
    assert labels["0.0"].scores == {"precision": 1.0, "recall": 1.0, "F1": 1.0}
    assert json.loads(json.dumps(labels["0.0"].rule)) == Token((" Mary",)).data()
    shown = interp.feature("0.0", texts())
    assert shown.label == "the token is “ Mary”"
    assert shown.label_scores["F1"] == 1.0


def test_sets_that_are_named_are_spoken_of(lend: Any) -> None:
    model = lend("llama")
    one = planted(model, " Mary", " John")
    rows = one.encoder[:2]
    # One feature that is active at either.
    both = torch.cat([rows.sum(0, keepdim=True), rows[:1]])
    words = model.hf_model.get_input_embeddings().weight.detach() @ both[0]
    ids = [model.tokens.tokenizer(token, add_special_tokens=False)["input_ids"][0] for token in (" Mary", " John")]
    rest = words.clone()
    rest[ids] = float("-inf")
    assert rest.max() < words[ids].min()
    threshold = torch.stack([(rest.max() + words[ids].min()) / 2, torch.tensor(1e6)])
    place = Place(0, "resid_pre")
    act = Act("jumprelu", threshold=threshold)
    hold(model, Dictionary("sae", place, (place,), both, torch.zeros(2), (both,), (None,), act=act))
    named = interp.features_label("0.*", texts(), sets={"name": [" Mary", " John"]})
    assert named.labels[0] == "the token is a name"
    assert named.labels[1] == NONE
    assert any("fewer than 10 tokens" in note for note in named.notes)
    assert named.fired[1] == 0
    plain = interp.features_label("0.0", texts())
    assert plain.labels[0] in {"the token is “ Mary” or “ John”", "the token is “ John” or “ Mary”"}


def test_of_one_text_alone_a_note_says_so(lend: Any) -> None:
    model = lend("llama")
    hold(model, planted(model, " Mary"))
    result = interp.features_label("0.0", "The" + " Mary gave the" * 14)
    assert result.labels == ("the token is “ Mary”",) or result.fired[0] < 10
    assert any("one text alone" in note for note in result.notes)


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_on_any_model_precision_and_recall_are_those_of_the_texts_held_out(family: str, lend: Any) -> None:
    model = lend(family)
    one = made.random(0, model.geometry.d_model, act=made.relu, point="resid_post")
    place = Place(0, "resid_post")
    one = Dictionary("sae", place, (place,), one.encoder, one.bias.abs(), one.decoders, one.decoder_biases, act=one.act)
    hold(model, one)
    given = list(dict.fromkeys(texts(40)))
    result = interp.features_label("0.4,0.7", given, least=0.0, above=0.2)
    every = [interp.Prompt(text) for text in given]
    encoded = [model.tokens.encode(prompt) for prompt in every]
    for row, feature in enumerate((4, 7)):
        rule = result.rule(result.features[row])
        assert rule is not None
        values = []
        for prompt in encoded:
            run = model.run(interp.Prompt(ids=prompt.ids))
            first = int(prompt.ids[0] == model.tokens.bos_id)
            values.append((first, one.encode(run.activations[place.hook(model)][0].float()).column(feature)))
        most = max(float(value[first:].max()) for first, value in values)
        holds, active = [], []
        for n in range(3, len(given), 4):
            first, value = values[n]
            holds += rule.fires(encoded[n].strings)[first:].tolist()
            active += (value[first:] > 0.2 * most).tolist()
        both = sum(a and b for a, b in zip(holds, active, strict=True))
        np.testing.assert_allclose(result.scores[row, :2], [both / sum(holds), both / sum(active)], atol=0.02)


def test_noise_has_no_rule(lend: Any) -> None:
    model = lend("llama")
    hold(model, planted(model, " Mary"))
    result = interp.features_label("0.1", texts())  # active everywhere: what says nothing is no worse
    assert result.shuffled_f1[0] == result.scores[0, 2] == 0.0 or result.labels[0] == NONE


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"which": "0.99"}, "no feature 99 in layer 0"),
        ({"which": "9.*"}, "has no features of layer 9"),
        ({"which": "x"}, "'x' names no feature"),
        ({"which": "0.1", "above": 1.0}, "--above 1.0 is no share"),
        ({"which": "0.1", "least": -1.0}, "--least -1.0 is no share"),
        ({"which": "0.1", "sets": {"name": " Mary"}}, "sets are a name and its tokens"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(call: dict[str, Any], said: str, lend: Any) -> None:
    model = lend("gpt2")
    hold(model, made.random(0, model.geometry.d_model))
    with pytest.raises(InputError, match=re.escape(said)):
        interp.features_label(**{"texts": texts(8), **call})


def test_an_interrupt_keeps_the_labels_that_are_done(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.engine.features.rules.search import Search

    model = lend("llama")
    hold(model, planted(model, " Mary", " the"))
    best, calls = Search.best, []

    def stopped(self: Search, active: Any) -> Any:
        calls.append(active)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return best(self, active)

    monkeypatch.setattr(Search, "best", stopped)
    with pytest.raises(Interrupted) as caught:
        interp.features_label("0.0,0.1", texts())
    result = caught.value.result
    assert result.features == ("0.0",)
    assert "partial: interrupted after 1 of 2 features" in result.notes
    assert set(held.current(model).labels) == {"0.0"}


def test_the_order_of_sets_stays(lend: Any) -> None:
    model = lend("llama")
    hold(model, planted(model, " Mary"))
    held.hold(model, held.FeatureSet("later", "here", "SAELens", (planted(model, " the"),)))
    interp.features_label("0.0", texts(), features="made")
    assert list(held.sets_of(model)) == ["made", "later"]
    assert held.current(model, "made").labels
    assert not held.current(model).labels


def test_rules_of_two_features_are_compared(lend: Any) -> None:
    pytest.importorskip("z3", reason="z3-solver is an extra: interp[prove]")
    model = lend("llama")
    hold(model, planted(model, " Mary", " the"))
    result = interp.features_label("0.*", texts())
    assert result.relation("0.0", "0.1", model).kind == "excludes"
    assert result.relation("0.0", "0.0", model).kind == "equals"
    with pytest.raises(InputError, match=r"no rule was found for 0\.2"):
        result.relation("0.0", "0.2", model)


def test_graphs_have_the_labels(lend: Any) -> None:
    import dictionaries

    model = lend("llama")
    dictionaries.hold(model)
    name = held.current(model).name
    held.label(model, name, {"0.1": held.Label("the token is “ Mary”", {}, Token((" Mary",)).data(), "Mary")})
    held.label(model, name, {"0.2": held.Label(NONE)})
    assert interp.trace("Mary gave the drink to").labels == {"0.1": "Mary"}


def test_pictures_and_data(lend: Any, tmp_path: Any) -> None:
    model = lend("llama")
    hold(model, planted(model, " Mary", " the"))
    result = interp.features_label("0.*", texts())
    assert result.to_frame().F1.is_monotonic_decreasing
    assert "the token is “ Mary”" in view.html(result)
    assert "the token is “ Mary”" in result.text()
    result.save(tmp_path / "labels.json")
    assert json.loads((tmp_path / "labels.json").read_text())["rules"][0]["tokens"] == [" Mary"]
    with pytest.raises(InputError, match=r"'0\.9' is not in this result"):
        result.rule("0.9")
