"""The language of a cell's body over pairs: ``clean:``, ``corrupted:``, ``answer:`` and ``wrong:`` lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent

from interp.chats import ROLES
from interp.errors import InputError, closest
from interp.spec import Pair, Pairs, Prompt, as_prompt

_KEYS = ("clean", "corrupted", "answer", "wrong")
_LINES = re.compile(r"\r\n|\n|\r")  # str.splitlines also cuts at a form feed, at U+2028 …
# Three bars, no more and no fewer, and the spaces around them; a backslash in front makes them text.
_BARS = re.compile(r"[^\S\n]*(?<![\\|])\|{3}(?!\|)\s*")
_PROMPT = re.compile(r"\s*(?:clean|corrupted)\s*:\s*", re.IGNORECASE)
_LINE = re.compile(r"\s*([A-Za-z_-]+)\s*:\s*(.*?)\s*$")


def pairs(cell: str, encoder: bool = False, alone: bool = False) -> Pairs:
    """Return the pairs that a cell's body spells, a blank line between two; an encoder's prompts may be two sentences.

    Values are stripped; which token ``answer: John`` means after the clean prompt is the tokenizer's to say. A prompt
    of several lines, such as a chat, is indented below a ``clean:`` or ``corrupted:`` with nothing behind it. Where the
    clean prompts are all that is read they may stand `alone`, and need no ``clean:`` in front.

    Raises
    ------
    InputError
        A line that is none of the four, one that comes twice, or a pair without its prompts; the line is named.

    Examples
    --------
    >>> pairs("clean: A is\\ncorrupted: B is\\nanswer: C\\nwrong: D").pairs[0].answer
    ('C',)
    >>> pairs("clean:\\n  user: A\\n  assistant: B\\ncorrupted: user: C").pairs[0].clean.turns[0].text
    'A'
    """
    found: list[dict[str, str]] = [{}]
    for number, line, below in _blocks(_LINES.split(cell)):
        if not line.strip():
            if found[-1]:
                found.append({})
            continue
        match = _LINE.match(line)
        key = match.group(1).lower() if match else ""
        if match is None or key not in _KEYS:
            if alone and "clean" not in found[-1] and key not in ROLES:
                found[-1]["clean"] = line.strip()
                continue
            named = closest(key, _KEYS) if key else ""
            if key in ROLES:
                named = "; the turns of a chat are indented below clean: and corrupted:"
            raise InputError(
                f"line {number} is not one of clean:, corrupted:, answer:, wrong:{named}: {line.strip()[:60]}"
            )
        if key in found[-1]:
            raise InputError(f"line {number} gives {key}: a second time; put a blank line between two pairs")
        found[-1][key] = match.group(2) or below
    spelled = [entry for entry in found if entry]
    if not spelled:
        raise InputError(
            "the cell holds no pair; type a clean: and a corrupted: line, and answer: and wrong: below them"
        )
    if alone:
        spelled = [{"corrupted": entry["clean"], **entry} if "clean" in entry else entry for entry in spelled]
    return Pairs(tuple(_pair(entry, number, len(spelled), encoder) for number, entry in enumerate(spelled)))


def _blocks(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yield each line with its number, and what is indented below it where a prompt's line has nothing behind it."""
    at = 0
    while at < len(lines):
        number, line = at, lines[at]
        at += 1
        own = len(line) - len(line.lstrip())
        if _PROMPT.fullmatch(line):
            at = next((n for n in range(at, len(lines)) if lines[n][: own + 1].strip()), len(lines))
        block = lines[number + 1 : at]
        yield number + 1, line, dedent("\n".join(block)).strip()
        if block and not block[-1].strip():
            yield at, "", ""


def spells_pairs(cell: str) -> bool:
    """Whether any line of a cell's body begins as a pair's lines do.

    Examples
    --------
    >>> spells_pairs("clean: A is"), spells_pairs("The end: a story")
    (True, False)
    """
    found = (_LINE.match(line) for line in _LINES.split(cell))
    return any(match is not None and match.group(1).lower() in _KEYS for match in found)


def are_pairs(cell: str) -> bool:
    """Whether a body is pairs and nothing else, where it could also be a prompt, such as one with ``Answer:`` in it.

    Examples
    --------
    >>> are_pairs("clean: A is\\ncorrupted: B is"), are_pairs("Question: who?\\nAnswer:")
    (True, False)
    """
    lines = [_LINE.match(line) for line in _LINES.split(cell) if line.strip()]
    keys = {match.group(1).lower() if match else "" for match in lines}
    return {"clean", "corrupted"} <= keys <= set(_KEYS)


def divided(text: str, encoder: bool) -> str | tuple[str, str]:
    r"""Return a typed prompt as the pair of sentences that it spells for an `encoder`, ``first ||| second``.

    Three bars that are meant as such have a backslash in front, ``\|||``. What other models read stays as it is.

    Raises
    ------
    InputError
        More than two sentences, or an empty one.

    Examples
    --------
    >>> divided("A man ||| A person", encoder=True), divided("a ||| b", encoder=False)
    (('A man', 'A person'), 'a ||| b')
    >>> divided(r"if (a \||| b)", encoder=True)
    'if (a ||| b)'
    """
    if not encoder or "|||" not in text:
        return text
    parts = [part.replace("\\|||", "|||") for part in _BARS.split(text)]
    if len(parts) == 1:
        return parts[0]
    if len(parts) > 2:
        raise InputError(
            f"a prompt has two sentences at most, first ||| second, and this one {len(parts)}; bars that are part of "
            "the text are typed \\|||"
        )
    if not all(part.strip() for part in parts):
        which = "first" if not parts[0].strip() else "second"
        raise InputError(f"the {which} sentence of the prompt is empty: type first ||| second, or one alone")
    return parts[0], parts[1]


def _prompt(text: str, encoder: bool) -> Prompt:
    found = divided(text, encoder)
    return as_prompt(found)


def _pair(entry: dict[str, str], number: int, count: int, encoder: bool) -> Pair:
    where = f"pair {number}: " if count > 1 else ""
    for key in ("clean", "corrupted"):
        if key not in entry:
            raise InputError(f"{where}there is no {key}: line")
    return Pair(
        clean=_prompt(entry["clean"], encoder),
        corrupted=_prompt(entry["corrupted"], encoder),
        answer=(entry["answer"],) if "answer" in entry else (),
        wrong=(entry["wrong"],) if "wrong" in entry else (),
    )
