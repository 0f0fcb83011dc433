"""The dashboard's kernel side: what it sends, how large, what it asks of the model, and what it refuses."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import interp
from interp.methods._shared.feature_result import FeatureResult
from interp.methods._shared.steered import Steered, Written
from interp.results import Provenance
from interp.views.feature import Dashboard
from interp.widgets._base import _off_screen
from interp.widgets.feature import FeatureWidget
from views.features import TOKENS, exemplar, optimised, planted, random, silent

from .conftest import Wire, ask, deliver

LIMIT = 500_000
TEXTS = ["When Mary and John went to the store, John gave a drink to Mary", "Alice met Bob. Bob met Alice."]


def unpack(widget: FeatureWidget) -> dict[str, Any]:
    """Read the numbers' bytes as the page does."""
    bars, places = widget.feature["bars"][0], widget.feature["places"]
    edges = np.frombuffer(widget.numbers, "<f4", bars + 1)
    counts = np.frombuffer(widget.numbers, "<u4", bars, edges.nbytes)
    values = np.frombuffer(widget.numbers, "<f4", offset=edges.nbytes + counts.nbytes)
    lengths = [len(place["tokens"]) for place in places]
    assert len(values) == len(places) + sum(lengths), "bytes that mean nothing"
    around = np.split(values[len(places) :], np.cumsum(lengths)[:-1]) if places else []
    return {"edges": edges, "counts": counts, "activations": values[: len(places)], "around": around}


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("made", [planted, optimised, random])
def test_what_is_sent_is_the_result(made: Any) -> None:
    result: FeatureResult = made()
    widget = FeatureWidget(result)
    found = unpack(widget)
    every = [*([result.optimised] if result.optimised else []), *result.exemplars]
    assert len(every) == len(widget.feature["places"]) > 15
    for one, place, value, around in zip(
        every, widget.feature["places"], found["activations"], found["around"], strict=True
    ):
        assert value == np.float32(one.activation)
        np.testing.assert_array_equal(around, np.float32(one.around))
        assert (place["text"], place["position"], place["times"]) == (one.text, one.position, one.times)
        assert around[place["peak"]] == value
        assert place["tenth"] == (one.decile if one.text >= 0 else 0)
    assert found["counts"].sum() == result.histogram.sum()
    np.testing.assert_allclose(found["edges"][[0, -1]], result.edges[[0, -1]], rtol=1e-6)
    assert len(found["counts"]) <= 34, "of many bins some are one bar"
    shown = Dashboard(result).shown
    assert [heading for heading, _ in widget.feature["opens"]] == [heading for heading, _ in shown]
    assert [every[at] for _, at in widget.feature["opens"]] == [one for _, one in shown], "the picture's own places"


@pytest.mark.usefixtures("wire")
def test_the_drawings_are_the_pictures_own() -> None:
    result = planted()
    widget, page = FeatureWidget(result), result.html()
    drawn = [one for stack in (*widget.feature["own"], *widget.feature["lists"]) for one in stack]
    assert len(drawn) == 7
    assert all(body in page for *_, body in drawn)


@pytest.mark.usefixtures("wire")
def test_long_contexts_are_cut_around_the_place() -> None:
    tokens = [f" t{n}" for n in range(401)]
    result = planted(exemplars=(exemplar(4.0, 10, tokens, 300, position=300),))
    widget = FeatureWidget(result)
    (place,) = widget.feature["places"]
    assert len(place["tokens"]) == 121
    assert place["tokens"][place["peak"]] == "␣t300"
    (around,) = unpack(widget)["around"]
    assert around[place["peak"]] == 4.0


@pytest.mark.parametrize("context", [10, 1000])
def test_no_message_is_large(wire: Wire, context: int) -> None:
    FeatureWidget(random(context=context))
    assert max(wire.sizes()) < LIMIT
    wire.clear()
    # As wide as tokens can be.
    tokens = ["漢\u0301\u0302\u0303" * 60 + str(n) for n in range(300)]
    FeatureWidget(planted(each=10, tokens=tokens))
    assert max(wire.sizes()) < LIMIT


@pytest.mark.usefixtures("wire")
def test_no_numbers_travel_as_text() -> None:
    """Lists of numbers are sent as bytes."""

    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        if not isinstance(value, list):
            return 0
        own = len(value) if all(isinstance(one, int | float) for one in value) else 0
        return max([own, *map(longest, value)])

    assert longest(FeatureWidget(random()).feature) <= 3


@pytest.mark.usefixtures("wire")
def test_a_feature_that_is_never_active_and_one_without_a_direction() -> None:
    widget = FeatureWidget(silent())
    assert widget.feature["places"] == widget.feature["opens"] == widget.feature["strongest"] == []
    assert widget.feature["bars"][0] == 0
    assert widget.feature["steer"]["unit"] == 1.0
    assert not widget.feature["steer"]["active"]
    assert FeatureWidget(planted(direction=np.zeros(0, np.float32))).feature["steer"] is None


@pytest.mark.usefixtures("wire")
def test_the_prompt_to_begin_with_ends_at_the_strongest_place() -> None:
    assert FeatureWidget(planted()).feature["steer"]["prompt"] == "When Mary and John"
    bos = exemplar(4.0, 10, ("<bos>", *TOKENS), 4)
    bos = replace(bos, around=(float("nan"), *bos.around[1:]))
    assert planted(exemplars=(bos,)).opening == "When Mary and John", "a BOS is the tokenizer's to add"


def test_steering_is_asked_of_the_result(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def steered(self: FeatureResult, prompt: Any, strength: float, *, n: int, top: int) -> Steered:
        asked.append((self.name, prompt, strength, n, top))
        return Steered(
            strength=strength,
            length=float("nan"),
            stream=24.0,
            prompt=(" A",),
            plain=Written(" b c d", (" b", " c", " d"), "length"),
            steered=Written(" b C", (" b", " C"), "window"),
            likeliest=((" b", 0.5, float("nan")), ("\u202e", 0.25, 0.125)),
        )

    monkeypatch.setattr(FeatureResult, "steered", steered)
    widget = FeatureWidget(planted())
    prompt = "x" * 100 + "\u202e\n end"
    answer, _ = ask(widget, wire, "steer", prompt=prompt, percent=-150)
    assert asked == [("1.7", prompt, -6.0, 20, 5)]
    said = answer["reply"]
    assert said["strength"] == -6.0
    assert (said["added"], said["stream"]) == (None, 24.0)
    assert said["texts"] == [[" b", " c d", ""], [" b", " C", "the context window is full"]]
    assert said["tokens"] == [["␣b", 0.5, None], ["⟨U+202E⟩", 0.25, 0.125]]
    assert said["prompt"].startswith("…xxx")
    assert said["prompt"].endswith("⟨U+202E⟩↵ end")
    json.dumps(answer, allow_nan=False)


def test_what_cannot_be_is_refused_in_a_line(wire: Wire) -> None:
    widget = FeatureWidget(planted())
    for method, params, why in (
        ("steer", {"prompt": "a", "percent": 100}, "steering needs the model; run the cell again"),
        ("steer", {"prompt": "a", "percent": 1001}, "percent cannot be"),
        ("steer", {"prompt": "a", "percent": 0.5}, "percent cannot be"),
        ("steer", {"prompt": "a", "percent": True}, "percent cannot be"),
        ("steer", {"prompt": ["a"], "percent": 100}, "prompt cannot be"),
        ("steer", {"prompt": "a" * 4001, "percent": 100}, "prompt cannot be"),
        ("steer", {"prompt": "a"}, "expected prompt, percent; got prompt"),
        ("picture", {"theme": "pink"}, "theme cannot be"),
        ("move", {}, "no method 'move'"),
    ):
        answer, _ = ask(widget, wire, method, **params)
        assert why in answer["error"], (method, params, answer)
        assert "\n" not in answer["error"]
    lost = FeatureWidget(planted(direction=np.zeros(0, np.float32)))
    assert "1.7 has no direction" in ask(lost, wire, "steer", prompt="a", percent=100)[0]["error"]


def test_the_picture_to_save_is_the_results(wire: Wire) -> None:
    result = planted()
    widget = FeatureWidget(result)
    for theme in ("light", "dark"):
        assert ask(widget, wire, "picture", theme=theme)[0]["reply"]["svg"] == result.svg(theme)


def test_a_page_sets_no_state(wire: Wire) -> None:
    widget = FeatureWidget(planted())
    before = dict(widget.feature)
    wire.clear()
    for content in (None, [], {"method": "steer"}, {"id": 5}, "x", {"id": "1", "method": "steer", "params": None}):
        deliver(widget, content)
    state = {"feature": {}, "numbers": "", "_esm": ""}
    widget.comm.handle_msg({"content": {"data": {"method": "update", "state": state}}})  # type: ignore[union-attr]
    assert dict(widget.feature) == before
    assert all("error" in content for content, _ in wire.customs())


@pytest.mark.usefixtures("wire")
def test_views_that_are_closed_are_freed() -> None:
    _off_screen.clear()
    gc.collect()
    result = planted()
    widget = FeatureWidget(result)
    gone = weakref.ref(widget)
    widget.close()
    del widget
    gc.collect()
    assert gone() is None


def test_foreign_text_is_made_visible_and_every_number_is_jsons(wire: Wire) -> None:
    name = "<img src=x>\u202e"
    tokens = (name, "\x00", " Mary", "\x1b[31m", "</script>", "$x$")
    result = replace(
        planted(tokens=tokens),
        label="<b>\u202e",
        source=name,
        of=name,
        notes=("a\x1b[31m\u202eb",),
        provenance=Provenance(model=name, technique="feature"),
        label_scores={"precision": 0.5, "recall": 0.5, "F1": 0.5},
    )
    FeatureWidget(result)
    words = ""
    for _, data, _ in wire.sent:
        state = {key: value for key, value in data.get("state", {}).items() if key not in {"_esm", "_css"}}
        if "feature" in state:  # the prompt is to be sent back as it is; a page shows it in a field
            state["feature"] = {**state["feature"], "steer": {**state["feature"]["steer"], "prompt": ""}}
        words += json.dumps(state, allow_nan=False, ensure_ascii=False)
    assert not set("\u202e\x00\x1b") & set(words)
    assert "⟨U+202E⟩" in words


@pytest.fixture
def real(clean_session: Any) -> FeatureResult:  # noqa: ARG001
    interp.load(device="cpu")
    interp.features_load("bundled")
    return interp.feature("2.417", TEXTS)


@pytest.mark.usefixtures("page")
def test_an_open_dashboard_asks_the_model(wire: Wire, real: FeatureResult) -> None:
    said = ask(real.widget, wire, "steer", prompt="Alice met Bob. Bob met", percent=800)[0]["reply"]
    size = 8 * real.unit
    expected = interp.steer("Alice met Bob. Bob met", direction=real, strength=size, n=20)
    assert said["strength"] == pytest.approx(size)
    assert ["".join(text[:2]) for text in said["texts"]] == [text.replace("\n", "↵") for text in expected.continuations]
    assert said["tokens"][0][2] == pytest.approx(float(np.exp(expected.logprobs[1, 0])), abs=1e-6)
    assert said["stream"] == pytest.approx(expected.stream_norm, rel=1e-5)
    assert said["added"] == pytest.approx(expected.norm * size, rel=1e-5)
    assert "the prompt is empty" in ask(real.widget, wire, "steer", prompt="", percent=100)[0]["error"]


@pytest.mark.usefixtures("page")
def test_a_busy_model_is_not_waited_for_and_a_changed_one_is_said(wire: Wire, real: FeatureResult) -> None:
    import torch

    model = interp.model
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with model.lock:
            taken.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    taken.wait(60)
    try:
        answer, _ = ask(real.widget, wire, "steer", prompt="Alice", percent=100)
        assert "is busy; try again when the cell has finished" in answer["error"]
    finally:
        done.set()
        other.join()
    with torch.no_grad():
        next(iter(model.hf_model.parameters())).add_(0.01)
    assert "has changed since" in ask(real.widget, wire, "steer", prompt="Alice", percent=100)[0]["error"]
    interp.unload()
    assert "was unloaded or replaced" in ask(real.widget, wire, "steer", prompt="Alice", percent=100)[0]["error"]
