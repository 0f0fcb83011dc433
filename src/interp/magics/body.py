"""The language of a cell's body over pairs: ``clean:``, ``corrupted:``, ``answer:`` and ``wrong:`` lines."""

from __future__ import annotations

import re

from interp.errors import InputError, closest
from interp.spec import Pair, Pairs, Prompt

_KEYS = ("clean", "corrupted", "answer", "wrong")
_LINES = re.compile(r"\r\n|\n|\r")  # str.splitlines also cuts at a form feed, at U+2028 …
_LINE = re.compile(r"\s*([A-Za-z_-]+)\s*:\s*(.*?)\s*$")


def pairs(cell: str) -> Pairs:
    """Return the pairs that a cell's body spells, a blank line between two.

    Values are stripped; which token ``answer: John`` means after the clean prompt is the tokenizer's to say.

    Raises
    ------
    InputError
        A line that is none of the four, one that comes twice, or a pair without its prompts; the line is named.

    Examples
    --------
    >>> pairs("clean: A is\\ncorrupted: B is\\nanswer: C\\nwrong: D").pairs[0].answer
    ('C',)
    """
    found: list[dict[str, str]] = [{}]
    for number, line in enumerate(_LINES.split(cell), 1):
        if not line.strip():
            if found[-1]:
                found.append({})
            continue
        match = _LINE.match(line)
        key = match.group(1).lower() if match else ""
        if match is None or key not in _KEYS:
            named = closest(key, _KEYS) if key else ""
            raise InputError(
                f"line {number} is not one of clean:, corrupted:, answer:, wrong:{named}: {line.strip()[:60]}"
            )
        if key in found[-1]:
            raise InputError(f"line {number} gives {key}: a second time; put a blank line between two pairs")
        found[-1][key] = match.group(2)
    spelled = [entry for entry in found if entry]
    if not spelled:
        raise InputError(
            "the cell holds no pair; type a clean: and a corrupted: line, and answer: and wrong: below them"
        )
    return Pairs(tuple(_pair(entry, number, len(spelled)) for number, entry in enumerate(spelled)))


def spells_pairs(cell: str) -> bool:
    """Whether any line of a cell's body begins as a pair's lines do.

    Examples
    --------
    >>> spells_pairs("clean: A is"), spells_pairs("The end: a story")
    (True, False)
    """
    found = (_LINE.match(line) for line in _LINES.split(cell))
    return any(match is not None and match.group(1).lower() in _KEYS for match in found)


def _pair(entry: dict[str, str], number: int, count: int) -> Pair:
    where = f"pair {number}: " if count > 1 else ""
    for key in ("clean", "corrupted"):
        if key not in entry:
            raise InputError(f"{where}there is no {key}: line")
    return Pair(
        clean=Prompt(entry["clean"]),
        corrupted=Prompt(entry["corrupted"]),
        answer=(entry["answer"],) if "answer" in entry else (),
        wrong=(entry["wrong"],) if "wrong" in entry else (),
    )
