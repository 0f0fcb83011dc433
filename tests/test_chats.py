"""Chats as they are typed and given: turns, their marks, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import interp
from interp.chats import ROLES, Turn, names, of_messages, turns
from interp.errors import InputError
from interp.interface.body import pairs
from interp.prompts import as_prompt, as_typed
from interp.results.code import spelled
from interp.spans import Mark

SAID = st.lists(st.sampled_from(["Mary", " ", "\n", "user", ":", "[a]{X}", "[", "\\", "clean: b", "é"]), max_size=8)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("user: Hello", [("user", "Hello")]),
        ("user:Hello\n", [("user", "Hello")]),
        ("\n\nuser:\n  Hello\n\n  you\n\nassistant:", [("user", "Hello\n\n  you"), ("assistant", "")]),
        ("system: a\nuser: b: c\nuser : d", [("system", "a"), ("user", "b: c\nuser : d")]),
        ("user: say\n\\user: this\n\\assistant: no", [("user", "say\nuser: this\nassistant: no")]),
        ("User: Hello", []),
        (" user: Hello", []),
        ("user Hello", []),
        ("The user: a\nuser: b", []),
        ("", []),
    ],
)
def test_what_a_chat_is(typed: str, found: list[tuple[str, str]]) -> None:
    assert [(turn.role, turn.text) for turn in turns(typed)] == found
    assert (as_prompt(typed).plain == typed.replace("\\", "")) == (not found)
    assert as_prompt(typed, literal=True) == interp.Prompt(typed)


def test_turns_are_marked_and_named() -> None:
    (first, second, third) = turns("user: [Mary]{IO} left\nassistant: \\[x]{y}\nuser: she [did]{IO}")
    assert first == Turn("user", "Mary left", (Mark("IO", 0, 4),))
    assert (second.text, second.marks) == ("[x]{y}", ())
    assert third.marks == (Mark("IO", 4, 7),)
    assert names([first, second, third]) == ["user", "assistant", "user2"]


@given(st.lists(st.tuples(st.sampled_from(ROLES), SAID.map("".join)), min_size=1, max_size=4))
def test_messages_come_back(said: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": content} for role, content in said]
    prompt = as_prompt(messages)
    assert prompt.turns == of_messages(messages)
    assert as_prompt(prompt.plain) == prompt
    assert eval(spelled(prompt) or "", {"interp": interp}) == prompt.plain
    literal = as_prompt(messages, literal=True)
    assert [turn.text for turn in literal.turns] == [content for _, content in said]
    assert as_prompt(literal.plain).turns == literal.turns


@given(st.lists(st.tuples(st.sampled_from(ROLES), SAID.map("".join)), min_size=1, max_size=4))
def test_a_typed_chat_is_its_messages(said: list[tuple[str, str]]) -> None:
    escaped = [(role, content.replace("\nuser:", "\n\\user:").strip()) for role, content in said]
    escaped = [(role, f"\\{content}" if content.startswith("user:") else content) for role, content in escaped]
    typed = "\n".join(f"{role}: {content}" for role, content in escaped)
    messages = [{"role": role, "content": content.strip()} for role, content in said]
    assert as_prompt(typed).turns == of_messages(messages)


def test_lines_can_be_meant_as_they_are_typed() -> None:
    typed = as_prompt("user: [Mary]{IO}")
    assert typed.text == "user: [Mary]{IO}"
    assert as_typed(typed) == interp.Prompt("user: Mary", marks=(Mark("IO", 6, 10),))
    assert as_typed(as_prompt("Hello [Mary]{IO}")) == as_prompt("Hello [Mary]{IO}")
    with pytest.raises(InputError, match="--no-template takes lines"):
        as_typed(as_prompt([{"role": "user", "content": "Hello"}]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"role": "user", "content": "a"}, "a chat is a list of messages"),
        ([{"role": "user"}], "must have a role and a content"),
        ([{"role": "user", "content": "a", "name": "b"}], "must have a role and a content, and nothing else"),
        (
            [{"role": "user", "content": "a"}, {"role": "x y", "content": "b"}],
            "message 1 .* has the role 'x y'",
        ),
        ([{"role": 1, "content": "a"}], "has the role 1"),
        ([{"role": "user", "content": ["a"]}], "content of the message is a text, not list"),
        ([{"role": "user", "content": None}], "is a text, not NoneType"),
    ],
)
def test_messages_that_are_none_are_one_line(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_prompt(given)


CHAT = "system: Be brief.\nuser: Who is [Mary]{IO}?\n\n  And [John]{S}?\nassistant: She is"


def test_a_pairs_chats_are_indented() -> None:
    other = CHAT.replace("Mary", "Anna")
    below = {name: "\n".join(f"  {line}" for line in chat.split("\n")) for name, chat in (("a", CHAT), ("b", other))}
    one = f"clean:\n{below['a']}\ncorrupted:\n{below['b']}\nanswer: Mary\nwrong: Anna\n"
    (first, second) = pairs(f"{one}\n  \n{one.replace('  user', chr(9) + 'user', 0)}").pairs
    assert first == second
    assert first.clean == as_prompt(CHAT)
    assert first.corrupted == as_prompt(other)
    assert (first.answer, first.wrong) == (("Mary",), ("Anna",))


def test_other_prompts_of_several_lines_are_indented_too() -> None:
    (pair,) = pairs("clean:\n  def f():\n\n      return [1]{A}\ncorrupted: user: one line\n").pairs
    assert pair.clean == as_prompt("def f():\n\n    return [1]{A}")
    assert pair.corrupted == as_prompt("user: one line")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("clean:\nuser: a\ncorrupted:\nuser: b", "line 2 .*the turns of a chat are indented below clean:"),
        ("user: a", "line 1 .*the turns of a chat are indented"),
        ("clean:\n  user: a\nanswer: b", "there is no corrupted: line"),
        ("clean:\n  user: a\n\nclean:\n  user: b", "pair 0: there is no corrupted: line"),
        ("clean:\n  user: a\nclean:\n  user: b", "line 3 gives clean: a second time"),
    ],
)
def test_bodies_that_are_none(body: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pairs(body)
