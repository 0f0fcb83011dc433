"""Edges of pairs of two lengths: what an ablated edge carries is the corrupted run, aligned to the clean one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engine.circuits import test_edges, test_subgraph
from engine.circuits.test_edges import KINDS, asked, close, exactly, linear
from interp.engine.circuits.subgraph import Subset
from interp.engine.metrics import Scorer
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching.cases import Aligned, Case
from interp.spec import Metric
from methods.patching.test_patch import Size, build

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN, LONGER, SHORTER = (5, 11, 64, 31, 8, 40), (5, 50, 11, 23, 64, 9, 31, 8, 40), (5, 11, 31, 40)
# What the clean prompt's positions are given: one token another's, a mean of several, and nothing at position 2.
LAST: Aligned = ((0, (0,)), (1, (3,)), (3, (6,)), (4, (7,)), (5, (8,)))
MEAN: Aligned = ((0, (0,)), (1, (1, 2, 3)), (2, (4, 5)), (3, (4, 5)), (4, (7,)), (5, (8,)))
FEWER: Aligned = ((0, (0,)), (1, (1,)), (2, (2,)), (4, (1, 2)), (5, (3,)))
MADE = ((LONGER, LAST), (LONGER, MEAN), (SHORTER, FEWER))


def case(source: tuple[int, ...], aligned: Aligned | None, metric: Metric = test_edges.PLAIN) -> Case:
    return Case(CLEAN, source, Scorer(metric, (7, 12), (9,)), 5, True, len(source) - 1, aligned=aligned)


CASES = [case(*one) for one in MADE]
PLAIN = case((5, 11, 23, 31, 8, 44), None)


def by_hand(own: torch.Tensor, given: torch.Tensor, aligned: Aligned) -> torch.Tensor:
    """Return what is carried, ``[position, d_model]``, row by row."""
    rows = dict(aligned)
    return torch.stack(
        [sum(given[n] for n in rows[at]) / len(rows[at]) if at in rows else own[at] for at in range(len(own))]
    )


class Naive(test_edges.Naive):
    """Every edge by itself, on the bridge's own gates; rows of what writers write are put where they are given."""

    def ablated(self, case: Case, writer: str) -> torch.Tensor:
        return by_hand(self.output(case.base, writer), self.output(case.source, writer), case.aligned or ())


@pytest.fixture
def naive(request: pytest.FixtureRequest) -> Any:
    def of(model: LoadedModel) -> Naive:
        made = Naive(model, CASES, "corrupted")
        request.addfinalizer(made.close)
        return made

    return of


@pytest.mark.parametrize(("kind", "extra"), KINDS)
def test_gradients_and_exact_edges_by_their_definition(kind: str, extra: dict[str, Any], naive: Any) -> None:
    model = build(kind, **extra)
    found, exact = asked(model, CASES), exactly(model, CASES)
    assert (found.path, exact.path, exact.notes) == ("gradients", "replay", [])
    reference = naive(model)
    for n, one in enumerate(CASES):
        clean = float(reference.metric(one.base).detach())
        assert found.clean[n] == pytest.approx(clean, abs=1e-5)
        # All edges ablated, it is the corrupted prompt's own run that the logits read.
        assert found.ablated[n] == pytest.approx(float(reference.metric(one.source).detach()), abs=1e-5)
        assert exact.source[n] == pytest.approx(float(found.ablated[n]), abs=1e-5)
        for column in range(n, len(found.readers), 3):
            reader = found.readers[column].name
            slope = reference.slope(one, reader)
            for row, writer in enumerate(found.writers):
                if found.exists[row, column]:
                    change = reference.output(one.base, writer.name) - reference.ablated(one, writer.name)
                    expected = float((change * slope).sum())
                    assert abs(float(found.per_pair[n, row, column]) - expected) < 1e-5 * max(1.0, abs(expected))
        for row, column in exact.exists.nonzero().tolist()[n::11]:
            expected = clean - reference.patched(one, exact.writers[row].name, exact.readers[column].name)
            assert abs(float(exact.per_pair[n, row, column]) - expected) < 5e-5


def test_by_hooks_an_edge_is_the_same(naive: Any) -> None:
    model = build("llama")
    expected = exactly(model, CASES)
    # A hook of the user's own that does nothing makes it take the hooked forward.
    remove = model.hf_model.register_forward_hook(lambda *_: None)
    try:
        hooked = exactly(model, CASES)
    finally:
        remove.remove()
    assert hooked.path.startswith("hooked")
    close(hooked.per_pair, expected.per_pair, expected.exists, 5e-5)
    assert naive(model).depth == model.geometry.n_layers


@pytest.mark.parametrize("steps", [1, 3, None])
def test_on_a_linear_model_estimates_are_exact(steps: int | None) -> None:
    model = linear()
    cases = [replace(one, scorer=Scorer(test_edges.PLAIN, (7,), (9,))) for one in [*CASES, PLAIN]]
    exact, found = exactly(model, cases), asked(model, cases, steps=steps)
    assert exact.per_pair[:, exact.exists].abs().max() > 0.01
    close(found.per_pair, exact.per_pair, found.exists, 2e-4)


@pytest.mark.parametrize(("kind", "extra"), KINDS[:3])
def test_points_between_the_aligned_and_the_clean_embeddings(kind: str, extra: dict[str, Any], naive: Any) -> None:
    model, steps = build(kind, **extra), 3
    found = asked(model, CASES, steps=steps)
    reference = naive(model)
    at, weight = np.polynomial.legendre.leggauss(steps)
    for n, one in enumerate(CASES):
        end = reference.output(one.base, "embed")
        begin = by_hand(end, reference.output(one.source, "embed"), one.aligned or ())
        for column in range(1 + n, len(found.readers), 6):
            slope = torch.zeros_like(end)
            for point, part in zip((at + 1) / 2, weight / 2, strict=True):
                slope += part * reference.slope(one, found.readers[column].name, begin + point * (end - begin))
            for row, writer in enumerate(found.writers):
                if found.exists[row, column]:
                    change = reference.output(one.base, writer.name) - reference.ablated(one, writer.name)
                    expected = float((change * slope).sum())
                    assert abs(float(found.per_pair[n, row, column]) - expected) < 1e-4 * max(1.0, abs(expected))


# -- subsets of edges ------------------------------------------------------------------------------------------------


class NaiveSubset(test_subgraph.Naive):
    """Any subset by hooks; what is ablated is put row by row."""

    def ablated(self, number: int, name: str) -> torch.Tensor:
        def of(ids: Sequence[int]) -> torch.Tensor:
            held: dict[str, torch.Tensor] = {}
            hooks = [(n, lambda t, hook, n=n: held.__setitem__(n, t.detach().clone())) for n in self.names()]  # noqa: ARG005
            test_subgraph.logits_of(self.model, ids, hooks)
            return self.written(held, name)

        one = self.cases[number]
        return by_hand(of(one.base), of(one.source), one.aligned or ())


@pytest.mark.parametrize(("kind", "extra"), KINDS)
def test_any_subset_is_the_naive_one(kind: str, extra: dict[str, Any]) -> None:
    model = build(kind, Size(layers=3), **extra)
    subset = test_subgraph.made(model, CASES)
    reference = NaiveSubset(model, subset, CASES)
    masks = torch.stack([subset.whole, subset.nothing, *test_subgraph.drawn(subset, 3)])
    found = test_subgraph.asked(subset, masks)
    for n in range(len(CASES)):
        for row, mask in enumerate(masks):
            assert float(found[row, n]) == pytest.approx(reference(n, mask), abs=test_subgraph.BOUND * 2), (row, n)
    exact = exactly(model, CASES)
    assert torch.allclose(found[0], exact.clean, atol=1e-5)
    assert torch.allclose(found[1], exact.source, atol=1e-5)


def test_taking_one_edge_away_is_its_exact_score() -> None:
    model = build("neox")
    subset, exact = test_subgraph.made(model, CASES), exactly(model, CASES)
    some = exact.exists.nonzero().tolist()[::5]
    masks = subset.exists.repeat(1 + len(some), 1, 1)
    for n, edge in enumerate(some):
        masks[(1 + n, *edge)] = False
    found = test_subgraph.asked(subset, masks)
    for n, (row, column) in enumerate(some):
        assert torch.allclose((found[0] - found[1 + n]).float(), exact.per_pair[:, row, column], atol=5e-5)


# -- pairs of one length ---------------------------------------------------------------------------------------------


def test_aligned_token_by_token_a_pair_of_one_length_is_as_it_was() -> None:
    model = build("llama")
    same = replace(PLAIN, aligned=tuple((at, (at,)) for at in range(6)))
    for steps in (1, 4):
        plain, aligned = (asked(model, [one], steps=steps) for one in (PLAIN, same))
        close(aligned.per_pair, plain.per_pair, plain.exists)
    close(exactly(model, [same]).per_pair, exactly(model, [PLAIN]).per_pair, plain.exists)
    masks = test_subgraph.drawn(test_subgraph.made(model, [PLAIN]), 4)
    values = [test_subgraph.asked(test_subgraph.made(model, [one]), masks) for one in (PLAIN, same)]
    assert torch.allclose(*values, atol=1e-5)


@pytest.mark.parametrize("steps", [1, None])
def test_pairs_of_many_lengths_together_are_as_each_alone(steps: int | None) -> None:
    model = build("gpt2")
    short = Case((6, 17, 3), (5, 17, 3), Scorer(test_edges.PLAIN, (7, 12), (9,)), 2, clean_base=True)
    cases = [PLAIN, *CASES, short]
    for ask in (lambda some: asked(model, some, steps=steps), lambda some: exactly(model, some)):
        together = ask(cases)
        for n, one in enumerate(cases):
            close(together.per_pair[n : n + 1], ask([one]).per_pair, together.exists, 1e-4 if steps is None else 1e-5)
    # To the last bit: pairs of one length run as if the others were not there.
    alone = asked(model, [PLAIN], steps=1)
    assert torch.equal(asked(model, [PLAIN, *CASES], steps=1).per_pair[0].nan_to_num(), alone.per_pair[0].nan_to_num())
    subset = test_subgraph.made(model, cases)
    masks = test_subgraph.drawn(subset, 3)
    found = test_subgraph.asked(subset, masks)
    for n, one in enumerate(cases):
        own = test_subgraph.asked(test_subgraph.made(model, [one]), masks)[:, 0]
        assert torch.allclose(found[:, n], own, atol=1e-5)
    assert isinstance(subset, Subset)
