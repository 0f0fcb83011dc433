"""Shards of estimates, as a worker makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from interp.engine.patching.attribution import Job
from interp.engine.patching.cases import Case
from interp.engine.patching.driver import silent
from interp.engine.patching.feature_estimates import FeatureJob
from interp.engine.patching.shards import features_of

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def attributed(
    models: Sequence[LoadedModel],
    step: Callable[[], None],  # noqa: ARG001 - called at every forward
    *,
    cases: Sequence[Case],
    steps: int,
    neurons: bool,
    asked: str,
    features: Mapping[str, Any] | None = None,
    by: str = "",
) -> dict[str, Any]:
    """Return ``nodes``, site → ``[case, …]``, ``neurons`` likewise or ``None``, ``base`` and ``source``, ``[case]``.

    Parameters
    ----------
    models
        The model that is differentiated, and the one whose activations would be put in.
    features, by
        Of an estimate of features: what `Features.part` told of them, and how they are divided.
    """
    model, source_model = models
    known = features_of(model, source_model, cases, features)
    if known is None:
        job = Job(model, cases, steps, neurons, asked, source_model, silent)
    else:
        job = FeatureJob(known, cases, by, source_model, steps)
    found = job.run()
    if found.interrupt is not None:  # of a shard all is kept, or nothing
        raise found.interrupt
    return {
        "nodes": {site: torch.stack([own[site] for own in found.nodes]) for site in found.nodes[0]},
        "neurons": torch.stack(found.neurons) if found.neurons else None,
        "base": found.base,
        "source": found.source,
    }
