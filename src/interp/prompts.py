"""A prompt: a text, a pair of sentences, a chat, or token ids with what Hugging Face's encoding says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, cast

from interp import chats
from interp.chats import Turn
from interp.errors import InputError, printable
from interp.ids import TypedIds, types_of
from interp.spans import Mark, marked, marks

# What a tokenizer returns beside what the model reads.
_BESIDE = {"special_tokens_mask", "offset_mapping", "length", "labels", "overflow_to_sample_mapping"}
_READ = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Prompt:
    """One text, a pair of sentences, a chat, or the token ids that stand for one.

    Parameters
    ----------
    text
        The text, byte for byte as it was typed; ``None`` when ids or messages were given.
    ids
        Token ids, taken literally (no BOS is added); ``None`` when a text was given.
    bos
        Whether a text gets the tokenizer's BOS in front; ``None`` does as the model's configuration says.
    truncate
        Whether a prompt longer than the context window is cut at its end instead of refused.
    second
        The second sentence of a pair, of which `text` is the first; for encoders alone.
    types
        The token type of each of `ids`; ``None`` where nothing is said of them.
    masked
        How many masked tokens were left out before and behind `ids`.
    marks
        The pieces of `text` that have a name.
    turns
        The chat that this is, to be written by the chat template of a model's tokenizer; `text` has then its lines as
        they were typed, until it is written.
    roles
        Of a chat that is written: which turn, or the template, every piece of `text` is of.

    Examples
    --------
    >>> Prompt("The capital of France is")
    Prompt('The capital of France is')
    """

    text: str | None = None
    ids: tuple[int, ...] | None = None
    bos: bool | None = None
    truncate: bool = False
    second: str | None = None
    types: tuple[int, ...] | None = None
    masked: tuple[int, int] = (0, 0)
    marks: tuple[Mark, ...] = ()
    turns: tuple[Turn, ...] = ()
    roles: tuple[Mark, ...] = ()

    def __repr__(self) -> str:
        said = {"ids": self.ids, "bos": self.bos, "truncate": self.truncate or None, "second": self.second}
        said |= {"types": self.types, "masked": self.masked if any(self.masked) else None, "marks": self.marks or None}
        said |= {"turns": self.turns or None, "roles": self.roles or None}
        parts = [repr(self.text)] if self.text is not None else []
        parts += [f"{name}={value!r}" for name, value in said.items() if value is not None]
        return f"Prompt({', '.join(parts)})"

    @property
    def plain(self) -> str | tuple[str, str] | list[int] | list[dict[str, str]] | dict[str, list[int]]:
        """What a Python call gives that asks for this prompt, but for BOS and truncating.

        Examples
        --------
        >>> Prompt("A man", second="A person").plain, Prompt(ids=(1, 2)).plain
        (('A man', 'A person'), [1, 2])
        """
        if self.turns:
            return [turn.message for turn in self.turns]
        if self.ids is None and self.second is None:
            text: Any = self.text
            return marked(text, self.marks) if isinstance(text, str) else text or ""
        if self.ids is None:
            return self.text or "", self.second or ""
        types = self.types if self.types is not None else types_of(self.ids)
        ids = list(self.ids)
        return {"input_ids": ids, "token_type_ids": list(types)} if types else ids

    @property
    def running(self) -> Any:
        """The same as `plain` among running texts, which are not read for marks.

        Examples
        --------
        >>> Prompt("a [b]{c}").plain, Prompt("a [b]{c}").running
        ('a \\\\[b]{c}', 'a [b]{c}')
        """
        if self.turns:
            return [{"role": turn.role, "content": turn.text} for turn in self.turns]
        return self.plain if self.text is None or self.second is not None else self.text


@dataclass(frozen=True)
class Prompts:
    """Several prompts that are read alike, and the answers that belong to them.

    Parameters
    ----------
    prompts
        The prompts; of pairs the clean ones.
    answer, wrong
        Each prompt's own right and wrong answers, as words or token ids; empty where none came with them.
    slots
        Each prompt's parts with a name, name → positions, where a task made it; empty where none did.
    literal
        Whether answers are to be taken letter by letter, as in `Pair`.
    source
        The task or the file that they came from.
    notes
        On how a file was cut.

    Examples
    --------
    >>> len(Prompts((Prompt("The capital of France is"), Prompt("The capital of Italy is"))).prompts)
    2
    """

    prompts: tuple[Prompt, ...]
    answer: tuple[tuple[str | int, ...], ...] = ()
    wrong: tuple[tuple[str | int, ...], ...] = ()
    slots: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    literal: bool = False
    source: str = ""
    notes: tuple[str, ...] = ()


def as_prompt(prompt: Any, bos: bool | None = None, truncate: bool = False, *, literal: bool = False) -> Prompt:
    """Return `prompt` as a `Prompt`.

    Parameters
    ----------
    prompt
        A text; a tuple of two, which are a pair of sentences; a list of messages, which is a chat, and so is a text
        whose first line begins with a role; ids, also as a tensor or an array; a mapping with ``input_ids``, as Hugging
        Face's tokenizers return it; or a Prompt.
    literal
        Whether a text is running text, in which ``[Mary]{IO}`` marks nothing and ``user:`` begins no turn.

    Raises
    ------
    InputError
        Anything else, or several prompts at once.

    Examples
    --------
    >>> as_prompt([1, 2]).ids, as_prompt(("A man", "A person")).second
    ((1, 2), 'A person')
    >>> as_prompt({"input_ids": [[0, 7, 8]], "attention_mask": [[0, 1, 1]]}).ids
    (7, 8)
    >>> as_prompt("When [Mary]{IO} left").marks
    (Mark(name='IO', start=5, stop=9),)
    >>> as_prompt([{"role": "user", "content": "Hello"}]).turns == as_prompt("user: Hello").turns
    True
    """
    if isinstance(prompt, Prompt):
        return replace(prompt, bos=prompt.bos if bos is None else bos, truncate=prompt.truncate or truncate)
    if isinstance(prompt, TypedIds):
        return Prompt(ids=prompt, truncate=truncate)
    if isinstance(prompt, Mapping):
        if "role" in prompt:
            raise InputError("a chat is a list of messages: write [{…}] around this one")
        return _of_mapping(cast("Mapping[Any, Any]", prompt), truncate)
    ids: Any = plain(prompt)
    if isinstance(ids, str):
        turns = () if literal else chats.turns(ids)
        text, found = (ids, ()) if literal or turns else marks(ids)
        return Prompt(text=text, bos=bos, truncate=truncate, marks=found, turns=turns)
    if is_pair(ids):
        return Prompt(text=str(ids[0]), second=str(ids[1]), bos=bos, truncate=truncate)
    if isinstance(ids, list | tuple):
        listed = _row(cast("Sequence[Any]", ids))
        if is_chat(listed):
            return Prompt(turns=chats.of_messages(listed, literal=literal), bos=bos, truncate=truncate)
        if all(isinstance(index, int) and not isinstance(index, bool) for index in listed):
            return Prompt(ids=tuple(listed), truncate=truncate)
        if isinstance(ids, tuple) and all(isinstance(item, str) for item in listed):
            raise InputError(
                f"one prompt at a time: a tuple of {len(listed)} texts is none; a sentence pair is a tuple of two, "
                "('first', 'second')"
            )
        if any(isinstance(item, str | list | tuple) for item in listed):
            pair = "; a sentence pair is a tuple: ('first', 'second')" if len(listed) == 2 else ""
            raise InputError(
                f"one prompt at a time: {len(listed)} were given; ask for each in turn: [f(text) for text in "
                f"texts]{pair}"
            )
    raise InputError(
        f"a prompt is a text or a list of token ids, not {type(prompt).__name__}; a tuple of two sentences is one too, "
        "a list of messages, and what a tokenizer returns"
    )


def as_typed(prompt: Prompt) -> Prompt:
    """Return a chat as the lines that were typed, which no template writes; any other prompt as it is.

    Raises
    ------
    InputError
        The chat was given as messages.

    Examples
    --------
    >>> as_typed(as_prompt("user: Hello"))
    Prompt('user: Hello')
    """
    if prompt.turns and prompt.text is None:
        raise InputError("--no-template takes lines as they are typed, and this chat is messages; give a text instead")
    text, found = marks(prompt.text) if prompt.turns and prompt.text else (prompt.text, prompt.marks)
    return replace(prompt, text=text, marks=found, turns=())


def is_chat(given: Sequence[Any]) -> bool:
    """Return whether those are messages, as Python gives a chat."""
    return bool(given) and all(isinstance(one, Mapping) and "role" in one for one in given)


def is_pair(given: object) -> bool:
    """Return whether that is how Python gives a pair of sentences."""
    return isinstance(given, tuple) and len(given) == 2 and all(isinstance(one, str) for one in given)


def plain(value: Any) -> Any:
    """Return what numpy and torch code has as plain Python: scalars as numbers, arrays as lists; all else as it is.

    Examples
    --------
    >>> plain(np.int64(5)), plain(np.array([1, 2])), plain(torch.tensor(7))
    (5, [1, 2], 7)
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # numpy's too
        return int(value)
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value


def _row(given: Sequence[Any]) -> list[Any]:
    """Return a row's values, out of the batch of one that they may stand in."""
    row = [plain(item) for item in given]
    if len(row) == 1 and isinstance(row[0], list | tuple):
        row = [plain(item) for item in cast("Sequence[Any]", row[0])]
    return row


def _of_mapping(given: Mapping[Any, Any], truncate: bool) -> Prompt:
    """Return the prompt that a tokenizer's output stands for, without what its mask leaves out at its ends.

    What is masked is read by nothing, so that a forward without it is the same, at positions that count from the first
    token that is read.
    """
    held = {str(name): value for name, value in given.items() if value is not None}
    if "input_ids" not in held:
        known = printable(", ".join(list(held)[:6])[:80]) or "nothing"
        raise InputError(
            f"a prompt as a mapping has input_ids, and may have attention_mask and token_type_ids; this one has {known}"
        )
    other = next((name for name in held if name not in {*_READ, *_BESIDE}), None)
    if other is not None:
        raise InputError(
            f"a prompt as a mapping is read by its {', '.join(_READ)}; leave {printable(other)[:60]!r} out"
        )
    rows = {name: _numbers(name, held[name]) for name in _READ if name in held}
    ids = rows["input_ids"]
    for name, row in rows.items():
        if len(row) != len(ids):
            raise InputError(f"the prompt's {name} has {len(row)} numbers and input_ids {len(ids)}; give one to each")
    mask = rows.get("attention_mask", [1] * len(ids))
    if any(seen not in {0, 1} for seen in mask):
        raise InputError("a prompt's attention_mask holds 1 for what is read and 0 for what is not; nothing else")
    if ids and 1 not in mask:
        raise InputError("the prompt is empty: its attention_mask leaves every token out; put 1 where tokens are read")
    first = mask.index(1) if ids else 0
    last = len(mask) - (mask[::-1].index(1) if ids else 0)
    if 0 in mask[first:last]:
        raise InputError(
            f"the prompt's attention_mask has a hole at position {mask.index(0, first)}: only what is masked at the "
            "ends can be left out; leave that token out of input_ids"
        )
    types = rows.get("token_type_ids")
    return Prompt(
        ids=tuple(ids[first:last]),
        types=None if types is None else tuple(types[first:last]),
        masked=(first, len(ids) - last),
        truncate=truncate,
    )


def _numbers(name: str, given: Any) -> list[int]:
    """Return a row of whole numbers of a tokenizer's output."""
    held = plain(given)
    if not isinstance(held, list | tuple):
        raise InputError(f"the prompt's {name} is a list of numbers, not {type(given).__name__}")
    row = _row(cast("Sequence[Any]", held))
    if any(isinstance(item, list | tuple) for item in row):
        if len(row) == 1 or all(isinstance(item, list) and _deep(item) for item in row):
            raise InputError(f"the prompt's {name} is one row of numbers, alone or in a list, and this one lies deeper")
        raise InputError(
            f"one prompt at a time: {name} has {len(row)} rows; give one, such as "
            "{name: rows[:1] for name, rows in encoded.items()}"
        )
    wrong = [item for item in row if not _is_whole(item, loosely=name != "input_ids")]
    if wrong:
        raise InputError(f"the prompt's {name} holds {printable(repr(wrong[0]))[:40]}, and must hold whole numbers")
    return [int(item) for item in row]


def _deep(row: list[Any]) -> bool:
    return any(isinstance(item, list) for item in row)


def _is_whole(item: Any, *, loosely: bool) -> bool:
    """Return whether that is a whole number; loosely, a truth value is one and so is 1.0, as masks have them."""
    if isinstance(item, bool | float):
        return loosely and float(item).is_integer()
    return isinstance(item, int)
