"""investigate: its twin by a naive loop, its numbers by separate calls, what it names by exact sweeps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import interp
import models
from interp.engine.model.load import Options, load
from interp.errors import InputError, Interrupted, Stopped
from interp.interface import registry
from interp.methods._shared.investigation import twin
from interp.methods._shared.investigation.controls import among
from interp.methods._shared.investigation.steps import typed
from interp.spec import Intervention, Prompt, Site
from interp.views.kit.text import escape

pytestmark = pytest.mark.usefixtures("one_thread")

STORE = "When Mary and John went to the store, John gave a drink to"
SWAPPED = "When Mary and John went to the store, Mary gave a drink to"
TOKENIZER = models.tokenizer()
TASKS = ("ioi", "induction", "facts", "greater-than", "gender-bias")


@pytest.fixture(autouse=True)
def _bundled(clean_session: Any) -> None:  # noqa: ARG001
    interp.load(device="cpu")


@pytest.fixture
def sharp(clean_session: Any) -> Any:
    """Return ``sharp(family)``: a small random model whose logits are far apart, as the current one."""

    def of(family: str) -> Any:
        made = getattr(models, family)(len(TOKENIZER))
        with torch.no_grad():
            made.get_output_embeddings().weight.mul_(30.0)
        held = load(made, tokenizer=TOKENIZER, name=family, options=Options(device="cpu"))
        clean_session.models[family], clean_session.current = held, family
        return held

    return of


def exact(**pairs: Any) -> list[str]:
    """Return the heads that an exact sweep of patching ranks first, by what they recover."""
    return [name for name, _, _ in interp.patch(site="z", by="head", **pairs).top(5)]


def named(result: Any) -> list[str]:
    return list(dict.fromkeys(one.about for one in result.account if one.part == "heads" and one.about))


# -- the bars ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_it_names_the_heads_that_exact_patching_ranks_first(task):
    result = interp.investigate(task=task, n=6)
    assert result.solved
    assert named(result) == exact(task=task, n=6)
    mlps = interp.patch(task=task, n=6, site="mlp_out", by=result.steps["MLPs"].by)
    told = [one for one in result.account if one.part == "MLPs"]
    assert [one.value for one in told] == pytest.approx([recovery for _, _, recovery in mlps.top(3)], abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize("task", ["ioi", "induction"])
def test_smollm2(task):
    result = interp.investigate(task=task, n=2)
    assert result.solved
    assert named(result) == exact(task=task, n=2)
    first = next(one for one in result.account if one.about)
    assert first.established
    report = next(one for one in result.account if one.step == "validate")
    assert report.established
    assert report.value > 0.1  # of random circuits none goes a thousandth


@pytest.mark.parametrize(
    ("prompt", "given"),
    [
        ("The cat sat on the mat. The purple", {"target": " Mary"}),
        ("The capital of France is", {"target": " Rome"}),
        (STORE, {"target": " John"}),
        (STORE, {"target": " John", "against": " Mary"}),
    ],
)
def test_what_is_not_solved_is_said(prompt, given):
    result = interp.investigate(prompt, **given)
    assert not result.solved
    assert list(result.steps) == ["predict"]
    assert [one.established for one in result.account] == [False]
    assert "nothing more is established" in result.account[0].text
    assert "not solved" in repr(result)
    assert result.components == ()
    assert result.margin < 0
    logits = interp.predict(prompt, top=3)
    assert f"{logits.top[0][2]:.2f}" in result.account[0].text


def test_pairs_that_are_not_solved():
    pairs = [
        (STORE, SWAPPED, " John", " Mary"),
        (STORE.replace("Mary", "Kate"), SWAPPED.replace("Mary", "Kate"), " John", " Kate"),
    ]
    result = interp.investigate(pairs=pairs)
    assert not result.solved
    assert "in 0 of 2 pairs" in result.account[0].text
    assert list(result.steps) == ["predict"]


def test_a_margin_that_is_rounding_alone_is_no_answer(clean_session):
    made = models.gpt2(len(TOKENIZER))
    with torch.no_grad():
        made.get_output_embeddings().weight.mul_(1e-3)
    clean_session.models["flat"] = load(made, tokenizer=TOKENIZER, name="flat", options=Options(device="cpu"))
    clean_session.current = "flat"
    result = interp.investigate("The capital of France is")
    assert not result.solved
    assert 0 < result.margin < 0.1
    assert "is not sure" in result.account[0].text


# -- the twin ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("against", [None, " John"])
def test_the_twin_is_the_best_of_its_candidates(against):
    result = interp.investigate(STORE, against=against, candidates=60)
    model = interp.model
    clean = model.run(STORE).logits[0, -1].float()
    target = result.target[1]
    found = []
    for one in result.candidates:  # each by a run of its own
        assert len(one.ids) == len(result.tokens)
        logits = model.run(list(one.ids)).logits[0, -1].float()
        shaped = [i for i in range(len(logits)) if i != target and model.tokens.string(i)[1:2].isupper()]
        names = [i for i in shaped if model.tokens.string(i)[0] == " " and model.tokens.string(i)[1:].isalpha()]
        wrong = result.against[1] if against else max(names, key=lambda index: float(logits[index]))
        assert one.against[1] == wrong
        found.append(float(clean[target] - clean[wrong]) - float(logits[target] - logits[wrong]))
    assert [one.moved for one in result.candidates] == pytest.approx(found, abs=1e-3)
    assert found[0] == max(found)
    assert model.encode(Prompt("".join(result.twin[1:]))).ids == result.candidates[0].ids
    assert (result.margin, result.twin_margin) == (result.candidates[0].clean, result.candidates[0].changed)
    said = next(one for one in result.account if one.part == "twin")
    assert said.value == pytest.approx(found[0], abs=1e-3)
    assert dict(said.controls)["the median exchange"] == pytest.approx(np.median(found[1:]), abs=1e-3)


def test_every_exchange_of_names_is_among_the_candidates():
    model = interp.model
    encoded = model.encode(Prompt(STORE))
    mary, john = (model.tokens.tokenizer(name, add_special_tokens=False)["input_ids"][0] for name in (" Mary", " John"))
    names = [n for n, index in enumerate(encoded.ids) if index in {mary, john}]
    single = {tuple(mary + john - index if n == at else index for n, index in enumerate(encoded.ids)) for at in names}
    both = tuple(mary + john - index if index in {mary, john} else index for index in encoded.ids)
    ids = {one.ids for one in interp.investigate(STORE, candidates=10**6, heads=1, verify=1).candidates}
    assert single | {both} <= ids


@pytest.mark.parametrize(
    ("text", "words"),
    [("The cat", "tokens and the twin"), (STORE, "the twin is the prompt itself")],
)
def test_a_twin_that_does_not_line_up_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        interp.investigate(STORE, twin=text)


def test_a_twin_of_ones_own():
    result = interp.investigate(STORE, twin=SWAPPED)
    assert result.candidates == ()
    assert result.against[0] == " John"
    assert result.steps["heads"].checks.corrupted[0] == result.twin
    patched = interp.patch(STORE, SWAPPED, answer=" Mary", wrong=" John")
    assert named(result)[0] == patched.top(1)[0][0]


def test_shapes_of_words():
    assert twin._shape(" 17") == (True, "number", 2)  # pyright: ignore[reportPrivateUsage]
    assert twin._shape("²") is None  # pyright: ignore[reportPrivateUsage]


# -- the numbers -------------------------------------------------------------------------------------------------------


def same(one: Any, other: Any) -> None:
    """Assert that two results hold the same numbers."""
    fields = {name: value for name, value in vars(one).items() if isinstance(value, np.ndarray)}
    for name, value in fields.items():
        np.testing.assert_allclose(value, getattr(other, name), atol=1e-4, rtol=1e-4, err_msg=name)
    assert one.summary() == other.summary()


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"texts": STORE}, {"task": "ioi", "n": 4}])
def test_every_step_is_a_call_and_a_cell(shell, given):
    result = interp.investigate(given["texts"]) if "texts" in given else interp.investigate(**given)
    assert not result.refused
    assert len(result.steps) == 11 - ("task" in given)
    for name, step in result.steps.items():
        assert step.provenance.technique in registry.commands()
        code = step.code().partition("  # first")[0]
        again = eval(code, {"interp": interp, "circuit": result.steps["circuit"]})
        same(step, again)
        ran = shell.run_cell(result.cells[name])
        assert ran.error_in_exec is None, result.cells[name]
        same(step, shell.user_ns[name])
    assert result.code_of("lens") == result.steps["lens"].code()


def test_controls_are_those_of_an_exact_sweep():
    result = interp.investigate(STORE, twin=SWAPPED, heads=3)
    recovery = interp.patch(STORE, SWAPPED, answer=" Mary", wrong=" John").recovery
    for one in (one for one in result.account if one.step == "heads" and one.about):
        layer, head = map(int, one.about.split("."))
        rest = np.sort(np.delete(np.abs(recovery).reshape(-1), layer * recovery.shape[1] + head))
        controls = dict(one.controls)
        assert one.value == pytest.approx(recovery[layer, head], abs=1e-5)
        assert controls["the median of the others"] == pytest.approx(np.median(rest), abs=1e-5)
        spread = np.median(np.abs(rest - np.median(rest)))
        fence = max(0.01, np.median(rest) + 3.5 * 1.4826 * spread)
        assert controls["where outliers begin"] == pytest.approx(fence, abs=1e-4)
        limit = max(controls["where outliers begin"], abs(controls.get("a random head of its layer", 0.0)))
        assert one.established == (abs(one.value) > limit)
        assert one.text.startswith("Not established") != one.established


def test_direct_effects_and_attention_are_those_of_the_commands():
    result = interp.investigate(STORE, twin=SWAPPED, heads=2)
    parts = interp.dla(STORE, answer=" Mary", wrong=" John")
    pattern = interp.attention(STORE)
    for one in result.account:
        layer, _, head = one.about.partition(".")
        if one.step == "dla":
            assert one.value == pytest.approx(parts.heads[int(layer), int(head)], abs=1e-4)
        if one.step == "attention":
            at = result.steps["places"].recovery[result.steps["places"].layers.index(int(layer)), int(head)]
            query = int(np.abs(at).argmax())
            assert one.value == pytest.approx(pattern.pattern[int(layer), int(head), query, 1:].max(), abs=1e-5)
            assert dict(one.controls)["uniform over tokens"] == pytest.approx(1 / (query + 1))


def test_other_components():
    assert among(np.array([[5.0, -1.0], [2.0, float("nan")]]), (0, 0)).median == 1.5
    still = among(np.zeros(9), (0,))
    assert (still.fence, still.count) == (0.01, 8)
    weak = 0.01 * np.arange(8)
    alone, beside = (among(np.array([0.9, *weak, *strong]), (0,)) for strong in ((), (0.8,)))
    assert 0.1 < beside.fence < 1.5 * alone.fence  # one strong one hides no other, as it would by a percentile


def test_intervals_need_several_pairs():
    one = interp.investigate(STORE, twin=SWAPPED)
    assert all(np.isnan([sentence.low, sentence.high]).all() for sentence in one.account)
    assert any(note.startswith("n = 1") for note in one.notes)
    several = interp.investigate(task="ioi", n=5)
    ranged = [
        one for one in several.account if one.step in {"predict", "removed", "dla", "validate"} or one.part == "MLPs"
    ]
    assert len(ranged) > 10
    assert all(one.low <= one.value <= one.high for one in ranged)
    assert all(f"[{one.low:.2f}, {one.high:.2f}]".replace("-", "−")[:4] in one.text for one in ranged)
    assert not any(note.startswith("n = 1") for note in several.notes)


# -- families, and what cannot be asked --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_families_against_a_hooked_loop(sharp, family):
    model = sharp(family)
    text, other = "When Mary and John went to the", "When John and John went to the"
    result = interp.investigate(text, twin=other, candidates=20)
    assert result.solved
    assert not result.refused
    right, wrong = result.target[1], result.against[1]

    def difference(logits: torch.Tensor) -> float:
        return float(logits[0, -1, right] - logits[0, -1, wrong])

    clean, changed = (model.encode(Prompt(one)) for one in (text, other))
    ends = [difference(model.run(list(one.ids)).logits) for one in (clean, changed)]
    assert (result.margin, result.twin_margin) == pytest.approx(ends, abs=1e-3)
    for one in (one for one in result.account if one.step == "heads" and one.about):
        layer, head = map(int, one.about.split("."))
        held = model.activations(clean, [Site("z", layer).hook_name])[Site("z", layer).hook_name][0, :, head]
        put = [Intervention(Site("z", layer), head=head, value=held)]
        patched = difference(model.run(list(changed.ids), put).logits)
        assert one.value == pytest.approx((patched - ends[1]) / (ends[0] - ends[1]), abs=1e-3)


def test_ids_without_a_tokenizer(clean_session):
    made = models.gpt2(len(TOKENIZER))
    with torch.no_grad():
        made.get_output_embeddings().weight.mul_(30.0)
    clean_session.models["bare"] = load(made, tokenizer=None, name="bare", options=Options(device="cpu"))
    clean_session.current = "bare"
    result = interp.investigate([5, 9, 30, 9, 7], candidates=12)
    assert result.solved
    assert len(result.candidates) == 12
    assert set(result.cells.values()) == {"", result.cells["validate"]}
    again = eval(result.steps["heads"].code(), {"interp": interp})
    same(result.steps["heads"], again)


def test_encoders_are_refused(lend):
    lend("bert")
    with pytest.raises(InputError, match="reads in both directions, and investigate is for causal models"):
        interp.investigate("Mary gave the [MASK] to John")


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        ([STORE, SWAPPED], {}, "one prompt; 2 were given"),
        (STORE, {"heads": 0}, "--heads 0 is too few"),
        (STORE, {"candidates": 0}, "--candidates 0 is too few"),
        (STORE, {"edges": 0}, "--edges 0 keeps nothing"),
        (STORE, {"target": " Mary", "against": " Mary"}, "they must differ"),
        (STORE, {"target": "Mary and John"}, "must be one"),
        (None, {"task": "ioi", "n": 4, "target": " Mary"}, "--target is for one prompt"),
        (None, {"task": "ioi", "n": 4, "twin": SWAPPED}, "--twin is for one prompt"),
        (", , ,", {}, "no word of the prompt can be exchanged"),
    ],
)
def test_what_cannot_be_asked(body, options, words):
    with pytest.raises(InputError, match=words):
        interp.investigate(*([] if body is None else [body]), **options)


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_steps_have_their_own_provenance_and_can_be_opened():
    result = interp.investigate(STORE, twin=SWAPPED)
    of = {name: step.provenance for name, step in result.steps.items()}
    assert of["heads"].technique == "patch"
    assert of["heads"].arguments["site"] == "z"
    assert result.provenance.technique == "investigate"
    assert result.provenance.forwards >= sum(one.forwards for one in of.values())
    assert all(one.fingerprint == result.provenance.fingerprint for one in of.values())
    assert result.steps["heads"].likeliest((2, 0))[0][0].strip()
    assert "twin=" in result.code()
    same(result.steps["heads"], interp.investigate(STORE, twin=SWAPPED).steps["heads"])


def test_it_is_saved_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = interp.investigate(STORE, twin=SWAPPED)
    page = result.save("found.html").read_text("utf-8")
    assert "<script" not in page
    for one in result.account:
        assert escape(one.text) in page
    for cell in result.cells.values():
        assert escape(cell.split("\n")[0]) in page
    held = json.loads(result.save("found.json").read_text("utf-8"))
    assert [one["text"] for one in held["account"]] == [one.text for one in result.account]
    assert held["steps"]["heads"]["recovery"] == result.steps["heads"].recovery.tolist()
    assert list(held["steps"]) == list(result.steps)
    with np.load(result.save("found.npz")) as arrays:
        np.testing.assert_array_equal(arrays["steps.heads.recovery"], result.steps["heads"].recovery)
        np.testing.assert_array_equal(arrays["steps.circuit.kept"], result.steps["circuit"].kept)
    assert len(result.to_frame()) == len(result.account)


@pytest.mark.parametrize("at", ["MLPs", "circuit"])
def test_interrupts_keep_the_steps_that_are_done(monkeypatch, at):
    technique = {"MLPs": "patch", "circuit": "circuit"}[at]
    command = registry.find(technique)
    count = 0

    def stop(*given: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if technique == "circuit" or count == 2:
            raise KeyboardInterrupt
        return command.function(*given, **options)

    monkeypatch.setitem(registry._commands, technique, replace(command, function=stop))  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(Interrupted) as stopped:
        interp.investigate(STORE, twin=SWAPPED)
    result = stopped.value.result
    assert at not in result.steps
    assert "heads" in result.steps
    assert any(one.about for one in result.account)
    assert repr(result).endswith("partial)")
    assert interp.model.operation is None
    assert interp.predict(STORE).top[0][0] == " Mary"


def test_an_interrupt_before_anything_is_done(monkeypatch):
    def stop(*_given: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(twin, "search", stop)
    with pytest.raises(Stopped, match="before there was anything to keep"):
        interp.investigate(STORE)


def test_a_step_that_is_not_possible_is_named(monkeypatch):
    command = registry.find("circuit")

    def refuse(*_given: Any, **_options: Any) -> Any:
        raise InputError("no circuits today")

    monkeypatch.setitem(registry._commands, "circuit", replace(command, function=refuse))  # pyright: ignore[reportPrivateUsage]
    result = interp.investigate(STORE, twin=SWAPPED)
    assert result.refused == {"circuit": "no circuits today"}
    assert any("no circuits today" in note for note in result.notes)
    assert "circuit" not in {one.part for one in result.account}
    assert "no circuits today" in result.html()


def test_cells_that_cannot_be_typed():
    assert typed("patch", {"clean": "a\nb", "corrupted": "c"}, "x") == ""
    assert typed("lens", {"prompt": "a", "target": 'say "b"'}, "x") == ""
    assert typed("lens", {"prompt": "a", "target": 462}, "x") == ""
    assert typed("predict", {"prompt": "a", "bos": False}, "x") == "%%interp predict --no-bos -o x\na"
