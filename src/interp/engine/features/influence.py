"""Influence in an attribution graph, what of it is kept, and how much of it features explain.

With A the edges, of which the absolute values into each node are divided by their sum, B = (I − A)⁻¹ − I sums over all
ways; a node's influence is what B carries from it to the outputs, by their weights. Replacement and completeness are
defined as circuit-tracer defines them (Ameisen et al. 2025; Hanna et al. 2025), but that edges from features into
which no edges were computed count as unexplained, as errors do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from interp.engine.features.attribution import Traced


def normalised(edges: Tensor) -> Tensor:
    """Return the absolute edges, ``[row, source]``, divided by their sum over each row."""
    size = edges.abs()
    return size / size.sum(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)


def influence_of(edges: Tensor, targets: Tensor, layers: Tensor, weights: Tensor, count: int) -> Tensor:
    """Return each source's influence on the outputs, ``float64 [source]``.

    Parameters
    ----------
    edges
        ``[row, source]``: of targets, then of outputs.
    targets, layers
        ``int64 [target]``: which source each is, and its layer.
    weights
        ``float64 [output]``.
    count
        How many sources there are.
    """
    share = normalised(edges)
    rows = len(targets)
    influence = (weights.to(share) @ share[rows:]).double()
    # An edge leads to a higher layer: from the top down, each target's influence is known when its row is added.
    for layer in layers.unique().flip(0).tolist():
        own = (layers == layer).nonzero()[:, 0]
        influence += (influence[targets[own]].to(share) @ share[own]).double()
    assert len(influence) == count
    return influence


class Influence:
    """Influence in a whole graph.

    Attributes
    ----------
    nodes
        ``float64 [source]``.
    share
        ``[row, source]``: the normalised edges.
    row_weights
        ``float64 [row]``: the influence of what each row leads to; of an output, its weight.
    """

    def __init__(self, traced: Traced) -> None:
        held, weights = traced.sources, traced.biases.new_tensor([one.weight for one in traced.readings])
        self.share = normalised(traced.edges)
        self.nodes = influence_of(traced.edges, traced.targets, held.layers[traced.targets], weights, len(held))
        self.row_weights = torch.cat([self.nodes[traced.targets], weights])
        self._held, self._targets = held, traced.targets
        unexplored = torch.ones(held.n_features, dtype=torch.bool, device=self.nodes.device)
        unexplored[traced.targets] = False
        self._lost = torch.zeros(len(held), dtype=torch.bool, device=self.nodes.device)
        self._lost[: held.n_features] = unexplored
        self._lost[held.first_error : held.first_embedding] = True

    @property
    def replacement(self) -> float:
        """Share of the influence that begins at tokens, and not at errors."""
        tokens = float(self.nodes[self._held.first_embedding :].sum())
        total = tokens + float(self.nodes[self._lost].sum())
        return tokens / total if total else float("nan")

    @property
    def completeness(self) -> float:
        """Share of what leads into nodes that is not errors, by the nodes' influence."""
        explained = 1 - self.share[:, self._lost].double().sum(1)
        total = float(self.row_weights.sum())
        return float((explained * self.row_weights).sum()) / total if total else float("nan")

    def kept(self, nodes: float, edges: float) -> tuple[Tensor, Tensor]:
        """Return the sources and the edges that are kept, by shares of the influence.

        Parameters
        ----------
        nodes, edges
            Sources and then edges are kept, the largest first, until they have this share of all influence.

        Returns
        -------
        tuple
            ``bool [source]`` and ``bool [row, source]``; no edge is kept whose end is not, and no feature without an
            edge that leads from it, or (features) to it.
        """
        among = self.nodes.clone()
        among[: self._held.n_features][self._lost[: self._held.n_features]] = 0
        keep = _largest(among, nodes)
        rows = torch.ones(len(self.share), dtype=torch.bool, device=keep.device)
        rows[: len(self._targets)] = keep[self._targets]
        scores = self.share.double() * self.row_weights[:, None]
        scores[~rows] = 0
        scores[:, ~keep] = 0
        kept = _largest(scores.flatten(), edges).view_as(scores) & (scores > 0)
        while True:  # what has lost its edges loses those of others
            out, into = kept.any(0), kept.any(1)
            alive = keep & out
            fed = into[: len(self._targets)]
            alive[self._targets] &= fed
            if bool((alive == keep).all()):
                return keep, kept
            keep = alive
            rows[: len(self._targets)] = keep[self._targets]
            kept = kept & rows[:, None] & keep[None]


def _largest(scores: Tensor, share: float) -> Tensor:
    """Return which are the largest that together have a share of the sum."""
    order = scores.argsort(descending=True, stable=True)
    summed = scores[order].cumsum(0)
    total = float(summed[-1]) if len(summed) else 0.0
    count = int((summed < share * total).sum()) + 1 if total > 0 else 0
    found = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    found[order[:count]] = True
    return found & (scores > 0)
