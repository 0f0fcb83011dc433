"""Text to token ids and back, with nothing lost, doubled or cut without being said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from inspect import signature
from itertools import takewhile
from typing import Any

from interp.engine.model import chat, spanned
from interp.engine.model.spelling import BYTE_OF, joined, readable
from interp.errors import InputError
from interp.ids import TypedIds, as_ids, types_of
from interp.spec import Prompt


@dataclass(frozen=True)
class Encoded:
    """A prompt as the model sees it.

    Attributes
    ----------
    ids, strings
        One per position; of a pair of sentences the ids are `TypedIds`. A token that is part of a character shows its
        bytes, ``\\xF0``-style.
    glyphs
        Position → the character that the partial tokens around it make together.
    notes
        What was done to the prompt and is worth knowing.
    spans
        Name → the positions of what is marked by it in the prompt; of a chat also what its turns and its template have.
    turns
        The names of those spans that are a chat's turns, and its template.
    """

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    glyphs: Mapping[int, str]
    notes: tuple[str, ...] = ()
    spans: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    turns: frozenset[str] = frozenset()


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
    n_types
        How many token types the model tells apart (see `type_count`).
    """

    def __init__(
        self,
        tokenizer: Any,
        d_vocab: int,
        n_ctx: int,
        default_bos: bool,
        bidirectional: bool,
        n_types: int | None = 0,
    ) -> None:
        self.tokenizer: Any = tokenizer
        self._settings = _settings(tokenizer)
        self.d_vocab = d_vocab
        self.n_ctx = n_ctx
        self.default_bos = default_bos
        self.bidirectional = bidirectional
        self.n_types = n_types

    def is_outdated(self) -> bool:
        """Whether the tokenizer has changed since this was made: a token added, another BOS, other rules of its own."""
        return self._settings != _settings(self.tokenizer)

    @property
    def digest(self) -> str:
        """A hash of vocabulary, rules and chat template: texts are read alike where it is equal."""
        vocabulary = [] if self.tokenizer is None else sorted(self.tokenizer.get_vocab().items())
        template = getattr(self.tokenizer, "chat_template", None)
        said = repr((self._settings, self.default_bos, template, vocabulary))
        return blake2b(said.encode(), digest_size=16).hexdigest()

    @cached_property
    def bos_id(self) -> int | None:
        """The id of the BOS token, or ``None`` where the tokenizer has none that is one token."""
        tokenizer: Any = self.tokenizer
        if tokenizer is None or tokenizer.bos_token is None:
            return None
        ids: list[int] = tokenizer(tokenizer.bos_token, add_special_tokens=False)["input_ids"]
        return ids[0] if len(ids) == 1 and ids[0] < self.d_vocab else None

    @cached_property
    def _adds_bos(self) -> bool:
        """Whether the tokenizer itself puts BOS in front of a text."""
        return list(self.tokenizer("a")["input_ids"])[:1] == [self.bos_id]

    def encode(self, prompt: Prompt) -> Encoded:
        """Return `prompt` as token ids; a chat's are those of the tokenizer's own ``apply_chat_template``.

        Raises
        ------
        InputError
            An empty prompt, half a surrogate pair, an id outside the vocabulary, a pair of sentences or types that the
            model cannot read, or more tokens than the context window holds (unless ``prompt.truncate``).
        """
        prompt = self.rendered(prompt)
        ids, notes = self.ids(prompt)
        strings, glyphs = self.strings(ids)
        if not (prompt.marks or prompt.roles):
            return Encoded(ids, strings, glyphs, notes)
        told = list(notes)
        wrapped = self.bidirectional and prompt.bos is not False
        spans = spanned.spans(self.tokenizer, prompt, ids, told, wrapped=wrapped)
        turns = frozenset(role.name for role in prompt.roles) & spans.keys()
        return Encoded(ids, strings, glyphs, tuple(told), spans, turns)

    def ids(self, prompt: Prompt) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the ids and the notes of `encode`, which refuses the same."""
        notes: list[str] = []
        prompt = self.rendered(prompt)
        ids = self._given(prompt, notes) if prompt.ids is not None else self._tokenized(prompt, notes)
        if prompt.ids is not None:
            self._without_doubled_ends(ids, notes, "they are ids, and taken as they are")
        elif prompt.bos is not False:
            ids = self._without_doubled_ends(ids, notes, "one was kept")
        if len(ids) > self.n_ctx:
            if not prompt.truncate:
                raise InputError(
                    f"the prompt has {len(ids)} tokens and the context window holds {self.n_ctx}; "
                    "shorten it, or cut it with --truncate (truncate=True)"
                )
            notes.append(f"the prompt was cut from {len(ids)} to {self.n_ctx} tokens, the context window")
            ids = ids[: self.n_ctx]
        return ids, tuple(notes)

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a template by which chats are written."""
        return chat.has_template(self.tokenizer)

    def rendered(self, prompt: Prompt) -> Prompt:
        """Return a chat as the text that the tokenizer's chat template writes; any other prompt as it is.

        Raises
        ------
        InputError
            The tokenizer has no template, or its template does not take the chat.
        """
        if not prompt.turns or prompt.roles:
            return prompt
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer; give token ids, or load it with tokenizer=…")
        return chat.rendered(self.tokenizer, prompt)

    def turn_end(self, prompt: Prompt) -> int | None:
        """Return the token that ends the assistant's turn in a chat; ``None`` where none does, and of other prompts."""
        return chat.turn_end(self.tokenizer, prompt, self._special) if prompt.turns else None

    def _given(self, prompt: Prompt, notes: list[str]) -> tuple[int, ...]:
        """Return the ids of a prompt that was given as such, with the types that it has."""
        ids = as_ids(self._literal(prompt.ids or ()))
        types = types_of(ids) if prompt.types is None else prompt.types
        notes.extend(self._unmasked(ids, told=prompt.types is not None or bool(types)))
        before, behind = prompt.masked
        if before:
            notes.append(
                f"{before} masked tokens in front were left out: positions count from the first token that is read, as "
                "in Hugging Face's generate"
            )
        if behind:
            notes.append(f"{behind} masked tokens at the end were left out")
        if self.n_types is None and prompt.types is not None and not any(types):
            notes.append(
                "the token types, all 0, were left out: Hugging Face's forward of this model would take them for words"
            )
        return self._of_types(ids, types, "leave token_type_ids out")

    def _of_types(self, ids: Sequence[int], types: Sequence[int], instead: str) -> tuple[int, ...]:
        """Return ids with their types, as far as the model has any.

        Raises
        ------
        InputError
            Types that the model cannot be told.
        """
        if not types or (not any(types) and len(types) == len(ids)):
            return tuple(ids)
        found = TypedIds(ids, types)
        most = max(types, key=abs)
        if any(isinstance(one, bool) or not isinstance(one, int) for one in types):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"the prompt's token types are whole numbers, such as 0 and 1; {instead}")
        if self.n_types is None or self.n_types < 2:
            raise InputError(f"the prompt has a token type {most}, and this model tells no types apart; {instead}")
        if not (min(types) >= 0 and most < self.n_types):
            raise InputError(f"the prompt has a token type {most}; the model has 0–{self.n_types - 1}")
        return found

    def _unmasked(self, ids: Sequence[int], told: bool) -> list[str]:
        """Return in what a forward of bare ids is not that of Hugging Face's own encoding, with a mask and types."""
        tokenizer: Any = self.tokenizer
        pad = getattr(tokenizer, "pad_token_id", None)
        ends = [len(list(takewhile(lambda index: index == pad, side))) for side in (ids, ids[::-1])]
        # Where it also ends a text, one is that; where it is BOS too, a second one is said to be BOS given twice.
        bos, eos = (getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos"))
        least = 3 if pad == bos else 2 if pad == eos else 1
        count = sum(run for run in ends if run >= least)
        notes: list[str] = []
        if pad is not None and 0 < count < len(ids):
            notes.append(
                f"{count} padding tokens ({self.string(pad)}) are read like words, unmasked: leave them out, or give "
                "what the tokenizer returns, with its attention_mask"
            )
        two = self.bidirectional and getattr(tokenizer, "sep_token_id", None) in ids[:-1]
        if two and not told and self.n_types is not None and self.n_types > 1:
            notes.append(
                "the ids of two sentences are read as those of one: every token has the type 0; give a tuple, "
                "('first', 'second'), or what the tokenizer returns, with its token_type_ids"
            )
        return notes

    def _literal(self, ids: Sequence[int]) -> Sequence[int]:
        if not ids:
            raise InputError("the prompt is empty; type some text")
        for index in ids:
            if isinstance(index, bool) or not isinstance(index, int):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"token id {index!r} is not a whole number; ids are 0–{self.d_vocab - 1}")
            if not 0 <= index < self.d_vocab:
                raise InputError(f"token id {index} is outside the vocabulary; ids are 0–{self.d_vocab - 1}")
        return ids

    def _sentences(self, prompt: Prompt) -> tuple[str, ...]:
        """Return a prompt's text, or its two sentences, once they can be spelled."""
        texts: tuple[Any, ...] = (prompt.text,) if prompt.second is None else (prompt.text, prompt.second)
        for which, text in zip(("first ", "second "), texts, strict=False):
            if not text:
                raise InputError(
                    "the prompt is empty; type some text"
                    if len(texts) == 1
                    else f"the {which}sentence of the prompt is empty; give two, or the other one alone as a text"
                )
            if not isinstance(text, str):
                raise InputError(f"a prompt is a text or a list of token ids, not {type(text).__name__}")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(
                    f"the prompt holds half of a surrogate pair at character {error.start} "
                    f"(U+{ord(text[error.start]):04X}); remove it"
                ) from None
        if self.tokenizer is None:
            raise InputError("this model has no tokenizer; give token ids, or load it with tokenizer=…")
        if len(texts) == 2:
            if not self.bidirectional:
                raise InputError(
                    "one prompt at a time: a tuple of two texts is a sentence pair, which encoders read, and this "
                    "model reads one text; type them as one, 'first second', or ask for each in turn"
                )
            empty = [not self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            if any(empty):
                which = "first" if empty[0] else "second"
                raise InputError(
                    f"the {which} sentence of the prompt has no tokens; give the other one alone, as a text"
                )
        return texts

    def _tokenized(self, prompt: Prompt, notes: list[str]) -> tuple[int, ...]:
        texts = self._sentences(prompt)
        wrapped = self.bidirectional and prompt.bos is not False
        given = self.tokenizer(*texts, add_special_tokens=wrapped)
        ids: list[int] = list(given["input_ids"])
        types = self._own_types(given, notes) if len(texts) == 2 else []
        if self._spelling == "bytes" and not wrapped:
            spelled = b"".join(self._bytes(index) for index in ids)
            if spelled.removeprefix(b" ") != "".join(texts).encode().removeprefix(b" "):
                notes.append(
                    f"the tokenizer cannot spell the prompt as typed; its tokens read {readable(spelled)[:60]!r}"
                )
        if not self.bidirectional:
            wanted = self.default_bos if prompt.bos is None else prompt.bos
            if wanted and self.bos_id is not None:
                if prompt.bos is None and not self._adds_bos and ids[:1] != [self.bos_id]:
                    notes.append(
                        f"BOS ({self.string(self.bos_id)}) was put in front, which the tokenizer itself does not do; "
                        "--no-bos leaves it out"
                    )
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
        return self._of_types(ids, types, "load the tokenizer that belongs to this model")

    def _own_types(self, given: Any, notes: list[str]) -> list[int]:
        """Return the types that the tokenizer itself gives to two sentences, as far as the model tells them apart."""
        own = "token_type_ids" in given
        if self.n_types is None and own:
            raise InputError(
                "this model takes token types for something else than a sentence's number, which interp does not "
                "carry: type the prompt as one text, or give its ids"
            )
        if self.n_types is None or self.n_types < 2:
            return []  # it reads both sentences alike, whatever the tokenizer says of them
        if not own:
            notes.append(
                "the tokenizer by itself gives no token types, so that both sentences have the type 0, as in Hugging "
                "Face's own forward; for others give what it returns with return_token_type_ids=True"
            )
        return list(given["token_type_ids"]) if own else []

    def _without_doubled_ends(self, ids: tuple[int, ...], notes: list[str], done: str) -> tuple[int, ...]:
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
                notes.append(f"{called} was given {times} times; {done}")
        return ids[first:last]

    def strings(self, ids: Sequence[int]) -> tuple[tuple[str, ...], dict[int, str]]:
        """Return each id's own string, and position → character for characters that several tokens share."""
        pieces = [self._bytes(index) for index in ids]
        return tuple(readable(piece) for piece in pieces), joined(pieces)

    def string(self, index: int) -> str:
        """Return the string of one id."""
        return readable(self._bytes(index))

    def _bytes(self, index: int) -> bytes:
        if self.tokenizer is None:
            return str(index).encode()
        piece = self.tokenizer.convert_ids_to_tokens(int(index))
        if piece is None:  # embedded, but not in the tokenizer: padding of the vocabulary
            return f"[{index}]".encode()
        if index in self._special:
            return piece.encode()
        if self._spelling == "bytes" and all(character in BYTE_OF for character in piece):
            return bytes(BYTE_OF[character] for character in piece)
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
        # A large vocabulary has both characters: most pieces that begin a word begin with its own.
        begins = Counter(piece[:1] for piece in self.tokenizer.get_vocab())
        if not begins["Ġ"] and not begins["▁"]:
            return "plain"
        return "bytes" if begins["Ġ"] > begins["▁"] else "metaspace"


def type_count(forward: Any, config: Any) -> int | None:
    """Return how many token types a model tells apart: 2 or so where they say which sentence a token is of.

    0 where its forward takes none; ``None`` where it takes them for something else, as GPT-2 does, which adds the word
    of that id.
    """
    if "token_type_ids" not in signature(forward).parameters:
        return 0
    held = getattr(config, "type_vocab_size", None)
    return held if isinstance(held, int) else None


def _settings(tokenizer: Any) -> tuple[Any, ...]:
    """Return what a tokenizer is asked for once and not again, in a form that can be compared."""
    if tokenizer is None:
        return ()
    rules: Any = getattr(tokenizer, "backend_tokenizer", None)
    return (
        len(tokenizer),
        {key: str(token) for key, token in tokenizer.special_tokens_map.items()},
        tokenizer.get_added_vocab(),
        # By what they say of themselves: the backend makes a new object whenever one is asked for.
        [repr(getattr(rules, part, None)) for part in ("normalizer", "pre_tokenizer", "post_processor")],
    )
