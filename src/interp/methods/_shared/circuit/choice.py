"""Which edges make a circuit of a given size, by their scores; and circuits of that size by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.spec import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from interp.methods._shared.circuit.result import CircuitResult
    from interp.results.tables import Float

    Mask = NDArray[np.bool_]

_RESAMPLES = 100  # of the pairs that chose a circuit
_FACTOR = 2.0  # how far the embedding's estimates may be from what they must sum to before that is said


def of_pairs(circuit: CircuitResult) -> NDArray[np.float32]:
    """Return each pair's scores of what was ranked: edges, ``[pair, writer, reader]``, or nodes, ``[pair, writer]``."""
    return circuit.per_node if circuit.level == "head" else circuit.per_pair


def ranking(circuit: CircuitResult) -> str:
    """Return by what edges were ranked."""
    if circuit.method == "acdc":
        return "the threshold that they survive, of equals the lowest first"
    return "the absolute score of heads and MLPs" if circuit.level == "head" else "absolute score"


def of_size(circuit: CircuitResult, size: int, scores: Float | None = None) -> Mask:
    """Return the circuit of at most `size` edges that `circuit`'s scores (or others) make, ``bool [writer, reader]``.

    Of edges: the largest number of the strongest, either way, of which no more than `size` lie on a way from the
    embedding to the logits; of equals the lowest first. Where nodes were ranked (``level`` is ``head``): all edges
    between as many of the strongest heads and MLPs as have no more than `size`.

    Parameters
    ----------
    scores
        Of what was ranked: ``float64 [writer, reader]``, or ``[writer]`` of nodes.
    """
    if circuit.level == "head":
        given = np.nan_to_num(circuit.per_node).mean(0, dtype=np.float64) if scores is None else scores
        order = np.argsort(-np.abs(np.nan_to_num(given[1:])), kind="stable")
        return _between(order[: _most(len(order), size, lambda n: _between(order[:n], circuit).sum())], circuit)
    given = circuit.scores if scores is None else scores
    writer, reader = np.nonzero(circuit.exists)
    sizes = np.abs(np.nan_to_num(given[writer, reader]))

    def joined(count: int) -> tuple[NDArray[np.int64], ...]:
        first = order[:count]
        return circuit.joined(writer[first], reader[first])

    # Of a small circuit in a large model only the strongest edges are sorted and tried.
    order = _strongest(sizes, 2 * size)
    while len(order) < len(sizes) and len(joined(len(order))[0]) <= size:
        order = _strongest(sizes, 2 * len(order))
    mask = np.zeros_like(circuit.exists)
    mask[joined(_most(len(order), size, lambda count: len(joined(count)[0])))] = True
    return mask


def of_share(circuit: CircuitResult, share: float, *, absolute: bool) -> Mask:
    """Return the circuit that MIB's circuit track makes of a share of what was ranked, ``bool [writer, reader]``.

    That many edges (or heads and MLPs, with all edges between them), rounded down, of the largest scores, or the
    largest sizes of scores where `absolute`; what lies on no way from the embedding to the logits is then left out,
    and nothing takes its place. Mueller et al. (2025), "MIB: A Mechanistic Interpretability Benchmark".
    """
    if circuit.level == "head":
        given = np.nan_to_num(circuit.per_node).mean(0, dtype=np.float64)[1:]
        return _between(_first(given, share, absolute), circuit)
    writer, reader = np.nonzero(circuit.exists)
    chosen = _first(np.nan_to_num(circuit.scores[writer, reader]), share, absolute)
    mask = np.zeros_like(circuit.exists)
    mask[writer[chosen], reader[chosen]] = True
    return circuit.connected(mask)


def _first(scores: Float, share: float, absolute: bool) -> NDArray[np.int64]:
    order = np.argsort(-(np.abs(scores) if absolute else scores), kind="stable")
    return order[: int(share * len(scores))]


def _strongest(sizes: Float, count: int) -> NDArray[np.int64]:
    """Return the numbers of the `count` largest, the largest first, of equals the lowest; all that equal the last."""
    least = np.partition(sizes, -count)[-count] if count < len(sizes) else -np.inf
    those = np.flatnonzero(sizes >= least)
    return those[np.argsort(-sizes[those], kind="stable")]


def _most(count: int, size: int, made: Callable[[int], int]) -> int:
    """Return how many of `count` give no more than `size`, by what is `made` of the first of them: more give more."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if made(middle) <= size else (low, middle - 1)
    return low


def _between(chosen: NDArray[np.int64], circuit: CircuitResult) -> Mask:
    """Return all edges among some heads and MLPs, the embedding and the logits."""
    names = {circuit.writers[n + 1] for n in chosen} | {"embed", "logits"}
    writes = np.array([name in names for name in circuit.writers])
    reads = np.array([not names.isdisjoint(circuit.reading(name)) for name in circuit.readers])
    return circuit.connected(writes[:, None] & reads[None, :])


def by_chance(circuit: CircuitResult, chance: np.random.Generator) -> Mask:
    """Return a random circuit with as many edges as `circuit`, all on a way from the embedding to the logits.

    The scores are dealt anew among the edges into inputs of one kind (queries, keys, values, MLPs, logits), whose
    scores differ in size: a random circuit that read hardly anything into the logits would be no match. Then the
    strongest edges are taken, each with the strongest way that joins it to the embedding and to the logits. Where nodes
    were ranked, heads are exchanged for heads and MLPs for MLPs, and the number of edges is as near as that allows.

    Shi et al. (2024), "Hypothesis Testing the Circuit Hypothesis in LLMs", compare with random ways of equal size too.
    """
    if circuit.level == "head":
        return _exchanged(circuit, chance)
    kinds = np.array([Node.parse(name).kind for name in circuit.readers])
    dealt = np.full(circuit.scores.shape, -1.0)
    for kind in dict.fromkeys(kinds.tolist()):
        writer, reader = np.nonzero(circuit.exists & (kinds == kind)[None, :])
        dealt[writer, reader] = chance.permutation(np.abs(np.nan_to_num(circuit.scores[writer, reader])))
    # Equal scores, such as ACDC's thresholds, in a random order.
    dealt += chance.random(dealt.shape) * 1e-9 * (dealt.max() or 1.0)
    return _Ways(circuit, dealt).grown(int(circuit.kept.sum()))


class _Ways:
    """A circuit that grows by whole ways; `scores` are negative where there is no edge."""

    def __init__(self, circuit: CircuitResult, scores: Float) -> None:
        self.circuit = circuit
        self.scores = scores
        row = {name: n for n, name in enumerate(circuit.writers)}
        self.nodes = [[row[name] for name in circuit.reading(name) if name in row] for name in circuit.readers]
        self.inputs: list[list[int]] = [[] for _ in circuit.writers]
        for reader, nodes in enumerate(self.nodes):
            for node in nodes:
                self.inputs[node].append(reader)
        self.mask = np.zeros_like(circuit.exists)
        self.fed = np.array([name == "embed" for name in circuit.writers])  # writers with a way from the embedding
        self.used = np.array([name == "logits" for name in circuit.readers])  # inputs with a way to the logits

    def grown(self, size: int) -> Mask:
        """Return the circuit of `size` edges."""
        writer, reader = np.nonzero(self.circuit.exists)
        held = 0  # counted as it grows: a sum over the mask for each way would take longer than all else
        for n in np.argsort(-self.scores[writer, reader], kind="stable"):
            way = {(int(writer[n]), int(reader[n])), *self._down(int(writer[n])), *self._up(int(reader[n]))}
            new = [edge for edge in way if not self.mask[edge]]
            if held + len(new) <= size:
                for edge in new:
                    self._add(edge)
                held += len(new)
            if held == size:
                break
        return self.mask

    def _down(self, writer: int) -> Iterator[tuple[int, int]]:
        """Yield the strongest edges that join a writer to what is fed."""
        while not self.fed[writer]:
            scores = self.scores[:, self.inputs[writer]]
            below, column = np.unravel_index(int(scores.argmax()), scores.shape)
            yield int(below), self.inputs[writer][int(column)]
            writer = int(below)

    def _up(self, reader: int) -> Iterator[tuple[int, int]]:
        """Yield the strongest edges that join an input to what is used."""
        while not self.used[reader]:
            scores = self.scores[self.nodes[reader]]
            row, above = np.unravel_index(int(scores.argmax()), scores.shape)
            yield self.nodes[reader][int(row)], int(above)
            reader = int(above)

    def _add(self, edge: tuple[int, int]) -> None:
        self.mask[edge] = True
        self.fed[self.nodes[edge[1]]] = True
        self.used[self.inputs[edge[0]]] = True


def _exchanged(circuit: CircuitResult, chance: np.random.Generator) -> Mask:
    there: Mask = np.any(circuit.kept, axis=1)[1:].copy()
    mlps = np.array([name.endswith("mlp") for name in circuit.writers[1:]])
    for kind in (mlps, ~mlps):
        there[kind] = chance.permutation(there[kind])
    return _between(np.nonzero(there)[0], circuit)


def stability(circuit: CircuitResult, seed: int) -> Float:
    """Return the Jaccard index of a circuit and those of its size that its pairs, resampled, choose, ``[draw]``.

    None of ACDC's, whose pairs have no scores of their own, and none of a single pair.
    """
    kept, each = circuit.kept, np.nan_to_num(of_pairs(circuit))
    if circuit.method == "acdc" or len(each) < 2:
        return np.zeros(0)
    found: list[float] = []
    chance = np.random.default_rng(seed)
    for share in chance.multinomial(len(each), np.full(len(each), 1 / len(each)), _RESAMPLES) / len(each):
        scores = np.tensordot(share.astype(np.float32), each, axes=1)
        mask = of_size(circuit, int(kept.sum()), scores.astype(np.float64))
        found.append((mask & kept).sum() / (mask | kept).sum())
    return np.array(found)


def saturation(made: CircuitResult, steps: int | None) -> list[str]:
    """Say where the embedding's estimates, which must carry all the difference, are far from it.

    Moving the embedding from the corrupted prompt's to the clean one's is the whole change, and the gradients of all
    that reads it sum to its own.
    """
    if made.ablation != "corrupted":
        return []
    true = float((made.clean_metric - made.ablated_metric).mean())
    found = float(np.nansum(made.scores[0]))
    if not np.isfinite(true) or not np.isfinite(found) or abs(true) < 1e-6:
        return []
    if 1 / _FACTOR <= found / true <= _FACTOR:
        return []
    instead = "--method exact helps" if steps is None else f"more --steps than {steps} help"
    more = "--method eap-ig takes more gradients" if made.method == "eap" else instead
    return [
        f"saturation: the embedding's edges carry all the difference and should sum to {true:+.3g}, but are estimated "
        f"at {found:+.3g}; {more}"
    ]
