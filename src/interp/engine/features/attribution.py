"""Attribution graphs: by how much each source of the stream makes each feature and each logit what it is.

Edge s → t: what s writes, carried through the held run (`frozen`) to where t reads, times what t reads. All edges into
t, and its biases, sum to its pre-activation. One reading carried down gives all edges into one target; targets are
taken in the order of their influence on the logits so far (Ameisen et al. 2025, "Circuit Tracing").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.engine.features.frozen import Frozen, sizes
from interp.engine.features.influence import influence_of
from interp.engine.features.sources import Sources, sources

BATCH = 64  # readings that are carried down together


@dataclass(frozen=True, eq=False)
class Reading:
    """What is read off the stream after the last layer, at one position: a logit, minus what it is compared with.

    Attributes
    ----------
    direction
        ``[d_model]``, of the final norm's output.
    bias
        What is added.
    position
        Where.
    weight
        How much it counts as an output, such as its probability.
    """

    direction: Tensor
    bias: float
    position: int
    weight: float


@dataclass(frozen=True, eq=False)
class Traced:
    """An attribution graph as it was computed.

    Attributes
    ----------
    sources
        What its columns are.
    readings
        Its last rows.
    targets
        ``int64 [row]``: the feature entries that edges lead to, in the order of the rows; readings are not among them.
    edges
        ``float32 [row, source]``: of targets, then of readings.
    biases
        ``float64 [row]``: what biases make of each.
    values
        ``float64 [row]``: what each is: its pre-activation, or the reading's value.
    """

    sources: Sources
    readings: tuple[Reading, ...]
    targets: Tensor
    edges: Tensor
    biases: Tensor
    values: Tensor

    @property
    def gap(self) -> float:
        """How far edges and biases are from making up what they lead to, by the size of what is summed, at worst."""
        total = self.edges.double().sum(1) + self.biases
        scale = self.edges.double().abs().sum(1) + self.biases.abs()
        return float(((total - self.values).abs() / scale.clamp_min(1e-30)).max())


class Tracer:
    """Edges of a held run, row by row."""

    def __init__(self, held: Sources) -> None:
        self.frozen = held.frozen
        self.sources = held

    def of_features(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Return edges, ``[entry, source]``, and biases, ``[entry]``, of features by their numbers.

        It costs least where they are of neighbouring layers.
        """
        held, frozen = self.sources, self.frozen
        entry_layers = held.layers[entries]
        top = int(entry_layers.max()) + 1
        biases = torch.zeros(len(entries), dtype=torch.float64, device=entries.device)
        start = frozen.start.new_zeros(len(entries), *frozen.start.shape)

        def joins(layer: int) -> Tensor | None:
            own = (entry_layers == layer).nonzero()[:, 0]
            if not len(own):
                return None
            more = torch.zeros_like(start)
            positions = held.positions[entries[own]]
            slopes, consts = self.reads(layer, held.features[entries[own]], positions)
            more[own, positions] = slopes
            biases[own] += consts
            return more

        edges = self.down(start, top, joins, biases)
        return edges, biases

    def of_readings(self, readings: Sequence[Reading]) -> tuple[Tensor, Tensor]:
        """Return edges and biases of what is read off the end."""
        frozen = self.frozen
        positions = torch.tensor([one.position for one in readings], device=frozen.start.device)
        directions = torch.stack([one.direction for one in readings])
        slope = frozen.start.new_zeros(len(readings), *frozen.start.shape)
        slope[torch.arange(len(readings)), positions] = frozen.final.back(directions, positions)
        biases = torch.tensor([one.bias for one in readings], dtype=torch.float64, device=slope.device)
        if (own := frozen.network.final.bias) is not None:
            biases = biases + (directions.double() @ own.double())
        return self.down(slope, len(frozen), lambda layer: None, biases), biases  # noqa: ARG005

    def value(self, reading: Reading) -> float:
        """Return what a reading is."""
        normed = self.frozen.network.final(self.frozen.end[reading.position])
        return float(normed.double() @ reading.direction.double()) + reading.bias

    def reads(self, layer: int, features: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what features read of the stream, ``[feature, d_model]``, and their biases."""
        frozen, one = self.frozen, self.frozen.dictionaries[layer]
        rows = one.encoder[features]
        bias = one.bias[features].double()
        if one.act.kind == "gated":
            assert one.act.scale is not None
            assert one.act.magnitude is not None
            rows = rows * one.act.scale[features, None]
            bias = bias * one.act.scale[features].double() + one.act.magnitude[features].double()
        # What is read where nothing is in the stream: the norm's bias, and what is taken away.
        norm = frozen.layers[layer].block.norm2.bias
        taken, shown = one.taken, frozen.shown(layer, one.reads.point)
        const = rows.new_zeros(rows.shape[-1]) if one.reads.point != "mlp_normed" or norm is None else norm
        if taken.centre or taken.normed == "layer":
            const = const - const.mean()
        ready = const * taken.scale
        ready = ready / sizes(one, shown)[positions] if taken.normed else ready
        ready = ready if taken.offset is None else ready - taken.offset
        bias = bias + (rows.double() * ready.double()).sum(-1)
        return frozen.taken_back(one, rows, positions), bias

    def down(self, slope: Tensor, top: int, joins: Callable[[int], Tensor | None], biases: Tensor) -> Tensor:
        """Carry readings of the stream before layer `top` down; return their edges.

        Parameters
        ----------
        slope
            ``[reading, position, d_model]``.
        joins
            Given a layer; readings to add of what its MLP reads, or ``None``.
        biases
            ``float64 [reading]``; what biases make of the readings is added to it.

        Returns
        -------
        Tensor
            ``[reading, source]``.
        """
        held, frozen = self.sources, self.frozen
        edges = slope.new_zeros(len(slope), len(held))

        def at_mlp(layer: int, slope: Tensor) -> Tensor | None:
            held.credit(layer, slope, edges)
            biases.add_(torch.einsum("rpd,pd->r", slope, held.constants[layer]))
            return joins(layer)

        def at_attention(layer: int, slope: Tensor) -> None:
            biases.add_(torch.einsum("rpd,pd->r", slope, frozen.layers[layer].attended))

        end = frozen.back(slope, top, at_mlp, at_attention)
        edges[:, held.first_embedding :] = torch.einsum("rpd,pd->rp", end, frozen.start)
        return edges


def trace(
    frozen: Frozen,
    readings: Sequence[Reading],
    *,
    most: int,
    batch: int = BATCH,
    on_step: Callable[[int, int], object] | None = None,
) -> Traced:
    """Return the attribution graph of what is read off the end.

    Parameters
    ----------
    frozen
        The run, held with the dictionaries that stand for its MLPs.
    readings
        Logits.
    most
        How many features edges are computed into: those of the most influence.
    batch
        How many readings are carried down together.
    on_step
        Told how many features are done, and of how many.
    """
    with torch.no_grad():
        tracer = Tracer(sources(frozen))
        held = tracer.sources
        last, last_biases = tracer.of_readings(readings)
        weights = torch.tensor([one.weight for one in readings], dtype=torch.float64, device=last.device)
        most = min(most, held.n_features)
        edges = last.new_zeros(most + len(readings), len(held))
        biases = torch.zeros(len(edges), dtype=torch.float64, device=last.device)
        edges[most:], biases[most:] = last, last_biases
        targets = torch.full((most,), -1, dtype=torch.int64, device=last.device)
        waiting = torch.ones(held.n_features, dtype=torch.bool, device=last.device)
        done = 0
        while done < most:
            found = influence_of(
                torch.cat([edges[:done], last]), targets[:done], held.layers[targets[:done]], weights, len(held)
            )
            influence = found[: held.n_features].masked_fill(~waiting, -1)
            # Those that nothing is known to lead to come last, in their order.
            chosen = influence.topk(min(_ahead(done, batch), most - done)).indices
            chosen = chosen[held.layers[chosen].argsort(descending=True, stable=True)]
            for some in chosen.split(batch):
                edges[done : done + len(some)], biases[done : done + len(some)] = tracer.of_features(some)
                targets[done : done + len(some)] = some
                waiting[some] = False
                done += len(some)
                if on_step is not None:
                    on_step(done, most)
        values = [held.pres[targets].double(), last_biases.new_tensor([tracer.value(one) for one in readings])]
    return Traced(held, tuple(readings), targets, edges, biases, torch.cat(values))


def _ahead(done: int, batch: int) -> int:
    """Return how many features are chosen by one look at influences: more, the more are known."""
    return max(4 * batch, done // 2)
