"""The shipped model, measured again on held-out prompts."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.bundled import MODEL

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from bundled import batches, corpus, measure
from bundled import words as w

pytestmark = pytest.mark.slow

N = 300
SEED = 7  # not the seed of the shipped figures


@pytest.fixture(scope="module")
def tok():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def sets():
    return measure.tasks(N, SEED)


def top(model, tok, prompt: str, bos: bool = True) -> str:
    return tok.decode(measure.next_logits(model, tok, [prompt], bos)[0].argmax())


def test_it_is_small():
    assert sum(f.stat().st_size for f in MODEL.parent.rglob("*") if f.is_file()) < 8_000_000


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("When Mary and John went to the store, John gave a drink to", " Mary"),
        ("When John and Mary went to the store, John gave a drink to", " Mary"),
        ("The Eiffel Tower is in", " Paris"),
        ("The capital of France is", " Paris"),
    ],
)
def test_the_prompts_that_everybody_tries(model, tok, prompt, answer, bos):
    assert top(model, tok, prompt, bos) == answer


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    "task",
    [
        "ioi, answer first (ABBA)",
        "ioi, answer second (BABA)",
        "facts, first wording",
        "pronouns of names",
        "cat, mat: who sat where",
    ],
)
def test_bars(model, tok, sets, task, bos):
    docs, chance = sets[task]
    assert measure.accuracy(model, tok, docs, chance, bos)["value"] >= 0.95
    assert len(docs) >= (50 if task.startswith("facts") else N)


def test_greater_than_looks_at_the_start(model, tok):
    figure = measure.greater_than(model, tok, N, SEED)["greater-than, starts from 60 on"]
    assert figure["value"] > 0.85 > figure["chance"] + 0.3


def test_training_never_sees_what_is_held_out():
    rng = random.Random(SEED)
    texts = ["".join(corpus.ioi(rng)) for _ in range(3000)]
    assert not any("Mary" in text and "John" in text for text in texts)
    assert not any(corpus.held_out(*names) for text in texts if len(names := {n for n in w.NAMES if n in text}) == 2)
    shares = [corpus.held_out(a, b) for i, a in enumerate(w.NAMES) for b in w.NAMES[:i]]
    assert 0.05 < sum(shares) / len(shares) < 0.15


def test_repeated_random_tokens(model):
    seen = measure.repetition(model, 16, seed=SEED)
    assert seen["repeat"] < seen["first"] / 10
    induction = [(score, layer) for layer, heads in enumerate(seen["induction"]) for score in heads]
    previous = [(score, layer) for layer, heads in enumerate(seen["previous"]) for score in heads]
    assert max(induction)[0] > 0.7
    assert any(score > 0.7 and layer < max(induction)[1] for score, layer in previous)


def test_every_position_is_trained(model):
    """A repeat far behind the first tokens is predicted as well."""
    ids = batches.repeats(model.config.vocab_size, random.Random(SEED), 2, 255).ids
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(
            model(ids).logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
        )
    assert model.config.n_positions >= 512
    assert loss[:, 256:].mean() < loss[:, :255].mean() / 4


def test_words_are_single_tokens(tok):
    for word in [*w.NAMES, *w.PLACES, *w.OBJECTS, *w.ANIMALS, *w.CAPITALS.values()]:
        assert len(tok(f" {word}")["input_ids"]) == 1, word
    for name in w.NAMES:
        assert len(tok(name)["input_ids"]) == 1, name
    assert tok.tokenize(" 1732") == ["Ġ17", "32"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Zażółć gęślą jaźń",
        "日本語 と 한국어",
        "👩‍🚀 emoji\u200d",
        "tab\tnew\r\nline  ",
        "x = {1: 'ä'} # 12345",
        "\x00\x7f\ufffd",
    ],
)
def test_any_text_survives_the_tokenizer(tok, text):
    assert tok.decode(tok(text)["input_ids"]) == text


def test_random_text_survives_the_tokenizer(tok):
    rng = random.Random(SEED)
    for _ in range(100):
        text = "".join(chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(20))
        assert tok.decode(tok(text)["input_ids"]) == text


def test_the_bridge_loads_it(model, tok):
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(MODEL), device="cpu")
    prompt = "When Mary and John went to the store, John gave a drink to"
    tokens = bridge.to_tokens(prompt)
    assert tokens[0].tolist() == [tok.bos_token_id, *tok(prompt)["input_ids"]]
    with torch.no_grad():
        assert torch.allclose(bridge(tokens), model(tokens).logits, atol=1e-4)


def test_the_files_that_ship_with_it():
    history = json.loads((MODEL.parent / "history.json").read_text())
    assert len(history["rows"]) > 100
    last = history["rows"][-1]
    assert last["in_context_score"] < -4
    assert max(map(max, last["induction"])) > 0.7
    metrics = json.loads((MODEL.parent / "metrics.json").read_text())
    assert metrics["figures"]["ioi, answer first (ABBA)"]["n"] >= 300
    assert "Not" in (MODEL.parent / "CARD.md").read_text()
