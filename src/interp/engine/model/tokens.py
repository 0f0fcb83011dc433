"""Text to token ids and back, with nothing lost, doubled or cut without being said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any

from interp.errors import InputError
from interp.spec import Prompt


@dataclass(frozen=True)
class Encoded:
    """A prompt as the model sees it.

    Attributes
    ----------
    ids, strings
        One per position. A token that is part of a character shows its bytes, ``\\xF0``-style.
    glyphs
        Position → the character that the partial tokens around it make together.
    notes
        What was done to the prompt and is worth knowing.
    """

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    glyphs: Mapping[int, str]
    notes: tuple[str, ...] = ()


def as_prompt(prompt: Any, bos: bool | None = None, truncate: bool = False) -> Prompt:
    """Return `prompt` (a text, ids, a tensor or array of ids, or a Prompt) as a `Prompt`.

    Raises
    ------
    InputError
        Anything else, or several prompts at once.

    Examples
    --------
    >>> as_prompt([1, 2]).ids
    (1, 2)
    """
    if isinstance(prompt, Prompt):
        return replace(prompt, bos=prompt.bos if bos is None else bos, truncate=prompt.truncate or truncate)
    if isinstance(prompt, str):
        return Prompt(text=prompt, bos=bos, truncate=truncate)
    ids: Any = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if isinstance(ids, list | tuple):
        if len(ids) == 1 and isinstance(ids[0], list | tuple):
            ids = ids[0]
        if all(type(index) is not bool and isinstance(index, Integral) for index in ids):  # numpy's too
            return Prompt(ids=tuple(map(int, ids)), truncate=truncate)
        if any(isinstance(item, str | list | tuple) for item in ids):
            raise InputError(f"one prompt at a time: {len(ids)} were given")
    raise InputError(f"a prompt is a text or a list of token ids, not {type(prompt).__name__}")


class Tokens:
    """A model's tokenizer, vocabulary size and context window.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer, or ``None`` for a model without one, which takes ids only.
    d_vocab, n_ctx
        The number of embedded ids, and the longest prompt.
    default_bos
        Whether BOS is put in front of a text when the prompt does not say.
    bidirectional
        Whether prompts are wrapped as the tokenizer wraps them for an encoder ([CLS] … [SEP]).
    """

    def __init__(self, tokenizer: Any, d_vocab: int, n_ctx: int, default_bos: bool, bidirectional: bool) -> None:
        self.tokenizer: Any = tokenizer
        self.size = 0 if tokenizer is None else len(tokenizer)
        self.d_vocab = d_vocab
        self.n_ctx = n_ctx
        self.default_bos = default_bos
        self.bidirectional = bidirectional

    @cached_property
    def bos_id(self) -> int | None:
        """The id of the BOS token, or ``None`` where the tokenizer has none that is one token."""
        tokenizer: Any = self.tokenizer
        if tokenizer is None or tokenizer.bos_token is None:
            return None
        ids: list[int] = tokenizer(tokenizer.bos_token, add_special_tokens=False)["input_ids"]
        return ids[0] if len(ids) == 1 and ids[0] < self.d_vocab else None

    def encode(self, prompt: Prompt) -> Encoded:
        """Return `prompt` as token ids.

        Raises
        ------
        InputError
            An empty prompt, half a surrogate pair, an id outside the vocabulary, or more tokens than the context
            window holds (unless ``prompt.truncate``).
        """
        notes: list[str] = []
        ids = list(self._literal(prompt.ids)) if prompt.ids is not None else self._tokenized(prompt, notes)
        if prompt.bos is not False or prompt.ids is not None:
            ids = self._without_doubled_ends(ids, notes)
        if len(ids) > self.n_ctx:
            if not prompt.truncate:
                raise InputError(
                    f"the prompt has {len(ids)} tokens and the context window holds {self.n_ctx}; "
                    "shorten it, or cut it with --truncate (truncate=True)"
                )
            notes.append(f"the prompt was cut from {len(ids)} to {self.n_ctx} tokens, the context window")
            ids = ids[: self.n_ctx]
        strings, glyphs = self.strings(ids)
        return Encoded(tuple(ids), strings, glyphs, tuple(notes))

    def _literal(self, ids: Sequence[int]) -> Sequence[int]:
        if not ids:
            raise InputError("the prompt is empty; type some text")
        for index in ids:
            if isinstance(index, bool) or not isinstance(index, int):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"token id {index!r} is not a whole number; ids are 0–{self.d_vocab - 1}")
            if not 0 <= index < self.d_vocab:
                raise InputError(f"token id {index} is outside the vocabulary; ids are 0–{self.d_vocab - 1}")
        return ids

    def _tokenized(self, prompt: Prompt, notes: list[str]) -> list[int]:
        text = prompt.text
        if not text:
            raise InputError("the prompt is empty; type some text")
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"a prompt is a text or a list of token ids, not {type(text).__name__}")
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer; give token ids, or load it with tokenizer=…")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the prompt holds half of a surrogate pair at character {error.start} "
                f"(U+{ord(text[error.start]):04X}); remove it"
            ) from None
        wrapped = self.bidirectional and prompt.bos is not False
        ids = list(self.tokenizer(text, add_special_tokens=wrapped)["input_ids"])
        if self._spelling == "bytes" and not wrapped:
            spelled = b"".join(self._bytes(index) for index in ids)
            if spelled.removeprefix(b" ") != text.encode().removeprefix(b" "):
                notes.append(
                    f"the tokenizer cannot spell the prompt as typed; its tokens read {_readable(spelled)[:60]!r}"
                )
        if not self.bidirectional:
            wanted = self.default_bos if prompt.bos is None else prompt.bos
            if wanted and self.bos_id is not None:
                ids = [self.bos_id, *ids]
            elif prompt.bos:
                notes.append("this tokenizer has no BOS token; none was added")
        if not ids:
            raise InputError("the prompt has no tokens; type some text")
        unknown = [index for index in ids if index >= self.d_vocab]
        if unknown:
            raise InputError(
                f"the tokenizer gives id {unknown[0]} and the model embeds only 0–{self.d_vocab - 1}; "
                "load the tokenizer that belongs to this model"
            )
        return ids

    def _without_doubled_ends(self, ids: list[int], notes: list[str]) -> list[int]:
        start, end = self.bos_id, None
        if self.bidirectional and self.tokenizer is not None:
            start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        first, last = 0, len(ids)
        while first + 1 < last and ids[first] == ids[first + 1] == start:
            first += 1
        while last - 2 >= first and ids[last - 1] == ids[last - 2] == end:
            last -= 1
        for index, times in ((start, first + 1), (end, len(ids) - last + 1)):
            if times > 1:
                name = self.string(index or 0)
                called = f"BOS ({name})" if index == self.bos_id else name
                notes.append(f"{called} was given {times} times; one was kept")
        return ids[first:last]

    def strings(self, ids: Sequence[int]) -> tuple[tuple[str, ...], dict[int, str]]:
        """Return each id's own string, and position → character for characters that several tokens share."""
        pieces = [self._bytes(index) for index in ids]
        return tuple(_readable(piece) for piece in pieces), _joined(pieces)

    def string(self, index: int) -> str:
        """Return the string of one id."""
        return _readable(self._bytes(index))

    def _bytes(self, index: int) -> bytes:
        if self.tokenizer is None:
            return str(index).encode()
        piece = self.tokenizer.convert_ids_to_tokens(int(index))
        if piece is None:  # embedded, but not in the tokenizer: padding of the vocabulary
            return f"[{index}]".encode()
        if index in self._special:
            return piece.encode()
        if self._spelling == "bytes" and all(character in _BYTE_OF for character in piece):
            return bytes(_BYTE_OF[character] for character in piece)
        if self._spelling == "metaspace":
            if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                return bytes([int(piece[3:5], 16)])
            return piece.replace("▁", " ").encode()
        return piece.encode()

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.get_added_vocab().values())

    @cached_property
    def _spelling(self) -> str:
        """How the vocabulary spells bytes: GPT-2's byte alphabet, SentencePiece's ▁, or plainly."""
        vocabulary = self.tokenizer.get_vocab()
        if "Ġ" in vocabulary or any(piece.startswith("Ġ") for piece in vocabulary):
            return "bytes"
        return "metaspace" if any(piece.startswith("▁") for piece in vocabulary) else "plain"


def _byte_alphabet() -> dict[str, int]:
    """Return the printable character that GPT-2's tokenizer writes for each byte, the other way round."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


_BYTE_OF = _byte_alphabet()


# What looks like one of our escapes, in text that spells it out: its backslash is escaped in turn.
_LIKE_A_BYTE = re.compile(rb"\\(?=x[0-9A-F]{2})")


def _readable(piece: bytes) -> str:
    piece = _LIKE_A_BYTE.sub(rb"\\x5C", piece)
    text = ""
    while piece:
        try:
            return text + piece.decode("utf-8")
        except UnicodeDecodeError as error:
            text += piece[: error.start].decode("utf-8")
            text += "".join(f"\\x{byte:02X}" for byte in piece[error.start : error.end])
            piece = piece[error.end :]
    return text


def _is_whole(piece: bytes) -> bool:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _joined(pieces: Sequence[bytes]) -> dict[int, str]:
    glyphs: dict[int, str] = {}
    start = 0
    while start < len(pieces):
        stop = start + 1
        if not _is_whole(pieces[start]):
            # A character is at most four bytes, so few tokens can share one.
            while stop < min(start + 4, len(pieces)) and not _is_whole(b"".join(pieces[start:stop])):
                stop += 1
            whole = b"".join(pieces[start:stop])
            if stop > start + 1 and _is_whole(whole):
                glyphs |= dict.fromkeys(range(start, stop), whole.decode().strip())
            else:
                stop = start + 1
        start = stop
    return glyphs
