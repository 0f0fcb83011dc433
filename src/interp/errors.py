"""What goes wrong for a user, and how it is said: in one line that says what to type instead."""

from __future__ import annotations

import difflib
import re
import traceback
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")
_LONGEST = 200  # of a word that could be a slip of the keyboard
_LONG = re.compile(r"(\S{60})\S{40,}?(\S{20})(?!\S)")


class InputError(ValueError):
    """The user's input cannot be used; the message is one line that says what to type instead."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(printable(message)))

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the user's own lines, without those of interp and IPython around them."""
        ours = Path(__file__).parent
        own: list[str] = []
        for frame in traceback.extract_tb(self.__traceback__):
            place = Path(frame.filename)
            if place.is_relative_to(ours):
                break
            if place.parts[-3:-1] != ("IPython", "core"):
                own.append(f"{f'{place.name}, ' if place.is_file() else ''}line {frame.lineno}: {frame.line}")
        return [*own, f"{type(self).__name__}: {self}"]


class OutOfMemory(MemoryError):
    """A run did not fit into memory; the message says what it was and what to try."""


class Stopped(KeyboardInterrupt):
    """The user stopped a command before there was anything to keep; the message says which."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the line that was running is nobody's mistake."""
        return [f"KeyboardInterrupt: {self}"]


class Interrupted(Stopped):
    """The user stopped a long command; `result` holds what was finished.

    Attributes
    ----------
    result
        The partial result, marked so.
    """

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def __str__(self) -> str:
        return str(self.result)  # as it is now: its provenance is written after this was raised


class Foreseen(Exception):
    """A command was asked what it would take, and ends where its work would begin; `forecast` is the answer."""

    def __init__(self, forecast: Any) -> None:
        super().__init__()
        self.forecast = forecast


def unless_interrupted(result: Found, interrupt: BaseException | None) -> Found:
    """Return what a long command found, whole; where Ctrl-C stopped it, raise `Interrupted` with what there is.

    Raises
    ------
    Interrupted
        It was stopped.

    Examples
    --------
    >>> unless_interrupted("found", None)
    'found'
    """
    if interrupt is not None:
        raise Interrupted(result)
    return result


def shortened(text: str, most: int = 400) -> str:
    """Return `text` in at most `most` characters: long words first, which a user typed, then its middle, are left out.

    Examples
    --------
    >>> shortened("a" * 2000 + " is no layer; type one such as 5")[55:]
    'aaaaa…aaaaaaaaaaaaaaaaaaaa is no layer; type one such as 5'
    """
    if len(text) <= most:
        return text
    text = _LONG.sub(lambda word: f"{word[1]}…{word[2]}", text)
    if len(text) <= most:
        return text
    end = most * 2 // 5  # what to type instead stands there
    return f"{text[: most - end - 1]}…{text[-end:]}"


def printable(text: str) -> str:
    """Return `text` on one line, with a visible code for every character that has no ink or moves its neighbours.

    Examples
    --------
    >>> printable("a\\u202eb")
    'a⟨U+202E⟩b'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else f"⟨U+{ord(c):04X}⟩" for c in text)


def closest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` naming the likeliest of `known`, or an empty string.

    Examples
    --------
    >>> closest("atention", ["attention", "tokens"])
    ' (did you mean attention?)'
    >>> closest("pathc", ["path", "patch"]), closest("attn", ["pattern", "attn_out"])
    (' (did you mean patch?)', ' (did you mean attn_out?)')
    """
    if len(word) > _LONGEST:
        return ""
    # The hyphens of flags are no likeness.
    lowered = {name.lower().lstrip("-"): name for name in sorted(set(known))}
    word = word.lower().lstrip("-")
    # Letters in another order first: "pathc" is patch, though path is nearer by what the two have in common.
    swapped = [name for name in lowered if sorted(name) == sorted(word)]
    longer = sorted((name for name in lowered if len(word) > 2 and name.startswith(word)), key=len)
    found = swapped or longer or difflib.get_close_matches(word, list(lowered), n=1, cutoff=0.6)
    return f" (did you mean {lowered[found[0]]}?)" if found else ""


def unknown(what: str, name: object, known: Iterable[str], instead: str) -> InputError:
    """Return the refusal of a name that is none of `known`, with the likeliest of them and what to do instead.

    Examples
    --------
    >>> str(unknown("site", "zz", ["z", "q"], "sites are z, q"))
    "there is no site 'zz' (did you mean z?); sites are z, q"
    """
    return InputError(f"there is no {what} {name!r}{closest(str(name), known)}; {instead}")
