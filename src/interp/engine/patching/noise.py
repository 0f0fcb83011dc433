"""How much of a metric is rounding alone, in half precision: what it moves by where every activation is rounded anew.

In bfloat16 and float16 a product rounds otherwise as soon as more rows are in it, or the same sum is taken in another
order: two forwards of one prompt differ, and neither is the right one. So a prompt runs by itself and among copies of
itself, in each of which every activation of `_JITTERED` goes to a neighbour of its value in that dtype with probability
1/6, which is the variance of the difference between two roundings (1/12 each, of units in the last place). The floor is
three standard deviations of the metric's differences from the run by itself. Monte Carlo arithmetic: Parker (1997).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from interp.engine.metrics import upcast
from interp.engine.patching.cases import Case, measured
from interp.engine.transformer.parts import HALF
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.metrics import Scorer
    from interp.engine.model.loaded import LoadedModel

PAIRS = 2  # that are looked at
COPIES = 8
_MOVED = 1 / 6
_DEVIATIONS = 3.0
_JITTERED = ("resid_pre", "q", "k", "v", "z", "attn_out", "neuron", "mlp_out")


@dataclass(frozen=True)
class Noise:
    """What rounding alone moves a metric by.

    Attributes
    ----------
    floor
        In the metric's units; 0 in single and double precision.
    relative
        The same over the metric's size, as `exactness.difference` has it.
    """

    floor: float = 0.0
    relative: float = 0.0


# Model → (state, metric) → what was measured.
_known: WeakKeyDictionary[LoadedModel, dict[Hashable, Noise]] = WeakKeyDictionary()


def measured_noise(model: LoadedModel, source_model: LoadedModel, cases: Sequence[Case]) -> Noise:
    """Return what rounding moves the metric of a few pairs' unpatched runs by; once for each state and metric."""
    if getattr(torch, model.dtype) not in HALF:
        return Noise()
    key, known = (model.state, *measured(cases, model, source_model)), _known.setdefault(model, {})
    if model.state is None or key not in known:
        known[key] = _measured(model, source_model, cases)
    return known[key]


def _measured(model: LoadedModel, source_model: LoadedModel, cases: Sequence[Case]) -> Noise:
    source = torch.Generator().manual_seed(0)
    moved: list[Tensor] = []
    sizes: list[Tensor] = []
    for case in cases[:PAIRS]:
        asked = ((model, case.base, case.position), (source_model, case.source, case.source_position))
        runs = [_logits(of, ids, at, source, case.scorer) for of, ids, at in asked]
        case = case.with_clean(*(logits[:1] for logits in runs))
        for logits in runs:
            values = case.scorer.of_logits(logits).double()
            moved.append(values[1:] - values[0])
            sizes.append(values[:1].abs())
    floor = _DEVIATIONS * float(torch.cat(moved).square().mean().sqrt())
    return Noise(floor, floor / max(1.0, float(torch.cat(sizes).mean())))


def _logits(model: LoadedModel, ids: Sequence[int], position: int, source: torch.Generator, scorer: Scorer) -> Tensor:
    """Return a prompt's logits where they are measured, then of copies rounded anew, ``float32 [run, …, d_vocab]``."""

    def jitter(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
        drawn = torch.rand(tensor.shape, generator=source).to(tensor.device)
        step = torch.where(drawn < _MOVED / 2, -torch.inf, torch.inf).to(tensor)
        return torch.where(drawn < _MOVED, torch.nextafter(tensor, step), tensor)

    last = position == len(ids) - 1 and not scorer.metric.several
    places = [Site(name, layer) for name in _JITTERED for layer in range(model.geometry.n_layers)]
    there = [place for place in places if place.kind.within(model.bridge.hook_dict, place.layer)]
    functions = {place.hook_name: jitter for place in there}
    runs = [model.forward([ids], {}, last_only=last), model.forward([ids] * COPIES, functions, last_only=last)]
    return torch.cat([upcast(run[:, -1] if last else scorer.measured(run, position)).cpu() for run in runs])
