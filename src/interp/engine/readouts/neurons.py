"""MLP neurons: their activations in texts, and what their weights read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

Ids = tuple[int, ...]

_ENTRIES = 2**24  # of neurons × vocabulary that are held at once


class Reader:
    """Runs texts of one length together and returns what chosen neurons do in them, ``float32`` on the CPU.

    Parameters
    ----------
    chosen
        Layer → neurons; columns are in this order.
    """

    def __init__(self, model: LoadedModel, chosen: Mapping[int, Sequence[int]]) -> None:
        self.model = model
        self.chosen = {layer: torch.tensor(list(held), device=model.device) for layer, held in chosen.items()}
        self.width = sum(map(len, self.chosen.values()))
        self._net: network.Network | None = None

    @property
    def key(self) -> exactness.Key:
        """What is compared with the hooked forward once."""
        return "neurons", tuple((layer, tuple(chosen.tolist())) for layer, chosen in self.chosen.items())

    def lean(self, prompts: Sequence[Ids], at: object = None) -> Tensor:  # noqa: ARG002
        """Return activations without hooks, ``[prompt, position, neuron]``."""
        self.ready()
        net = self._net
        assert net is not None
        held: dict[int, Tensor] = {}

        def keep(layer: int, neurons: Tensor) -> None:
            if layer in self.chosen:
                held[layer] = self._picked(layer, neurons)

        resid = net.begin(list(prompts))
        hooks.guarded(lambda: forward(net, edits={"neuron": keep}, resid=resid, stop=max(self.chosen) + 1))
        self.model.count(1)
        return torch.cat([held[layer] for layer in self.chosen], dim=-1)

    def ready(self) -> None:
        """Refuse, as `exactness.Unreadable`, a model that cannot be run without hooks."""
        self._net = self._net or network.read(self.model, encoders=())

    def hooked(self, prompts: Sequence[Ids], at: object = None) -> Tensor:  # noqa: ARG002
        """Return the same with hooks."""
        held: dict[int, Tensor] = {}

        def hook(layer: int) -> hooks.Hook:
            def run(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                held[layer] = self._picked(layer, tensor)

            return run

        self.model.forward(list(prompts), {Site("neuron", layer).hook_name: hook(layer) for layer in self.chosen})
        return torch.cat([held[layer] for layer in self.chosen], dim=-1)

    def _picked(self, layer: int, neurons: Tensor) -> Tensor:
        return neurons[..., self.chosen[layer]].detach().float().cpu()


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
