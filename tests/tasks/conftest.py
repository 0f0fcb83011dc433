"""Tokenizers of the tasks' tests."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from interp.tasks import Vocabulary


def whole_words(digits: str) -> Vocabulary:
    """Return a tokenizer that has every word as one token; `digits` is the pattern of a token of digits."""
    split = re.compile(rf" ?[^\W\d]+| ?{digits}|.", re.DOTALL)
    ids: dict[str, int] = {}
    return Vocabulary(lambda text: [ids.setdefault(piece, len(ids)) for piece in split.findall(text)])


def of(tokenizer: Callable[..., dict[str, list[int]]]) -> Vocabulary:
    return Vocabulary(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="session")
def tiny() -> Vocabulary:
    """Return byte-level BPE that knows Mary, John and single letters, but hardly a word."""
    import models

    return of(models.tokenizer())


@pytest.fixture(scope="session")
def words() -> Vocabulary:
    """Return byte-level BPE with the tasks' words and pairs of digits as tokens, as the bundled model's is made."""
    from bundled.tokenizer import build_tokenizer

    from interp.tasks import _words

    known = [word for name, value in vars(_words).items() if name.isupper() for word in value]
    known += [*_words.CAPITALS.values(), *_words.LANDMARKS.values(), *(f"{year:02d}" for year in range(100))]
    known += ["man", "woman", "student"]  # and no person
    texts = ["When After While went to the , gave handed passed offered a The capital of is in he she that because"]
    texts += [
        "said yelled cried laughed lasted from year and",
        *(f" {year:02d}" for year in range(100)),
    ]
    return of(build_tokenizer(texts, [f" {word}" for word in known] + known))


@pytest.fixture(scope="session")
def pairs_of_digits() -> Vocabulary:
    return whole_words(r"\d{1,2}")


@pytest.fixture(scope="session")
def single_digits() -> Vocabulary:
    return whole_words(r"\d")


@pytest.fixture(scope="session")
def triples_of_digits() -> Vocabulary:
    return whole_words(r"\d{1,3}")


@pytest.fixture(scope="session")
def some_years_whole() -> Vocabulary:
    """Return a tokenizer that has merged some years, and some of their beginnings, as GPT-2's has."""
    return whole_words(r"(?:1[1-7](?:[2468][0-4])|1[1-7]9(?=\d)|\d{1,2})")


@pytest.fixture(scope="session")
def smollm2_words(smollm2_folder) -> Vocabulary:
    from transformers import AutoTokenizer

    return of(AutoTokenizer.from_pretrained(smollm2_folder))
