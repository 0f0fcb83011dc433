"""Measured edges: what the graph foretells, written out over all ways, and what the model does, by a naive loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.features.test_attribution import IDS, held, loaded, readings
from interp.engine.features.attribution import trace
from interp.engine.features.checked import Checked, check, foretold
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import flat

pytestmark = pytest.mark.usefixtures("one_thread")


def compared(model: Any, *asked: Any, **more: Any) -> Checked:
    def once(_: Any) -> Checked:
        return check(model, *asked, **more)

    return model.operate("x", {}, once)


@pytest.mark.parametrize(("family", "kind"), [("llama", "topk"), ("gemma3_text", "skip"), ("gpt_neox", "gated")])
def test_changes_are_those_of_the_model(family: str, kind: str) -> None:
    model = loaded(family)
    frozen = held(model, kind)
    traced = trace(frozen, readings(frozen), most=10**9)
    entries = traced.targets[:3]
    rows = torch.arange(len(traced.edges))
    found = compared(model, traced, entries, rows)
    sources = traced.sources
    for number, (entry, change) in enumerate(zip(found.entries.tolist(), found.changes.tolist(), strict=True)):
        values = []
        for amount in (0.0, change):
            seen: dict[int, Tensor] = {}
            layer, at = int(sources.layers[entry]), int(sources.positions[entry])

            def write(
                tensor: Tensor,
                hook: Any,  # noqa: ARG001
                amount: float = amount,
                layer: int = layer,
                at: int = at,
                entry: int = entry,
            ) -> Tensor:
                one = frozen.dictionaries[layer]
                out = tensor.clone()
                atom = one.decoders[0][sources.features[entry]]
                out[0, at] += amount * sources.activations[entry] * atom / one.taken.scale
                return out

            functions: dict[str, Any] = {f"blocks.{layer}.hook_mlp_out": write}
            for index, one in frozen.dictionaries.items():

                def read(
                    tensor: Tensor,
                    hook: Any,  # noqa: ARG001
                    index: int = index,
                    one: Dictionary = one,
                    seen: dict[int, Tensor] = seen,
                ) -> None:
                    seen[index] = one.act.magnitudes(one.pre(flat(one.reads, tensor)[0]))

                functions[one.reads.hook(model)] = read
            logits = model.forward([IDS], functions, last_only=False)[0]
            own = [seen[int(sources.layers[t])][sources.positions[t], sources.features[t]] for t in traced.targets]
            values.append((torch.stack(own), logits))
        difference = values[1][0] - values[0][0]
        moved = found.measured[number, : len(traced.targets)]
        assert torch.allclose(moved, difference, atol=1e-4 * max(1.0, float(difference.abs().max())))
        ends = [values[n][1][len(IDS) - 1] for n in (0, 1)]
        gap = float((ends[1][3] - ends[1][4]) - (ends[0][3] - ends[0][4]))
        if frozen.network.unembed.cap is None and frozen.network.unembed.scale == 1.0:
            assert float(found.measured[number, len(traced.targets)]) == pytest.approx(gap, abs=1e-4)
    assert float(found.measured.abs().max()) > 1e-3


def test_what_is_foretold_is_the_sum_over_all_ways() -> None:
    model = loaded("llama")
    frozen = held(model, "relu")
    traced = trace(frozen, readings(frozen), most=10**9)
    sources = traced.sources
    count = sources.n_features
    # ρ = relative changes: ρ_t = Σ_s edge(s → t) ρ_s / a_t, with the changed one held.
    order = {int(t): row for row, t in enumerate(traced.targets)}
    matrix = torch.zeros(count, count, dtype=torch.float64)
    for target, row in order.items():
        matrix[target] = traced.edges[row, :count].double() / float(sources.activations[target])
    for entry in (int(sources.layers.argmin()), int(traced.targets[5])):
        own = matrix.clone()
        own[entry] = 0
        start = torch.zeros(count, dtype=torch.float64)
        start[entry] = -1.0
        relative = torch.linalg.solve(torch.eye(count, dtype=torch.float64) - own, start)
        expected = traced.edges[:, :count].double() @ relative
        found = foretold(traced, torch.tensor([entry]), torch.tensor([-1.0]))[0].double()
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_small_change_of_one_that_leads_straight_to_the_end() -> None:
    """A last-layer feature at the read position moves the reading as its edge says, but for the final norm's size."""
    frozen = held(model := loaded("opt"))
    traced = trace(frozen, readings(frozen)[:1], most=10**9)
    sources = traced.sources
    mine = ((sources.layers == 1) & (sources.positions == len(IDS) - 1)).nonzero()[:, 0]
    row = torch.tensor([len(traced.targets)])
    found = compared(model, traced, mine, row, changes=(1e-2,))
    assert torch.allclose(found.foretold[:, 0], traced.edges[-1, mine] * 1e-2, atol=1e-7)
    ratio = found.measured[:, 0] / found.foretold[:, 0]
    assert float((ratio - 1).abs().median()) < 0.5
