"""Spans: pieces of a prompt that have a name, marked in its text as ``[Mary]{IO}``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

# Positions of a prompt, by number or by the name of a span; on a line 5, 0-3, -1, S2 or IO,S2.
Positions = Annotated[int | str | Sequence[int | str] | None, "positions"]
# The same beside the words all, prompt and new.
SteeredPositions = Annotated[int | str | Sequence[int | str], "steered positions"]
# The span of the position whose prediction is measured.
END = "END"
# Those of a pair that marks none: what both prompts begin with, what differs, what both end with.
UNMARKED = (BEFORE, MIDDLE, AFTER) = ("before", "middle", "after")
# A name as tasks and papers have them: IO, S2, subject.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MARK = re.compile(r"(\\)?\[([^\[\]]+)\]\{(" + NAME.pattern + r")\}")
# \sqrt[3]{x}: what follows a command of LaTeX is its argument.
_COMMAND = re.compile(r"\\[A-Za-z@]+\*?$")


@dataclass(frozen=True)
class Mark:
    """A piece of a text with a name.

    Attributes
    ----------
    name
        What it is called; several pieces of one name are one span.
    start, stop
        Its characters.

    Examples
    --------
    >>> marks("When [Mary]{IO} left")
    ('When Mary left', (Mark(name='IO', start=5, stop=9),))
    """

    name: str
    start: int
    stop: int


def marks(text: str) -> tuple[str, tuple[Mark, ...]]:
    r"""Return a text without its marks, and what they mark.

    A bracket without ``{name}`` behind it is text, and so is one behind a command of LaTeX; a backslash in front of a
    mark, which is dropped, makes it text.

    Examples
    --------
    >>> marks(r"a \[b]{c} [d] e[0]")
    ('a [b]{c} [d] e[0]', ())
    """
    pieces: list[str] = []
    found: list[Mark] = []
    end = length = 0
    for match in _MARK.finditer(text):
        if match[1] is None and _COMMAND.search(text, 0, match.start()):
            continue
        before = text[end : match.start()]
        inside = match[2] if match[1] is None else match[0][1:]
        if match[1] is None:
            begin = length + len(before)
            found.append(Mark(match[3], begin, begin + len(inside)))
        pieces += [before, inside]
        length += len(before) + len(inside)
        end = match.end()
    return "".join([*pieces, text[end:]]), tuple(found)


def marked(text: str, found: Sequence[Mark]) -> str:
    r"""Return a text with its marks: what `marks` reads as that text and these marks.

    Examples
    --------
    >>> marked("When Mary left", [Mark("IO", 5, 9)]), marked("a [b]{c}", [])
    ('When [Mary]{IO} left', 'a \\[b]{c}')
    """
    pieces: list[str] = []
    end = 0
    for mark in sorted(found, key=lambda one: one.start):
        pieces += [_escaped(text[end : mark.start]), f"[{text[mark.start : mark.stop]}]{{{mark.name}}}"]
        end = mark.stop
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    """Return a text in which nothing is read as a mark."""

    def behind(match: re.Match[str]) -> str:
        if match[1] is None and _COMMAND.search(match.string, 0, match.start()):
            return match[0]
        return f"\\{match[0]}"

    return _MARK.sub(behind, text)
