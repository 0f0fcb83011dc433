"""What one component of a circuit does: the tokens it is for and against, copying, what it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.errors import InputError, closest
from interp.methods._shared import labels
from interp.methods._shared.circuit.origin import Origin
from interp.methods._shared.models import opened
from interp.sites import Site
from interp.spec import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        logit, the strongest first. It is the direct effect of its output at the last position, the final norm and what
        a soft cap takes off frozen as they are there, mean over the clean prompts. Of ``logits``: the model's own.
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
    part = Node.parse(node)
    effects: Tensor = hooks.guarded(lambda: _effects(model, net, [pair.clean.ids or () for pair in pairs], node))
    mean = effects.mean(0)
    best, worst = (mean.topk(min(top, len(mean)), largest=largest) for largest in (True, False))
    differences = [
        float(row[[n for _, n in right]].mean() - row[[n for _, n in wrong]].mean())
        for row, right, wrong in zip(effects, circuit.checks.answer, circuit.checks.wrong, strict=True)
        if right and wrong
    ]
    copying = float("nan")
    if part.kind == "head":
        with ov_qk.unmixed(model.device):
            eigenvalues = ov_qk.ov(net, part.layer, part.head).eigenvalues
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

    from interp.engine import exactness
    from interp.engine.readouts import ov_qk

    part = Node.parse(node)
    place = Site({"head": "z", "mlp": "mlp_out"}.get(part.kind, "resid_pre"), part.layer)
    found: list[tuple[Tensor, Tensor]] = []

    def lean(check: exactness.Check) -> list[tuple[Tensor, Tensor]]:  # noqa: ARG001
        found[:] = _ends(model, prompts, place)
        return found

    def sample() -> Iterator[float]:
        for ids, both in zip(prompts[: exactness.sample_of(model)], found, strict=False):
            yield from map(exactness.difference, both, _hooked_ends(model, ids, place))

    done = exactness.run(
        model,
        ("direct effects", place.name),
        lean=lean,
        hooked=lambda fallback: [_hooked_ends(model, ids, place) for ids in prompts],  # noqa: ARG005
        sample=sample,
        path="forward",
        length=max(map(len, prompts)),
    )
    model.note(done.path, done.notes)
    written, end = (torch.stack(rows) for rows in zip(*done.answer, strict=True))
    if node == "logits":
        written = end
    elif place.name == "z":
        output, z = net.layers[place.layer].o, written
        written = z[:, part.head] @ net.layers[place.layer].head_weights()[:, part.head].T
        size = output.size(z.flatten(-2))  # a head's share of what a norm after the attention gives
        written = written if output.gain is None else written * output.gain
        written = written if size is None else written / size[:, None]
    frozen = written.float() / net.final.size(end.float())[:, None]
    kept = net.unembed.kept(net.final(end))
    if kept is None:
        return (frozen @ ov_qk.unembedding(net).T).cpu()
    effects = (frozen @ ov_qk.unembedding(net, centred=False).T) * kept.float()
    return (effects - effects.mean(-1, keepdim=True)).cpu()


def _ends(model: LoadedModel, prompts: Sequence[Sequence[int]], place: Site) -> list[tuple[Tensor, Tensor]]:
    """Return what stands at the end of each prompt at `place`, and after the last layer."""
    import torch

    from interp.engine import memory
    from interp.engine.patching.cases import by_length
    from interp.engine.transformer import network
    from interp.engine.transformer.forward import forward

    net = network.read(model)
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def some(chosen: Sequence[int]) -> None:
        held: list[Tensor] = []

        def keep(layer: int, tensor: Tensor) -> None:
            if layer == place.layer:
                held.append(tensor[:, -1])

        ids = torch.tensor([list(prompts[n]) for n in chosen], device=model.device)
        end = forward(net, ids, {place.name: keep})[:, -1]
        model.count(len(chosen))
        found.update({n: (own, row) for n, own, row in zip(chosen, held[0], end, strict=True)})

    for length, numbers in by_length(prompts).items():
        memory.halving(numbers, max(1, memory.WAVE_ROWS // length), some, model.device)
    return [found[n] for n in range(len(prompts))]


def _hooked_ends(model: LoadedModel, ids: Sequence[int], place: Site) -> tuple[Tensor, Tensor]:
    """Return the same of one prompt by the model's own forward."""
    names = [place.hook_name, Site("resid_post", model.geometry.n_layers - 1).hook_name]
    held = model.activations_of(ids, names)
    return held[names[0]][0, -1], held[names[1]][0, -1]


__all__ = ["ComponentFunction", "function_of"]
