"""MLP neurons over running text: their activations a text at a time, and the best of them kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.model import hooks
from interp.engine.readouts.ov_qk import embedding, folded, unembedding
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

_ENTRIES = 2**24  # of neurons × vocabulary that are held at once


class Reader:
    """Runs texts and returns what chosen neurons do in them, ``[position, neuron]``.

    Parameters
    ----------
    chosen
        Layer → neurons; columns are in this order.
    """

    def __init__(self, model: LoadedModel, chosen: Mapping[int, Sequence[int]]) -> None:
        self.model = model
        self.chosen = {layer: torch.tensor(list(held), device=model.device) for layer, held in chosen.items()}
        self._net: network.Network | None = None

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """Return the activations in one text, ``float32 [position, neuron]``, on the CPU."""
        found: list[Tensor] = []

        def lean(check: exactness.Check) -> Tensor:  # noqa: ARG001
            found[:] = [self._lean(ids)]
            return found[0]

        done = exactness.run(
            self.model,
            self.key,
            lean=lean,
            hooked=lambda fallback: self._hooked(ids),  # noqa: ARG005
            sample=lambda: [exactness.difference(found[0], self._hooked(ids))],
            path="forward",
            length=len(ids),
        )
        self.model.note(done.path)
        return done.answer

    @property
    def key(self) -> exactness.Key:
        """What is compared with the hooked forward once."""
        return "neurons", tuple((layer, tuple(chosen.tolist())) for layer, chosen in self.chosen.items())

    def _lean(self, ids: Sequence[int]) -> Tensor:
        net = self._net = self._net or network.read(self.model, encoders=())
        held: dict[int, Tensor] = {}

        def keep(layer: int, neurons: Tensor) -> None:
            if layer in self.chosen:
                held[layer] = self._picked(layer, neurons)

        hooks.guarded(lambda: forward(net, edits={"neuron": keep}, resid=net.begin([ids]), stop=max(self.chosen) + 1))
        self.model.count(1)
        return torch.cat([held[layer] for layer in self.chosen], dim=1)

    def _hooked(self, ids: Sequence[int]) -> Tensor:
        held: dict[int, Tensor] = {}

        def hook(layer: int) -> hooks.Hook:
            def run(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                held[layer] = self._picked(layer, tensor)

            return run

        self.model.forward([ids], {Site("neuron", layer).hook_name: hook(layer) for layer in self.chosen})
        return torch.cat([held[layer] for layer in self.chosen], dim=1)

    def _picked(self, layer: int, neurons: Tensor) -> Tensor:
        return neurons[0][:, self.chosen[layer]].detach().float().cpu()


@dataclass
class Best:
    """The strongest activations of each neuron so far, with what stands around them.

    As in a heap, a text costs what it brings that is better than the weakest one held; what was better is forgotten.

    Attributes
    ----------
    values
        ``float32 [neuron, k]``, strongest first; −∞ where there is none yet.
    ids, around
        ``int64`` and ``float32 [neuron, k, 2 · context + 1]``: tokens and activations; −1 and NaN beyond a text's ends.
    place
        ``int64 [neuron, k, 2]``: which text, and which position.
    """

    neurons: int
    top: int
    context: int
    values: Tensor = field(init=False)
    ids: Tensor = field(init=False)
    around: Tensor = field(init=False)
    place: Tensor = field(init=False)

    def __post_init__(self) -> None:
        shape, wide = (self.neurons, self.top), 2 * self.context + 1
        self.values = torch.full(shape, float("-inf"))
        self.ids = torch.full((*shape, wide), -1, dtype=torch.int64)
        self.around = torch.full((*shape, wide), float("nan"))
        self.place = torch.full((*shape, 2), -1, dtype=torch.int64)

    def add(self, text: int, ids: Tensor, activations: Tensor, ranked: Tensor) -> None:
        """Take a text in.

        Parameters
        ----------
        text
            Its number.
        ids
            ``int64 [position]``.
        activations
            ``float32 [position, neuron]``.
        ranked
            What the activations are ordered by, of the same shape; −∞ where a position does not count.
        """
        found, at = ranked.topk(min(self.top, len(ids)), dim=0)
        better = (found[0] > self.values[:, -1]).nonzero()[:, 0]
        if not len(better):
            return
        found, at = found[:, better].T, at[:, better].T
        pad = self.context
        window = at[..., None] + torch.arange(2 * pad + 1)
        padded = torch.nn.functional.pad(ids, (pad, pad), value=-1)
        rows = torch.nn.functional.pad(activations[:, better].T, (pad, pad), value=float("nan"))
        around = rows.gather(1, window.flatten(1)).view(window.shape)
        place = torch.stack([torch.full_like(at, text), at], dim=-1)
        values, order = torch.cat([self.values[better], found], 1).topk(self.top, dim=1)
        self.values[better] = values
        for held, new in ((self.ids, padded[window]), (self.around, around), (self.place, place)):
            both = torch.cat([held[better], new.to(held.dtype)], 1)
            held[better] = both.gather(1, order[..., None].expand(-1, -1, both.shape[-1]))


@dataclass
class Moments:
    """Sums over tokens, ``float64 [neuron]`` each."""

    neurons: int
    count: int = 0
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(4, self.neurons, dtype=torch.float64)
        self.least = torch.full((self.neurons,), float("inf"))
        self.most = torch.full((self.neurons,), float("-inf"))

    def add(self, activations: Tensor) -> None:
        """Take ``float32 [position, neuron]`` in."""
        wide = activations.double()
        self.count += len(wide)
        parts = (wide, wide.square(), wide.abs(), (wide > 0).double())
        for total, part in zip(self.sums, parts, strict=True):
            total += part.sum(0)
        self.least = torch.minimum(self.least, activations.amin(0))
        self.most = torch.maximum(self.most, activations.amax(0))

    def statistics(self) -> dict[str, Tensor]:
        """Return mean, standard deviation, sparsity, share above zero, minimum and maximum.

        Sparsity is 1 − (mean |a|)² / mean a²: 0 where a neuron is always equally strong, near 1 where it rarely is.
        Treves and Rolls (1991); it asks nothing of the activation function, which is hardly ever exactly 0.
        """
        mean, square, size, above = self.sums / max(1, self.count)
        sparsity = torch.where(square > 0, 1 - size.square() / square, torch.zeros_like(square))
        return {
            "mean": mean,
            "std": (square - mean.square()).clamp_min(0).sqrt(),
            "sparsity": sparsity,
            "positive": above,
            "min": self.least.double(),
            "max": self.most.double(),
        }


class Sample:
    """A uniform sample of tokens without replacement, of whatever number comes by."""

    def __init__(self, size: int, neurons: int, seed: int) -> None:
        self.size = size
        self.draw = torch.Generator().manual_seed(seed)
        self.keys = torch.empty(0, dtype=torch.float64)
        self.rows = torch.empty(0, neurons)
        self.ids = torch.empty(0, dtype=torch.int64)

    def add(self, ids: Tensor, activations: Tensor) -> None:
        """Take a text in: each token draws a number, and the smallest numbers stay."""
        keys = torch.rand(len(ids), generator=self.draw, dtype=torch.float64)
        if len(self.keys) == self.size:
            near = keys < self.keys.max()
            keys, ids, activations = keys[near], ids[near], activations[near]
        keys = torch.cat([self.keys, keys])
        kept = keys.argsort()[: self.size]
        self.keys = keys[kept]
        self.rows = torch.cat([self.rows, activations])[kept]
        self.ids = torch.cat([self.ids, ids])[kept]


@dataclass(frozen=True)
class Static:
    """What neurons read and write by their weights alone.

    Attributes
    ----------
    inputs
        ``("in",)``, or ``("gate", "up")`` of a gated MLP.
    read, read_values
        ``int64`` and ``float32 [neuron, input, k]``: the tokens whose embeddings lie furthest along the input weights,
        with the gain of the norm before folded in.
    promoted, suppressed, promoted_values, suppressed_values
        ``[neuron, k]``: the tokens whose logits the output weights raise and lower most, through the final norm's gain;
        of logits centred over the vocabulary, for an activation of 1 and a residual stream of size 1.
    """

    inputs: tuple[str, ...]
    read: Tensor
    read_values: Tensor
    promoted: Tensor
    promoted_values: Tensor
    suppressed: Tensor
    suppressed_values: Tensor


def static(model: LoadedModel, chosen: Mapping[int, Sequence[int]], top: int) -> Static:
    """Return what the weights of neurons read and write.

    Geva et al. (2022), "Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary
    Space".

    Raises
    ------
    Unreadable
        The model is of another family.
    """
    net = network.weights(model)
    gated = net.stored[0].gate is not None
    words, out = embedding(net), unembedding(net)
    reads: list[Tensor] = []
    writes: list[Tensor] = []
    for layer, held in chosen.items():
        own, rows = net.layers[layer], torch.tensor(list(held), device=model.device)
        inputs = [own.gate, own.up] if own.gate is not None else [own.up]
        reads.append(torch.stack([folded(own.norm2, linear.weight[rows]) for linear in inputs], 1))
        written = own.down.weight[:, rows].T.float()
        writes.append(written if own.down.gain is None else written * own.down.gain.float())
    read, written = torch.cat(reads), torch.cat(writes)
    size = max(1, _ENTRIES // len(words))
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(read), size):
        some = slice(start, start + size)
        along = (read[some] @ words.T).topk(top, -1)
        logits = written[some] @ out.T
        high, low = logits.topk(top, -1), logits.topk(top, -1, largest=False)
        parts.append((along.indices, along.values, high.indices, high.values, low.indices, low.values))
    columns = [torch.cat(list(column)).cpu() for column in zip(*parts, strict=True)]
    return Static(("gate", "up") if gated else ("in",), *columns)
