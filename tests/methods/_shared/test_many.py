"""Read-outs over many prompts: the means are those of single calls, whatever runs together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
import zoo
from interp import Intervention, Site
from interp.errors import InputError, Interrupted
from interp.methods._shared.intervals import share_interval
from interp.methods._shared.many.result import spread
from interp.prompts import as_prompt

FAMILIES = ["gpt2", "llama", "neox", "gemma2", "bloom"]
# Of two lengths, and in no order; the words are those of the tiny models' vocabulary.
TEXTS = [
    "Mary and John went to the store",
    "When Mary and John went to the store, John gave a drink to",
    "Mary gave a drink to",
    "John and Mary went to the store",
]
CAPITALS = (" Paris", " Rome", " Madrid", " Tokyo")
CHANGES = [
    Intervention(Site("z", 0), head=1, mode="zero"),
    Intervention(Site("resid_pre", 1), position=-1, mode="add", value=0.3),
]


def changes(named: bool) -> dict[str, Any]:
    return {"interventions": CHANGES} if named else {}


def fresh() -> None:
    """Forget what was computed, so that the next call computes it again."""
    interp.model.store.clear()


@pytest.fixture
def bundled(clean_session: Any) -> Any:
    return clean_session.load(device="cpu")


@pytest.fixture(params=FAMILIES)
def tiny(request: pytest.FixtureRequest, lend: Callable[[str], Any]) -> Any:
    return lend(request.param)


def dla(prompt: Any, **more: Any) -> Any:
    return interp.dla(prompt, answer=" Mary", wrong=" John", **more)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("changed", [False, True])
def test_dla_is_the_mean_of_single_calls(changed: bool) -> None:
    many = dla(TEXTS, **changes(changed))
    fresh()
    alone = [dla(text, **changes(changed)) for text in TEXTS]
    each = np.array([list(one.contributions.values()) for one in alone])
    assert many.components == tuple(alone[0].contributions)
    np.testing.assert_allclose(many.contributions, each, atol=1e-5)
    np.testing.assert_allclose(many.spread.mean, each.mean(0), atol=1e-5)
    np.testing.assert_allclose(many.spread.standard_error, each.std(0, ddof=1) / 2, atol=1e-5)
    np.testing.assert_allclose(many.heads.mean(0), np.mean([one.heads for one in alone], 0), atol=1e-5)
    np.testing.assert_allclose(many.totals, many.logits, atol=1e-3)
    np.testing.assert_allclose(many.logits, [one.logit for one in alone], atol=1e-5)
    assert many.lengths.tolist() == [len(one.tokens) for one in alone]
    assert many.by == ""  # of several lengths, and without spans, nothing lines up
    assert many.interventions == len(CHANGES) * changed


def test_dlas_neurons_are_the_means_over_prompts(tiny: Any) -> None:
    every = max(tiny.neurons(layer) for layer in range(tiny.geometry.n_layers)) * tiny.geometry.n_layers
    many = dla(TEXTS, top=every)
    alone = [dict(dla(text, top=every).neurons) for text in TEXTS]
    for name, mean, error in many.neurons:
        values = np.array([one[name] for one in alone])
        assert mean == pytest.approx(values.mean(), abs=1e-5)
        assert error == pytest.approx(values.std(ddof=1) / 2, abs=1e-5)


def test_a_change_of_the_stream_is_a_part_of_its_own(tiny: Any) -> None:
    more = np.random.default_rng(0).normal(size=tiny.geometry.d_model)
    changed = [Intervention(Site("resid_post", 0), mode="add", value=more)]
    one = dla(TEXTS[0], interventions=changed)
    assert abs(one.contributions["interventions"]) > 1e-4
    assert one.total == pytest.approx(one.logit, abs=1e-6)
    # What a head writes is its part: taken away it is nothing, and no change of the stream is left.
    zeroed = dla(TEXTS[0], interventions=[Intervention(Site("z", 0), head=1, mode="zero")])
    assert zeroed.contributions["0.1"] == 0
    assert zeroed.contributions["interventions"] == pytest.approx(0, abs=1e-3)
    logits = tiny.run(TEXTS[0], [Intervention(Site("z", 0), head=1, mode="zero")]).logits[0, -1]
    assert zeroed.logit == pytest.approx(float(logits[zeroed.answer[1]] - logits[zeroed.wrong[1]]), abs=1e-4)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("changed", [False, True])
def test_the_lens_is_the_mean_of_single_calls(changed: bool) -> None:
    asked = {"target": " Mary", "wrong": " John", **changes(changed)}
    many = interp.lens(TEXTS, **asked)
    fresh()
    alone = [interp.lens(text, **asked) for text in TEXTS]
    assert many.places == ("END",)
    for name, arrays in {
        "probability": [one.target_probability for one in alone],
        "rank": [one.target_rank for one in alone],
        "difference": [one.difference for one in alone],
        "kl": [one.kl for one in alone],
    }.items():
        each = np.array([array[:, -1:] for array in arrays], np.float64)
        found = many.spread(name)
        np.testing.assert_allclose(found.mean, each.mean(0), atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found.standard_error, each.std(0, ddof=1) / 2, atol=1e-5, err_msg=name)


@pytest.mark.usefixtures("tiny")
def test_the_lens_over_one_length_has_every_position() -> None:
    texts = [TEXTS[0], TEXTS[3]]
    many = interp.lens(texts, target=" Mary")
    alone = [interp.lens(text, target=" Mary") for text in texts]
    assert many.by == "position"
    np.testing.assert_allclose(many.target_probability, [one.target_probability for one in alone], atol=1e-5)
    same = [a == b for a, b in zip(alone[0].tokens, alone[1].tokens, strict=True)]
    named = [token if alike else f"({n})" for n, (token, alike) in enumerate(zip(alone[0].tokens, same, strict=True))]
    assert list(many.places) == named
    assert 0 < sum(same) < len(same)
    assert interp.lens(TEXTS, position=-2).places == ("(−2)",)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("changed", [False, True])
def test_attention_is_the_mean_of_single_patterns(changed: bool) -> None:
    texts = [TEXTS[0], TEXTS[3], TEXTS[0]]
    many = interp.attention(texts, **changes(changed))
    fresh()
    each = np.array([interp.attention(text, **changes(changed)).pattern for text in texts], np.float64)
    np.testing.assert_allclose(many.spread.mean, each.mean(0), atol=1e-5)
    np.testing.assert_allclose(many.spread.standard_error, each.std(0, ddof=1) / np.sqrt(3), atol=1e-5)
    np.testing.assert_allclose(many.averaged().pattern, each.mean(0), atol=1e-5)
    np.testing.assert_allclose(many.head("1.0").mean, each.mean(0)[1, 0], atol=1e-5)


def test_attention_by_span_is_summed_over_keys_and_averaged_over_queries(tiny: Any) -> None:
    texts = ["[Mary]{A} and [John]{B} went to the store", "When [Mary and John]{A} went to the [store]{B}, John gave"]
    spans = [tiny.tokens.encode(as_prompt(text)).spans for text in texts]
    assert len(spans[1]["A"]) > len(spans[0]["A"])
    where = [(own["A"], own["B"]) for own in spans]
    many = interp.attention(texts)
    assert many.by == "span"
    assert many.places == ("A", "B", "END", "elsewhere")
    for number, (text, (first, second)) in enumerate(zip(texts, where, strict=True)):
        pattern = interp.attention(text).pattern
        last = (pattern.shape[-1] - 1,)
        rest = tuple(n for n in range(pattern.shape[-1]) if n not in (*first, *second, *last))
        for a, query in enumerate((first, second, last, rest)):
            for b, key in enumerate((first, second, last, rest)):
                expected = pattern[:, :, list(query)][..., list(key)].sum(-1).mean(-1)
                np.testing.assert_allclose(many.each[number, :, :, a, b], expected, atol=1e-5)
    np.testing.assert_allclose(many.each.sum(-1), 1, atol=1e-5)


@pytest.mark.usefixtures("tiny")
def test_what_lines_up_nowhere_is_refused_with_what_to_type() -> None:
    with pytest.raises(InputError, match=r"\[Mary\]\{IO\}, or type --by end"):
        interp.attention(TEXTS)
    assert interp.attention(TEXTS, by="end").places[0] == "before"
    with pytest.raises(InputError, match="must have one length"):
        interp.saliency(TEXTS, by="position")
    with pytest.raises(InputError, match="no spans in common"):
        interp.saliency(TEXTS, by="span")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("method", ["ig", "gradient-input", "rollout"])
@pytest.mark.parametrize("changed", [False, True])
def test_saliency_is_the_mean_of_single_calls(method: str, changed: bool) -> None:
    asked: dict[str, Any] = {"method": method, **changes(changed)}
    if method != "rollout":
        asked |= {"answer": " Mary", "wrong": " John", "steps": 8}
    many = interp.saliency(TEXTS, **asked)
    fresh()
    alone = [interp.saliency(text, **asked).attribution for text in TEXTS]
    assert many.by == "end"
    common = min(len(one) for one in alone)
    each = np.array([[one[: len(one) - common].sum(), *one[len(one) - common :]] for one in alone])
    np.testing.assert_allclose(many.attribution, each, atol=1e-5)
    np.testing.assert_allclose(many.spread.mean, each.mean(0), atol=1e-5)
    np.testing.assert_allclose(many.spread.standard_error, each.std(0, ddof=1) / 2, atol=1e-5)
    np.testing.assert_allclose(np.nansum(many.each_token, 1), [one.sum() for one in alone], atol=1e-5)


def test_saliency_with_a_change_explains_the_changed_run(tiny: Any) -> None:
    found = interp.saliency(TEXTS[0], answer=" Mary", interventions=CHANGES, steps=16)
    logits = tiny.run(TEXTS[0], CHANGES).logits[0, -1]
    assert found.value == pytest.approx(float(logits[found.answer[1]]), abs=1e-3)
    assert found.relative_gap < 0.1


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("changed", [False, True])
def test_predict_is_the_mean_of_single_calls(changed: bool) -> None:
    given = [" Mary", " John", "Mary and John", " Mary"]
    many = interp.predict(TEXTS, answer=given, **changes(changed))
    fresh()
    alone = [interp.predict(text, answer=own, **changes(changed)) for text, own in zip(TEXTS, given, strict=True)]
    np.testing.assert_allclose(many.logprob, [one.answer_logprob for one in alone], atol=1e-5)
    np.testing.assert_allclose(many.entropy, [one.entropy for one in alone], atol=1e-5)
    assert many.rank.tolist() == [int(one.answer_ranks[0]) for one in alone]
    chances = np.exp([one.answer_logprob for one in alone])
    assert float(many.spread.mean) == pytest.approx(chances.mean(), abs=1e-5)
    assert float(many.spread.standard_error) == pytest.approx(chances.std(ddof=1) / 2, abs=1e-5)
    assert many.accuracy == np.mean([one.top[0][1] == one.answer_ids[0] for one in alone])
    np.testing.assert_allclose(many.probabilities[:, 0], [one.top[0][2] for one in alone], atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3_moe", "granite", "mpt", "olmo2", "falcon"])
def test_prompts_that_run_together_are_as_alone_in_the_zoo(name: str, clean_session: Any) -> None:
    clean_session.load(zoo.FAMILIES[name](), tokenizer=zoo.tokenizer(name), name=name, device="cpu")
    many = interp.lens(TEXTS, target=" Mary")
    fresh()
    alone = [interp.lens(text, target=" Mary").target_probability[:, -1:] for text in TEXTS]
    np.testing.assert_allclose(many.target_probability, alone, atol=1e-5)


def test_a_bidirectional_model_answers_at_its_mask(lend: Callable[[str], Any]) -> None:
    lend("bert")
    texts = ["[MASK] and John went to the store", "When Mary and [MASK] went to the store, John gave a drink"]
    many = interp.predict(texts, answer="Mary")
    assert many.positions.tolist() == [interp.predict(text).position for text in texts]
    expected = [interp.predict(text, answer="Mary").answer_logprob for text in texts]
    np.testing.assert_allclose(many.logprob, expected, atol=1e-5)
    parts = interp.dla(texts, answer="Mary")
    np.testing.assert_allclose(parts.totals, [interp.dla(text, answer="Mary").total for text in texts], atol=1e-5)
    with pytest.raises(InputError, match=r"prompt 1: .*put one"):
        interp.predict([texts[0], "Mary and John"])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("command", ["dla", "lens", "attention", "saliency", "predict"])
def test_a_list_of_one_is_as_the_one(command: str) -> None:
    many = getattr(interp, command)([TEXTS[0]])
    one = getattr(interp, command)(TEXTS[0])
    assert many.n == 1
    array, alone = {
        "dla": lambda: (many.contributions[0], np.array(list(one.contributions.values()))),
        "lens": lambda: (many.target_probability[0], one.target_probability),
        "attention": lambda: (many.each[0], one.pattern),
        "saliency": lambda: (many.attribution[0], one.attribution),
        "predict": lambda: (many.probabilities[0], np.array([p for _, _, p in one.top])),
    }[command]()
    np.testing.assert_allclose(array, alone, atol=1e-5)
    assert np.isnan(spread(np.asarray(array)[None]).standard_error).all()
    assert command in repr(many.provenance.technique)


@pytest.mark.usefixtures("bundled")
def test_a_tasks_answers_and_slots_are_used() -> None:
    pairs = interp.task("ioi", n=6).pairs
    by_task, by_pairs = interp.dla(task="ioi", n=6), interp.dla(pairs=pairs)
    np.testing.assert_array_equal(by_task.contributions, by_pairs.contributions)
    assert [string for string, _ in by_task.answers] == [pair.answer[0] for pair in pairs]
    assert [string for string, _ in by_task.wrongs] == [pair.wrong[0] for pair in pairs]
    assert by_task.places == ("io", "s1", "s2", "end", "elsewhere")
    np.testing.assert_allclose(by_task.per_place.sum(-1), by_task.heads, atol=1e-5)
    assert by_task.source == "ioi"
    one = interp.dla(pairs[2].clean, answer=pairs[2].answer[0], wrong=pairs[2].wrong[0])
    np.testing.assert_allclose(by_task.contributions[2], list(one.contributions.values()), atol=1e-5)
    assert interp.saliency(task="ioi", n=4, steps=4).metric == "logit-diff"
    assert interp.lens(task="ioi", n=4).places == ("io", "s1", "s2", "end")
    sets = interp.predict(task="greater-than", n=4)  # each prompt has a set of answers
    for n, pair in enumerate(interp.task("greater-than", n=4).pairs):
        chances = {token: chance for token, _, chance in interp.predict(pair.clean, top=10**6).top}
        assert sets.probability[n] == pytest.approx(sum(chances[answer] for answer in pair.answer), abs=1e-5)
    with pytest.raises(InputError, match="of one token"):
        interp.dla(task="greater-than", n=4)


def test_every_way_of_giving_prompts_is_the_same(bundled: Any, tmp_path: Path, shell: Any) -> None:
    texts = [f"The capital of {country} is" for country in ("France", "Italy", "Spain", "Japan")]
    rows = [{"said": text, "answer": answer} for text, answer in zip(texts, CAPITALS, strict=True)]
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "prompts.csv", index=False)
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    expected = interp.predict(texts, answer=[row["answer"] for row in rows])
    assert expected.accuracy == 1.0
    for found in (
        interp.predict(table, column="said"),
        interp.predict(tmp_path / "prompts.csv", column="said"),
        interp.predict(text=str(tmp_path / "prompts.jsonl"), column="said"),
        shell.run_cell(f'%interp predict --text "{tmp_path}/prompts.csv" --column said').result,
    ):
        np.testing.assert_allclose(found.logprob, expected.logprob, atol=1e-5)
    plain = interp.predict(texts)
    for found in (
        interp.predict(table["said"]),
        interp.predict([interp.Prompt(text) for text in texts]),
        interp.predict(np.array(texts)),
        interp.predict([list(bundled.tokens.encode(interp.Prompt(text)).ids) for text in texts]),
    ):
        np.testing.assert_allclose(found.probabilities, plain.probabilities, atol=1e-5)
    first = shell.run_cell(f'%interp predict --text "{tmp_path}/prompts.csv" --column said -n 2').result
    assert first.n == 2
    assert first.source == "prompts.csv"


@pytest.mark.usefixtures("bundled")
def test_cells(shell: Any) -> None:
    np.testing.assert_array_equal(
        shell.run_cell("%interp dla --task ioi -n 4").result.contributions, interp.dla(task="ioi", n=4).contributions
    )
    assert shell.run_cell("%interp lens ioi --n 4").result.n == 4
    pair = "clean: The capital of France is\ncorrupted: The capital of Italy is\nanswer: Paris\nwrong: Rome"
    found = shell.run_cell(f"%%interp dla\n{pair}\n\n{pair}").result
    assert found.answers == ((" Paris", found.answers[0][1]),) * 2
    assert found.wrongs[0][0] == " Rome"
    # A prompt with such a line in it is a prompt.
    asked = shell.run_cell("%%interp predict\nQuestion: where?\nAnswer:").result
    assert asked.tokens[-1] == ":"
    shell.user_ns["edits"] = CHANGES
    changed = shell.run_cell("%interp predict --interventions edits --task ioi --n 4").result
    assert changed.interventions == 2
    assert changed.provenance.path == "hooked: interventions"


@pytest.mark.usefixtures("bundled")
def test_what_a_call_gives_comes_back_as_code() -> None:
    for made in (interp.dla(task="ioi", n=4, seed=3), interp.predict(["The cat sat", "The dog"], answer=" on")):
        again = eval(made.code(), {"interp": interp})
        np.testing.assert_array_equal(again.numbers, made.numbers)
        assert again.prompts == made.prompts


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: interp.dla([], answer=" a"), "empty"),
        (lambda: interp.dla(["a", "b"], answer=[" a", " b", " c"]), "3 answers do not fit 2 prompts"),
        (lambda: interp.dla("a", "b"), "put them into a list"),
        (lambda: interp.dla("a", task="ioi"), "one of them"),
        (lambda: interp.dla("a", n=3), "--n is about a task's prompts"),
        (lambda: interp.dla("a", by="end"), "leave it out for one"),
        (lambda: interp.dla(["a", ""]), "prompt 1: "),
        (lambda: interp.saliency(["a", "b"], counterfactual="c"), "of one prompt"),
        (lambda: interp.lens(["The cat sat", "The"], position=3), "position 3"),
        (
            lambda: interp.dla(["a", "b"], interventions=[Intervention(Site("z", 99), mode="zero")]),
            "prompt 0: no layer 99",
        ),
        (lambda: interp.predict([3.5]), "prompt"),
        (lambda: interp.predict(text="nowhere.csv"), "nowhere.csv"),
    ],
)
def test_mistakes_are_said_in_one_line(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


@pytest.mark.parametrize("command", ["dla", "lens", "attention", "saliency", "predict"])
def test_an_interrupt_keeps_the_prompts_that_were_read(
    command: str, bundled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(interp, command)(task="ioi", n=6)
    monkeypatch.setattr("interp.engine.memory.ROWS", 30)  # two prompts at a time
    fresh()
    seen = 0

    def stop(done: int, total: int) -> None:
        nonlocal seen
        if total == 6 and done == 3:
            seen = done
            raise KeyboardInterrupt

    monkeypatch.setattr(type(bundled), "on_step", lambda _, done, total, *__: stop(done, total))
    with pytest.raises(Interrupted) as stopped:
        getattr(interp, command)(task="ioi", n=6)
    part = stopped.value.result
    assert seen == 3
    assert part.numbers.tolist() == [0, 1, 2]
    assert part.notes[0] == "partial: interrupted after 3 of 6 prompts"
    assert part.prompts == whole.prompts[:3]


@pytest.mark.usefixtures("bundled")
def test_prompts_are_run_together_and_their_activations_kept() -> None:
    fresh()
    many = interp.attention(task="ioi", n=8)
    assert many.provenance.forwards == 1
    assert interp.attention(task="ioi", n=8).provenance.forwards == 0
    pairs = interp.task("ioi", n=8).pairs
    assert interp.attention(pairs[3].clean).provenance.forwards == 0
    drawn = interp.dla(task="ioi", n=4, interventions=[Intervention(Site("z", 0), mode="noise", value=1.0)])
    assert drawn.provenance.forwards == 4  # noise is drawn for what runs together: each prompt runs alone


@pytest.mark.usefixtures("bundled")
def test_intervals_of_shares_hold() -> None:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        for count in (4, 20):
            ends = np.array([share_interval(hits, count) for hits in range(count + 1)])
            hits = rng.binomial(count, share, 4000)
            covered = (ends[hits, 0] <= share) & (share <= ends[hits, 1])
            assert covered.mean() >= 0.945


@pytest.mark.usefixtures("bundled")
def test_results_are_saved_and_shown(tmp_path: Path) -> None:
    for name in ("dla", "lens", "attention", "saliency", "predict"):
        found = getattr(interp, name)(task="ioi", n=5)
        for suffix in ("json", "npz", "html", "svg"):
            assert found.save(tmp_path / f"{name}.{suffix}").stat().st_size > 0
        with np.load(tmp_path / f"{name}.npz") as kept:
            np.testing.assert_array_equal(kept["numbers"], found.numbers)
        assert len(found.to_frame()) % 5 == 0 or name == "attention"
        assert "over" in repr(found) or "prompts" in repr(found)
        assert "95 % interval" in found.html()


@pytest.mark.usefixtures("smollm2")
@pytest.mark.real
def test_smollm2_on_indirect_objects() -> None:
    found = interp.predict(task="ioi", n=10)
    parts = interp.dla(task="ioi", n=10)
    pairs = interp.task("ioi", n=10).pairs
    alone = [interp.dla(pair.clean, answer=pair.answer[0], wrong=pair.wrong[0]) for pair in pairs[:3]]
    each = [list(one.contributions.values()) for one in alone]
    np.testing.assert_allclose(parts.contributions[:3], each, atol=1e-4)
    assert found.accuracy is not None
    assert found.accuracy >= 0.5
    assert float(parts.spread.mean.sum()) == pytest.approx(float(parts.logits.mean()), abs=1e-2)
