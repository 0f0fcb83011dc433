"""A chat as its tokenizer's template writes it, and where in that text its turns stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from interp.chats import TEMPLATE, Turn, names
from interp.errors import InputError, printable
from interp.prompts import Prompt
from interp.spans import Mark

Write = Callable[[Sequence[str]], str]


def has_template(tokenizer: Any) -> bool:
    """Return whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def rendered(tokenizer: Any, prompt: Prompt) -> Prompt:
    """Return a chat as the text that its template writes, with what its turns mark and where they stand.

    A last turn of the assistant is one to go on with; after any other the template begins the assistant's. No BOS is to
    be put in front of the text: the template has written it where the model wants one.

    Raises
    ------
    InputError
        There is no template, it refuses the chat, or it does not write what a turn says.
    """
    if not has_template(tokenizer):
        instead = (
            "add --no-template (template=False) to take the lines as they are typed"
            if prompt.text is not None
            else "give the prompt as a text"
        )
        raise InputError(f"this model's tokenizer has no chat template: {instead}, or load an instruct model")
    chat = prompt.turns
    if chat[-1].role == "assistant" and not chat[-1].text.strip():
        chat = chat[:-1]
    if not chat:
        raise InputError("the chat is empty; type a line user: with what is asked above assistant:")
    write = _writer(tokenizer, chat, going_on=chat[-1].role == "assistant")
    text = write([turn.text for turn in chat])
    sign = _sign(tokenizer, chat)
    places = [_place(write, chat, number, text, sign) for number in range(len(chat))]
    marks = [mark for turn, place in zip(chat, places, strict=True) for mark in _marks(turn, place)]
    return replace(prompt, text=text, marks=tuple(marks), roles=_roles(names(chat), places, len(text)), bos=False)


def turn_end(tokenizer: Any, prompt: Prompt, special: frozenset[int]) -> int | None:
    """Return the token by which a chat's template ends the assistant's turn; ``None`` where that is no special one."""
    if not prompt.turns:
        return None
    before = prompt.turns[:-1] if prompt.turns[-1].role == "assistant" else prompt.turns
    chat = (*before, Turn("assistant", "."))
    sign = _sign(tokenizer, chat)
    written = _writer(tokenizer, chat, going_on=None)([*(turn.text for turn in before), sign])
    for index in tokenizer(written.rpartition(sign)[2], add_special_tokens=False)["input_ids"]:
        if index in special:
            return int(index)
        if tokenizer.decode([index]).strip():
            break
    return None


def _writer(tokenizer: Any, chat: Sequence[Turn], *, going_on: bool | None) -> Write:
    """Return what writes a chat of any texts: up to the assistant's next turn, into its last one, or whole."""

    def write(texts: Sequence[str]) -> str:
        messages = [{"role": turn.role, "content": text} for turn, text in zip(chat, texts, strict=True)]
        try:
            return tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=going_on is False,
                continue_final_message=going_on is True,
            )
        except Exception as error:  # a template is a program of whoever wrote the model
            reason = printable(str(error).partition("\n")[0])[:200] or type(error).__name__
            raise InputError(f"the model's chat template does not take this chat: {reason}") from None

    return write


def _sign(tokenizer: Any, chat: Sequence[Turn]) -> str:
    """Return a character that neither the turns nor the template have."""
    held = {*str(tokenizer.chat_template)}.union(*(turn.text for turn in chat))
    return next(sign for sign in map(chr, range(0xE000, 0xF900)) if sign not in held)


def _place(write: Write, chat: Sequence[Turn], number: int, text: str, sign: str) -> tuple[int, int, int] | None:
    """Return from where to where a template writes what a turn says, and where in the `text` that begins.

    The `sign`, a character that nothing else has, is put into the turn: where the text is the same but for it, what
    stands there is the turn's. Templates strip what is said, and leave its beginning out where that was thought aloud.

    Raises
    ------
    InputError
        The text does not have what the turn says.
    """
    said = chat[number].text

    def written(at: int) -> int | None:
        texts = [turn.text for turn in chat]
        texts[number] = said[:at] + sign + said[at:]
        try:
            seen = write(texts)
        except InputError:
            return None
        found = seen.find(sign)
        return found if found >= 0 and seen[:found] + seen[found + 1 :] == text else None

    last = next((at for at in (len(said), len(said.rstrip())) if written(at) is not None), None)
    if last is not None:
        low, first = 0, last
        while low < first:
            middle = (low + first) // 2
            low, first = (low, middle) if written(middle) is not None else (middle + 1, first)
        start, end = written(first), written(last)
        if start is not None and end == start + last - first and text[start:end] == said[first:last]:
            return first, last, start
    if not said.strip():
        return None  # nothing is said, and some templates write nothing for it
    raise InputError(
        f"the model's chat template leaves out or changes what the {names(chat)[number]} turn says, so that its place "
        "is not known; say it otherwise, or type what the template would write, with --no-template"
    )


def _marks(turn: Turn, place: tuple[int, int, int] | None) -> list[Mark]:
    """Return a turn's marks where they stand in what the template writes."""
    first, last, start = place or (0, 0, 0)
    found: list[Mark] = []
    for mark in turn.marks:
        begin, end = max(mark.start, first), min(mark.stop, last)
        if begin >= end:
            marked = printable(turn.text[mark.start : mark.stop])[:40]
            raise InputError(f"the model's chat template leaves out [{marked}]{{{mark.name}}}; mark some other text")
        found.append(Mark(mark.name, begin - first + start, end - first + start))
    return found


def _roles(called: Sequence[str], places: Sequence[tuple[int, int, int] | None], length: int) -> tuple[Mark, ...]:
    """Return which turn, or the template, every character of the text is of."""
    turns = [
        Mark(name, place[2], place[2] + place[1] - place[0])
        for name, place in zip(called, places, strict=True)
        if place is not None and place[1] > place[0]
    ]
    found: list[Mark] = []
    end = 0
    for turn in [*sorted(turns, key=lambda one: one.start), Mark(TEMPLATE, length, length)]:
        if turn.start > end:
            found.append(Mark(TEMPLATE, end, turn.start))
        found.append(turn)
        end = turn.stop
    return tuple(found[:-1])
