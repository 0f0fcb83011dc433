"""Patches of single cells by the model's own forward, with hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.metrics import upcast
from interp.sites import SITES, Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Aligned, Case

# Layer, head or neuron, position or span; ``None`` is all of them.
Place = tuple[int, int | None, "int | Aligned | None"]


def patched_logits(
    model: LoadedModel, source_model: LoadedModel, case: Case, site: str, places: Sequence[Place]
) -> Tensor:
    """Return the logits where the case is measured with each place patched by itself, ``[place, …, d_vocab]``."""
    layers = sorted({layer for layer, _, _ in places})
    kind = SITES[site]
    names = {layer: Site(kind.through or site, layer).hook_name for layer in layers}
    source = {layer: _source(model, source_model, case, site, layer) for layer in layers}

    def writing(layer: int) -> Hook:
        def write(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
            patched = tensor.clone()
            for row, (there, part, at) in enumerate(places):
                if there != layer:
                    continue
                given, less = source[layer]
                for position, taken in at if isinstance(at, tuple) else [(at, None)]:
                    where = kind.index(part, position)
                    if taken is None:
                        value = given[where]
                    else:
                        value = torch.stack([given[kind.index(part, one)] for one in taken]).mean(0)
                    patched[row][where] = (value if less is None else value - less[where]).to(patched)
            return patched

        return write

    functions = {names[layer]: writing(layer) for layer in layers}
    logits = model.forward([case.base] * len(places), functions, last_only=case.last)
    return upcast(logits[:, -1] if case.last else case.scorer.measured(logits, case.position))


def _source(
    model: LoadedModel, source_model: LoadedModel, case: Case, site: str, layer: int
) -> tuple[Tensor, Tensor | None]:
    """Return the source run's activation, and what of the base run's stands there already where it is put in."""
    name = Site(site, layer).hook_name
    value = source_model.activations_of(case.source, [name])[name][0]
    if not SITES[site].through:
        return value, None
    before = Site("resid_pre", layer).hook_name
    return value, model.activations_of(case.base, [before])[before][0]
