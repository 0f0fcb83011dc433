"""A circuit's report: every number from its definition on hooked runs, and what it says of models that do a task."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import interp
from engine.circuits.test_subgraph import Naive, case
from interp.engine.circuits.subgraph import Subset
from interp.errors import InputError, Interrupted
from interp.methods._shared.circuit import choice
from interp.methods._shared.circuit.result import ONE_MEAN, CircuitResult
from interp.methods.circuits.validate import REMOVABLE, CircuitReport, _p_value, validated
from interp.spec import Pair, Prompt
from methods.patching.test_patch import Size, build, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 5e-5
ONE = ((5, 11, 64, 31, 8, 40), (5, 11, 23, 31, 8, 40))
FIRST = ((51, 11, 23, 31, 9, 40), (50, 11, 23, 31, 8, 40))
PAIRS = [Pair(Prompt(ids=clean), Prompt(ids=corrupted), (7, 12), (9,)) for clean, corrupted in (ONE, FIRST)]


def found(size: int = 25, pairs: Sequence[Pair] = PAIRS, **options: Any) -> CircuitResult:
    return interp.circuit(pairs=pairs, edges=size, **options)


@pytest.fixture
def bundled(clean_session: Any) -> Any:
    return clean_session.load()


# -- every number, from its definition -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "ablation"), [("gpt2", "corrupted"), ("llama", "mean"), ("neox", "zero")])
def test_the_numbers_are_those_of_the_hooked_runs(kind: str, ablation: str, use: Any) -> None:
    model = use(build(kind, Size(layers=3)))
    circuit = found(30, ablation=ablation)
    report = interp.validate(circuit, random=4, top=6)
    cases = [case(ONE), case(FIRST)]
    subset = model.operate("circuit", {}, lambda _: Subset(model, cases, ablation))
    naive = Naive(model, subset, cases)

    def runs(mask: Any) -> np.ndarray:
        return np.array([naive(n, torch.tensor(mask)) for n in range(2)])

    whole, nothing = runs(circuit.exists), runs(circuit.exists & False)
    alone, without = runs(circuit.kept), runs(circuit.exists & ~circuit.kept)
    for ours, theirs in (
        (report.whole, whole),
        (report.nothing, nothing),
        (report.alone, alone),
        (report.without, without),
    ):
        assert np.abs(ours - theirs).max() < BOUND
    span = (whole - nothing).mean()
    assert report.faithfulness == pytest.approx((alone - nothing).mean() / span, abs=1e-3)
    assert report.left == pytest.approx((without - nothing).mean() / span, abs=1e-3)
    assert report.per_pair == pytest.approx((alone - nothing) / (whole - nothing), rel=1e-3, abs=1e-3)
    at = {name: n for n, name in enumerate(circuit.writers)}
    to = {name: n for n, name in enumerate(circuit.readers)}
    assert len(report.marginal_edges) == 6
    strongest = {f"{edge.writer} → {edge.reader}" for edge in circuit.edges[:6]}
    assert set(report.marginal_edges) == strongest
    for name, value in zip(report.marginal_edges[:2], report.marginal[:2], strict=True):
        writer, reader = name.split(" → ")
        mask = circuit.kept.copy()
        mask[at[writer], to[reader]] = False
        assert value == pytest.approx((alone - runs(mask)).mean() / span, abs=1e-3)
    assert list(report.marginal) == sorted(report.marginal, reverse=True)
    assert set(report.removable) == {
        name for name, value in zip(report.marginal_edges, report.marginal, strict=True) if value < REMOVABLE
    }
    chance = np.random.default_rng(report.seed)
    masks = [choice.by_chance(circuit, chance) for _ in range(4)]
    assert report.random[0] == pytest.approx((runs(masks[0]) - nothing).mean() / span, abs=1e-3)
    assert report.random_sizes.tolist() == [report.edges] * 4
    beaten = sum(abs(1 - value) <= abs(1 - report.faithfulness) for value in report.random)
    assert report.p_value == pytest.approx((1 + beaten) / 5)
    # The curve and its areas.
    assert (report.sizes[0], report.curve[0], report.sizes[-1]) == (0, 0.0, circuit.exists.sum())
    assert report.curve[-1] == pytest.approx(1.0)
    assert report.curve[list(report.sizes).index(report.edges)] == pytest.approx(report.faithfulness)
    middle = len(report.sizes) // 2
    mask = choice.of_size(circuit, int(report.sizes[middle]))
    if report.sizes[middle] != report.edges:
        assert report.curve[middle] == pytest.approx((runs(mask) - nothing).mean() / span, abs=1e-3)
    # CPR and CMD as MIB's circuit track has them.
    area, gap = by_mib(circuit, lambda mask: float((runs(mask) - nothing).mean() / span))
    assert (report.cpr, report.cmd) == (pytest.approx(area, abs=1e-3), pytest.approx(gap, abs=1e-3))


def by_mib(circuit: CircuitResult, faithfulness: Callable[[Any], float]) -> tuple[float, float]:
    """MIB's protocol, edge by edge: the first int(share · edges), less what leads nowhere, without a point at zero."""
    shares = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    edges = [(w, r) for w in range(len(circuit.writers)) for r in range(len(circuit.readers)) if circuit.exists[w, r]]
    found: list[list[float]] = []
    for size in (float, abs):
        ranked = sorted(edges, key=lambda edge: -size(circuit.scores[edge]))
        values: list[float] = []
        for share in shares:
            kept = set(ranked[: int(share * len(edges))])
            while True:
                fed = {name for _, r in kept for name in circuit.reading(circuit.readers[r])}
                used = {circuit.writers[w] for w, _ in kept}
                left = {
                    (w, r)
                    for w, r in kept
                    if circuit.writers[w] in fed | {"embed"}
                    and (circuit.readers[r] == "logits" or used & set(circuit.reading(circuit.readers[r])))
                }
                if left == kept:
                    break
                kept = left
            mask = np.zeros_like(circuit.exists)
            for edge in kept:
                mask[edge] = True
            values.append(faithfulness(mask))
        found.append(values)
    area = gap = 0.0
    for n in range(len(shares) - 1):
        step = shares[n + 1] - shares[n]
        area += step * (found[0][n] + found[0][n + 1]) / 2
        gap += step * (abs(1 - found[1][n]) + abs(1 - found[1][n + 1])) / 2
    return area, gap


@pytest.mark.usefixtures("bundled")
def test_the_areas_of_the_bundled_model_are_those_of_mibs_protocol() -> None:
    """Known from code other than this: 1.009 and 0.035 (with a point at zero they were 0.972 and 0.028)."""
    report = interp.validate(interp.circuit(task="ioi", n=6, steps=5), on="same", random=0, top=0)
    assert (report.cpr, report.cmd) == (pytest.approx(1.009, abs=2e-3), pytest.approx(0.035, abs=2e-3))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_the_whole_model_is_faithful_and_nothing_is_left(kind: str, use: Any) -> None:
    use(build(kind))
    circuit = found(pairs=[*PAIRS, *PAIRS])
    report = interp.validate(replace(circuit, kept=circuit.exists), random=0, top=0)
    assert report.faithfulness == pytest.approx(1.0, abs=1e-4)
    assert report.left == pytest.approx(0.0, abs=1e-4)
    assert report.faithfulness_interval == pytest.approx([1.0, 1.0], abs=1e-4)
    assert (report.chance(), len(report.marginal)) == ("not run", 0)
    assert np.isnan(report.p_value)
    assert "random circuits were not run" in report.text()


def test_stability_of_pairs_that_agree_and_of_pairs_that_do_not(use: Any) -> None:
    use(build("gpt2", Size(layers=3)))
    same = interp.validate(found(pairs=[PAIRS[0]] * 3), random=0, top=0)
    assert same.stability == pytest.approx(np.ones(len(same.stability)))
    circuit = found()
    mixed = interp.validate(circuit, random=0, top=0)
    chance, worst = np.random.default_rng(mixed.seed), 1.0
    for n in range(3):
        share = chance.multinomial(2, [0.5, 0.5]) / 2
        scores = share[0] * circuit.per_pair[0].astype(float) + share[1] * circuit.per_pair[1].astype(float)
        mask = choice.of_size(circuit, int(circuit.kept.sum()), scores)
        expected = (mask & circuit.kept).sum() / (mask | circuit.kept).sum()
        assert mixed.stability[n] == pytest.approx(expected)
        worst = min(worst, expected)
    assert worst < 1
    alone = interp.validate(found(pairs=PAIRS[:1]), random=0, top=0)
    assert len(alone.stability) == 0
    assert np.isnan(alone.faithfulness_interval).all()
    assert "there is one pair" in alone.text()


def test_acdc_has_no_stability_and_says_why(use: Any) -> None:
    use(build("gpt2"))
    report = interp.validate(found(method="acdc"), random=3)
    assert len(report.stability) == 0
    assert "ACDC scores no pair by itself" in report.text()
    assert (report.random_sizes == report.edges).all()


# -- random circuits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_random_circuits_are_of_the_same_size_and_connected(kind: str, use: Any) -> None:
    use(build(kind, Size(layers=3)))
    circuit = found(40)
    chance = np.random.default_rng(0)
    masks = [choice.by_chance(circuit, chance) for _ in range(20)]
    for mask in masks:
        assert mask.sum() == circuit.kept.sum() > 30
        assert not (mask & ~circuit.exists).any()
        assert (circuit.connected(mask) == mask).all()
    assert len({mask.tobytes() for mask in masks}) == 20
    again = choice.by_chance(circuit, np.random.default_rng(0))
    assert (again == masks[0]).all()
    kinds = np.array([name.rsplit(".", 1)[-1] for name in circuit.readers])
    shares = {kind: np.mean([mask[:, kinds == kind].sum() for mask in masks]) / 40 for kind in set(kinds)}
    # Not the share that such inputs have of all edges: a reader that is strong here is read by strong edges there too.
    assert shares["logits"] > circuit.exists[:, kinds == "logits"].sum() / circuit.exists.sum()


def test_where_heads_were_ranked_heads_are_exchanged_for_heads(use: Any) -> None:
    use(build("gpt2", Size(layers=3)))
    circuit = found(60, level="head")
    mask = choice.by_chance(circuit, np.random.default_rng(1))
    assert (circuit.connected(mask) == mask).all()
    there = [name for name, any_ in zip(circuit.writers, mask.any(1), strict=True) if any_ and name != "embed"]
    own = [name for name in circuit.nodes if name not in {"embed", "logits"}]
    assert len([n for n in there if "mlp" in n]) <= len([n for n in own if "mlp" in n])
    report = interp.validate(circuit, random=5, top=3)
    assert np.isfinite(report.random).all()
    assert "other heads in place of its heads" in report.text()
    assert "of one size" not in report.text()


@pytest.mark.parametrize("digits", [9, 2], ids=["all different", "many alike"])
@pytest.mark.parametrize("size", [1, 7, 30, 10**6])
def test_a_size_is_the_most_of_the_strongest_that_connect(size: int, digits: int, use: Any) -> None:
    use(build("llama", Size(layers=3)))
    circuit = found(10)
    circuit = replace(circuit, scores=circuit.scores.round(digits))
    mask = choice.of_size(circuit, size)
    assert mask.sum() <= size
    edges = [(circuit.writers.index(e.writer), circuit.readers.index(e.reader)) for e in circuit.ranked()]
    best = np.zeros_like(mask)
    for count in range(len(edges) + 1):
        some = np.zeros_like(mask)
        for edge in edges[:count]:
            some[edge] = True
        kept = circuit.connected(some)
        if kept.sum() > size:
            break
        best = kept
    assert (mask == best).all()


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_a_task_circuit_is_judged_on_pairs_that_did_not_choose_it(bundled: Any) -> None:
    circuit = interp.circuit(task="induction", n=4, edges=30)
    fresh = interp.validate(circuit, random=0, top=0)
    assert (fresh.pairs, fresh.seed, len(fresh.whole)) == ("fresh", 1, 4)
    chose = {tuple(ids) for ids in circuit.provenance.tokens}
    assert not {tuple(ids) for ids in fresh.provenance.tokens[::2]} & chose
    assert "fresh pairs, which did not choose the circuit (task induction, seed 1)" in fresh.text()
    same = interp.validate(circuit, on="same", random=0, top=0)
    assert {tuple(ids) for ids in same.provenance.tokens} == chose
    assert same.whole == pytest.approx(circuit.clean_metric, abs=1e-3)
    assert same.nothing == pytest.approx(circuit.ablated_metric, abs=1e-3)
    assert any("flatters" in note for note in same.notes)
    assert len(interp.validate(circuit, on="same", n=2, random=0, top=0).whole) == 2
    assert len(interp.validate(circuit, n=7, seed=5, random=0, top=0).whole) == 7
    again = interp.validate(circuit, seed=0, n=6, random=0, top=0)
    assert len(again.whole) == 2
    assert "4 of the 6 pairs drawn had chosen the circuit and were left out" in again.notes
    with pytest.raises(InputError, match="use another --seed"):
        interp.validate(circuit, seed=0, n=4)
    with pytest.raises(InputError, match="chosen by 4 pairs"):
        interp.validate(circuit, on="same", n=5)
    assert fresh.faithfulness > 0.8
    assert abs(fresh.left) < 0.2
    assert bundled.name == fresh.provenance.model


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("task", ["induction", "ioi"])
def test_the_bundled_model_does_its_tasks_with_few_edges(task: str) -> None:
    circuit = interp.circuit(task=task, n=6, edges=30)
    report = interp.validate(circuit)
    assert 0.8 < report.faithfulness < 1.2
    assert abs(report.left) < 0.1
    assert report.faithfulness - report.random.mean() > 3 * report.random.std(ddof=1)
    assert report.p_value == pytest.approx(1 / 21)
    assert report.cpr > 0.9 > 0.1 > report.cmd
    assert report.forwards == report.provenance.forwards > 20 * 6
    text = report.text()
    for word in ("sufficiency", "necessity", "p = 0.048", "logit-diff", "corrupted ablation", "n = 6", "seed 1"):
        assert word in text
    assert "%" not in text


# -- asking ----------------------------------------------------------------------------------------------------------


def test_a_cell_shows_the_report_and_its_circuit_holds_it(shell: Any, lend: Callable[..., Any]) -> None:
    lend("gpt2")
    shell.run_cell(
        "%%interp circuit --edges 20 -o c\nclean: Mary gave the drink to\ncorrupted: John gave the drink to\n"
        "answer: Mary\nwrong: John\n"
    )
    out = shell.run_cell("%interp validate c --random 3 --top 4").result
    assert isinstance(out, CircuitReport)
    assert shell.user_ns["c"].report is None
    assert out.circuit.report is out
    assert (out.circuit.kept == shell.user_ns["c"].kept).all()
    assert out.code() == "interp.validate(circuit=circuit, random=3, top=4)  # first: circuit = your CircuitResult"
    # Saved, a report has no other result in it.
    assert "circuit" not in json.dumps(interp.results.as_data(out)["provenance"]["arguments"]["circuit"]).lower() or (
        len(json.dumps(interp.results.as_data(out))) < 50_000
    )


def test_validate_on_the_result_leaves_it_as_it_is(bundled: Any) -> None:
    circuit = interp.circuit(task="induction", n=3, edges=30)
    made = circuit.validate(random=2, top=3)
    assert circuit.report is None
    assert made.report is not None
    assert made.report.provenance.model == bundled.name
    assert len(made.report.random) == 2
    assert (made.kept == circuit.kept).all()
    with pytest.raises(InputError, match="validate has no argument 'tops'"):
        bundled.operate("x", {}, lambda _: validated(bundled, circuit, tops=3))


def test_what_it_saves(bundled: Any, tmp_path: Any) -> None:  # noqa: ARG001
    circuit = interp.circuit(task="induction", n=4, edges=30)
    report = interp.validate(circuit, random=3, top=3)
    for suffix in ("json", "npz", "html", "svg", "png"):
        assert report.save(tmp_path / f"report.{suffix}").stat().st_size > 500
    held = json.loads((tmp_path / "report.json").read_text())
    assert held["faithfulness"] == report.faithfulness
    assert held["provenance"]["arguments"]["circuit"]["kind"] == "CircuitResult"
    frame = report.to_frame().set_index("finding")
    assert frame.loc["faithfulness", "value"] == report.faithfulness
    assert tuple(frame.loc["faithfulness", ["low", "high"]]) == tuple(report.faithfulness_interval)
    again = interp.load_circuit(report.circuit.save(tmp_path / "c.json"))
    assert again.report is not None
    with pytest.raises(InputError, match="validate the circuit again"):
        _ = again.report.circuit
    assert again.report.text().splitlines()[1:] == report.text().splitlines()[1:]
    assert interp.validate(again, random=3, top=3).faithfulness == pytest.approx(report.faithfulness)


def test_more_than_the_whole_model_is_not_more_faithful(use: Any) -> None:
    use(build("gpt2"))
    report = interp.validate(found(), random=3, top=0)
    past = replace(report, faithfulness=1.3, random=np.array([0.9, 1.29, 1.31, -2.0]), random_sizes=np.full(4, 25))
    assert "no nearer to the whole model than 2 of them" in past.text()
    assert _p_value(1.3, past.random) == pytest.approx(3 / 5)
    assert _p_value(0.9, np.array([0.5, 1.2, np.nan])) == pytest.approx(1 / 3)
    near = replace(past, faithfulness=1.05)
    assert "this one is nearer to the whole model than all of them" in near.text()


def test_a_difference_that_may_be_nothing_is_told(use: Any) -> None:
    use(build("gpt2"))
    turned = [PAIRS[0], Pair(PAIRS[0].corrupted, PAIRS[0].clean, (7, 12), (9,))] * 3
    report = interp.validate(found(pairs=turned[:1]), random=0, top=0)
    assert not any("may be nothing" in note for note in report.notes)
    mixed = interp.validate(found(pairs=turned), random=0, top=0)
    assert any("which may be nothing: faithfulness divides by that" in note for note in mixed.notes) or any(
        "changes nothing" in note for note in mixed.notes
    )
    uneven = interp.validate(found(pairs=[*turned, PAIRS[1]]), random=0, top=0)
    assert any("may be nothing" in note for note in uneven.notes), uneven.notes


def test_the_mean_over_one_prompt_is_told(use: Any) -> None:
    use(build("gpt2"))
    report = interp.validate(found(pairs=PAIRS[:1], ablation="mean"), random=0, top=0)
    assert ONE_MEAN in report.notes
    assert ONE_MEAN not in interp.validate(found(ablation="mean"), random=0, top=0).notes


def test_what_was_ranked_is_said(use: Any) -> None:
    use(build("gpt2"))
    for options, words in (
        ({"method": "acdc"}, "ranked by the threshold that they survive, of equals the lowest first"),
        ({"level": "head"}, "ranked by the absolute score of heads and MLPs"),
        ({}, "ranked by absolute score"),
    ):
        assert words in interp.validate(found(**options), random=0, top=0).text()


def test_what_is_refused(use: Any, lend: Callable[..., Any]) -> None:
    use(build("gpt2"))
    circuit = found()
    for given, options, words in (
        (7, {}, "validate takes a circuit, not a int"),
        (replace(circuit, kept=circuit.kept & False), {}, "no edges"),
        (circuit, {"random": -1}, "--random -1"),
        (circuit, {"top": -2}, "--top -2"),
        (circuit, {"n": 0}, "--n 0 is too few; use 1 or more"),
        (circuit, {"on": "fresh"}, "use --on same"),
        (circuit, {"on": "old"}, "fresh, same"),
        (circuit, {"metric": "logits"}, "did you mean logit"),
        (replace(circuit, metric="mine"), {}, "a function of yours"),
        (replace(circuit, provenance=replace(circuit.provenance, tokens=[])), {}, "which pairs chose it"),
    ):
        with pytest.raises(InputError, match=words):
            interp.validate(given, **options)
    lend("llama")
    with pytest.raises(InputError, match="writers"):
        interp.validate(circuit)


def test_a_circuit_of_another_state_is_told(use: Any) -> None:
    model = use(build("gpt2"))
    circuit = found()
    with torch.no_grad():
        next(iter(model.bridge.parameters())).mul_(1.1)
    report = interp.validate(circuit, random=0, top=0)
    assert any("in another state" in note for note in report.notes)


def test_a_metric_of_ones_own(use: Any) -> None:
    use(build("gpt2"))

    def largest(logits: torch.Tensor) -> torch.Tensor:
        return logits.max(-1).values

    report = interp.validate(found(metric=largest), random=2, top=2)
    assert report.metric == "largest"
    other = interp.validate(found(), metric=largest, random=2, top=2)
    assert other.whole == pytest.approx(report.whole)


def test_an_interrupt_leaves_a_partial_report(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("gpt2"))
    circuit = found()
    of_size = choice.of_size
    monkeypatch.setattr(Subset, "_together", lambda *_: 2)
    steps: list[tuple[int, int, str]] = []

    def step(done: int, total: int, said: str) -> None:
        steps.append((done, total, said))
        if said == "curve":
            monkeypatch.setattr(choice, "of_size", None)  # a stop waits for nothing that needs no run
            signal.raise_signal(signal.SIGINT)

    interp.interface.session.session.on_step = step
    with pytest.raises(Interrupted) as stop:
        interp.validate(circuit, random=3)
    report = stop.value.result
    assert report.notes[0].startswith("partial: interrupted after")
    assert np.isfinite([report.faithfulness, report.left, *report.random]).all()
    assert np.isnan(report.cpr)
    assert np.isnan(report.marginal).all()
    assert report.removable == ()
    assert len(report.stability) > 1
    assert circuit.report is None
    assert report.circuit.report is report
    assert "partial" in report.html()
    assert report.png()[:4] == b"\x89PNG"
    assert "not run" in report.text()
    interp.interface.session.session.on_step = None
    monkeypatch.setattr(choice, "of_size", of_size)
    done, total, _ = steps[-1]
    assert done < total
    whole = interp.validate(circuit, random=3)
    assert whole.faithfulness == pytest.approx(report.faithfulness)
    assert model.lock.acquire(blocking=False)
    model.lock.release()


def test_what_is_ablated_may_change_nothing(use: Any) -> None:
    use(build("gpt2"))
    same = [Pair(Prompt(ids=ONE[0]), Prompt(ids=ONE[0]), (7,), (9,))] * 2
    circuit = found()
    blank = replace(circuit, checks=found(pairs=same).checks, provenance=found(pairs=same).provenance)
    report = interp.validate(blank, random=2, top=2)
    assert any("faithfulness divides by that" in note for note in report.notes)
    assert report.html()


def test_smollm2_induction(smollm2: Any) -> None:
    circuit = interp.circuit(task="induction", n=4, edges=200)
    report = interp.validate(circuit, n=3, top=0)
    assert report.faithfulness - report.random.mean() > 3 * report.random.std(ddof=1)
    assert report.faithfulness > report.random.max()
    assert report.faithfulness > 0.15
    assert (report.random_sizes == report.edges).all()
    assert report.p_value == pytest.approx(1 / 21)
    print(report.text(), smollm2.name)
