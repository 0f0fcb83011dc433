"""An attribution graph's features changed in the real model, beside what the graph foretells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.engine.features.checked import check
from interp.engine.forecast.costs import foresee
from interp.errors import InputError
from interp.methods._shared.trace import making
from interp.methods._shared.trace.foreseen import of_check
from interp.methods._shared.trace.parts import TraceCheck, TraceMove
from interp.methods._shared.trace.result import TraceResult

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.features.attribution import Traced
    from interp.engine.model.loaded import LoadedModel


def checked(model: LoadedModel, result: TraceResult, features: int) -> TraceResult:
    """Return the graph with its strongest features taken away and doubled in the model, one by one.

    Raises
    ------
    InputError
        It has no features, or they are gone.
    """
    if features < 1:
        raise InputError(f"{features} features are none; use 1 or more")
    strongest = [result.number(name) for name, _ in result.top(features)]
    if not strongest:
        raise InputError("the graph has no features to change; keep more of it with --nodes")
    foresee(model, lambda: of_check(model, len(result.tokens), len(strongest), len(result.kinds)))
    traced, _ = making.again(model, result)
    entries = making.entries_of(traced, result)
    chosen = torch.tensor([entries[number] for number in strongest])
    looked = [n for n, kind in enumerate(result.kinds) if kind in {"feature", "logit"}]
    rows = _rows(traced, result, entries, looked)
    found = check(
        model, traced, chosen, rows, on_step=lambda done, total: model.on_step(done, total, f"{done}/{total} changes")
    )
    place = {entries[number]: number for number in strongest}
    return replace(
        result,
        check=TraceCheck(
            changed=np.array([place[entry] for entry in found.entries.tolist()], np.int32),
            changes=found.changes.float().numpy().copy(),
            nodes=np.array(looked, np.int32),
            foretold=found.foretold.float().cpu().numpy().copy(),
            measured=found.measured.float().cpu().numpy().copy(),
            downstream=found.downstream.cpu().numpy().copy(),
        ),
    )


def moved(model: LoadedModel, result: TraceResult, name: str, change: float) -> list[TraceMove]:
    """Return what becomes of each logit of the graph where a feature's activation is changed.

    Raises
    ------
    InputError
        The node is no feature of the graph.
    """
    number = result.number(name)
    if result.kinds[number] != "feature":
        raise InputError(f"{name} is no feature; its strength cannot be changed")
    if not np.isfinite(change):
        raise InputError(f"{change} is no change; give a number, such as −1 to take the feature away")
    traced, _ = making.again(model, result)
    entries = making.entries_of(traced, result)
    logits = [n for n, kind in enumerate(result.kinds) if kind == "logit"]
    rows = _rows(traced, result, entries, logits)
    found = check(model, traced, torch.tensor([entries[number]]), rows, changes=(change,))
    return [
        TraceMove(result.names[n], float(told), float(real))
        for n, told, real in zip(logits, found.foretold[0], found.measured[0], strict=True)
    ]


def _rows(traced: Traced, result: TraceResult, entries: dict[int, int], nodes: list[int]) -> Tensor:
    """Return the rows of the whole graph that lead to nodes."""
    of_target = {entry: row for row, entry in enumerate(traced.targets.tolist())}
    count, logit = len(of_target), 0
    found: list[int] = []
    for node in nodes:
        if result.kinds[node] == "logit":
            found.append(count + logit)
            logit += 1
        else:
            found.append(of_target[entries[node]])
    return torch.tensor(found)
