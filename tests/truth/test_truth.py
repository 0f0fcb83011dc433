"""Compiled programs: they are right, and their true edges are those whose ablation changes the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from interp import truth
from interp.engine.circuits import edges
from interp.engine.model import load
from interp.engine.patching import path
from interp.errors import InputError
from interp.truth.compile import ABLATIONS, compiled
from interp.truth.language import Head, Match, ladder, lookup
from interp.truth.programs import PROGRAMS
from truth.naive import Naive

NAMES = list(PROGRAMS)


@pytest.fixture(scope="module")
def built() -> dict[str, truth.Compiled]:
    return {name: truth.build(name) for name in NAMES}


def prompts(made: truth.Compiled, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return clean and corrupted prompts, right and wrong answers."""
    pairs = made.pairs(n, seed).pairs
    both = (torch.tensor([getattr(pair, which).ids for pair in pairs]) for which in ("clean", "corrupted"))
    answers = (torch.tensor([getattr(pair, which)[0] for pair in pairs]) for which in ("answer", "wrong"))
    return (*both, *answers)  # pyright: ignore[reportReturnType]


def spelled(made: truth.Compiled, ids: Sequence[int]) -> list[str]:
    return [made.program.vocabulary[n] for n in ids]


def by_definition(name: str, words: list[str]) -> str:
    """Return the right next word, said anew in plain Python."""
    if name == "reverse":
        at = words.index("|")
        return words[1:at][::-1][len(words) - at - 1]
    if name == "histogram":
        return str(sum(word == words[-1] for word in words))
    if name == "induction":
        return words[words.index(words[-1]) + 1]
    names = [word for word in words[1:] if word[0].isupper() and word != "When"]
    return next(word for word in names if names.count(word) == 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_is_right_on_hundreds_of_inputs(name: str, built: Any) -> None:
    made = built[name]
    clean, corrupted, answer, wrong = prompts(made, 300, seed=7)
    bridge = made.bridge()
    with torch.no_grad():
        for ids in (clean, corrupted):
            logits = bridge.forward(ids, return_type="logits")[:, -1]
            said = [made.program.vocabulary[n] for n in logits.argmax(-1).tolist()]
            assert said == [by_definition(name, spelled(made, row)) for row in ids.tolist()]
            assert said == [made.program.vocabulary[made.program.answer(row)] for row in ids.tolist()]
    assert (answer != wrong).all()
    assert (clean != corrupted).any(1).all()
    assert len({tuple(row) for row in clean.tolist()}) > 150  # of ioi there are 364


@pytest.mark.parametrize("name", NAMES)
def test_other_distractors_leave_a_program_right(name: str, built: Any) -> None:
    for seed in (1, 2):
        made = truth.build(name, seed)
        assert not torch.equal(made.weights["layers.0.attn.q.weight"], built[name].weights["layers.0.attn.q.weight"])
        ids, _, answer, _ = prompts(made, 64)
        with torch.no_grad():
            assert torch.equal(made.bridge().forward(ids, return_type="logits")[:, -1].argmax(-1), answer)
    again = truth.build(name)
    assert all(torch.equal(tensor, built[name].weights[key]) for key, tensor in again.weights.items())
    assert again.pairs(5, 3) == built[name].pairs(5, 3) != built[name].pairs(5, 4)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_what_ablating_each_edge_shows(name: str, ablation: str, built: Any) -> None:
    made = built[name]
    net = Naive(made)
    clean, corrupted, answer, wrong = prompts(made, 10)
    rows = torch.arange(len(clean))

    def metric(logits: Tensor) -> Tensor:
        return logits[rows, answer] - logits[rows, wrong]

    carried = net.carried(corrupted, ablation)
    whole = metric(net.run(clean)[0])
    expected = made.truth(ablation)
    costs = {
        edge: float((whole - metric(net.run(clean, {edge: carried[edge[0]]})[0])).mean() / whole.mean())
        for edge in expected
    }
    true = {edge: costs[edge] for edge, is_true in expected.items() if is_true}
    false = {edge: costs[edge] for edge, is_true in expected.items() if is_true is False}
    undefined = {edge: costs[edge] for edge, is_true in expected.items() if is_true is None}
    assert min(true.values()) > 0.5, true
    assert max(map(abs, false.values())) < 0.06, max(false, key=lambda edge: abs(false[edge]))
    assert max(map(abs, undefined.values()), default=0.0) < 0.02, undefined
    # Real negatives: distractors are not silent, and some edges from and into them do move the metric a little.
    assert sum(abs(cost) > 1e-4 for cost in false.values()) > 50
    assert len(false) > 20 * len(true)
    assert bool(undefined) == (ablation != "zero")


def test_edges_are_those_of_the_engine(built: Any) -> None:
    model = load.load(built["ioi"].bridge(), options=load.Options())
    writers, readers = edges.ends(model)
    exists = path.reaching(model, writers, readers)
    there = {(writers[w].name, readers[r].name) for w, r in exists.nonzero().tolist()}
    assert set(built["ioi"].truth()) == there


def test_the_truth_of_induction_is_its_dataflow(built: Any) -> None:
    for_good = {("embed", "0.2.v"), ("0.2", "2.1.k"), ("embed", "2.1.q"), ("embed", "2.1.v"), ("2.1", "logits")}
    by_position = {("embed", "0.2.q"), ("embed", "0.2.k")}
    for ablation in ABLATIONS:
        found = built["induction"].truth(ablation)
        true = {edge for edge, is_true in found.items() if is_true}
        undefined = {edge for edge, is_true in found.items() if is_true is None}
        expected = (for_good | by_position, set[Any]()) if ablation == "zero" else (for_good, by_position)
        assert (true, undefined) == expected
    with pytest.raises(InputError, match="use corrupted, mean, zero"):
        built["induction"].truth("noise")
    with pytest.raises(InputError, match="did you mean induction"):
        truth.build("inductoin")


def test_an_mlp_looks_up_what_its_table_says() -> None:
    table = {(0, 1): 2, (1, 0): 0, (2, 1): 1}
    made = lookup(0, "out", ("a", "b"), (3, 2, 4), table)
    for a in range(3):
        for b in range(2):
            read = torch.zeros(5)
            read[a] = read[3 + b] = 1.0
            written = (made.on @ read + made.bias).relu() @ made.out
            expected = torch.zeros(4)
            if (a, b) in table:
                expected[table[a, b]] = 1.0
            assert torch.equal(written, expected)
    rungs = ladder(0, "out", "x", {0.25: 1, 0.5: 0}, 1.0, 2)
    at = {0.0: (0, 0), 0.25: (0, 1), 0.375: (0.5, 0.5), 0.5: (1, 0), 0.75: (0.5, 0), 1.0: (0, 0), 3.0: (0, 0)}
    for value, expected in at.items():
        written = (rungs.on @ torch.tensor([value]) + rungs.bias).relu() @ rungs.out
        assert written.tolist() == pytest.approx(expected, abs=1e-6)


def test_attention_has_a_finite_gain(built: Any) -> None:
    """The previous-token head is nearly sure, and not quite: gradients pass."""
    made = built["induction"]
    model = made.bridge()
    ids = prompts(made, 1)[0]
    _, cache = model.run_with_cache(ids)
    pattern = cache["blocks.0.attn.hook_pattern"][0, 2]
    previous = pattern.diagonal(-1)
    assert float(previous.min()) > 0.95
    assert float(previous[-1]) == pytest.approx(math.exp(6) / (math.exp(6) + len(pattern) - 1), rel=1e-4)


def test_a_program_that_does_not_fit_together_is_refused() -> None:
    program = PROGRAMS["induction"]()
    before, after = program.steps
    with pytest.raises(ValueError, match="written twice"):
        compiled(replace(program, steps=(*program.steps, replace(after, name="2.2"))))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="not written below"):
        compiled(replace(program, steps=(replace(before, name="2.2"), after)))  # pyright: ignore[reportArgumentType]
    idle = Head("1.0", "idle", "token", (Match("token", torch.ones(1, 17)),), torch.eye(17))
    with pytest.raises(ValueError, match="nothing reads idle"):
        compiled(replace(program, steps=(*program.steps, idle)))
