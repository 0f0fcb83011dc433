"""The probability of a whole answer: Hugging Face's own, token by token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import interp
from interp.errors import InputError
from real import PROMPT

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = "Mary gave the drink to"


def forced(hf: Any, prompt: list[int], answer: list[int]) -> np.ndarray[Any, Any]:
    """Return each answer token's log-probability: the mean that Hugging Face gives for labels that are it alone."""
    found: list[float] = []
    for n, index in enumerate(answer):
        ids = torch.tensor([[*prompt, *answer[:n], index]])
        labels = torch.full_like(ids, -100)
        labels[0, -1] = index
        with torch.no_grad():
            found.append(-float(hf(ids, labels=labels).loss))
    return np.array(found)


@pytest.mark.parametrize("answer", [" John and Mary", "the cat", "zebra", " John"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "gemma2"])
def test_it_is_huggingfaces_own(lend: Any, folder: Callable[..., Path], family: str, answer: str) -> None:
    model = lend(family)
    result = interp.predict(TEXT, answer=answer)
    spelled = answer if answer.startswith(" ") else f" {answer}"
    (prompt,) = result.provenance.tokens
    whole = model.tokens.encode(interp.Prompt(TEXT + spelled)).ids
    assert [*prompt, *result.answer_ids] == list(whole)
    assert "".join(result.answer) == spelled
    hf = AutoModelForCausalLM.from_pretrained(folder(family), dtype=torch.float32).eval()
    expected = forced(hf, prompt, result.answer_ids.tolist())
    np.testing.assert_allclose(result.answer_logprobs, expected, atol=1e-5)
    assert result.answer_logprob == pytest.approx(expected.sum(), abs=1e-5)
    assert {(answer, name, index) for name, index in zip(result.answer, result.answer_ids, strict=True)} == set(
        result.tokens_taken
    )
    logits = hf(torch.tensor([whole])).logits[0]
    ranks = [int((logits[n] > logits[n, whole[n + 1]]).sum()) for n in range(len(prompt) - 1, len(whole) - 1)]
    assert result.answer_ranks.tolist() == ranks
    assert [line[0] for line in result.top] == [line[0] for line in interp.predict(TEXT).top]


def test_without_an_answer_there_is_none(lend: Any) -> None:
    lend("gpt2")
    result = interp.predict(TEXT)
    assert (result.answer, result.answer_logprob, len(result.answer_ids)) == ((), None, 0)
    assert "The answer" not in result.html()
    assert "; " not in result.summary()


def test_one_token_is_what_is_listed(lend: Any) -> None:
    model = lend("llama")
    listed = interp.predict(TEXT, top=400)
    for string, index, chance in listed.top[:5]:
        asked = interp.predict(TEXT, answer=index)
        assert asked.answer == (string,)
        assert np.exp(asked.answer_logprob or 0.0) == pytest.approx(chance, rel=1e-5)
        assert asked.answer_ranks.tolist() == [listed.top.index((string, index, chance))]
    assert asked.provenance.forwards == 0
    assert model.tokens.string(listed.top[0][1]) == listed.top[0][0]


def test_an_encoder_answers_with_one_token(lend: Any) -> None:
    model = lend("bert")
    prompt = "Mary gave the [MASK] to John"
    listed = interp.predict(prompt, top=400)
    string, index, chance = listed.top[3]
    asked = interp.predict(prompt, answer=index)
    assert (asked.answer, float(np.exp(asked.answer_logprobs[0]))) == ((string,), pytest.approx(chance, rel=1e-5))
    with pytest.raises(InputError, match=r"its mask stands for one token, and the answer is \d+ \("):
        interp.predict(prompt, answer="zebra crossing")
    assert model.geometry.causal is False


def test_what_cannot_be_asked_is_refused(lend: Any) -> None:
    model = lend("gpt2")
    room = model.geometry.n_ctx
    long = list(range(10, 10 + room))
    assert interp.predict(long, answer=" John").answer_ids.shape == (1,)
    with pytest.raises(InputError, match=rf"but its last token are \d+ tokens, and the context window holds {room};"):
        interp.predict(long, answer=" John and")
    for given, said in (("  ", "the answer is empty"), ([5, 6], "is one text here"), (9999, "outside the vocabulary")):
        with pytest.raises(InputError, match=said):
            interp.predict(TEXT, answer=given)


def test_it_is_typed_and_drawn(shell: Any, lend: Any) -> None:
    lend("gpt2")
    typed = shell.run_cell(f'%%interp predict --answer "the cat"\n{TEXT}\n').result
    expected = interp.predict(TEXT, answer="the cat")
    np.testing.assert_array_equal(typed.answer_logprobs, expected.answer_logprobs)
    page = typed.html()
    assert page.count(">rank ") == len(typed.answer)
    assert f"ln p −{-typed.answer_logprob:.3f}" in page
    assert "answer='the cat'" in typed.code()


@pytest.mark.usefixtures("smollm2")
def test_smollm2(smollm2_folder: Path) -> None:
    result = interp.predict(PROMPT, answer="Paris, the city of light")
    hf = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    (prompt,) = result.provenance.tokens
    np.testing.assert_allclose(result.answer_logprobs, forced(hf, prompt, result.answer_ids.tolist()), atol=1e-4)
    other = interp.predict(PROMPT, answer="Rome, the city of light").answer_logprob
    assert len(result.answer) > 4
    assert (result.answer_logprob or 0.0) > (other or 0.0)
