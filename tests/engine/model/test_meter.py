"""A command's most memory: what it allocates and gives back is seen, whatever was freed before."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

import interp
from interp.engine.model.meter import Meter
from interp.spec import Pair, Prompt

MUCH = 1 << 27


@pytest.fixture
def meter() -> Any:
    made = Meter(torch.device("cpu"))
    yield made
    made.stop()


@pytest.mark.parametrize("freed", [0, MUCH], ids=["", "something freed first"])
def test_what_is_given_back_is_seen(freed: int, meter: Meter) -> None:
    left = torch.ones(freed, dtype=torch.uint8)
    meter.start()
    del left
    time.sleep(1.2)
    one = torch.ones(MUCH, dtype=torch.uint8)
    time.sleep(1.2)
    del one
    assert meter.most() == pytest.approx(MUCH, rel=0.25)


def test_what_is_still_held_is_seen_however_short_the_time(meter: Meter) -> None:
    meter.start()
    one = torch.ones(MUCH, dtype=torch.uint8)
    assert meter.most() >= 0.75 * one.nbytes


def test_what_a_sweep_needed_is_in_its_provenance(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lend()
    monkeypatch.setattr(Meter, "most", lambda self: 12_345 if self._thread is not None else 0)
    found = interp.patch(pairs=[Pair(Prompt(ids=(5, 9, 33, 40)), Prompt(ids=(5, 9, 61, 40)), 14, 15)])
    assert found.provenance.peak_bytes == 12_345
