"""Rows 10–16: prompts that are empty, tiny, too long, outside the vocabulary, or have BOS twice or never."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import models
from faults import harness
from interp.engine.model import forward as passes
from interp.spec import Prompt, Prompts

PROMPTED = [name for name, command in harness.commands().items() if Prompt in command.bodies]
each_family = pytest.mark.parametrize("family", harness.FAMILIES)
each_prompted = pytest.mark.parametrize("name", PROMPTED)
each_bodied = pytest.mark.parametrize("name", harness.bodied())
each_door = pytest.mark.parametrize("door", harness.DOORS)


def ids_of(cell, ids):
    return harness.Cell(cell.command, cell.arguments, ids)


def pictures(result):
    """Return everything a result shows of itself."""
    return [result.text(), result.html(), *([result.svg()] if result._svg else [])]


@each_door
@each_prompted
@each_family
def test_row_10_an_empty_prompt(name, family, door, shell, lend):
    model = lend(family)
    with harness.unharmed(model, shell):
        before = model.forwards
        harness.refused(harness.ask(door, shell, harness.valid(name, family, text=""), direct=True), "prompt is empty")
        assert model.forwards == before


@each_prompted
def test_row_10_an_empty_list_of_ids(name, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        for nothing in ([], (), np.array([], dtype=int), torch.tensor([], dtype=torch.long), Prompt(), Prompt(ids=())):
            harness.refused(harness.ask("python", shell, ids_of(harness.valid(name), nothing)), "prompt is empty")


@each_prompted
def test_row_10_a_cell_without_a_prompt(name, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        outcome = harness.ask("magic", shell, f"%interp {name}")
        harness.refused(outcome, f"%%interp {name}")
        assert outcome.shown.startswith("UsageError: ")
        harness.refused(harness.ask("magic", shell, f"%%interp {name}\n"))
        harness.refused(harness.ask("magic", shell, f"%%interp {name}\n\n"), "prompt is empty")


@each_prompted
@each_family
def test_row_11_a_prompt_of_one_token(name, family, shell, lend):
    model = lend(family)
    one = model.tokens.tokenizer.convert_tokens_to_ids(models.MASK if family == "bert" else "a")
    with harness.unharmed(model, shell):
        result = harness.worked(harness.ask("python", shell, ids_of(harness.valid(name, family), [one])))
        if hasattr(result, "pattern"):
            assert result.pattern.shape[2:] == (1, 1)
            assert np.array_equal(result.pattern, np.ones_like(result.pattern))
            assert np.isfinite(np.stack(list(result.stats.values()))).all()
        assert all(pictures(result))
        text = models.MASK if family == "bert" else "a"
        cell = harness.valid(name, family, text=text, bos=False)
        typed = harness.worked(harness.ask("magic", shell, cell))
        assert harness.answer(typed) == harness.answer(result)
        assert typed.provenance.tokens == [[one]]


@each_door
@each_prompted
@each_family
def test_row_12_a_text_longer_than_the_context(name, family, door, shell, lend):
    model = lend(family)
    text = "a" + " a" * 99 if family != "bert" else models.MASK + " a" * 50
    plain = model.tokens.tokenizer(text, add_special_tokens=family == "bert")["input_ids"]
    full = len(plain) + (model.tokens.default_bos and family != "bert")
    with harness.unharmed(model, shell):
        before = model.forwards
        cell = harness.valid(name, family, text=text)
        harness.refused(harness.ask(door, shell, cell), str(full), str(models.N_CTX), "--truncate")
        assert model.forwards == before
        cut = harness.worked(harness.ask(door, shell, harness.valid(name, family, text=text, truncate=True)))
        assert [len(ids) for ids in cut.provenance.tokens] == [models.N_CTX]
        assert any(str(full) in note and str(models.N_CTX) in note for note in cut.notes)


@each_family
def test_row_12_the_window_itself_fits(family, shell, lend):
    model = lend(family)
    ids = list(range(5, 5 + models.N_CTX))
    with harness.unharmed(model, shell):
        for name in ("attention", "tokens"):
            result = harness.worked(harness.ask("python", shell, ids_of(harness.valid(name, family), ids)))
            assert len(result.tokens) == models.N_CTX
            assert not any("cut" in note for note in result.notes)


@each_prompted
@each_family
def test_row_13_a_tensor_longer_than_the_context(name, family, shell, lend):
    model = lend(family)
    ids = torch.arange(5, 5 + models.N_CTX + 1)
    with harness.unharmed(model, shell):
        before = model.forwards
        for given in (ids, ids[None], ids.numpy(), ids.tolist(), Prompt(ids=tuple(ids.tolist()))):
            outcome = harness.ask("python", shell, ids_of(harness.valid(name, family), given))
            harness.refused(outcome, str(models.N_CTX + 1), str(models.N_CTX), "context window")
        assert model.forwards == before


def test_row_13_run_refuses_too(shell, lend):
    for family in harness.FAMILIES:
        model = lend(family)
        with harness.unharmed(model, shell), pytest.raises(ValueError, match=str(models.N_CTX)):
            model.run(list(range(5, 5 + models.N_CTX + 1)))


@each_prompted
@each_family
def test_row_14_ids_outside_the_vocabulary(name, family, shell, lend, monkeypatch):
    model = lend(family)
    last = model.geometry.d_vocab - 1
    with harness.unharmed(model, shell):
        before = model.forwards
        with monkeypatch.context() as patch:
            patch.setattr(passes, "forward", lambda *_, **__: pytest.fail("a forward ran"))
            for bad in (-1, last + 1, 2**31, 2**70, -(2**70)):
                outcome = harness.ask("python", shell, ids_of(harness.valid(name, family), [5, bad, 6]))
                harness.refused(outcome, str(bad), f"0–{last}")
            outcome = harness.ask("python", shell, ids_of(harness.valid(name, family), torch.tensor([[5, last + 1]])))
            harness.refused(outcome, str(last + 1), f"0–{last}")
        assert model.forwards == before


@each_prompted
def test_row_14_what_are_no_ids(name, shell, lend):
    model = lend("gpt2")
    takes_many = Prompts in harness.commands()[name].bodies  # to which these are two prompts
    with harness.unharmed(model, shell):
        for bad in (
            [0.5],
            [True],
            [None],
            *(([0.5, "a"],) if takes_many else (["a", "b"], [[1, 2], [3, 4]])),
            torch.tensor([0.5]),
            7,
            None,
            b"bytes",
            {1: 2},
        ):
            harness.refused(harness.ask("python", shell, ids_of(harness.valid(name), bad)), "prompt")
        for bad in (Prompt(ids=("a",)), Prompt(ids=(0.5,)), Prompt(text=7)):
            harness.refused(harness.ask("python", shell, ids_of(harness.valid(name), bad)))


@each_bodied
def test_row_14_a_tokenizer_that_gives_ids_the_model_lacks(name, shell, folder, clean_session, tmp_path):
    model = clean_session.load(folder("gpt2"), name="own")
    models.tokenizer(added=["OUTSIDE"]).save_pretrained(tmp_path)
    other = type(model.bridge.tokenizer).from_pretrained(tmp_path)
    with harness.unharmed(model, shell):
        model.bridge.tokenizer, own = other, model.bridge.tokenizer
        before = model.forwards
        harness.refused(harness.ask("magic", shell, harness.valid(name, text="Mary OUTSIDE")), "tokenizer")
        assert model.forwards == before
        model.bridge.tokenizer = own


@each_door
@each_prompted
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_row_15_bos_given_twice(name, family, door, shell, lend):
    model = lend(family)
    bos = model.tokens.bos_id
    with harness.unharmed(model, shell):
        once = harness.worked(harness.ask(door, shell, harness.valid(name, family, bos=True)))
        typed = harness.valid(name, family, text=models.BOS + harness.texts(family), bos=True)
        twice = harness.worked(harness.ask(door, shell, typed))
        assert twice.provenance.tokens[0].count(bos) == 1
        assert harness.answer(twice) == harness.answer(once)
        assert any("BOS" in note and "2 times" in note for note in twice.notes)
        assert not any("BOS" in note for note in once.notes)
        typed = harness.valid(name, family, text=3 * models.BOS + harness.texts(family))
        assert harness.worked(harness.ask(door, shell, typed)).provenance.tokens == once.provenance.tokens
        literal = harness.valid(name, family, text=2 * models.BOS + "a", bos=False)
        assert harness.worked(harness.ask(door, shell, literal)).provenance.tokens[0].count(bos) == 2
        ids = ids_of(harness.valid(name, family), [bos, bos, *once.provenance.tokens[0][1:]])
        from_ids = harness.worked(harness.ask("python", shell, ids))
        assert from_ids.provenance.tokens[0].count(bos) == 2, "ids are taken as they are"
        assert any("BOS" in note for note in from_ids.notes)


@pytest.mark.parametrize("name", [name for name in PROMPTED if harness.applies(name, "bert")])
def test_row_15_cls_and_sep_typed_around_a_text(name, shell, lend):
    model = lend("bert")
    with harness.unharmed(model, shell):
        once = harness.worked(harness.ask("magic", shell, harness.valid(name, "bert")))
        typed = harness.valid(name, "bert", text=f"[CLS]{harness.texts('bert')}[SEP]")
        twice = harness.worked(harness.ask("magic", shell, typed))
        assert harness.answer(twice) == harness.answer(once)
        assert any("[CLS]" in note for note in twice.notes)


@each_door
@each_prompted
def test_row_16_a_tokenizer_without_bos(name, door, shell, lend):
    model = lend("gpt2", bos=False)
    with harness.unharmed(model, shell):
        result = harness.worked(harness.ask(door, shell, harness.valid(name)))
        text = harness.texts("gpt2")
        plain = model.tokens.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert result.provenance.tokens == [plain]
        if hasattr(result, "tokens"):
            assert len(result.tokens) == len(plain)
            assert text.startswith(result.tokens[0])
            assert result.tokens[0]
        if hasattr(result, "pattern"):
            assert result.pattern.shape[-1] == len(plain)
            assert any(re.search(rf">[^<]*{result.tokens[0]}", shown) for shown in pictures(result)[1:])
        asked = harness.worked(harness.ask(door, shell, harness.valid(name, bos=True)))
        assert asked.provenance.tokens == [plain]
        assert any("no BOS" in note for note in asked.notes)


@each_door
@pytest.mark.parametrize("name", sorted(harness.CAUSAL))
def test_a_model_that_predicts_no_next_token_is_refused(name, door, shell, lend):
    model = lend("bert")
    with harness.unharmed(model, shell):
        before = model.forwards
        harness.refused(harness.ask(door, shell, harness.valid(name, "bert")), "both directions", "causal")
        assert model.forwards == before
