"""What temperature, top-k and top-p leave: against their definitions written out, Hugging Face's, and frequencies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from interp.engine.model.sampling import Sampling
from interp.errors import InputError

SETTINGS: list[dict[str, Any]] = [
    {},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 10_000},
    {"top_p": 0.01},
    {"top_p": 0.6},
    {"top_p": 1.0},
    {"top_k": 9, "top_p": 0.8},
]
settings = pytest.mark.parametrize("given", SETTINGS, ids=str)


def drawn(rows: int = 5, width: int = 50, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def written_out(logits: np.ndarray, temperature: float, top_k: int | None = None, top_p: float | None = None) -> Any:
    """One row's probabilities, token by token from the likeliest on."""
    chances = np.exp(logits.astype(np.float64) / temperature)
    order = np.argsort(-chances)
    if top_k is not None:
        chances[order[top_k:]] = 0
    chances /= chances.sum()
    if top_p is not None and top_p < 1:  # all of them otherwise, whatever the sum is rounded to
        held = 0.0
        for token in order:
            if held >= top_p:
                chances[token] = 0
            held += chances[token]
    return chances / chances.sum()


@settings
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_what_is_left_is_the_definition(given: dict[str, Any], temperature: float) -> None:
    logits = drawn()
    found = Sampling(temperature, **given).chances(logits)
    expected = [written_out(row.numpy(), temperature, **given) for row in logits]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ((found > 0).numpy() == (np.array(expected) > 0)).all()


@settings
def test_it_is_what_hugging_face_leaves(given: dict[str, Any]) -> None:
    logits = drawn(seed=1)
    scores = logits / 0.7
    ids = torch.zeros(len(logits), 1, dtype=torch.long)
    if "top_k" in given:
        scores = TopKLogitsWarper(given["top_k"])(ids, scores)
    if "top_p" in given:
        scores = TopPLogitsWarper(given["top_p"])(ids, scores)
    torch.testing.assert_close(Sampling(0.7, **given).chances(logits), scores.softmax(-1))


def test_ties_with_the_last_of_k_stay() -> None:
    chances = Sampling(1.0, top_k=2).chances(torch.tensor([0.0, 1.0, 0.0, -1.0]))
    assert (chances > 0).tolist() == [True, True, True, False]


@settings
def test_draws_are_as_frequent_as_their_probabilities(given: dict[str, Any]) -> None:
    sampling = Sampling(1.0, **given, seed=3)
    logits, count = drawn(1, 12, seed=2), 4000
    tokens = sampling.next(logits.expand(count, -1), sampling.sources(count))
    expected = written_out(logits[0].numpy(), 1.0, **given) * count
    found = np.bincount(tokens, minlength=12)
    assert found[expected == 0].sum() == 0
    # Chi-square is for counts that are not too small: what is rarer is one class.
    large = expected >= 5
    counts, means = (np.append(each[large], each[~large].sum()) for each in (found, expected))
    there = means > 0
    statistic = float(((counts - means)[there] ** 2 / means[there]).sum())
    freedom = int(there.sum()) - 1
    chance = torch.special.gammaincc(torch.tensor(max(freedom, 1) / 2), torch.tensor(statistic / 2))
    assert statistic == 0 if freedom == 0 else float(chance) > 0.001


def test_a_source_of_its_own_for_every_text() -> None:
    logits = drawn(6, seed=4)
    few, many = (Sampling(1.0, seed=5).next(logits[:n], Sampling(1.0, seed=5).sources(n)) for n in (2, 6))
    assert many[:2] == few
    alone = Sampling(1.0, seed=9)
    assert alone.next(logits[4:5], alone.sources(1)) == many[4:5]


@pytest.mark.parametrize(
    ("given", "samples", "words"),
    [
        ({"temperature": 1.0, "top_k": 0}, 1, "--top-k 0 leaves no token"),
        ({"temperature": 1.0, "top_p": 0.0}, 1, "--top-p 0.0 is no share"),
        ({"temperature": 1.0, "top_p": 1.5}, 1, "at most 1"),
        ({"temperature": 1.0, "top_p": float("nan")}, 1, "--top-p nan"),
        ({"temperature": 1.0}, 0, "--samples 0"),
        ({"top_k": 5}, 1, "--top-k changes nothing at temperature 0"),
        ({"top_p": 0.5}, 3, "--top-p and --samples changes nothing.*add --temperature 1"),
        ({"temperature": float("nan")}, 1, "--temperature nan is none"),
    ],
    ids=str,
)
def test_what_draws_nothing_is_refused(given: dict[str, Any], samples: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Sampling(**given).check(samples)
