"""From a file, a list or a table's column to texts, and from a text to what a technique over running text reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from interp import files, lazy, reading
from interp.errors import InputError
from interp.prompts import is_chat
from interp.rows import Rows
from interp.spec import Prompt, Texts, as_prompt, plain

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

HELD = 4096  # texts that are held at once; more are read anew each time


def from_file(path: str | os.PathLike[str], column: str = "text", n: int | None = None) -> Texts:
    """Return the first `n` texts that a file holds, or all; `reading.of_file` says how it is cut.

    Many are not held: they are read anew each time that they are gone through.

    Raises
    ------
    InputError
        There is no such file or column, it is not UTF-8, or it holds no text.
    """
    return of_rows(reading.of_file(path), column, n)


def of_rows(read: Rows, column: str = "text", n: int | None = None) -> Texts:
    """Return the first `n` texts of rows, or all; see `from_file`."""
    found = lazy.held(lambda: islice(map(Prompt, read.texts(column)), n), HELD)
    if not found:
        raise InputError(f"{read.name} holds no text")
    return Texts(found, source=read.source, notes=read.notes)


def several(given: Any, column: str = "text", n: int | None = None) -> Texts:
    """Return one text, a path, a list of texts or of token ids, a table or a dataset as `Texts`.

    Of a table, a dataset and a file it is the first `n` texts in `column`. A list may also hold pairs of sentences,
    each a tuple of two, and chats, each a list of messages; a list of messages alone is one chat, a tuple of texts
    alone is several texts.

    Raises
    ------
    InputError
        Something else, or no text at all.

    Examples
    --------
    >>> [prompt.text for prompt in several(["a b", "c"]).texts]
    ['a b', 'c']
    >>> [prompt.second for prompt in several([("A man", "A person"), "c"]).texts]
    ['A person', None]
    """
    if isinstance(given, Texts):
        return given
    if isinstance(given, os.PathLike) or not isinstance(given, str):
        read = reading.of_any(given)
        if read is not None:
            return of_rows(read, column, n)
    held: Any = plain(given)
    if not isinstance(held, Sequence | Prompt | Mapping) or isinstance(held, bytes):
        raise InputError(f"texts are a list of texts, a table's column or a file, not {type(given).__name__}")
    items: Sequence[Any] = [held] if isinstance(held, str | Prompt | Mapping) else held
    if isinstance(items, list | tuple):  # others, such as a dataset's column, may be read from a file
        items = [plain(item) for item in items]
    if not items:
        raise InputError("there are no texts; give at least one")
    if all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        items = [list(items)]  # the ids of one text
    if is_chat(items):
        items = [items]
    wrong = next((item for item in items if not isinstance(item, str | Prompt | list | tuple | Mapping)), None)
    if wrong is not None:
        raise InputError(f"texts are a list of texts, or of token ids; {type(wrong).__name__} is neither")
    return Texts(lazy.held(lambda: (as_prompt(item, literal=True) for item in items), HELD))


def of_argument(which: str, given: Any) -> Texts:
    """Return the texts that an argument gives: a text, the name of a file of texts, or a list of texts.

    Raises
    ------
    InputError
        It is empty, no such file, or something else.

    Examples
    --------
    >>> len(of_argument("toward", ["I love you", "I like you"]).texts)
    2
    """
    if isinstance(given, str) and files.is_texts(given):
        return from_file(given)
    if isinstance(given, str) and not given:
        raise InputError(f"--{which} is empty; type a text, such as ' love'")
    return several(given)


def read(model: LoadedModel, texts: Iterable[Prompt], called: str = "text", *, first: int = 0) -> Iterator[Encoded]:
    """Yield the texts, or what else they are `called`, as tokens, one at a time.

    They are numbered from `first` on; those behind a first part of many (above 0) are not put on record.

    Raises
    ------
    InputError
        An empty or too long text; of several it is named by its number.
    """
    encode = model.tokens.encode if first else model.encode
    for number, prompt in enumerate(texts, first):
        try:
            found = encode(prompt)
        except InputError as error:
            several = number or not isinstance(texts, Sequence) or len(texts) > 1
            raise InputError(f"{called} {number}: {error}" if several else str(error)) from None
        yield found


def encoded(model: LoadedModel, texts: Iterable[Prompt], called: str = "text") -> list[Encoded]:
    """Return the texts, or what else they are `called`, as tokens, all of them together; see `read`."""
    return list(read(model, texts, called))


def encode(model: LoadedModel, texts: Texts, *, first: int = 0) -> list[Encoded]:
    """Return the texts as tokens, each with at least one token to predict; `first` is as in `read`.

    Raises
    ------
    InputError
        An empty or too long text, one of a single token, or a model that predicts no next token.
    """
    if not model.geometry.causal:
        raise InputError(
            f"{model.name} reads in both directions and predicts no next token: it has no loss on a text; load a "
            "causal model"
        )
    found = list(read(model, texts.texts, first=first))
    for number, one in enumerate(found, first):
        if len(one.ids) < 2:
            where = f"text {number}" if first or len(found) > 1 else "the text"
            raise InputError(f"{where} is a single token, which predicts nothing; type at least two")
    return found
