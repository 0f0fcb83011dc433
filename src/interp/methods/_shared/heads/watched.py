"""Prompts run for their patterns and z, layer by layer, without hooks where that can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from interp.sites import Site

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network

    Float = NDArray[np.float64]
    # (layer, pattern [n, head, query, key], z [n, position, head, d_head])
    See = Callable[[int, Tensor, Tensor], None]
    # The residual stream at the end, and the loss on each next token.
    Watched = tuple[Tensor | None, Tensor | None]

_ROWS = 1024  # of logits at once


def watch(
    model: LoadedModel, ids: Tensor, see: See, *, losses: bool = False, group: tuple[int, int] = (0, 1)
) -> Watched:
    """Run prompts and show `see` every layer's patterns and z.

    Parameters
    ----------
    ids
        ``int64 [n, position]``.
    group
        How many groups of prompts were run before this one, and how many there are in all, for whoever watches.

    Returns
    -------
    tuple
        The residual stream at the end, ``[n, position, d_model]``, and, where `losses` are asked for, the loss on each
        next token, ``[n, position - 1]``; ``None`` where the model has no such thing.
    """
    from interp.engine import exactness
    from interp.engine.model import hooks
    from interp.engine.transformer import network

    depth = model.geometry.n_layers

    def shown(layer: int, pattern: Tensor, z: Tensor) -> None:
        see(layer, pattern, z)
        model.on_step(group[0] * depth + layer + 1, group[1] * depth)

    def lean(check: exactness.Check) -> Watched:
        net = network.read(model, encoders=())
        check()
        return hooks.guarded(lambda: _lean(model, net, ids, shown, losses))

    few = ids[: exactness.sample_of(model)]
    done = exactness.run(
        model,
        ("heads",),
        lean=lean,
        hooked=lambda fallback: _hooked(model, ids, shown, losses),  # noqa: ARG005
        sample=lambda: differ(model, network.read(model, encoders=()), few),
        length=ids.shape[1],
    )
    model.note(done.path)
    return done.answer


def differ(model: LoadedModel, net: Network, ids: Tensor) -> list[float]:
    """Return how far patterns, z and the stream at the end are from the plain hooked forward's, on a few prompts."""
    from interp.engine import exactness
    from interp.engine.model import hooks

    held: dict[int, tuple[Tensor, Tensor]] = {}
    found: list[float] = []

    def hold(layer: int, pattern: Tensor, z: Tensor) -> None:
        held[layer] = pattern, z

    def compare(layer: int, *expected: Tensor) -> None:
        found.extend(map(exactness.difference, held.pop(layer), expected))

    end, _ = hooks.guarded(lambda: _lean(model, net, ids, hold, losses=False))
    expected, _ = _hooked(model, ids, compare, losses=False)
    if end is not None and expected is not None:
        found.append(exactness.difference(end, expected))
    return found


def _lean(model: LoadedModel, net: Network, ids: Tensor, see: See, losses: bool) -> Watched:
    from interp.engine.transformer.forward import forward

    patterns: dict[int, Tensor] = {}

    def seen(layer: int, z: Tensor) -> None:
        see(layer, patterns.pop(layer), z)

    end = forward(net, ids, {"pattern": patterns.__setitem__, "z": seen})
    model.count(len(ids))
    predicts = losses and model.geometry.causal and not model.lacks_head
    return end, _of_end(net, end, ids) if predicts else None


def _of_end(net: Network, end: Tensor, ids: Tensor) -> Tensor:
    rows, targets = net.final(end[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
    parts = zip(rows.split(_ROWS), targets.split(_ROWS), strict=True)
    return _loss_of_parts([(net.unembed(part), wanted) for part, wanted in parts], ids)


def _loss_of_parts(parts: list[tuple[Tensor, Tensor]], ids: Tensor) -> Tensor:
    import torch
    from torch.nn import functional

    losses = [functional.cross_entropy(logits.float(), wanted, reduction="none") for logits, wanted in parts]
    return torch.cat(losses).view(len(ids), -1)


def _hooked(model: LoadedModel, ids: Tensor, see: See, losses: bool) -> Watched:
    """Do the same through the bridge's own forward."""
    arrived: dict[int, dict[str, Tensor]] = {}
    ends: list[Tensor] = []
    last = model.geometry.n_layers - 1

    def arrive(layer: int, part: str) -> Hook:
        def hook(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            held = arrived.setdefault(layer, {})
            held[part] = tensor.detach()
            if len(held) == 2:  # whichever comes first
                both = arrived.pop(layer)
                see(layer, both["pattern"], both["z"])

        return hook

    def finish(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
        ends.append(tensor.detach())

    functions: dict[str, Hook] = {}
    for layer in range(last + 1):
        for part in ("pattern", "z"):
            functions[Site(part, layer).hook_name] = arrive(layer, part)
    functions[Site("resid_post", last).hook_name] = finish
    predicts = losses and model.geometry.causal and not model.lacks_head
    logits = model.forward(ids.tolist(), functions, last_only=not predicts)
    found = _loss_of_parts([(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())], ids) if predicts else None
    return (ends[0] if ends else None), found
