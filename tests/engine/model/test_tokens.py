"""Text to ids and back: nothing lost, doubled or cut without being said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models
from interp.engine.model.tokens import Tokens
from interp.errors import InputError
from interp.spec import Prompt

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def byte_level() -> Tokens:
    tokenizer = models.tokenizer()
    return Tokens(tokenizer, len(tokenizer), 1000, default_bos=True, bidirectional=False)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_the_strings_of_the_tokens_are_the_text(byte_level: Tokens, text: str) -> None:
    encoded = byte_level.encode(Prompt(text, bos=False))
    assert len(encoded.strings) == len(encoded.ids)
    partial = encoded.glyphs or any("\\x" in string for string in encoded.strings)
    if not partial:
        assert "".join(encoded.strings) == text
    assert bytes_of(byte_level, encoded.ids) == text.encode()


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(min_codepoint=0x80, codec="utf-8"), min_size=1, max_size=10))
def test_characters_in_several_tokens_are_given_whole(byte_level: Tokens, text: str) -> None:
    encoded = byte_level.encode(Prompt(text, bos=False))
    seen, at = "", 0
    while at < len(encoded.ids):
        glyph = encoded.glyphs.get(at)
        if glyph is None:
            seen += encoded.strings[at]
            at += 1
            continue
        # The tokens of one character stand together; their bytes are the character's.
        stop = at + 1
        while len(bytes_of(byte_level, encoded.ids[at:stop]).decode("utf-8", "ignore")) < 1:
            stop += 1
        seen += bytes_of(byte_level, encoded.ids[at:stop]).decode()
        at = stop
    assert seen == text


def bytes_of(tokens: Tokens, ids: Any) -> bytes:
    return b"".join(tokens._bytes(index) for index in ids)


def test_an_emoji_in_pieces_shows_its_bytes_and_its_glyph(byte_level: Tokens) -> None:
    encoded = byte_level.encode(Prompt("a🙂b", bos=False))
    assert encoded.strings == ("a", "\\xF0", "\\x9F", "\\x99", "\\x82", "b")
    assert encoded.glyphs == {1: "🙂", 2: "🙂", 3: "🙂", 4: "🙂"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_smollm2_spells_every_text(smollm2: Any, text: str) -> None:
    text = f"a{text}"  # a text of lost bytes alone has no tokens, and is refused below
    encoded = smollm2.tokens.encode(Prompt(text, bos=False, truncate=True))
    # Its vocabulary lacks a few bytes that no written character begins with; what is lost is said.
    spelled = bytes_of(smollm2.tokens, encoded.ids) == text.encode()
    assert spelled != any("cannot spell" in note for note in encoded.notes)


def test_a_byte_that_the_vocabulary_lacks_is_said_to_be_lost(smollm2: Any) -> None:
    assert "cannot spell" in smollm2.tokens.encode(Prompt("a\U00040000")).notes[0]
    assert smollm2.tokens.encode(Prompt("a 🙂 é")).notes == ()
    with pytest.raises(InputError, match="has no tokens"):
        smollm2.tokens.encode(Prompt("\x16", bos=False))


def test_bos_is_there_once(lend: Callable[..., Any]) -> None:
    tokens = lend("gpt2").tokens
    assert tokens.encode(Prompt("cat")).ids[0] == tokens.bos_id
    assert tokens.bos_id not in tokens.encode(Prompt("cat", bos=False)).ids
    typed = tokens.encode(Prompt(models.BOS + "cat"))
    assert typed.ids == tokens.encode(Prompt("cat")).ids
    assert "one was kept" in typed.notes[0]
    twice = tokens.encode(Prompt(ids=(tokens.bos_id, tokens.bos_id, 5)))
    assert twice.ids == (tokens.bos_id, tokens.bos_id, 5)
    assert "2 times; they are ids" in twice.notes[0]


def test_a_bos_that_the_tokenizer_itself_would_not_add_is_said(smollm2: Any, clean_session: Any) -> None:
    first = smollm2.tokens.tokenizer("cat")["input_ids"][0]
    assert any("--no-bos" in note for note in smollm2.tokens.encode(Prompt("cat")).notes) == (
        first != smollm2.tokens.bos_id and smollm2.tokens.default_bos
    )
    assert not any("--no-bos" in note for note in smollm2.tokens.encode(Prompt("cat", bos=True)).notes)
    own = clean_session.load(device="cpu").tokens
    assert any("--no-bos" in note for note in own.encode(Prompt("cat")).notes) == (
        own.tokenizer("cat")["input_ids"][0] != own.bos_id and own.default_bos
    )


def test_a_model_without_bos_says_so(lend: Callable[..., Any]) -> None:
    tokens = lend("gpt2", bos=False).tokens
    assert "no BOS" in tokens.encode(Prompt("cat", bos=True)).notes[0]


def test_too_long_a_prompt_is_refused_or_cut(lend: Callable[..., Any]) -> None:
    tokens = lend("gpt2").tokens
    with pytest.raises(InputError, match=f"context window holds {models.N_CTX}"):
        tokens.encode(Prompt("one two " * 60))
    cut = tokens.encode(Prompt("one two " * 60, truncate=True))
    assert len(cut.ids) == models.N_CTX
    assert "was cut" in cut.notes[0]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(""), "empty"),
        (Prompt(ids=()), "empty"),
        (Prompt("a\ud83db"), "surrogate"),
        (Prompt(ids=(10**6,)), "outside the vocabulary"),
        (Prompt(ids=(-1,)), "outside the vocabulary"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_one_line(lend: Callable[..., Any], prompt: Prompt, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        lend("gpt2").tokens.encode(prompt)
    assert "\n" not in str(refused.value)
