"""Features changed by a naive hooked forward: encoded densely, decoded densely, the rest of the activation kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import flat

Edit = Callable[[Tensor], Tensor]  # activations [position, width] → what they become


def encoded(one: Dictionary, x: Tensor) -> Tensor:
    """Return activations, ``[position, width]``, of what a dictionary reads, by the formulas."""
    pre = one.taken(x) @ one.encoder.T + one.bias
    act: Any = one.act
    if act.kind == "topk":
        least = pre.topk(act.k, -1).values[:, -1:]
        return torch.where(pre >= least, pre, 0.0).relu()
    if act.kind == "gated":
        return torch.where(pre > 0, (pre * act.scale + act.magnitude).relu(), 0.0)
    return torch.where(pre > act.threshold, pre, 0.0) if act.kind == "jumprelu" else pre.relu()


def unit(one: Dictionary, x: Tensor) -> Tensor | float:
    """Return what one unit that is written is in the activation."""
    if one.taken.normed == "layer":
        return (x.std(-1, keepdim=True) + 1e-5) / one.taken.scale
    if one.taken.normed == "token":
        return x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5 / one.taken.scale
    return 1.0 / one.taken.scale


def hooked(model: Any, ids: Sequence[int], edits: Sequence[tuple[Dictionary, Edit]]) -> Tensor:
    """Return the logits, ``[position, d_vocab]``, of a run with features of some dictionaries changed."""
    hooks: list[tuple[str, Any]] = []
    for one, edit in edits:
        state: dict[str, Any] = {}

        def read(tensor: Tensor, hook: Any, one: Dictionary = one, edit: Edit = edit, state: Any = state) -> None:  # noqa: ARG001
            x = flat(one.reads, tensor)[0]
            now = encoded(one, x)
            state["more"], state["unit"] = edit(now.clone()) - now, unit(one, x)

        def write(
            tensor: Tensor,
            hook: Any,  # noqa: ARG001
            one: Dictionary = one,
            to: int = 0,
            state: Any = state,
        ) -> Tensor:
            more = state["more"] @ one.decoders[to] * state["unit"]
            return tensor + more.view(tensor.shape[1:])

        hooks.append((one.reads.hook(model), read))
        for to, place in enumerate(one.writes):

            def at(tensor: Tensor, hook: Any, write: Any = write, to: int = to) -> Tensor:
                return write(tensor, hook, to=to)

            hooks.append((place.hook(model), at))
    with torch.no_grad():
        return model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=hooks)[0]


def plain(model: Any, ids: Sequence[int], one: Dictionary) -> Tensor:
    """Return a plain run's activations of features, ``[position, width]``."""
    held: list[Tensor] = []

    def keep(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
        held.append(flat(one.reads, tensor)[0].detach().clone())

    with torch.no_grad():
        model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=[(one.reads.hook(model), keep)])
    return encoded(one, held[0])
