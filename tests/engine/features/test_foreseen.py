"""What features are forecast to hold: byte for byte what the objects that do the work hold, and their products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import dictionaries
from interp.engine.features import foreseen
from interp.engine.features.activity import PAIRED, Activity, partners
from interp.engine.features.training import Recipe, Trainer, beginning

SHAPES = [(64, 10, 24), (PAIRED + 2, 3, 1)]


def size(value: Any) -> int:
    """Return the bytes of all tensors in an object's attributes, each once."""
    held: dict[int, int] = {}

    def look(one: Any) -> None:
        if isinstance(one, Tensor):
            held[one.data_ptr()] = one.nbytes
        elif hasattr(one, "__dict__"):
            for inner in vars(one).values():
                look(inner)

    look(value)
    return sum(held.values())


@pytest.mark.parametrize(("width", "context", "chosen"), SHAPES)
def test_what_a_pass_holds(width: int, context: int, chosen: int) -> None:
    one = dictionaries.transcoder(width // 2)
    found = partners(one, range(chosen))
    assert len(found) == (width if width <= PAIRED else chosen)
    own = Activity(one.width, context, 0, found)
    told = foreseen.Counted(one, len(found), context).held
    small = own.partners.nbytes + own._row_of.nbytes
    assert told == size(own) - small


@pytest.mark.parametrize("skip", [False, True])
def test_what_a_training_holds_and_multiplies(skip: bool) -> None:
    recipe = Recipe(width=96, k=4, steps=10, batch=128, skip=skip)
    rows = torch.randn(512, 24, generator=torch.Generator().manual_seed(0))
    read, written = rows[:, :16].contiguous(), rows[:, 16:].contiguous()
    trainer = Trainer(recipe, beginning(recipe, read, written))
    trainer.step(read[:128], written[:128])
    with FlopCounterMode(display=False) as counter:
        trainer.step(read[128:256], written[128:256])
    told = foreseen._step(recipe, 16, 8)
    moments = [state[name] for state in trainer.optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
    gradients = [weight.grad for weight in trainer.weights.values()]
    held = sum(one.nbytes for one in [*trainer.weights.values(), *moments, *gradients] if one is not None)
    assert told.held == held
    # Read by the encoder; of a skip connection the map, and its gradient.
    assert told.flops == counter.get_total_flops()
