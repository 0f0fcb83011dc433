"""From a file, a list or a table's column to texts, and from a text to what a technique over running text reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from interp import files
from interp.errors import InputError
from interp.prompts import is_chat
from interp.spec import Prompt, Texts, as_prompt, plain

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

_LINES = re.compile(r"\r\n|\n|\r")  # str.splitlines also cuts at a form feed, at U+2028 …
_MANY_LINES = 8  # fewer without a blank one are one text, as a poem is
_BLANK = re.compile(r"(?:\r\n|\n|\r)[ \t]*(?:\r\n|\n|\r)\s*")


def from_file(path: str | os.PathLike[str], column: str = "text") -> Texts:
    """Return the texts that a file holds.

    A ``.csv`` or ``.tsv`` file has one to a row, in `column`; a ``.json`` file is a list, a ``.jsonl`` file has one to
    a line, each a string or an object with the key `column`; any other file is plain text, a blank line between two.
    Where plain text has many lines and no blank one, each line is a text, and a note says so.

    Raises
    ------
    InputError
        There is no such file or column, it is not UTF-8, or it holds no text.
    """
    held, notes = cut(path)
    texts = [cell(row, column, str(path)) for row in held]
    found = tuple(Prompt(text) for text in texts if text.strip())
    if not found:
        raise InputError(f"{str(path)!r} holds no text")
    return Texts(found, source=files.path_of(path).name, notes=notes)


def rows(path: str | os.PathLike[str]) -> list[Any]:
    """Return the rows of a file as `from_file` reads it: each a text, or a mapping of columns.

    Raises
    ------
    InputError
        There is no such file, or it is not UTF-8, or no JSON.
    """
    return cut(path)[0]


def cut(path: str | os.PathLike[str]) -> tuple[list[Any], tuple[str, ...]]:
    """Return the rows of a file as `rows` does, and what is worth knowing of how it was cut."""
    content = files.read_text(path, "type the path of a file of texts")
    kind = files.path_of(path).suffix.lower()
    if kind in {".csv", ".tsv"}:
        return list(files.table(content, "\t" if kind == ".tsv" else ",", repr(str(path)))), ()
    if kind in {".json", ".jsonl"}:
        return _json(content, kind, str(path)), ()
    content = content.strip()
    lines = [line for line in _LINES.split(content) if line.strip()]
    if len(lines) >= _MANY_LINES and not _BLANK.search(content):
        name = files.path_of(path).name
        said = f"{name} has no blank line: each of its {len(lines)} lines is a text; blank lines divide others"
        return lines, (said,)
    return list(_BLANK.split(content)), ()


def _json(content: str, kind: str, path: str) -> list[Any]:
    instead = "give a list of texts, or of objects with the texts under one key"
    if kind == ".json":
        held: Any = files.parsed(content, repr(path), instead)
    else:
        lines = enumerate(content.split("\n"), 1)
        held = [files.parsed(line, f"line {n} of {path!r}", instead) for n, line in lines if line.strip()]
    if not isinstance(held, list):
        raise InputError(f"{path!r} must hold a list of texts, or of objects with the texts under one key")
    return cast("list[Any]", held)


def cell(row: Any, column: str, path: str) -> str:
    """Return a row's text, or what it holds in `column`.

    Raises
    ------
    InputError
        There is no such column, or no text in it.
    """
    if isinstance(row, dict):
        held = cast("dict[str, Any]", row)
        if column not in held:
            known = ", ".join(str(name) for name in list(held)[:8])
            raise InputError(f"{path!r} has no column {column!r}; it has {known}: name one with --column")
        row = held[column]
    if not isinstance(row, str):
        raise InputError(f"{path!r} holds {type(row).__name__} where a text should be; name its column with --column")
    return row


def several(given: Any) -> Texts:
    """Return one text, a path, a list of texts or of token ids, or a table's column as `Texts`.

    A list may also hold pairs of sentences, each a tuple of two, and chats, each a list of messages; a list of messages
    alone is one chat, a tuple of texts alone is several texts.

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
    if isinstance(given, os.PathLike):
        return from_file(cast("os.PathLike[str]", given))
    held: Any = plain(given)
    if not isinstance(held, list | tuple | str | Prompt | Mapping):
        raise InputError(f"texts are a list of texts, a table's column or a file, not {type(given).__name__}")
    alone = isinstance(held, str | Prompt | Mapping)
    items: list[Any] = [held] if alone else [plain(item) for item in cast("Sequence[Any]", held)]
    if not items:
        raise InputError("there are no texts; give at least one")
    if all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        items = [items]  # the ids of one text
    if is_chat(items):
        items = [items]
    wrong = next((item for item in items if not isinstance(item, str | Prompt | list | tuple | Mapping)), None)
    if wrong is not None:
        raise InputError(f"texts are a list of texts, or of token ids; {type(wrong).__name__} is neither")
    return Texts(tuple(as_prompt(item, literal=True) for item in items))


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


def encoded(model: LoadedModel, texts: Sequence[Prompt], called: str = "text") -> list[Encoded]:
    """Return the texts, or what else they are `called`, as tokens.

    Raises
    ------
    InputError
        An empty or too long text; of several it is named by its number.
    """
    found: list[Encoded] = []
    for number, prompt in enumerate(texts):
        try:
            found.append(model.encode(prompt))
        except InputError as error:
            raise InputError(f"{called} {number}: {error}" if len(texts) > 1 else str(error)) from None
    return found


def encode(model: LoadedModel, texts: Texts) -> list[Encoded]:
    """Return the texts as tokens, each with at least one token to predict.

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
    found = encoded(model, texts.texts)
    for number, one in enumerate(found):
        if len(one.ids) < 2:
            where = f"text {number}" if len(found) > 1 else "the text"
            raise InputError(f"{where} is a single token, which predicts nothing; type at least two")
    return found
