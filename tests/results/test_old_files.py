"""Files that earlier versions of interp wrote, in `old`: they are read, or it is said what they lack.

``before-…`` are of the version before files had a header, ``older-…`` of one in which some fields had other names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp.errors import InputError
from interp.results import Own
from interp.spec import Pair, Prompt

OLD = Path(__file__).parent / "old"
CLEAN = "When Mary and John went to the store, {} gave a drink to"
PAIR = Pair(Prompt(CLEAN.format("John")), Prompt(CLEAN.format("Mary")), (" Mary",), (" John",))
READ = {
    "before-attention.json": "AttentionResult",
    "before-attention.npz": "AttentionResult",
    "before-patch.json": "PatchingResult",
    "before-patch.npz": "PatchingResult",
    "before-circuit.json": "CircuitResult",
    "before-compare.json": "Comparison",
    "before-generate.json": "GenerateResult",
    "before-metric.json": "PatchingResult",
    "before-trace.json": "TraceResult",
    "before-lens.npz": "LensResult",
    "older-lens.json": "LensResult",
    "older-dla.npz": "DLAResult",
}
LACKING = {
    "before-compare.npz": "AttentionResult, which lacks pattern",
    "older-patch.json": "PatchingResult, which lacks checks, recovery_interval and has lint",
    "older-circuit.npz": "CircuitResult, which lacks checks and has card, lint",
}


def test_every_old_file_is_tried() -> None:
    assert {file.name for file in OLD.iterdir()} == {*READ, *LACKING}


@pytest.mark.parametrize("name", READ)
def test_an_old_file_is_read_and_saved_anew(name: str, tmp_path: Path) -> None:
    result = interp.load_result(OLD / name)
    assert type(result).__name__ == READ[name]
    if name.endswith(".json"):
        data = json.loads((OLD / name).read_text("utf-8"))
        kept = [
            one for one, value in vars(result).items() if isinstance(value, np.ndarray) and isinstance(data[one], list)
        ]
        for one in kept:
            assert np.array_equal(np.array(data[one], float).ravel(), getattr(result, one).ravel(), equal_nan=True)
        assert kept or READ[name] == "Comparison"
    for suffix in (".json", ".npz"):
        again = interp.load_result(result.save(tmp_path / f"new{suffix}"))
        assert (again.html(), again.code()) == (result.html(), result.code())


@pytest.mark.parametrize("name", LACKING)
def test_what_an_old_file_lacks_is_said_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as caught:
        interp.load_result(OLD / name)
    assert LACKING[name] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_arguments_of_an_old_call_are_what_they_were() -> None:
    made = interp.load_result(OLD / "before-metric.json").provenance.arguments
    assert made["pairs"] == [PAIR]
    assert made["metric"] == Own("function", "top_gap")
    assert interp.load_result(OLD / "before-patch.npz").provenance.arguments["pairs"] == [PAIR]
    assert "metric=top_gap" in interp.load_result(OLD / "before-metric.json").code()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, kind in READ.items() if kind != "Comparison"])
def test_an_old_result_is_verified_or_says_what_it_lacks(name: str, clean_session: Any) -> None:
    clean_session.load(device="cpu")
    found = interp.load_result(OLD / name).verify()
    if name == "before-metric.json":
        assert "metric was your function" in found.verdict
        return
    if name == "before-trace.json":
        assert "no features are loaded" in found.verdict
        interp.features_load("bundled")
        found = interp.load_result(OLD / name).verify()
    # The bundled model may be trained anew; its numbers are then others, and the fingerprint says so.
    assert found.state in {"holds", "changed"}
    assert found.holds or len(set(found.fingerprints)) == 2


def test_circuits_and_graphs_of_before_are_read_at_their_own_doors(lend: Callable[..., Any]) -> None:  # noqa: ARG001
    assert (
        interp.load_circuit(OLD / "before-circuit.json").nodes == interp.load_result(OLD / "before-circuit.json").nodes
    )
    assert interp.load_graph(OLD / "before-trace.json").names == interp.load_result(OLD / "before-trace.json").names
