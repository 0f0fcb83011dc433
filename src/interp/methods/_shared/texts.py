"""From a file, a list or a table's column to texts, and from a text to what a technique over running text reads."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from interp.errors import InputError
from interp.spec import Prompt, Texts

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

_BLANK = re.compile(r"(?:\r\n|\n|\r)[ \t]*(?:\r\n|\n|\r)\s*")


def from_file(path: str | os.PathLike[str], column: str = "text") -> Texts:
    """Return the texts that a file holds.

    A ``.csv`` or ``.tsv`` file has one to a row, in `column`; a ``.json`` file is a list, a ``.jsonl`` file has one to
    a line, each a string or an object with the key `column`; any other file is plain text, a blank line between two.

    Raises
    ------
    InputError
        There is no such file or column, it is not UTF-8, or it holds no text.
    """
    texts = [cell(row, column, str(path)) for row in rows(path)]
    found = tuple(Prompt(text) for text in texts if text.strip())
    if not found:
        raise InputError(f"{str(path)!r} holds no text")
    return Texts(found, source=Path(path).name)


def rows(path: str | os.PathLike[str]) -> list[Any]:
    """Return the rows of a file as `from_file` reads it: each a text, or a mapping of columns.

    Raises
    ------
    InputError
        There is no such file, or it is not UTF-8, or no JSON.
    """
    target = Path(path).expanduser()
    if not target.is_file():
        raise InputError(f"there is no file {str(path)!r}; type the path of a file of texts")
    try:
        content = target.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{str(path)!r} is not UTF-8 text") from None
    kind = target.suffix.lower()
    if kind in {".csv", ".tsv"}:
        return list(csv.DictReader(content.splitlines(keepends=True), delimiter="\t" if kind == ".tsv" else ","))
    if kind in {".json", ".jsonl"}:
        return _json(content, kind, str(path))
    return list(_BLANK.split(content.strip()))


def _json(content: str, kind: str, path: str) -> list[Any]:
    try:
        held: Any = (
            json.loads(content)
            if kind == ".json"
            else [json.loads(line) for line in content.split("\n") if line.strip()]
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{path!r} is not JSON: {error.msg} in line {error.lineno}") from None
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
    """Return one text, a path, a list of texts or a table's column as `Texts`.

    Raises
    ------
    InputError
        Something else, or no text at all.

    Examples
    --------
    >>> [prompt.text for prompt in several(["a b", "c"]).texts]
    ['a b', 'c']
    """
    if isinstance(given, Texts):
        return given
    if isinstance(given, os.PathLike):
        return from_file(cast("os.PathLike[str]", given))
    listed: Any = [given] if isinstance(given, str | Prompt) else given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(listed, list | tuple):
        raise InputError(f"texts are a list of texts, a table's column or a file, not {type(given).__name__}")
    items = list(cast("Sequence[Any]", listed))
    if not items:
        raise InputError("there are no texts; give at least one")
    wrong = next((item for item in items if not isinstance(item, str | Prompt)), None)
    if wrong is not None:
        raise InputError(f"texts are a list of texts; {type(wrong).__name__} is none")
    return Texts(tuple(item if isinstance(item, Prompt) else Prompt(item) for item in items))


def encoded(model: LoadedModel, texts: Sequence[Prompt]) -> list[Encoded]:
    """Return the texts as tokens.

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
            raise InputError(f"text {number}: {error}" if len(texts) > 1 else str(error)) from None
    return found


def encode(model: LoadedModel, texts: Texts) -> list[Encoded]:
    """Return the texts as tokens, each with at least one token to predict.

    Raises
    ------
    InputError
        An empty or too long text, one of a single token, or a model that predicts no next token.
    """
    if not model.geometry.causal:
        raise InputError(f"{model.name} reads in both directions and predicts no next token: it has no loss on a text")
    found = encoded(model, texts.texts)
    for number, one in enumerate(found):
        if len(one.ids) < 2:
            where = f"text {number}" if len(found) > 1 else "the text"
            raise InputError(f"{where} is a single token, which predicts nothing; type at least two")
    return found
