"""Chats: the turns of a conversation, as a cell's lines or as messages spell them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError, printable
from interp.spans import NAME, Mark, marked, marks

# The roles that begin a turn where they begin a line.
ROLES = ("system", "user", "assistant")
# The span of what a chat template writes around the turns.
TEMPLATE = "template"

_ROLE = f"({'|'.join(ROLES)}):"
_FIRST = re.compile(rf"\s*^{_ROLE}", re.MULTILINE)
_TURN = re.compile(rf"^{_ROLE}", re.MULTILINE)
_ESCAPED = re.compile(rf"^\\(?={_ROLE})", re.MULTILINE)
_EXAMPLE = '[{"role": "user", "content": "Hello"}]'


@dataclass(frozen=True)
class Turn:
    """What one side of a chat says.

    Attributes
    ----------
    role
        Who says it: ``"system"``, ``"user"``, ``"assistant"``, or another role that the model's template knows.
    text
        What is said, without its marks.
    marks
        The pieces of `text` that have a name.

    Examples
    --------
    >>> turns("user: Who is [Mary]{IO}?")[0].text
    'Who is Mary?'
    """

    role: str
    text: str
    marks: tuple[Mark, ...] = ()

    @property
    def message(self) -> dict[str, str]:
        """The message that Python code gives for it, with its marks."""
        return {"role": self.role, "content": marked(self.text, self.marks)}


def turns(text: str, *, literal: bool = False) -> tuple[Turn, ...]:
    r"""Return the turns that a text spells whose first line begins with a role; none where it is no chat.

    `literal` turns mark nothing.
    Blank space around what is said is dropped. A line of a turn that itself begins with a role is typed with a
    backslash in front.

    Examples
    --------
    >>> [(turn.role, turn.text) for turn in turns("user: Hello.\nHow are you?\nassistant: I")]
    [('user', 'Hello.\nHow are you?'), ('assistant', 'I')]
    >>> turns("The user: a story"), turns("user: type\n\\user: hello")[0].text
    ((), 'type\nuser: hello')
    """
    if not _FIRST.match(text):
        return ()
    pieces = _TURN.split(text)[1:]
    spoken = [_ESCAPED.sub("", said.strip()) for said in pieces[1::2]]
    return tuple(_turn(role, said, literal) for role, said in zip(pieces[::2], spoken, strict=True))


def of_messages(given: Sequence[Mapping[str, Any]], *, literal: bool = False) -> tuple[Turn, ...]:
    """Return the turns of messages, as Hugging Face's chat templates take them; `literal` contents mark nothing.

    Raises
    ------
    InputError
        A message that has something else than a role and a text.

    Examples
    --------
    >>> of_messages([{"role": "user", "content": " Hello "}])
    (Turn(role='user', text=' Hello ', marks=()),)
    """
    found: list[Turn] = []
    for number, message in enumerate(given):
        where = f"message {number}" if len(given) > 1 else "the message"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"{where} of the chat must have a role and a content, and nothing else: write {_EXAMPLE}")
        role, content = message["role"], message["content"]
        if not isinstance(role, str) or not NAME.fullmatch(role):
            raise InputError(
                f"{where} of the chat has the role {printable(repr(role))[:40]}; roles are {', '.join(ROLES)}"
            )
        if not isinstance(content, str):
            raise InputError(f"the content of {where} is a text, not {type(content).__name__}")
        found.append(_turn(role, content, literal))
    return tuple(found)


def _turn(role: str, said: str, literal: bool) -> Turn:
    return Turn(role, said) if literal else Turn(role, *marks(said))


def names(chat: Sequence[Turn]) -> list[str]:
    """Return what the spans of a chat's turns are called: by their roles, from the second of one role on numbered.

    Examples
    --------
    >>> names(turns("user: a\\nassistant: b\\nuser: c"))
    ['user', 'assistant', 'user2']
    """
    seen: Counter[str] = Counter()
    found: list[str] = []
    for turn in chat:
        seen[turn.role] += 1
        found.append(turn.role if seen[turn.role] == 1 else f"{turn.role}{seen[turn.role]}")
    return found
