"""The demo scripts, run as a user would: what they print is what was measured, and their pictures are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "demo"
CLEAN = "When Mary and John went to the store, Mary gave a drink to"
OTHER = "When John and Mary went to the store, John gave a drink to"


def printed(script: str, folder: Path) -> str:
    """Run a script in a folder of its own, and return what it says."""
    ours = str(Path(interp.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, DEMO / script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ours, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


def pictures(folder: Path) -> set[str]:
    """Return the pictures in a folder, each of some size."""
    files = list(folder.glob("*.png"))
    assert all(file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 10_000 for file in files)
    return {file.name for file in files}


def test_activation_patching_prints_what_patching_measures(clean_session: Any, tmp_path: Path) -> None:
    said = printed("activation_patching.py", tmp_path)
    assert pictures(tmp_path) == {"ioi_patching_results.png", "factual_patching_results.png"}
    clean_session.load(device="cpu")
    result = interp.patch(CLEAN, OTHER, answer=" John", wrong=" Mary")
    first = said.partition("FACTS")[0]
    ranked = re.findall(r"Layer +(\d+), Head +(\d+): ([+-]\d\.\d+) recovery", first)
    assert len(ranked) == 5
    for layer, head, recovery in ranked:
        assert float(recovery) == pytest.approx(float(result.recovery[int(layer), int(head)]), abs=6e-4)
    order = np.abs(result.recovery).ravel().argsort()[::-1][:5]
    assert [divmod(int(at), result.recovery.shape[1]) for at in order] == [(int(a), int(b)) for a, b, _ in ranked]
    logits = clean_session.get().bridge.forward(CLEAN, return_type="logits")[0, -1]
    right, wrong = (index for _, _, index in result.tokens_taken)
    (clean,) = re.findall(r"Clean logit difference: ([+-][\d.]+)", first)
    assert float(clean) == pytest.approx(float(logits[right] - logits[wrong]), abs=2e-3)


def test_circuit_discovery_prints_what_the_circuit_is(clean_session: Any, tmp_path: Path) -> None:
    said = printed("circuit_discovery.py", tmp_path)
    assert pictures(tmp_path) == {"induction_circuit.png", "factual_circuit.png"}
    clean_session.load(device="cpu")
    circuit = interp.circuit(
        "The capital of France is", "The capital of Italy is", answer=" Paris", wrong=" Rome", edges=40
    )
    facts = said.partition("FACTS")[2]
    edges = re.findall(r"^   (\S+) -> (\S+): ([+-][\d.]+)$", facts, re.MULTILINE)
    assert [(edge.writer, edge.reader) for edge in circuit.edges[:5]] == [edge[:2] for edge in edges]
    np.testing.assert_allclose([float(edge[2]) for edge in edges], [e.score for e in circuit.edges[:5]], atol=1e-3)
    (alone,) = re.findall(r"the circuit alone: ([+-][\d.]+)", facts)
    assert float(alone) == pytest.approx(float(interp.validate(circuit).faithfulness), abs=2e-3)
    assert float(alone) > 0.8
    (random,) = re.findall(r"random circuits of its size: ([+-][\d.]+)", facts)
    assert abs(float(random)) < 0.3
