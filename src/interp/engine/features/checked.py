"""An attribution graph's edges measured: features changed in the real model, with attention and norms free.

The graph is linear, and of one prompt as it is: it says that where a feature's activation becomes (1 + c) times as
large, each node that it leads to changes by c times the sum over all ways through the graph's nodes. The model says
what does happen: every MLP is itself again, patterns and norms move. What an edge is worth is how far both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.features.attribution import Traced
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import flat
from interp.sites import SITES

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True, eq=False)
class Checked:
    """What the graph foretells and what the model does.

    Attributes
    ----------
    entries, changes
        ``int64 [run]`` and ``float32 [run]``: which feature was changed, and by which multiple of its activation: −1
        takes it away, 1 doubles it.
    rows
        ``int64 [node]``: the rows of the graph that were looked at.
    foretold, measured
        ``float32 [run, node]``: changes of pre-activations, and of what is read off the end.
    downstream
        ``bool [run, node]``: whether the graph has a way from the one to the other.
    """

    entries: Tensor
    changes: Tensor
    rows: Tensor
    foretold: Tensor
    measured: Tensor
    downstream: Tensor


def foretold(traced: Traced, entries: Tensor, changes: Tensor) -> Tensor:
    """Return by how much each row changes by the graph, ``[run, row]``, where features' activations are multiplied.

    Ways lead only through features that have a row.
    """
    held = traced.sources
    relative = traced.edges.new_zeros(len(entries), held.n_features)  # of each feature's activation
    relative[torch.arange(len(entries)), entries] = changes.to(relative)
    out = traced.edges.new_zeros(len(entries), len(traced.edges))
    layers = held.layers[traced.targets]
    for layer in layers.unique().tolist():
        own = (layers == layer).nonzero()[:, 0]
        moved = relative @ traced.edges[own, : held.n_features].T
        out[:, own] = moved
        targets = traced.targets[own]
        # A feature that is itself changed stays as it was set.
        free = entries[:, None] != targets[None]
        relative[:, targets] += torch.where(free, moved / held.activations[targets], 0.0)
    rest = slice(len(traced.targets), None)
    out[:, rest] = relative @ traced.edges[rest, : held.n_features].T
    return out


def check(
    model: LoadedModel,
    traced: Traced,
    entries: Tensor,
    rows: Tensor,
    *,
    changes: Sequence[float] = (-1.0, 1.0),
    on_step: Callable[[int, int], object] | None = None,
) -> Checked:
    """Change features one by one in the model, and compare.

    Parameters
    ----------
    entries
        Which features, by their numbers among the sources.
    rows
        The nodes to look at: rows of the graph.
    changes
        By which multiples of its activation each is changed.
    """
    held = traced.sources
    runs, amounts = entries.repeat_interleave(len(changes)), torch.tensor(changes).repeat(len(entries)).to(traced.edges)
    looked = _Looked(model, traced, rows)
    measured = traced.edges.new_zeros(len(runs), len(rows))
    done = 0

    def some(numbers: Sequence[int]) -> None:
        nonlocal done
        chosen = torch.tensor(list(numbers), device=runs.device)
        # An unchanged run beside them: the last bits depend on what runs together.
        found = looked.run(runs[chosen], amounts[chosen])
        measured[chosen] = found[1:] - found[:1]
        done += len(chosen)
        if on_step is not None:
            on_step(done, len(runs))

    memory.halving(range(len(runs)), together(held.n_positions), some, model.device)
    told = foretold(traced, runs, amounts)[:, rows]
    return Checked(runs, amounts, rows, told, measured, told != 0)


def together(length: int) -> int:
    """Return how many changed runs of a prompt of `length` tokens go into one forward."""
    return max(1, memory.WAVE_ROWS // (4 * length))


class _Looked:
    """Runs of the model in which features are changed and nodes are looked at."""

    def __init__(self, model: LoadedModel, traced: Traced, rows: Tensor) -> None:
        self.model, self.traced, self.rows = model, traced, rows
        held = traced.sources
        self.ids = held.frozen.ids
        self.features = rows < len(traced.targets)
        self.entries = traced.targets[rows[self.features]]
        self.readings = [traced.readings[row - len(traced.targets)] for row in rows[~self.features].tolist()]

    def run(self, entries: Tensor, changes: Tensor) -> Tensor:
        """Return the nodes' values, ``[1 + run, node]``: of an unchanged run, then of those with features changed."""
        held, count = self.traced.sources, len(entries) + 1
        found = self.traced.edges.new_zeros(count, len(self.rows))
        functions: dict[str, Hook] = {}
        for layer, one in held.frozen.dictionaries.items():
            own = (held.layers[self.entries] == layer).nonzero()[:, 0]
            if len(own):
                functions[one.reads.hook(self.model)] = self._read(one, own, found)
        for layer in range(len(held.frozen)):
            added = held.written(entries, layer) * changes[:, None]
            if bool(added.any()):
                functions[SITES["mlp_out"].hook(layer)] = self._add(added, held.positions[entries])
        end: dict[str, Tensor] = {}

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            end["x"] = tensor

        functions[SITES["resid_post"].hook(len(held.frozen) - 1)] = keep
        self.model.forward([self.ids] * count, functions)
        places = (~self.features).nonzero()[:, 0].tolist()
        for place, reading in zip(places, self.readings, strict=True):
            normed = held.frozen.network.final(end["x"][:, reading.position].to(found))
            found[:, place] = normed @ reading.direction + reading.bias
        return found

    def _read(self, one: Dictionary, own: Tensor, found: Tensor) -> Hook:
        held = self.traced.sources
        entries = self.entries[own]
        columns = self.features.nonzero()[:, 0][own]

        def read(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            x = flat(one.reads, tensor)[:, held.positions[entries]].to(found)
            features = held.features[entries]
            pre = (one.taken(x) * one.encoder[features]).sum(-1) + one.bias[features]
            if one.act.kind == "gated":
                assert one.act.scale is not None
                assert one.act.magnitude is not None
                pre = pre * one.act.scale[features] + one.act.magnitude[features]
            found[:, columns] = pre

        return read

    def _add(self, added: Tensor, positions: Tensor) -> Hook:
        def add(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
            out = tensor.clone()
            out[torch.arange(1, len(out)), positions] += added.to(out)
            return out

        return add
