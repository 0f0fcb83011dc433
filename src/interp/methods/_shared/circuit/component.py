"""What one component of a circuit does: the tokens it is for and against, copying, what it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.errors import InputError, closest
from interp.methods._shared import labels
from interp.methods._shared.circuit.origin import Origin
from interp.methods._shared.models import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network
    from interp.methods._shared.circuit.result import CircuitResult, Edge


@dataclass(frozen=True)
class ComponentFunction:
    """What a node of a circuit does on the circuit's pairs.

    Attributes
    ----------
    node
        ``"5.1"``, ``"5.mlp"``, ``"embed"`` or ``"logits"``.
    label
        What kind of head it is, such as ``"induction"``, where that was measured; else an empty string.
    promotes, suppresses
        (token, effect): the tokens whose logits its output raises and lowers most, and by how much against the mean
        logit, the strongest first. It is the direct effect of its output at the last position, the final norm frozen as
        it is there, mean over the clean prompts. Of ``logits``: the model's own.
    effect
        The same on the right answers' logits less the wrong ones', mean over pairs; NaN where a pair lacks either.
    copying
        Σλ/Σ|λ| of a head's OV circuit, −1 … 1: 1 raises whatever token it looks at. NaN of anything but a head.
    reads, writes
        The circuit's edges into it and out of it, the strongest first, either way.
    """

    node: str
    label: str
    promotes: tuple[tuple[str, float], ...]
    suppresses: tuple[tuple[str, float], ...]
    copying: float
    reads: tuple[Edge, ...]
    writes: tuple[Edge, ...]
    effect: float = float("nan")


def function_of(model: LoadedModel, circuit: CircuitResult, node: str, top: int = 5) -> ComponentFunction:
    """Return what `node` does in `circuit`.

    Raises
    ------
    InputError
        There is no such node, `top` is below 1, the circuit does not hold its prompts, or the model's layers are not
        known here.

    Notes
    -----
    Direct effects: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits"; so is the copying score.
    """
    from interp.engine.model import hooks
    from interp.engine.readouts import ov_qk

    known = [*circuit.writers, "logits"]
    if node not in known:
        raise InputError(f"the model has no {node!r}{closest(str(node), known)}; type 5.1, 5.mlp, embed or logits")
    if top < 1:
        raise InputError(f"top={top} lists no token; use 1 or more")
    net = opened(model, "function_of")
    pairs = Origin.pairs(circuit, None).pairs
    layer, _, part = node.partition(".")
    effects: Tensor = hooks.run_hooked([], lambda: _effects(model, net, [pair.clean.ids or () for pair in pairs], node))
    mean = effects.mean(0)
    best, worst = (mean.topk(min(top, len(mean)), largest=largest) for largest in (True, False))
    differences = [
        float(row[[n for _, n in right]].mean() - row[[n for _, n in wrong]].mean())
        for row, right, wrong in zip(effects, circuit.lint.answer, circuit.lint.wrong, strict=True)
        if right and wrong
    ]
    copying = float("nan")
    if part.isdigit():
        eigenvalues = ov_qk.ov(model, net, int(layer), int(part)).eigenvalues
        copying = float(ov_qk.positivity(eigenvalues))
    edges = circuit.edges
    return ComponentFunction(
        node=node,
        label=circuit.labels.get(node) or labels.of(model).get(node, ""),
        promotes=tuple((model.tokens.string(int(n)), float(mean[n])) for n in best.indices),
        suppresses=tuple((model.tokens.string(int(n)), float(mean[n])) for n in worst.indices),
        copying=copying,
        reads=tuple(edge for edge in edges if node in circuit.reading(edge.reader)),
        writes=tuple(edge for edge in edges if edge.writer == node),
        effect=sum(differences) / len(pairs) if len(differences) == len(pairs) else float("nan"),
    )


def _effects(model: LoadedModel, net: Network, prompts: Sequence[Sequence[int]], node: str) -> Tensor:
    """Return the direct effect of a node's output at each prompt's end on every logit, ``float32 [prompt, d_vocab]``.

    Logits are measured against their mean; those of the model itself have no bias here, as no part of it writes that.
    """
    import torch

    from interp.engine.patching.sweep import WAVE_ROWS
    from interp.engine.readouts import ov_qk
    from interp.engine.transformer.forward import forward

    layer, _, part = node.partition(".")
    site = {"": "resid_pre", "mlp": "mlp_out"}.get(part, "z")
    index = int(layer) if part else 0
    out = ov_qk.unembedding(net)
    found: dict[int, Tensor] = {}
    for length in sorted({len(ids) for ids in prompts}):
        places = [n for n, ids in enumerate(prompts) if len(ids) == length]
        for first in range(0, len(places), max(1, WAVE_ROWS // length)):
            some = places[first : first + max(1, WAVE_ROWS // length)]
            held: dict[int, Tensor] = {}

            def keep(at: int, tensor: Tensor, held: dict[int, Tensor] = held) -> None:
                if at == index:
                    held[at] = tensor[:, -1]

            ids = torch.tensor([list(prompts[n]) for n in some], device=model.device)
            end = forward(net, ids, {site: keep})[:, -1]
            model.count(len(some))
            if node == "logits":
                written = end
            elif site == "z":
                weight = net.layers[index].o.weight.unflatten(1, (net.n_heads, net.d_head))[:, int(part)]
                written = held[index][:, int(part)] @ weight.T
            else:
                written = held[index]
            frozen = written.float() / ov_qk.size(net.final, end.float())[:, None]
            for n, row in zip(some, frozen @ out.T, strict=True):
                found[n] = row.cpu()
    return torch.stack([found[n] for n in range(len(prompts))])


__all__ = ["ComponentFunction", "function_of"]
