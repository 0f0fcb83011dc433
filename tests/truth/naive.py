"""A compiled model's forward, written out from its weights alone, in which single edges can carry something else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from interp.truth import Compiled

Edge = tuple[str, str]


class Naive:
    """One compiled model, in float64.

    `run` keeps what each writer writes; `ablated` maps edges (writer, reader) to what they carry instead, `shifts` to
    what they carry beside.
    """

    def __init__(self, made: Compiled) -> None:
        self.config = made.config
        self.weights = {name: tensor.double() for name, tensor in made.weights.items()}

    def run(
        self, ids: Tensor, ablated: Mapping[Edge, Tensor] | None = None, shifts: Mapping[Edge, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the last position's logits, ``[prompt, token]``, and what each writer wrote."""
        instead, beside, w = ablated or {}, shifts or {}, self.weights
        written = {"embed": w["tok_embed.weight"][ids] + w["pos.weight"][: ids.shape[1]]}

        def read(reader: str) -> Tensor:
            edges = [((name, reader), out) for name, out in written.items()]
            return sum((instead.get(edge, out) + beside.get(edge, 0.0) for edge, out in edges), torch.zeros(()))

        width = self.config["d_head"]
        for layer in range(self.config["n_layers"]):
            made: dict[str, Tensor] = {}
            for head in range(self.config["n_heads"]):
                dims = slice(head * width, (head + 1) * width)

                def project(kind: str, layer: int = layer, head: int = head, dims: slice = dims) -> Tensor:
                    place = f"layers.{layer}.attn.{kind}"
                    return read(f"{layer}.{head}.{kind}") @ w[f"{place}.weight"][dims].T + w[f"{place}.bias"][dims]

                q, k, v = (project(kind) for kind in "qkv")
                scores = q @ k.transpose(1, 2) / width**0.5
                hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
                pattern = scores.masked_fill(hidden, float("-inf")).softmax(-1)
                made[f"{layer}.{head}"] = pattern @ v @ w[f"layers.{layer}.attn.o.weight"][:, dims].T
            written |= made
            place = f"layers.{layer}.mlp"
            neurons = (read(f"{layer}.mlp") @ w[f"{place}.in.weight"].T + w[f"{place}.in.bias"]).relu()
            written[f"{layer}.mlp"] = neurons @ w[f"{place}.out.weight"].T
        return read("logits")[:, -1] @ w["head.weight"].T, written

    def carried(self, corrupted: Tensor, ablation: str) -> dict[str, Tensor]:
        """Return what an ablated edge carries, by writer."""
        written = self.run(corrupted)[1]
        if ablation == "corrupted":
            return written
        if ablation == "mean":
            return {name: out.mean(0, keepdim=True).expand_as(out) for name, out in written.items()}
        return {name: torch.zeros_like(out) for name, out in written.items()}
