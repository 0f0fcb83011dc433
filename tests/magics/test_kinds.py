"""Kinds of argument: what a line reads, a Python call takes too, and means the same by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp
from interp.errors import InputError
from interp.interface import kinds, registry
from interp.spec import Node

PARAMETERS = {
    f"{command.name} {parameter.flag}": parameter
    for command in registry.commands().values()
    for parameter in command.parameters
}


def test_python_takes_layers_as_they_are_typed(lend: Any) -> None:
    lend("llama")
    typed, listed = (interp.attention("Alice gave a drink", layer=layer) for layer in ("0-1", [0, 1]))
    assert typed.layers == listed.layers == (0, 1)
    assert np.array_equal(typed.pattern, listed.pattern)
    assert typed.provenance.arguments["layer"] == (0, 1)
    with pytest.raises(InputError, match="layer 'x' cannot be read; write a number, a range or a list: 5, 0-3 or"):
        interp.attention("Alice gave a drink", layer="x")


@pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=PARAMETERS)
def test_a_default_is_a_value(parameter: registry.Parameter) -> None:
    if not parameter.required:
        assert parameter.check(parameter.default) == parameter.default


@pytest.mark.parametrize("name", ["2.0", "L2H0", "l2h0", "L2.0"])
def test_spellings_of_a_head(name: str) -> None:
    assert Node.parse(name) == Node("head", 2, 0)


@pytest.mark.parametrize("name", ["2.mlp", "L2.mlp", "L2 MLP", "m2", "mlp2"])
def test_spellings_of_an_mlp(name: str) -> None:
    assert Node.parse(name) == Node("mlp", 2)


@pytest.mark.parametrize(
    "node", [Node("embed"), Node("logits"), Node("head", 8, 6), Node("q", 8, 6), Node("v", 0, 1), Node("mlp", 3)]
)
def test_a_name_is_read_as_it_is_written_and_as_it_is_drawn(node: Node) -> None:
    assert Node.parse(node.name) == Node.parse(node.drawn) == node


@pytest.mark.parametrize("name", ["", "5", "5.", "x", "5.x", "5.1.z", "heads", "-1.0", "5.1.q.2", "embed2"])
def test_what_names_no_part_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no part of a model; type a head"):
        Node.parse(name)


def test_every_annotation_has_a_kind() -> None:
    assert {parameter.names for parameter in PARAMETERS.values()} <= {"", *kinds.KINDS}
