"""From the characters of a text that have a name to the tokens that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.chats import TEMPLATE
from interp.errors import InputError, printable
from interp.prompts import Prompt


def spans(
    tokenizer: Any, prompt: Prompt, ids: Sequence[int], notes: list[str], *, wrapped: bool
) -> dict[str, tuple[int, ...]]:
    """Return name → the positions of the tokens that hold any character of what is marked by it.

    Of a chat, what is not marked is its turn's, or the template's: a token of both is the turn's where it holds more of
    it than blank space.

    Parameters
    ----------
    ids
        What the prompt became: its own tokens, with what was put in front or cut off.
    notes
        What is worth knowing is added to them.
    wrapped
        Whether the tokenizer put its own special tokens around the text.

    Raises
    ------
    InputError
        The tokenizer does not say where its tokens stand, or a mark holds none.
    """
    text = prompt.text or ""
    if not getattr(tokenizer, "is_fast", False):
        if not prompt.marks:
            notes.append(
                "this tokenizer does not say where in the text its tokens stand: the chat's turns are no spans"
            )
            return {}
        raise InputError(
            "this tokenizer does not say where in the text its tokens stand, so that [marks]{NAME} cannot be read; "
            "type the prompt without them"
        )
    given = tokenizer(text, add_special_tokens=wrapped, return_offsets_mapping=True)
    own, offsets = list(given["input_ids"]), list(given["offset_mapping"])
    # What was put in front of the text, or taken away there.
    front = next((n for n in sorted(range(1 - len(own), len(ids)), key=abs) if _agree(ids, own, n)), 0)
    found: dict[str, list[int]] = {}
    for mark in prompt.marks:
        held = [n for n, (start, stop) in enumerate(offsets) if start < mark.stop and stop > mark.start]
        # A token that begins with the space in front of a word, or is one, holds the word from behind it on.
        held = [n for n in held if text[max(offsets[n][0], mark.start) : min(offsets[n][1], mark.stop)].strip()]
        held = [n for n in held if 0 <= n + front < len(ids)]
        marked = text[mark.start : mark.stop]
        if not held:
            raise InputError(f"[{printable(marked)[:40]}]{{{mark.name}}} marks no token; mark some text")
        around = text[offsets[held[0]][0] : offsets[held[-1]][1]]
        if around.strip() != marked.strip():
            notes.append(
                f"[{printable(marked)[:40]}]{{{mark.name}}} marks part of a token; the span is the whole of "
                f"{printable(around.strip())[:60]!r}"
            )
        found.setdefault(mark.name, []).extend(n + front for n in held)
    taken = {position for places in found.values() for position in places}
    for n, name in enumerate(_owners(prompt, offsets)):
        if 0 <= n + front < len(ids) and n + front not in taken:
            found.setdefault(name, []).append(n + front)
    return {name: tuple(sorted(set(places))) for name, places in found.items()}


def _owners(prompt: Prompt, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """Return of each token which turn of a chat it is of, or the template; none where the prompt is no chat."""
    if not prompt.roles:
        return []
    text = prompt.text or ""
    of = [role.name for role in prompt.roles for _ in range(role.start, role.stop)]
    found: list[str] = []
    for start, stop in offsets:
        inked = [of[n] for n in range(start, stop) if not text[n].isspace() and of[n] != TEMPLATE]
        alone = {*of[start:stop]}
        found.append(inked[0] if inked else alone.pop() if len(alone) == 1 else TEMPLATE)
    return found


def _agree(ids: Sequence[int], own: Sequence[int], front: int) -> bool:
    """Return whether `own` stands in `ids` from `front` on, as far as both reach."""
    first, last = max(front, 0), min(len(ids), len(own) + front)
    return first < last and list(ids[first:last]) == list(own[first - front : last - front])
