"""Compiled neurons fire exactly when their rules hold: proved, and what is proved of holds in the runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from interp import truth
from interp.errors import InputError
from interp.truth.language import Lookup
from interp.truth.proofs import neuron

z3 = pytest.importorskip("z3", reason="z3-solver is an extra: interp[prove]")
LOOKUPS = [
    (name, step.layer)
    for name in truth.PROGRAMS
    for step in truth.build(name).program.steps
    if isinstance(step, Lookup) and all(truth.build(name).program.sizes[variable] > 1 for variable in step.reads)
]


def lookup(name: str, layer: int) -> tuple[Any, Lookup]:
    made = truth.build(name)
    return made, next(s for s in made.program.steps if isinstance(s, Lookup) and s.layer == layer)


def test_there_are_lookups() -> None:
    assert LOOKUPS


@pytest.mark.parametrize(("name", "layer"), LOOKUPS)
def test_neurons_of_lookups_are_their_rules(name: str, layer: int) -> None:
    made, step = lookup(name, layer)
    for number in range(0, len(step.bias), max(1, len(step.bias) // 5)):
        found = neuron(made, layer, number)
        assert found.rule
        assert found.proved, (number, found)


@pytest.mark.parametrize(("name", "layer"), LOOKUPS)
def test_a_neuron_that_is_another_is_caught_with_a_state(name: str, layer: int) -> None:
    made, _ = lookup(name, layer)
    key = f"layers.{layer}.mlp.in.bias"
    bias = made.weights[key].clone()
    bias[0] += 1.0
    changed = replace(made, weights={**made.weights, key: bias})
    found = neuron(changed, layer, 0)
    assert not found.proved
    values = {variable: int(torch.tensor(shares).argmax()) for variable, shares in found.against.items()}
    assert all(sum(shares) == pytest.approx(1) and max(shares) >= 0.9 for shares in found.against.values())
    assert values not in [dict(one) for one in found.rule]  # a higher bias: it fires where it should not


@pytest.mark.parametrize(("name", "layer"), LOOKUPS)
def test_the_variables_that_it_reads_have_values_in_the_runs(name: str, layer: int) -> None:
    """At the last position, whose answer is asked for, they lie within the bounds that the proof takes."""
    made, step = lookup(name, layer)
    bridge = made.bridge()
    for pair in made.pairs(8).pairs:
        ids = torch.tensor([list(pair.clean.ids or ())])
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids)
        stream = cache[f"blocks.{layer}.hook_resid_mid"][0, -1].double()
        for variable in step.reads:
            shares = made.directions[variable] @ stream
            assert float(shares.max()) > 0.9 - 0.02
            assert float(shares.sum() - shares.max()) < 0.1 + 0.02 * len(shares)


def test_what_cannot_be_is_refused() -> None:
    name, layer = LOOKUPS[0]
    made, _ = lookup(name, layer)
    with pytest.raises(InputError, match="no neuron 10000"):
        neuron(made, layer, 10000)
    with pytest.raises(InputError, match="there are no values"):
        neuron(truth.build("histogram"), 0, 0)
    with pytest.raises(InputError, match="looks nothing up in layer 99"):
        neuron(made, 99, 0)
