"""What a model's layers cost, against torch's own count; works one after the other; the curve of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.rates import Curve
from interp.engine.forecast.work import Sizes, Through, Work
from interp.engine.model.meter import Meter
from interp.engine.patching import foreseen
from interp.engine.transformer import incremental, network
from interp.spec import Pair, Prompt

TOKENS = 11


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_a_forwards_operations_are_those_that_torch_counts(family: str, lend: Callable[..., Any]) -> None:
    model = lend(family)
    sizes = Sizes.of(network.read(model))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.hf_model(torch.arange(TOKENS)[None])
    attention = sizes.pair * TOKENS * TOKENS
    expected = sizes.depth * (TOKENS * sizes.layer + attention) + TOKENS * sizes.unembed
    assert counter.get_total_flops() == expected


def test_a_layer_of_gpt2_by_hand(lend: Callable[..., Any]) -> None:
    sizes = Sizes.of(network.read(lend("gpt2")))
    d = sizes.width
    assert sizes.layer == 2 * (4 * d * d + 8 * d * d)  # four of d × d, and two of d × 4 d
    assert sizes.kept == 4 * ((2 * sizes.depth + 1) * d + sizes.depth * 4 * d)


def test_what_stays_is_there_while_the_next_is_done() -> None:
    first, second = Work(held=10, peak=30), Work(held=5, peak=25)
    both = first + second
    assert (both.held, both.peak) == (15, 35)
    assert (second + first).peak == 35
    assert (Work(peak=50) + second).peak == 50


def test_a_curve_is_what_was_measured_and_straight_beyond() -> None:
    curve = Curve((1, 16), (1.0, 4.0), 0.5)
    assert [curve(n) for n in (0, 1, 16, 20)] == [0.0, 1.0, 4.0, 6.0]


def test_a_meter_sees_what_is_given_back_at_once() -> None:
    meter = Meter(torch.device("cpu"))
    meter.start()
    held = torch.ones(20_000_000)
    least = 0.9 * held.nbytes  # something else may be given back meanwhile
    while meter.most() < least:
        held.add_(1)
    del held
    meter.stop()
    assert least <= meter.most() < 2 * least


@pytest.mark.parametrize(("site", "by"), [("z", "head"), ("resid_pre", "position"), ("k", "head-position")])
def test_the_rows_of_a_sweep_are_those_that_go_through_the_layers(
    site: str, by: str, lend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import interp

    model = lend("gpt2")
    pair = Pair(Prompt(ids=tuple(range(5, 17))), Prompt(ids=(*range(5, 11), 40, *range(12, 17))), (3,), (4,))
    told: list[tuple[int, ...]] = []
    taken: list[int] = []
    plain = foreseen.of_sweep

    def telling(job: Any, **options: Any) -> tuple[Foresight, Work]:
        sight, work = plain(job, **options)
        told[:] = [tuple(one.rows for one in work.through)]
        return sight, work

    step = incremental._mlp

    def counting(block: Any, index: int, bases: Any, middle: Any) -> Any:
        if middle:
            taken.append(sum(joined.rows.numel() // model.geometry.d_model for joined, _ in middle))
        return step(block, index, bases, middle)

    monkeypatch.setattr(foreseen, "of_sweep", telling)
    monkeypatch.setattr(incremental, "_mlp", counting)
    interp.patch(pairs=[pair], site=site, by=by)
    waves = told[0][1:]  # the first is of the base runs
    # Of the last layer the rows that go in and the one of each that comes out are halved.
    assert len(waves) == len(taken)
    assert list(waves[:-1]) == taken[:-1]


def test_a_forecast_of_layers_counts_gradients_as_often_as_forwards(lend: Callable[..., Any]) -> None:
    from interp.engine.forecast.costs import priced

    sight = Foresight(lend("gpt2"))
    once, twice = (priced(sight, Work(through=(Through(8, 2, graded=n),))) for n in (0, 8))
    assert twice.flops == 2 * once.flops
    assert twice.bytes_read == 2 * once.bytes_read
    assert twice.seconds > once.seconds
