"""The loss of texts: Hugging Face's own, its means by a loop, in pieces, under interventions, beside another model."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

import interp
import models
from interp.engine.model import forward as passes
from interp.engine.model.load import Options, load
from interp.engine.readouts import loss as engine
from interp.errors import InputError, Interrupted
from interp.methods._shared.intervals import of_ratio
from interp.methods.text import loss as method
from interp.sites import Site
from interp.spec import Intervention
from real import STORE

pytestmark = pytest.mark.usefixtures("one_thread")

CAUSAL = ("gpt2", "llama", "neox", "gemma2", "cohere", "bloom", "granite")
TEXT = "Mary gave the drink to John and Mary gave the drink to John"
TEXTS = [TEXT, "one two three four", "The capital of France is Paris, and", "the cat sat on the cat sat on", "store to"]


@cache
def huggingface(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def logs_of(logits: torch.Tensor, ids: Any) -> np.ndarray[Any, Any]:
    """Return −log p of each token but the first, the long way."""
    logs = logits[:-1].double().log_softmax(-1)
    return np.array([-float(logs[n, index]) for n, index in enumerate(list(ids)[1:])])


def own(family: str, *, n_ctx: int = models.N_CTX, name: str = "own") -> Any:
    """Return a model that a test may change, the current one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "N_CTX", n_ctx)
        tokenizer = models.tokenizer()
        return interp.load(models.FAMILIES[family](len(tokenizer)), tokenizer=tokenizer, name=name, device="cpu")


@pytest.mark.parametrize("family", CAUSAL)
def test_it_is_huggingfaces_own(lend: Any, folder: Callable[..., Path], family: str) -> None:
    lend(family)
    result = interp.loss(TEXT, top=7)
    ids = torch.tensor([result.ids.tolist()])
    with torch.no_grad():
        said = huggingface(folder(family))(ids, labels=ids)
    assert result.mean == pytest.approx(float(said.loss), abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(float(said.loss)), rel=1e-5)
    assert np.isnan(result.loss[0])
    np.testing.assert_allclose(result.loss[1:], logs_of(said.logits[0], result.ids), atol=1e-5)
    np.testing.assert_allclose(result.probability[1:], np.exp(-result.loss[1:]))
    chances = said.logits[0, :-1].double().softmax(-1)
    best = chances.topk(7)
    assert (result.top_ids[1:] == best.indices.numpy()).mean() > 0.95  # but for ties
    np.testing.assert_allclose(result.top_probabilities[1:], best.values, atol=1e-5)
    for n, index in enumerate(result.ids.tolist()[1:]):
        assert abs(result.rank[n + 1] - int((chances[n] > chances[n, index]).sum())) <= 1
    assert (result.rank[0], result.top_ids[0, 0]) == (-1, -1)
    name, index, chance = result.top(1)[0]
    assert (name, index) == (interp.model.tokens.string(int(result.top_ids[1, 0])), int(result.top_ids[1, 0]))
    assert chance == result.top_probabilities[1, 0]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_pieces_are_the_whole_and_not_all_logits_are_there_at_once(
    lend: Any, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    model = lend(family)
    whole = interp.loss(TEXT)
    model.store.clear()
    forward, asked, most = passes.forward, [], []

    def watched(*given: Any, **options: Any) -> torch.Tensor:
        asked.append(options["last_only"])
        return forward(*given, **options)

    read = engine._read
    monkeypatch.setattr(passes, "forward", watched)
    monkeypatch.setattr("interp.engine.model.forward.forward", watched)
    monkeypatch.setattr(engine, "_read", lambda logits, *rest: most.append(len(logits)) or read(logits, *rest))
    monkeypatch.setattr(engine, "_NUMBERS", 3 * model.geometry.d_vocab_out)
    pieces = interp.loss(TEXT)
    assert asked == [True]
    assert max(most) == 3
    assert sum(most) == len(pieces.ids) - 1
    np.testing.assert_allclose(pieces.loss, whole.loss, atol=1e-6)
    assert (pieces.rank == whole.rank).all()
    assert interp.loss(TEXT).provenance.path == "store"


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_hooks_of_the_users_own_count_wherever_they_are(family: str) -> None:
    model = own(family)
    plain = interp.loss(TEXT)

    def odd(module: Any, given: Any, out: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        out = out.clone()
        out[:, 2:5] *= 0.3  # not where a lens would look whether it may trust itself
        return out

    handle = model.hf_model.get_output_embeddings().register_forward_hook(odd)
    try:
        hooked = interp.loss(TEXT)
        expected = logs_of(model.run(TEXT).logits[0], hooked.ids)
    finally:
        handle.remove()
    np.testing.assert_allclose(hooked.loss[1:], expected, atol=1e-6)
    assert np.abs(hooked.loss - plain.loss)[3:6].min() > 1e-3


def test_a_head_that_is_no_matrix_is_asked_itself(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lend("llama")
    expected = interp.loss(TEXT)

    def refused(*given: Any) -> None:  # noqa: ARG001
        raise InputError("it does more to its logits")

    monkeypatch.setattr(engine.lens, "require", refused)
    model.store.clear()
    np.testing.assert_allclose(interp.loss(TEXT).loss, expected.loss, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_interventions_change_it_as_they_change_a_run(lend: Any, family: str) -> None:
    model = lend(family)
    plain = interp.loss(TEXT)
    made = [
        Intervention(Site("z", 1), head=2, mode="zero"),
        Intervention(Site("resid_post", model.geometry.n_layers - 1), position=3, mode="zero"),
    ]
    for changes in (made, made[:1], made[1]):
        result = interp.loss(TEXT, interventions=changes)
        listed = changes if isinstance(changes, list) else [changes]
        expected = logs_of(model.run(TEXT, listed).logits[0], result.ids)
        np.testing.assert_allclose(result.loss[1:], expected, atol=1e-5)
        assert not np.allclose(result.loss[1:], plain.loss[1:], atol=1e-4)
        assert result.interventions == len(listed)
        assert result.provenance.path == "hooked: interventions"
    with pytest.raises(InputError, match=r"text 1: .*position"):
        interp.loss([TEXT, "a b"], interventions=Intervention(Site("resid_pre", 0), position=9, mode="zero"))


def test_means_are_those_of_a_loop(lend: Any) -> None:
    model = lend("llama")
    result = interp.loss(TEXTS)
    losses, again, sums = [], [], []
    for n, text in enumerate(TEXTS):
        ids = model.tokens.encode(interp.Prompt(text)).ids
        one = logs_of(model.run(text).logits[0], ids)
        seen = [(ids[k], ids[k + 1]) in [(ids[j], ids[j + 1]) for j in range(k)] for k in range(len(ids) - 1)]
        assert result.ids[result.starts[n] : result.starts[n + 1]].tolist() == list(ids)
        np.testing.assert_allclose(result.loss[result.starts[n] + 1 : result.starts[n + 1]], one, atol=1e-5)
        assert result.repeated[result.starts[n] + 1 : result.starts[n + 1]].tolist() == seen
        assert result.per_text[n] == pytest.approx(one.mean(), abs=1e-5)
        losses += one.tolist()
        again += seen
        sums.append((one.sum(), len(one)))
    held = np.array(losses)
    assert result.mean == pytest.approx(held.mean(), abs=1e-5)
    assert any(again)
    assert result.repeated_mean == pytest.approx(held[again].mean(), abs=1e-5)
    assert result.other_mean == pytest.approx(held[~np.array(again)].mean(), abs=1e-5)
    above, below = (np.array(part) for part in zip(*sums, strict=True))
    np.testing.assert_allclose(result.mean_interval, of_ratio(above, below), atol=1e-4)
    assert np.isnan(result.repeated_interval).all()  # two texts alone repeat anything
    assert result.text_of.tolist() == result.to_frame()["text"].tolist()
    losses_of = result.to_frame().groupby("text")["loss"].mean()
    np.testing.assert_allclose(losses_of, result.per_text)
    worst, token, text, position = result.surprises(1)[0]
    assert worst == np.nanmax(result.loss)
    assert result.tokens[result.starts[text] + position] == token


def test_few_texts_have_no_interval(lend: Any) -> None:
    lend("gpt2")
    result = interp.loss(TEXTS[:3])
    assert np.isnan(result.mean_interval).all()
    assert any("no 95 % intervals: 3 texts" in note for note in result.notes)
    assert not any("intervals" in note for note in interp.loss(TEXT).notes)


@pytest.mark.usefixtures("clean_session")
@pytest.mark.parametrize("bos", [True, False])
def test_what_is_learned_in_context_is_measured_between_two_tokens(bos: bool) -> None:
    model = own("gpt2", n_ctx=520)
    ids = torch.randint(10, 300, (500,), generator=torch.manual_seed(0)).tolist()
    given = [model.tokens.bos_id, *ids] if bos else ids
    result = interp.loss([given])
    expected = logs_of(model.run(given).logits[0], given)
    first = 0 if bos else -1  # of `expected`, which lacks the first token
    assert result.in_context == pytest.approx(expected[first + 499] - expected[first + 49], abs=1e-5)
    short = interp.loss([given[:-1]])
    assert short.in_context is None
    assert "token 500" not in short.text()


@pytest.mark.usefixtures("clean_session")
def test_what_the_bundled_model_has_seen_before_it_expects() -> None:
    interp.load(device="cpu")
    chance = torch.randint(100, 1500, (4, 20), generator=torch.manual_seed(0)).tolist()
    result = interp.loss([row + row for row in chance])
    assert result.repeated_mean < result.other_mean - 3
    assert result.repeated.sum() == 4 * 19
    assert result.repeated_interval[1] < result.other_interval[0]


@pytest.mark.usefixtures("clean_session")
def test_another_model_is_compared_with() -> None:
    own("gpt2", name="first")
    alone = interp.loss(TEXTS)
    own("llama", name="second")
    result = interp.loss(TEXTS, against="first")
    assert result.against == "first"
    np.testing.assert_allclose(result.against_loss, alone.loss)
    np.testing.assert_allclose(result.difference, interp.loss(TEXTS).loss - alone.loss)
    assert result.against_fingerprint == alone.provenance.fingerprint != result.provenance.fingerprint
    np.testing.assert_allclose(result.to_frame()["difference"], result.difference)
    zeroed = interp.loss(
        TEXT, interventions=Intervention(Site("z", 1), head=0, mode="zero"), against="second", model="second"
    )
    assert np.abs(zeroed.difference[2:]).max() > 1e-3
    assert "against='first'" in result.code()


@pytest.mark.usefixtures("clean_session")
def test_another_model_must_read_the_same_tokens(folder: Any) -> None:
    interp.load(device="cpu", name="bundled")
    interp.load(str(folder("bert")), device="cpu", name="encoder")
    own("gpt2", name="small")
    with pytest.raises(InputError, match="bundled cuts the text into other tokens than small"):
        interp.loss(TEXT, against="bundled")
    with pytest.raises(InputError, match="encoder reads in both directions"):
        interp.loss(TEXT, against="encoder")
    with pytest.raises(InputError, match="'smal' is not loaded"):
        interp.loss(TEXT, against="smal")


def test_what_has_no_loss_is_refused(lend: Any) -> None:
    lend("bert")
    with pytest.raises(InputError, match="no loss on a text"):
        interp.loss("Mary gave")
    lend("gpt2")
    with pytest.raises(InputError, match="single token"):
        interp.loss([[5]])
    with pytest.raises(InputError, match="--top 0"):
        interp.loss(TEXT, top=0)
    with pytest.raises(InputError, match=r"interventions are a list"):
        interp.loss(TEXT, interventions="zero")
    with pytest.raises(InputError, match="nothing predicts token 0"):
        interp.loss(TEXT).top(0)


def test_a_token_without_a_logit_has_no_loss() -> None:
    logits = torch.randn(3, 5, generator=torch.manual_seed(0))
    wanted = torch.tensor([1, 7, 4])
    logprobs, ranks, best, chances = engine._read(logits.clone(), wanted, 2)
    expected = -functional.cross_entropy(logits[[0, 2]], wanted[[0, 2]], reduction="none")
    np.testing.assert_allclose(logprobs[[0, 2]], expected, atol=1e-6)
    assert logprobs[1].isnan()
    assert ranks.tolist() == [int((logits[0] > logits[0, 1]).sum()), -1, int((logits[2] > logits[2, 4]).sum())]
    np.testing.assert_allclose(chances, logits.softmax(-1).topk(2).values, atol=1e-6)
    assert (best == logits.topk(2).indices).all()


@pytest.mark.usefixtures("clean_session")
def test_nan_is_said_and_left_out() -> None:
    model = own("gpt2")
    expected = interp.loss(TEXTS)
    with torch.no_grad():
        model.hf_model.transformer.wpe.weight[11:] = float("nan")
    result = interp.loss(TEXTS)
    assert any("no finite loss" in note for note in result.notes)
    known = np.isfinite(result.loss)
    assert 0 < known.sum() < np.isfinite(expected.loss).sum()
    assert result.mean == pytest.approx(result.loss[known].mean())
    assert (result.rank[~known] == -1).all()
    assert result.html()


def test_an_interrupt_keeps_the_texts_that_were_read(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend("gpt2")
    whole = interp.loss(TEXTS)
    known, calls = engine.known, []

    def stopping(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return known(*given, **options)

    monkeypatch.setattr(engine, "known", stopping)
    with pytest.raises(Interrupted) as stopped:
        interp.loss(TEXTS)
    result = stopped.value.result
    assert "partial: interrupted after 2 of 5 texts" in result.notes
    assert len(result.per_text) == 2
    np.testing.assert_allclose(result.loss, whole.loss[: len(result.loss)])


def test_it_is_typed(shell: Any, lend: Any, tmp_path: Path) -> None:
    lend("gpt2")
    typed = shell.run_cell(f"%%interp loss --top 3 -o r\n{TEXT}\n").result
    np.testing.assert_allclose(typed.loss, interp.loss(TEXT).loss)
    assert typed.top_ids.shape[1] == 3
    (tmp_path / "texts.csv").write_text("id,said\n1,one two three\n2,Mary gave the drink\n")
    several = shell.run_cell(f"%interp loss --text {tmp_path}/texts.csv --column said").result
    np.testing.assert_allclose(several.loss, interp.loss(["one two three", "Mary gave the drink"]).loss)
    assert several.source == "texts.csv"
    shell.user_ns["cut"] = [Intervention(Site("z", 0), head=0, mode="zero")]
    changed = shell.run_cell(f"%%interp loss --interventions cut --against r\n{TEXT}\n")
    assert "'r' is not loaded" in str(changed.error_in_exec)
    assert shell.run_cell(f"%%interp loss --interventions cut\n{TEXT}\n").result.interventions == 1


def test_constants_are_olssons() -> None:
    assert (method.EARLY, method.LATE) == (50, 500)


@pytest.mark.usefixtures("smollm2")
def test_smollm2(smollm2_folder: Path) -> None:
    result = interp.loss(STORE)
    ids = torch.tensor([result.ids.tolist()])
    with torch.no_grad():
        said = huggingface(smollm2_folder)(ids, labels=ids)
    assert result.mean == pytest.approx(float(said.loss), abs=1e-5)
    np.testing.assert_allclose(result.loss[1:], logs_of(said.logits[0], result.ids), atol=1e-4)
    again = interp.loss(f"{STORE} Mary. {STORE}")
    assert again.repeated_mean < again.other_mean - 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_precisions(folder: Callable[..., Path], clean_session: Any, dtype: str) -> None:
    model = load(folder("llama"), options=Options(device="cpu", dtype=dtype))
    clean_session.models[model.name], clean_session.current = model, model.name
    result = interp.loss(TEXT)
    expected = logs_of(model.run(TEXT).logits[0].double(), result.ids)
    np.testing.assert_allclose(result.loss[1:], expected, atol=1e-9 if dtype == "float64" else 0.05)
