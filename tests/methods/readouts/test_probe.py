"""Probes: a planted feature, chance on shuffled labels, scikit-learn's own answer, activations, inputs, SmolLM2."""

from __future__ import annotations

import importlib.util
import signal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import interp
from interp.engine import memory
from interp.engine.model.load import Options, load
from interp.engine.readouts import text_activations as engine
from interp.errors import InputError, Interrupted
from interp.interface.session import session
from interp.methods._shared.probe import fits, streamed
from interp.sites import Site
from interp.spec import as_prompt

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("gpt2", "llama", "neox", "bert")
CAUSAL = FAMILIES[:3]
WORDS = ["Mary", "John", "store", "drink", "gave", "cat", "mat", "one", "two", "three", "four", "five", "six", "seven"]


def texts_of(count: int, seed: int = 0) -> list[str]:
    """Return different texts of random words, of two to six words."""
    chance = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(chance.choice(WORDS, chance.integers(2, 7)))] = None
    return list(found)


def fair(count: int) -> list[str]:
    """Return labels that no text explains: as many of each, in random order."""
    return np.random.default_rng(3).permutation(["a", "b"] * (count // 2)).tolist()


@pytest.fixture
def planted(folder: Any, clean_session: Any) -> Any:  # noqa: ARG001
    """Return ``planted(family)``: a model with one direction added to the embeddings of half of all tokens.

    Returned beside it are texts, whether the last token of each is of that half, and the direction.
    """

    def of(family: str) -> tuple[Any, list[str], list[str], np.ndarray]:
        model = load(folder(family), options=Options(device="cpu"))
        session.models[model.name] = model
        session.current = model.name
        weight = model.bridge.embed.original_component.weight
        chance = np.random.default_rng(5)
        direction = chance.normal(size=weight.shape[1])
        direction /= np.linalg.norm(direction)
        half = chance.permutation(len(weight))[: len(weight) // 2]
        with torch.no_grad():
            weight[half] += 8 * torch.tensor(direction, dtype=weight.dtype)
        listed = texts_of(160)
        members = set(half.tolist())
        labels = ["with" if model.encode(as_prompt(text)).ids[-1] in members else "without" for text in listed]
        assert 30 < labels.count("with") < 130
        return model, listed, labels, direction

    return of


@pytest.mark.parametrize("family", CAUSAL)
def test_a_planted_feature_is_read_and_its_direction_found(planted: Any, family: str) -> None:
    _, listed, labels, direction = planted(family)
    result = interp.probe(listed, labels, site="resid_pre")
    assert result.accuracy[0] == 1.0
    assert result.balanced[0] == 1.0
    assert result.interval[0].tolist() == [1, 1]
    assert result.best == 0
    assert result.classes == ("with", "without")
    towards = result.direction(0, "with")
    assert towards.shape == direction.shape
    assert towards.dtype == np.float64
    assert np.linalg.norm(towards) == pytest.approx(1)
    assert towards @ direction > 0.4  # of 32 dimensions; what is random is below it by far
    assert (result.direction(0) == -towards).all()
    assert result.selectivity[0] > 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_what_no_text_explains_is_at_chance(lend: Any, family: str) -> None:
    lend(family)
    listed = texts_of(120)
    result = interp.probe(listed, fair(120), shuffles=4)
    # A share of 120 texts has a standard deviation of 0.046.
    assert np.abs(result.accuracy - 0.5).max() < 0.16
    assert np.abs(result.control - 0.5).max() < 0.12
    assert result.baseline == 0.5
    assert ((result.interval[:, 0] <= result.score) & (result.score <= result.interval[:, 1])).all()


@pytest.mark.parametrize("position", ["last", "mean"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pooled_activations_are_the_bridges_own(lend: Any, family: str, site: str, position: str) -> None:
    model = lend(family)
    encoded = [model.encode(as_prompt(text)) for text in texts_of(9)]
    if (family, site) == ("neox", "resid_mid"):
        with pytest.raises(InputError, match="no resid_mid"):
            engine.pooled(model, [one.ids for one in encoded], site, position)
        return
    found = engine.pooled(model, [one.ids for one in encoded], site, position)
    assert found.values.shape == (2, 9, 32)
    normed = family == "bert" and site in {"resid_mid", "attn_out"}
    assert found.path == (f"hooked: its hooks show {site} normed, as part of the stream" if normed else "forward")
    special = set(model.tokens.tokenizer.all_special_ids)
    for n, one in enumerate(encoded):
        plain = [place for place, index in enumerate(one.ids) if index not in special]
        for layer in range(2):
            whole = model.activations(one, [Site(site, layer).hook_name])[Site(site, layer).hook_name][0]
            expected = whole[-1] if position == "last" else whole[plain].mean(0)
            np.testing.assert_allclose(found.values[layer, n], expected, atol=1e-4)


def test_batches_change_nothing(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    ids = [model.encode(as_prompt(text)).ids for text in texts_of(30)]
    whole = engine.pooled(model, ids, "resid_post", "mean").values.clone()
    monkeypatch.setattr(memory, "ROWS", 1)
    np.testing.assert_allclose(engine.pooled(model, ids, "resid_post", "mean").values, whole, atol=1e-5)
    monkeypatch.undo()
    real, largest = engine.forward, []

    def hungry(net: Any, *, resid: torch.Tensor, **more: Any) -> torch.Tensor:
        if len(resid) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")
        largest.append(len(resid))
        return real(net, resid=resid, **more)

    monkeypatch.setattr(engine, "forward", hungry)
    np.testing.assert_allclose(engine.pooled(model, ids, "resid_post", "mean").values, whole, atol=1e-5)
    assert max(largest) == 2


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_scores_and_weights_are_scikit_learns(lend: Any, kind: str) -> None:
    model = lend("gpt2")
    listed = texts_of(60)
    labels = fair(60) if kind == "classes" else [len(text) + 0.5 for text in listed]
    result = interp.probe(listed, labels, strength=2.0, seed=4, folds=4)
    ids = [model.encode(as_prompt(t)).ids for t in listed]
    rows = engine.pooled(model, ids, "resid_post", "last").values[1].double()
    last = LogisticRegression(C=0.5, max_iter=1000) if kind == "classes" else Ridge(alpha=2.0)
    cut = (StratifiedKFold if kind == "classes" else KFold)(4, shuffle=True, random_state=4)
    pipe = make_pipeline(StandardScaler(), last)
    y = np.array(labels)
    np.testing.assert_allclose(result.scores[1], cross_val_score(pipe, rows.numpy(), y, cv=cut), atol=1e-9)
    fitted = pipe.fit(rows.numpy(), y)
    own = fitted.decision_function(rows.numpy()) if kind == "classes" else fitted.predict(rows.numpy())
    np.testing.assert_allclose(rows.numpy() @ result.coef[1, 0] + result.intercept[1, 0], own, atol=1e-8)
    spread = result.scores[1].std(ddof=1) * np.sqrt(1 / 4 + 1 / 3) * 3.182446305284263
    free = np.array([result.score[1] - spread, result.score[1] + spread])
    np.testing.assert_allclose(result.interval[1], np.clip(free, 0 if kind == "classes" else -np.inf, 1), atol=1e-9)
    if kind == "values":
        assert result.metric == "R²"
        with pytest.raises(InputError, match="score is R²"):
            _ = result.accuracy


def test_several_classes_have_a_direction_each(lend: Any) -> None:
    lend("gpt2")
    listed = texts_of(60)
    result = interp.probe(listed, [1, 2, 10] * 20)
    assert result.classes == ("1", "2", "10")
    assert result.coef.shape == (2, 3, 32)
    with pytest.raises(InputError, match="name one: 1, 2, 10"):
        result.direction(0)
    assert np.linalg.norm(result.direction(0, "10")) == pytest.approx(1)


def test_every_way_in_gives_the_same(lend: Any, shell: Any, tmp_path: Any) -> None:
    lend("llama")
    listed, labels = texts_of(30), fair(30)
    frame = pd.DataFrame({"review": listed, "mood": labels})
    frame.to_csv(tmp_path / "data.csv", index=False)
    first = interp.probe(listed, labels)
    for other in (
        interp.probe(frame, column="review", label="mood"),
        interp.probe(text=str(tmp_path / "data.csv"), column="review", label="mood"),
        interp.probe(frame["review"], np.array(labels)),
    ):
        assert (other.scores == first.scores).all()
        assert (other.controls == first.controls).all()
    shell.user_ns["reviews"] = frame
    shell.run_cell(f'%interp probe --text "{tmp_path / "data.csv"}" --column review --label mood -o one')
    shell.run_cell("%interp probe reviews --column review --label mood -o two")
    for name in ("one", "two"):
        assert (shell.user_ns[name].scores == first.scores).all()
    assert first.provenance.seed == 0
    assert len(first.provenance.tokens) == 30
    assert list(first.to_frame().layer) == [0, 1]
    assert first.png("dark")[:4] == b"\x89PNG"
    assert "<script" not in first.html()
    assert list(first.to_plotly().data[0].y) == first.score.tolist()


def test_its_direction_steers(lend: Any) -> None:
    lend("llama")
    result = interp.probe(texts_of(30), fair(30))
    by_array = interp.steer("Mary gave", layer=1, direction=result.direction(1), n=3)
    by_result = interp.steer("Mary gave", layer=1, direction=result, n=3)
    assert (by_array.direction == by_result.direction).all()
    np.testing.assert_allclose(by_array.direction, result.direction(1), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: interp.probe(), "needs texts and labels"),
        (lambda: interp.probe(["a", "b"]), "a label for each text"),
        (lambda: interp.probe(["a", "b"], ["x"]), "2 texts and 1 labels"),
        (lambda: interp.probe("a b", ["x"]), "texts are a list"),
        (lambda: interp.probe(texts_of(10), ["x"] * 10), "one label alone"),
        (lambda: interp.probe(texts_of(10), ["x"] * 8 + ["y"] * 2), "use --folds 2"),
        (lambda: interp.probe(texts_of(10), ["x"] * 9 + ["y"]), "has 1 text and"),
        (lambda: interp.probe(texts_of(10), ["x"] * 9 + [None]), "text 9 has no label"),
        (lambda: interp.probe(texts_of(4), [0.5, 1.5, 2, 3]), "too few for 5 folds"),
        (lambda: interp.probe(texts_of(20), [0.5] * 20), "every label is 0.5"),
        (lambda: interp.probe([*texts_of(9), ""], fair(10)), "text 9: the prompt is empty"),
        (lambda: interp.probe([*texts_of(9), "one " * 99], fair(10)), "text 9: the prompt has"),
        (lambda: interp.probe([3, "a"], ["x", "y"]), "text 0: a prompt is a text or a list of token ids, not int"),
        (lambda: interp.probe(text="nowhere.csv"), "there is no file"),
        (lambda: interp.probe(pd.DataFrame({"text": ["a"], "mood": [1]})), "no column 'label'"),
        (lambda: interp.probe(texts_of(10), fair(10), folds=1), "--folds 1"),
        (lambda: interp.probe(texts_of(10), fair(10), strength=0.0), "--strength"),
        (lambda: interp.probe(texts_of(10), fair(10)).direction(9), "layers are 0–1"),
        (lambda: interp.probe(texts_of(10), fair(10)).direction(0, "c"), "labels are a, b"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(lend: Any, given: Any, words: str) -> None:
    lend("gpt2")
    with pytest.raises(InputError) as refused:
        given()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_interrupt_keeps_the_layers_that_are_fitted(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("llama")
    whole = interp.probe(texts_of(40), fair(40))
    fit, stop = LogisticRegression.fit, 0
    fits_of_a_layer = 5 + 3 * 5 + 1

    def stopping(self: Any, *a: Any, **k: Any) -> Any:
        seen.append(1)
        if len(seen) == stop:
            signal.raise_signal(signal.SIGINT)
        return fit(self, *a, **k)

    monkeypatch.setattr(LogisticRegression, "fit", stopping)
    for stop in (1, fits_of_a_layer, fits_of_a_layer + 1, 2 * fits_of_a_layer):
        seen: list[int] = []
        with pytest.raises(KeyboardInterrupt) as stopped:
            interp.probe(texts_of(40), fair(40))
        if stop <= fits_of_a_layer:
            assert not isinstance(stopped.value, Interrupted)  # nothing is fitted yet
            continue
        result = stopped.value.result
        assert result.notes == ("partial: interrupted after 1/2 layers; the others are NaN",)
        for name in ("scores", "score", "interval", "balanced", "control", "controls", "coef", "intercept"):
            np.testing.assert_array_equal(getattr(result, name)[0], getattr(whole, name)[0])
            assert np.isnan(getattr(result, name)[1]).all()
        assert result.best == 0
        assert result.provenance.technique == "probe"
        np.testing.assert_array_equal(result.direction(), whole.direction(0))
        with pytest.raises(InputError, match="layer 1 has no direction"):
            result.direction(1)
        assert "NaN" not in result.svg().replace("others are NaN", "")
        assert ">nan" not in result.html()
        assert result.to_plotly().data
        assert result.text()


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_equal_texts_are_not_learnt_from_and_tested_on(lend: Any, kind: str) -> None:
    """Labels that no text explains, each text there four times: read off by heart, they would score near 1."""
    lend("llama")
    listed = [text for text in texts_of(40) for _ in range(4)]
    draw = np.random.default_rng(0)
    labels = np.repeat(draw.permutation([0, 1] * 20) if kind == "classes" else draw.normal(size=40), 4)
    result = interp.probe(listed, labels)
    assert "120 texts are there more than once: equal texts are in one fold" in result.notes
    assert result.score.max() < (0.75 if kind == "classes" else 0.1)
    assert result.scores.shape == (2, 5)


def test_texts_that_are_equal_once_they_are_cut_are_equal(lend: Any) -> None:
    lend("gpt2")
    listed = ["one " * 60 + text for text in texts_of(20)]
    with pytest.raises(InputError, match="label 'a' has 1 different text and"):
        interp.probe(listed, fair(20), truncate=True)


@pytest.mark.parametrize("missing", [pd.NA, pd.NaT, float("nan"), "nan", None, ""])
def test_a_label_that_is_none_is_told(lend: Any, missing: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match="text 9 has no label"):
        interp.probe(texts_of(10), [*([1] * 5), *([0] * 4), missing])


def test_labels_keep_their_names(lend: Any) -> None:
    lend("gpt2")
    for labels, names in (
        (["01", "1"], ("01", "1")),
        ([1.0, 2.0], ("1", "2")),
        ([np.bool_(True), np.bool_(False)], ("False", "True")),
        ([2**60 + 1, 2**60], (str(2**60), str(2**60 + 1))),
    ):
        assert interp.probe(texts_of(20), labels * 10, shuffles=1, folds=2).classes == names


def test_without_scikit_learn_the_command_to_install_it_is_named(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("gpt2")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "sklearn" else found(name, *a))
    with pytest.raises(InputError, match=r"pip install 'interp\[probe\]'"):
        interp.probe(texts_of(10), fair(10))


GOOD = ["wonderful", "great", "lovely", "brilliant", "superb", "delightful", "charming", "moving"]
BAD = ["terrible", "awful", "dull", "boring", "dreadful", "clumsy", "tedious", "stupid"]


def test_on_smollm2_praise_is_read_after_the_word_is_past(smollm2: Any) -> None:  # noqa: ARG001
    listed = [f"I thought the {noun} was {word} and I" for noun in ("film", "book", "meal") for word in GOOD + BAD]
    result = interp.probe(listed, [word in GOOD for _ in range(3) for word in GOOD + BAD], shuffles=1)
    assert result.classes == ("False", "True")
    assert result.accuracy.max() > 0.9
    assert abs(result.control.mean() - 0.5) < 0.25


@pytest.mark.parametrize("kind", [0, 2, 4])
def test_what_is_read_some_at_a_time_is_fitted_as_scikit_learn_does(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "_ENTRIES", 100)  # 20 rows at once
    draw = np.random.default_rng(0)
    rows = (draw.normal(size=(300, 5)) * [1, 2, 3, 0, 1] + 7).astype(np.float32)
    score = rows @ draw.normal(size=5) + draw.normal(size=300)
    labels = np.digitize(score, np.quantile(score, np.arange(1, kind) / kind)) if kind else score
    train, test = np.arange(0, 300, 2), np.arange(1, 300, 2)
    released: list[int] = []
    found = streamed.Streamed(rows, train, labels, kind, 2.0, lambda: released.append(1))
    last = LogisticRegression(C=0.5, max_iter=1000) if kind else Ridge(alpha=2.0)
    pipe = make_pipeline(StandardScaler(), last).fit(rows[train].astype(np.float64), labels[train])
    coef = np.atleast_2d(last.coef_) / pipe.steps[0][1].scale_
    np.testing.assert_allclose(found.coef, coef, atol=2e-3 if kind else 1e-9)
    said, expected = found.predict(test), pipe.predict(rows[test].astype(np.float64))
    assert (said == expected).mean() > 0.98 if kind else np.allclose(said, expected)
    assert len(released) > 30


def test_activations_in_a_file_are_those_in_memory(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("gpt2")
    listed, labels = texts_of(60), fair(60)
    whole = interp.probe(listed, labels, folds=3)
    monkeypatch.setattr(engine, "_IN_MEMORY", 0)
    filed = interp.probe(listed, labels, folds=3)
    assert filed.coef.tobytes() == whole.coef.tobytes()
    monkeypatch.setattr(fits, "LARGEST", 0)
    again = interp.probe(listed, labels, folds=3)
    np.testing.assert_allclose(again.coef, whole.coef, atol=5e-3)
    np.testing.assert_allclose(again.scores, whole.scores, atol=0.06)
