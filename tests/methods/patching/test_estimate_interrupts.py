"""An estimate that is stopped: the pairs that are done are kept as they are in a whole one, and it says how many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from engine.patching.test_sweep import Failing
from interp.engine import memory
from interp.engine.model import hooks
from interp.errors import Interrupted, Stopped
from interp.spec import Pair
from methods.patching.test_estimate import FIRST, ONE, SHORT, path

__all__ = ["path"]

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = [ONE, SHORT, FIRST]  # run in the order of their lengths, the first pair's first: ONE, FIRST, SHORT
ORDER = (0, 2, 1)


def ask(pairs: list[Pair], **options: Any) -> Any:
    return interp.patch(pairs=pairs, method="attribution", **options)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_stopped_estimate_keeps_the_pairs_that_are_done(
    steps: int, lend: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("llama")
    monkeypatch.setattr(memory, "GRADIENT_ROWS", 1)  # a pair at a time, and of more points two
    baseline = hooks.census(model.modules())
    whole = ask(PAIRS, steps=steps, verify=2)
    assert ", partial" not in repr(whole)
    alone = [ask([pair], steps=steps) for pair in PAIRS]
    stretches = max(1, steps - 1)  # of each pair
    for call in range(3 * stretches):
        done = ORDER[: call // stretches]
        failing = Failing(torch.autograd.grad, lambda at, call=call: at == call, KeyboardInterrupt())
        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "grad", failing)
            with pytest.raises(KeyboardInterrupt) as caught:
                ask(PAIRS, steps=steps, verify=2)
        assert torch.is_grad_enabled()
        assert hooks.census(model.modules()) == baseline
        if not done:
            assert isinstance(caught.value, Stopped)
            assert not isinstance(caught.value, Interrupted)
            assert caught.value._render_traceback_() == [
                "KeyboardInterrupt: patch was stopped before there was anything to keep"
            ]
            assert caught.value.__context__ is None, "no frame of ours keeps a tensor alive"
            continue
        assert isinstance(caught.value, Interrupted)
        kept = caught.value.result
        assert kept.notes[0].startswith(f"partial: interrupted after {len(done)}/3 pairs; ")
        assert repr(kept).endswith(", partial)")
        assert repr(kept) in str(caught.value)
        assert kept.provenance.path.startswith(path)
        # Bit for bit what these pairs have, of every site.
        rows = sorted(done)
        np.testing.assert_array_equal(kept.estimate, np.mean([alone[row].estimate for row in rows], axis=0))
        for site, values in kept.estimates.items():
            np.testing.assert_array_equal(values, np.mean([alone[row].estimates[site] for row in rows], axis=0))
        assert not kept.done.any(), "none is verified"
        assert len(kept.per_pair) == len(kept.checks.clean) == len(done)
        assert kept.clean_metric == pytest.approx(np.mean([alone[row].clean_metric for row in rows]))
        assert kept.html()
        assert kept.text()
        assert len(kept.to_frame()) == kept.estimate.size
        assert kept.top(3)
        assert kept.widget.sweep["pairs"] == len(done)
    again = ask(PAIRS, steps=steps, verify=2)
    np.testing.assert_array_equal(again.estimate, whole.estimate)


def test_an_estimate_that_is_stopped_after_its_last_pair_is_whole_but_not_verified(
    lend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lend("gpt2")
    whole = ask([ONE, FIRST], by="position", site="resid_pre")

    def stop(done: int, total: int, said: str = "") -> None:  # noqa: ARG001
        if done == total:
            raise KeyboardInterrupt

    monkeypatch.setattr(model, "on_step", stop)
    with pytest.raises(Interrupted) as caught:
        ask([ONE, FIRST], by="position", site="resid_pre", verify=3)
    kept = caught.value.result
    assert "interrupted after 2/2 pairs" in kept.notes[0]
    np.testing.assert_array_equal(kept.estimate, whole.estimate)
    assert not kept.done.any()
