"""One rule for answers: in a cell's body, behind a flag and in Python, on every kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

import interp
import models
from faults import harness
from interp.errors import InputError
from interp.methods._shared import answers
from interp.spec import Prompt

GIFT = "When Mary and John went to the store, John gave a drink to"
SWAP = GIFT.replace("John gave", "Mary gave")
BODY = f"clean: {GIFT}\ncorrupted: {SWAP}\nanswer: Mary\nwrong: John"


@pytest.fixture
def bundled(clean_session: Any) -> Any:
    return clean_session.load(device="cpu")


@pytest.mark.parametrize(
    ("text", "typed", "begins"),
    [
        ("a drink to", "John", True),
        ("the year 17", "18", True),
        ("It ended.", "Then", True),
        ("to", "Élodie", True),
        ("the end", ".", False),
        ("the end", ", and", False),
        ("to", "#1", False),
        ("to", " John", False),
        ("a drink to ", "John", False),
        ("he said (", "yes", False),
        ('he said "', "yes", False),
        ("he said “", "yes", False),
        ("a list [", "one", False),
        ("2+2=", "4", False),
        ("", "John", False),
    ],
)
def test_a_word_begins_after_running_text_alone(text: str, typed: str, begins: bool) -> None:
    assert answers.begins_a_word(text, typed) is begins


def test_every_door_takes_the_same_token(bundled: Any, shell: Any) -> None:
    mary, john = (bundled.tokens.tokenizer(f" {name}")["input_ids"][-1] for name in ("Mary", "John"))
    both = {("Mary", " Mary", mary), ("John", " John", john)}
    for result in (
        harness.worked(harness.ask("magic", shell, harness.Cell("patch", body=BODY))),
        interp.patch(GIFT, SWAP, answer="Mary", wrong="John"),
        interp.dla(GIFT, answer="Mary", wrong="John"),
        interp.saliency(GIFT, answer="Mary", wrong="John"),
        interp.steer(GIFT, layer=1, toward="love", against="hate", answer="Mary", wrong="John", n=1),
    ):
        assert set(result.tokens_taken) == both
    assert interp.lens(GIFT, target="Mary").target == (" Mary", mary)
    assert interp.ov("2.0", tokens="Mary").rows[0].id == mary
    literal = interp.patch(GIFT, SWAP, answer=" Mary", wrong=" John")
    np.testing.assert_array_equal(literal.effect, interp.patch(GIFT, SWAP, answer="Mary", wrong="John").effect)


@pytest.mark.parametrize("made", [int, np.int64, np.int32, torch.tensor, lambda i: np.array([i]), lambda i: [i]])
def test_ids_are_taken_from_any_kind_of_number(bundled: Any, made: Callable[[int], Any]) -> None:
    mary, john = (bundled.tokens.tokenizer(f" {name}")["input_ids"][-1] for name in ("Mary", "John"))
    expected = interp.patch(GIFT, SWAP, answer="Mary", wrong="John")
    np.testing.assert_array_equal(interp.patch(GIFT, SWAP, answer=made(mary), wrong=made(john)).effect, expected.effect)
    assert interp.dla(GIFT, answer=made(mary)).answer == (" Mary", mary)


@pytest.mark.parametrize("given", [True, 2.5, b"Mary", object()])
@pytest.mark.usefixtures("bundled")
def test_what_is_no_answer_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="neither a word, such as 'John', nor a token id"):
        interp.patch(GIFT, SWAP, answer=given, wrong=5)
    with pytest.raises(InputError, match="neither a word, such as 'John', nor a token id"):
        interp.dla(GIFT, answer=given)


def test_the_likelier_spelling_is_named(bundled: Any) -> None:
    attached = bundled.tokens.tokenizer("Mary", add_special_tokens=False)["input_ids"]
    assert len(attached) == 1
    for result in (interp.dla(GIFT, answer=attached[0]), interp.lens(GIFT, target=attached[0])):
        assert any("' Mary' is likelier than 'Mary'" in note for note in result.notes)
    assert not any("likelier" in note for note in interp.dla(GIFT, answer="Mary").notes)


def test_what_the_vocabulary_lacks_is_refused_and_never_unknown(clean_session: Any) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: n for n, word in enumerate([*special, "the", "cat", "on", "mat"])}
    made = Tokenizer(WordPiece(words, unk_token="[UNK]"))
    made.pre_tokenizer = BertPreTokenizer()
    named = {f"{name.strip('[]').lower()}_token": name for name in special}
    clean_session.load(models.bert(len(words)), tokenizer=PreTrainedTokenizerFast(tokenizer_object=made, **named))
    prompt = "the cat [MASK] on the mat"
    assert interp.dla(prompt, answer="cat").answer == ("cat", words["cat"])
    assert interp.dla(prompt, answer="[UNK]").answer == ("[UNK]", 1)
    for ask in (
        lambda: interp.dla(prompt, answer="☃"),
        lambda: interp.lens(prompt, target="日"),
        lambda: interp.patch(prompt, "the mat [MASK] on the cat", answer="☃", wrong="the"),
    ):
        with pytest.raises(InputError, match="is not in the vocabulary"):
            ask()


def test_without_a_tokenizer_digits_are_an_id(clean_session: Any) -> None:
    from interp import truth

    clean_session.load(truth.build("induction").bridge(), name="program")
    assert interp.lens([1, 2, 3], target="2").target[1] == interp.lens([1, 2, 3], target=2).target[1] == 2
    with pytest.raises(InputError, match="no tokenizer; give the target as a token id"):
        interp.lens([1, 2, 3], target="two")


def test_ids_stand_for_the_text_that_they_spell(bundled: Any) -> None:
    """So does an answer after them: its token is that of a new word, whatever the tokenizer puts in front."""
    ids = bundled.tokens.encode(Prompt(GIFT)).ids
    assert interp.dla(list(ids), answer="Mary").answer == interp.dla(GIFT, answer="Mary").answer
