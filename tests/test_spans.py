"""Marks in a text: what is read of them, and that nothing is lost on the way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interp
from interp.errors import InputError
from interp.prompts import as_prompt
from interp.spans import Mark, marked, marks

WORDS = st.sampled_from(["Mary", " John", " gave", " the", "\n", " é", " 猫", "!", " ball"])
PIECES = st.lists(st.sampled_from(["[", "]", "{", "}", "\\", "a", "B", " ", "{IO}", "\\x"]), max_size=16)


@given(PIECES.map("".join))
def test_what_is_typed_comes_back(typed: str) -> None:
    text, found = marks(typed)
    assert marks(marked(text, found)) == (text, found)
    assert all(text[mark.start : mark.stop] for mark in found)


@given(PIECES.map("".join))
def test_any_text_can_be_typed_as_text(text: str) -> None:
    assert marks(marked(text, ())) == (text, ())


@pytest.mark.parametrize(
    ("typed", "text", "found"),
    [
        ("a [b]", "a [b]", ()),
        ("x[0]{y", "x[0]{y", ()),
        (r"a \[b]{c}", "a [b]{c}", ()),
        (r"\sqrt[3]{x}", r"\sqrt[3]{x}", ()),
        ("[a]{1}", "[a]{1}", ()),
        ("[a b]{X}[c]{Y}", "a bc", (Mark("X", 0, 3), Mark("Y", 3, 4))),
        ("[Mary]{IO} saw [Mary]{IO}", "Mary saw Mary", (Mark("IO", 0, 4), Mark("IO", 9, 13))),
    ],
)
def test_what_a_mark_is(typed: str, text: str, found: tuple[Mark, ...]) -> None:
    assert marks(typed) == (text, found)
    assert as_prompt(typed).plain == marked(text, found)
    assert as_prompt(typed, literal=True).text == typed


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "bert"])
@settings(deadline=None)
@given(words=st.lists(WORDS, min_size=2, max_size=8))
def test_a_span_is_the_tokens_that_hold_it(family: str, words: list[str], tokenizers: Any) -> None:
    tokens = tokenizers(family)
    whole = "".join(words)
    if not whole.strip():
        return
    plain = tokens.encode(interp.Prompt(whole))
    for n, word in enumerate(words):
        if not word.strip():
            continue
        start = len("".join(words[:n]))
        encoded = tokens.encode(interp.Prompt(whole, marks=(Mark("X", start, start + len(word)),)))
        assert encoded.ids == plain.ids
        places = encoded.spans["X"]
        assert places == tuple(range(places[0], places[-1] + 1))
        if family != "bert":  # whose tokens do not spell their spaces
            raw = tokens.tokenizer.decode(encoded.ids[places[0] : places[-1] + 1])
            assert word.strip() in raw or any("marks part of a token" in note for note in encoded.notes)


@pytest.fixture(scope="module")
def tokenizers(_engine_models: Any) -> Any:
    return lambda family: _engine_models(family).tokens


def test_a_mark_inside_a_token_is_widened_and_said(lend: Any) -> None:
    model = lend("gpt2")
    encoded = model.encode(as_prompt("to M[ar]{X}y gave"))
    assert "".join(encoded.strings[n] for n in encoded.spans["X"]) == " Mary"
    assert any("marks part of a token" in note and "'Mary'" in note for note in encoded.notes)


def test_bos_and_truncation_are_counted(lend: Any) -> None:
    model = lend("gpt2")
    for bos in (True, False):
        encoded = model.encode(interp.Prompt("to Mary gave", bos=bos, marks=(Mark("X", 3, 7),)))
        assert [encoded.strings[n] for n in encoded.spans["X"]] == [" Mary"]


def test_without_places_in_the_text_marks_are_refused(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("gpt2")
    monkeypatch.setattr(type(model.tokens.tokenizer), "is_fast", False)
    with pytest.raises(InputError, match="does not say where"):
        model.encode(as_prompt("to [Mary]{X} gave"))
