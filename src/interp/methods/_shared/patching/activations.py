"""What the model says next with one cell of a sweep patched, and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.methods.patching.patch import PatchingResult


def likeliest(
    model: LoadedModel, result: PatchingResult, cell: Sequence[int], top: int = 5
) -> list[tuple[str, float, float]]:
    """Return the likeliest next tokens of the first pair's run, with and without a cell patched, without hooks.

    Parameters
    ----------
    model
        The model that the sweep ran on.
    result
        The sweep.
    cell
        An index into the sweep's arrays.
    top
        How many tokens of each run.

    Returns
    -------
    list
        (token string, probability unpatched, probability patched), the likeliest of the patched run first.

    Raises
    ------
    InputError
        A model whose forward is not known here, or activations that came from another model.
    """
    import torch

    from interp.engine.model import hooks
    from interp.engine.transformer import network
    from interp.engine.transformer.forward import forward

    if result.provenance.arguments.get("from_model") is not None:
        raise InputError("the activations came from another model; run it with model.run and interventions instead")
    try:
        net = network.read(model)
    except network.Unreadable as reason:
        raise InputError(f"this needs a forward without hooks ({reason}); use model.run with interventions") from None
    at = dict(zip(result.axes, cell, strict=True))
    layer = result.layers[at["layer"]]
    base, source = (torch.tensor([ids], device=model.device) for ids in _runs(result))
    where = _where(result.site, at.get("head", at.get("neuron")), at.get("position"))
    found: list[Tensor] = []

    def take(index: int, tensor: Tensor) -> None:
        if index == layer:
            found.append(tensor)

    def put(index: int, tensor: Tensor) -> Tensor | None:
        if index != layer:
            return None
        patched = tensor.clone()
        patched[1][where] = found[0][0][where]
        return patched

    def run() -> Tensor:
        forward(net, source, {result.site: take}, stop=layer + 1)
        end = forward(net, base.repeat(2, 1), {result.site: put})
        return net.unembed(net.final(end[:, -1])).float().softmax(-1)

    before, after = hooks.run_hooked([], run)
    model.count(2)
    ids = {*before.topk(min(top, len(before))).indices.tolist(), *after.topk(min(top, len(after))).indices.tolist()}
    order = sorted(ids, key=lambda index: (-float(after[index]), -float(before[index])))
    return [(model.tokens.string(index), float(before[index]), float(after[index])) for index in order]


def _runs(result: PatchingResult) -> tuple[list[int], list[int]]:
    """Return the token ids of the run that is changed and of the one whose activations are put in."""
    clean, corrupted = result.provenance.tokens[:2]
    return (clean, corrupted) if result.direction == "noise" else (corrupted, clean)


def _where(site: str, part: int | None, position: int | None) -> tuple[int | slice, ...]:
    """Return a cell's place in one prompt's activation."""
    everywhere = slice(None)
    of, at = (everywhere if index is None else index for index in (part, position))
    # A pattern's axes are [head, query, key]; all others are [position, head or neuron or d_model, …].
    return (of, at) if site == "pattern" else (at, of)
