"""Attention patterns of a run, and the numbers that describe each head."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

    Float = NDArray[np.float32]

_IN_MEMORY = 2**30  # bytes of patterns; more are in a file


def patterns(
    model: LoadedModel,
    encoded: Encoded,
    layers: tuple[int, ...],
    heads: tuple[int, ...],
    functions: Mapping[str, Hook] | None = None,
) -> tuple[Float, list[str]]:
    """Return ``float32 [layer, head, query, key]``, in a file where that is large, and what is worth knowing.

    Raises
    ------
    InputError
        The disk has no room for the file.
    """
    from interp.engine.model.each import activations

    length = len(encoded.ids)
    pattern, notes = room((len(layers), len(heads), length, length))
    together = max(1, _IN_MEMORY // (4 * model.geometry.n_heads * length**2))
    for start in range(0, len(layers), together):
        sites = [Site("pattern", layer).hook_name for layer in layers[start : start + together]]
        held = activations(model, encoded, sites, functions)
        for number, site in enumerate(sites, start):
            pattern[number] = held[site][0, list(heads)].float().cpu().numpy()
    return pattern, notes


def room(shape: tuple[int, ...]) -> tuple[Float, list[str]]:
    """Return an empty ``float32`` array of a shape, in a file where it is large, and what is worth knowing.

    Raises
    ------
    InputError
        The disk has no room for the file.
    """
    size = 4 * math.prod(shape)
    notes: list[str] = []
    pattern: Float
    if size <= _IN_MEMORY:
        pattern = np.empty(shape, np.float32)
    else:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if size > free:
            raise InputError(
                f"the patterns are {size / 1e9:.1f} GB, and {tempfile.gettempdir()} has room for {free / 1e9:.1f}: "
                "choose layers with --layer, or heads with --head"
            )
        with tempfile.TemporaryFile(prefix="interp-") as file:  # it goes when nothing reads the array any more
            pattern = np.memmap(file, np.float32, "w+", shape=shape)
        notes.append(f"the patterns are {size / 1e9:.1f} GB: they are in a temporary file, not in memory")
    return pattern, notes


def statistics(pattern: Float) -> dict[str, Float]:
    """Return the numbers that describe each head, ``float32 [layer, head]`` each, as `AttentionResult.stats` has them.

    Parameters
    ----------
    pattern
        ``[layer, head, query, key]``, rows summing to 1.

    Examples
    --------
    >>> float(statistics(np.eye(4, dtype=np.float32)[None, None])["focus"][0, 0])
    1.0
    """
    positions = np.arange(pattern.shape[-1])
    distance = np.abs(positions[:, None] - positions[None, :]).astype(np.float32)
    logs = np.log(pattern, out=np.zeros_like(pattern), where=pattern > 0)
    return {
        "entropy": -(pattern * logs).sum(-1).mean(-1),
        "distance": np.einsum("lhqk,qk->lhq", pattern, distance).mean(-1),
        "focus": pattern.max(-1).mean(-1),
        "first_token": pattern[..., 0].mean(-1),
    }
