"""Functions of the user's on workers: only where the user said so, and said in the result."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from engine.pool.test_pool import PAIRS
from interp.engine.pool import code, plain
from interp.engine.pool.processes import Processes
from interp.errors import InputError
from interp.metric import Metric

pytestmark = [pytest.mark.usefixtures("small_shards"), pytest.mark.slow]


@pytest.fixture(scope="module")
def trusting() -> Iterator[Processes]:
    pool = Processes(1, trust=True)
    pool.await_ready()
    yield pool
    pool.close()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a metric in a module that no worker can import."""
    (tmp_path / "my_metrics.py").write_text(
        "SCALE = 3.0\n\ndef helper(x):\n    return SCALE * x\n\ndef mine(logits):\n    return helper(logits[:, 14])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_metrics").mine
    del sys.modules["my_metrics"]


def test_a_metric_goes_to_workers_that_are_trusted(lend: Any, session_with: Any, trusting: Any, own: Any) -> None:
    lend("llama")
    here = interp.patch(pairs=PAIRS, metric=own)
    session_with(trusting)
    found = interp.patch(pairs=PAIRS, metric=own)
    assert np.abs(found.patched - here.patched).max() < 1e-4
    assert found.provenance.path.endswith(" shards on 1 process")
    assert "the metric mine is a function of yours, and ran on 1 process, which you trust with it" in found.notes
    local = 2.0
    again = interp.patch(pairs=PAIRS, metric=lambda logits: local * logits[:, 14])
    assert np.allclose(again.patched * 1.5, found.patched, atol=1e-4)


def test_an_intervention_goes_too_and_hooks_never(lend: Any, session_with: Any, trusting: Any) -> None:
    model = lend("llama")
    change = interp.Intervention(interp.Site("z", 0), mode="function", value=lambda z, _: z * 0.5)
    here = interp.patch(pairs=PAIRS, interventions=change)
    session_with(trusting)
    found = interp.patch(pairs=PAIRS, interventions=change)
    assert np.abs(found.patched - here.patched).max() < 1e-4
    assert any("which you trust with it" in note for note in found.notes)
    handle = model.hf_model.register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(InputError, match="hooks or functions of yours are on llama, and no code goes to workers"):
            interp.patch(pairs=PAIRS)
    finally:
        handle.remove()


def test_without_trust_nothing_is_read(lend: Any, session_with: Any, one: Any, own: Any) -> None:
    lend("llama")
    session_with(one)
    with pytest.raises(InputError, match="connect with --trust sends it, or %interp disconnect"):
        interp.patch(pairs=PAIRS, metric=own)
    tensors: dict[str, torch.Tensor] = {}
    data = plain.with_code(True, lambda: plain.flat(Metric("mine", own), tensors))
    with pytest.raises(InputError, match="this worker runs no functions of yours; connect with --trust"):
        plain.whole(data, tensors)
    with pytest.raises(InputError, match="cannot go to workers"):
        code.packed(_locked())


def _locked() -> Any:
    lock = threading.Lock()  # which cannot be written down
    return lambda: lock
