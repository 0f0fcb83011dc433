"""Chats are what the tokenizer's own template writes, and every token is of the turn that it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import templates
from interp.chats import TEMPLATE, names, of_messages
from interp.engine.model.tokens import Tokens
from interp.errors import InputError
from interp.prompts import as_prompt

BITS = [
    *(
        "Mary",
        " John",
        " went",
        "\n",
        "\n\n",
        " é",
        "e\u0301",
        "猫",
        "🙂",
        "👨‍👩‍👧",
        "!",
        " ",
        "  ",
        "\t",
        "\u00a0",
        "\r\n",
    ),
    *("[", "]", "{", "}", "[x]{y}", "\\", "{{ bos_token }}", "{% endfor %}", "[INST]", " [/INST]", "</think>"),
    *templates.SPECIAL,
    templates.BOS,
    "user:",
    "\ue000",
]
SAID = st.lists(st.sampled_from(BITS), max_size=6).map("".join)


@st.composite
def chats(draw: Any) -> list[dict[str, str]]:
    """Draw a chat whose turns alternate, with or without a system turn, up to either side's."""
    roles = [*["system"] * draw(st.booleans()), *["user", "assistant"] * 2][: draw(st.integers(2, 5))]
    return [{"role": role, "content": draw(SAID)} for role in roles]


def tokens(name: str, kind: str = "bytes") -> Tokens:
    tokenizer = templates.tokenizer(name, kind)
    return Tokens(tokenizer, len(tokenizer), 4096, default_bos=True, bidirectional=False)


def own(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    """Return what Hugging Face makes of a chat; a last turn of the assistant that is begun goes on."""
    going_on = chat[-1]["role"] == "assistant"
    return tokenizer.apply_chat_template(
        chat, tokenize=True, add_generation_prompt=not going_on, continue_final_message=going_on
    )["input_ids"]


def asked(chat: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a chat without a last turn of the assistant that says nothing: it is still to come."""
    return chat[:-1] if chat[-1]["role"] == "assistant" and not chat[-1]["content"].strip() else chat


@pytest.mark.parametrize("kind", ["bytes", "words"])
@pytest.mark.parametrize("name", ["chatml", "gemma", "llama", "mistral"])
@settings(deadline=None, max_examples=60)
@given(chat=chats())
def test_ids_are_hugging_faces_and_tokens_are_of_their_turns(name: str, kind: str, chat: list[dict[str, str]]) -> None:
    held = tokens(name, kind)
    encoded = held.encode(as_prompt(chat, literal=True))
    chat = asked(chat)
    assert list(encoded.ids) == own(held.tokenizer, chat)
    # The text as it is put together here, and whose each of its characters is.
    going_on = chat[-1]["role"] == "assistant"
    written = templates.pieces(name, chat, going_on)
    text = "".join(said for _, said in written)
    if going_on and name in {"gemma", "llama"}:
        text = text.rstrip()
    assert (
        held.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=not going_on, continue_final_message=going_on
        )
        == text
    )
    whose = [owner for owner, said in written for _ in said]
    offsets = held.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    called = [*names(of_messages(chat, literal=True))]
    held_by = {position: span for span, places in encoded.spans.items() for position in places}
    assert sorted(held_by) == list(range(len(encoded.ids)))  # each is of one span
    assert sum(map(len, encoded.spans.values())) == len(encoded.ids)
    assert set(encoded.spans) == encoded.turns <= {*called, TEMPLATE}
    for position, (start, stop) in enumerate(offsets):
        inked = {whose[n] for n in range(start, stop) if not text[n].isspace()} - {""}
        if inked:
            assert held_by[position] in {called[int(owner)] for owner in inked}
        elif {*whose[start:stop]} <= {""}:
            assert held_by[position] == TEMPLATE
        elif len({*whose[start:stop]}) == 1:
            assert held_by[position] == called[int(whose[start])]


@pytest.mark.parametrize("name", ["chatml", "llama"])
@settings(deadline=None, max_examples=40)
@given(chat=chats())
def test_a_turns_tokens_spell_what_it_says(name: str, chat: list[dict[str, str]]) -> None:
    held = tokens(name)
    encoded = held.encode(as_prompt(chat, literal=True))
    chat = asked(chat)
    for span, message in zip(names(of_messages(chat, literal=True)), chat, strict=True):
        said = message["content"].strip()
        places = encoded.spans.get(span, ())
        assert bool(places) or not said
        if places:
            assert places == tuple(range(places[0], places[-1] + 1))
            assert said in held.tokenizer.decode([encoded.ids[n] for n in places], skip_special_tokens=False)


@pytest.mark.parametrize("name", sorted(templates.TEMPLATES))
def test_marks_win_over_turns(name: str) -> None:
    held = tokens(name)
    chat = [
        {"role": "user", "content": " When [Mary]{IO} and [John]{S} went, \\[John]{S} saw "},
        {"role": "assistant", "content": "It was [Mary]{IO}"},
    ]
    encoded = held.encode(as_prompt(chat))
    plain = [{"role": m["role"], "content": m["content"].replace("[Mary]{IO}", "Mary")} for m in chat]
    plain[0]["content"] = plain[0]["content"].replace(" [John]{S}", " John").replace("\\", "")
    assert list(encoded.ids) == own(held.tokenizer, plain)
    assert [encoded.strings[n].strip() for n in encoded.spans["IO"]] == ["Mary", "Mary"]
    assert [encoded.strings[n].strip() for n in encoded.spans["S"]] == ["John"]
    assert sum(map(len, encoded.spans.values())) == len(encoded.ids)
    assert encoded.turns == {"user", "assistant", TEMPLATE}


def test_no_bos_is_put_before_that_of_the_template() -> None:
    for name, kind in (("llama", "bytes"), ("llama", "words"), ("chatml", "words")):
        held = tokens(name, kind)
        encoded = held.encode(as_prompt("user: Mary"))
        assert encoded.ids.count(held.bos_id) == (name == "llama")
        assert not any("BOS" in note for note in encoded.notes)


@pytest.mark.parametrize("name", sorted(templates.TEMPLATES))
@pytest.mark.parametrize(
    "typed", ["user: Hello", "user: Hello\nassistant: Oh", "system: Be.\nuser: a\nassistant: b\nuser: c"]
)
def test_the_token_that_ends_a_turn(name: str, typed: str) -> None:
    held = tokens(name)
    ends = held.turn_end(as_prompt(typed))
    assert ends == held.tokenizer.convert_tokens_to_ids(templates.ENDS[name])
    assert held.turn_end(as_prompt("Hello")) is None


def test_a_template_may_end_turns_with_words_alone() -> None:
    tokenizer = templates.tokenizer("chatml")
    held = Tokens(tokenizer, len(tokenizer), 4096, default_bos=False, bidirectional=False)
    plainly = "{% for m in messages %}{{ m['role'] + '> ' + m['content'] + '\\n' }}{% endfor %}"
    before, tokenizer.chat_template = tokenizer.chat_template, plainly
    try:
        assert held.turn_end(as_prompt("user: Hello")) is None
    finally:
        tokenizer.chat_template = before


@settings(deadline=None, max_examples=60)
@given(chat=chats())
def test_thoughts_that_a_template_leaves_out_are_of_no_turn(chat: list[dict[str, str]]) -> None:
    held = tokens("thinking")
    prompt = as_prompt(chat, literal=True)
    chat = asked(chat)
    if chat[-1]["role"] == "assistant" and "</think>" in chat[-1]["content"]:
        # Hugging Face looks for all of a turn that goes on in what is written, and may find it elsewhere.
        with pytest.raises(InputError, match=r"does not take this chat|leaves out or changes"):
            held.encode(prompt)
        return
    expected = own(held.tokenizer, chat)
    encoded = held.encode(prompt)
    assert list(encoded.ids) == expected
    for span, message in zip(names(of_messages(chat, literal=True)), chat, strict=True):
        said = message["content"]
        shown = said.split("</think>")[-1].lstrip("\n") if message["role"] == "assistant" else said
        decoded = held.tokenizer.decode(
            [encoded.ids[n] for n in encoded.spans.get(span, ())], skip_special_tokens=False
        )
        assert shown.strip() in decoded
        assert "</think>" not in decoded or "</think>" in shown


@pytest.mark.parametrize(
    ("template", "chat", "said"),
    [
        (None, "user: Hello", "no chat template: add --no-template"),
        (None, [{"role": "user", "content": "Hello"}], "no chat template: give the prompt as a text"),
        (templates.GEMMA, "user: a\nassistant: b\nassistant: c", "does not take this chat: turns must alternate"),
        (templates.GEMMA, "assistant:", "the chat is empty"),
        (
            templates.CHATML.replace("m['content']", "m['content'] | upper"),
            "user: Hello",
            "changes what the user turn says",
        ),
        (templates.CHATML.replace("m['content']", "''"), "user: Hello", "leaves out or changes what the user turn"),
        (
            templates.CHATML.replace("m['content']", "m['content'] * 2"),
            "user: Hello",
            "changes what the user turn says",
        ),
        (templates.THINKING, "user: a\nassistant: [b]{X}</think>c\nuser: d", r"leaves out \[b\]\{X\}"),
        ("{{ 1 / 0 }}", "user: Hello", "does not take this chat: division by zero"),
        ("{% if %}", "user: Hello", "does not take this chat: Expected an expression"),
        ({"tool_use": "x"}, "user: Hello", "does not take this chat: This model has multiple chat templates"),
    ],
)
def test_what_cannot_be_written_is_one_line(template: Any, chat: Any, said: str) -> None:
    import models

    tokenizer = models.tokenizer(added=templates.SPECIAL)
    tokenizer.chat_template = template
    held = Tokens(tokenizer, len(tokenizer), 4096, default_bos=True, bidirectional=False)
    with pytest.raises(InputError, match=said) as refused:
        held.encode(as_prompt(chat))
    assert "\n" not in str(refused.value)


def test_without_offsets_a_chat_is_written_and_marks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    held = tokens("chatml")
    monkeypatch.setattr(type(held.tokenizer), "is_fast", False)
    encoded = held.encode(as_prompt("user: Mary"))
    assert list(encoded.ids) == own(held.tokenizer, [{"role": "user", "content": "Mary"}])
    assert not encoded.spans
    assert any("are no spans" in note for note in encoded.notes)
    with pytest.raises(InputError, match="does not say where"):
        held.encode(as_prompt("user: [Mary]{X}"))


def test_a_chat_that_is_cut_keeps_the_spans_of_what_is_left() -> None:
    held = tokens("chatml")
    held.n_ctx = 20
    encoded = held.encode(as_prompt("user: Mary and John went to the store\nassistant: John", truncate=True))
    assert len(encoded.ids) == 20
    assert sum(map(len, encoded.spans.values())) == 20
