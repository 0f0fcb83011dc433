"""How much every head's attention goes from one span of prompts to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.methods._shared import named_positions
from interp.methods._shared.heads.groups import over
from interp.methods._shared.heads.scores import Scored, together
from interp.methods._shared.heads.watched import watch

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.methods._shared.named_positions import Span, Spanned
    from interp.results.tables import Float


def name_of(from_: Any, to: Any) -> str:
    """Return what the score is called.

    Examples
    --------
    >>> name_of("END", ["IO", "S1"])
    'END → IO, S1'
    """
    return f"{named_positions.named(from_)} → {named_positions.named(to)}"


def score(model: LoadedModel, prompts: Sequence[Spanned], from_: Any, to: Any) -> Scored:
    """Return the attention from the queries of one span to the keys of another: Σ over keys, mean over queries.

    The other side is what even attention to all that a query sees would give. An interrupt leaves the scores of the
    prompts that were run.

    Raises
    ------
    InputError
        A span that a prompt lacks, or keys that no query sees.
    """
    causal = model.geometry.causal
    ends = [(one.positions(from_), one.positions(to)) for one in prompts]
    for one, (queries, keys) in zip(prompts, ends, strict=True):
        if causal and max(queries) < min(keys):
            raise InputError(
                f"{one.where}no token of {named_positions.named(from_)} comes after {named_positions.named(to)}, and "
                "none sees what is behind it: name them the other way round"
            )
    geometry = model.geometry
    each = np.full((len(prompts), geometry.n_layers, geometry.n_heads), np.nan)
    batches = _batches(prompts)
    groups: list[dict[str, Any]] = [
        {"ids": tuple(prompts[n].encoded.ids for n in some), "ends": tuple(ends[n] for n in some)} for some in batches
    ]
    done: list[int] = []
    interrupt: KeyboardInterrupt | None = None
    notes = [note for asked in (from_, to) for note in named_positions.lengths(asked, prompts)]
    try:

        def take(number: int, scores: Mapping[str, Float]) -> None:
            each[batches[number]] = scores["attention"]
            done.extend(batches[number])

        over(model, "between", groups, lambda n: _looked(model, **groups[n], group=(n, len(groups))), take)
    except KeyboardInterrupt as stopped:
        if not done:
            raise
        interrupt = stopped
        notes.insert(0, f"partial: interrupted after {len(done)} of {len(prompts)} prompts")
    kept = sorted(done)
    even = float(np.mean([_even(*ends[n], causal, len(prompts[n].encoded.ids)) for n in kept]))
    name = name_of(from_, to)
    chance = {name: np.full(each.shape[1:], even)}
    return Scored({name: each[kept]}, chance, notes=tuple(dict.fromkeys(notes)), interrupt=interrupt)


def looked(models: Sequence[LoadedModel], step: Callable[[], None], **asked: Any) -> dict[str, Float]:  # noqa: ARG001
    """Score a group of prompts, as a worker does."""
    return _looked(models[0], **asked, group=(0, 1))


def _looked(
    model: LoadedModel, *, ids: Sequence[Sequence[int]], ends: Sequence[tuple[Span, Span]], group: tuple[int, int]
) -> dict[str, Float]:
    """Return the ``attention`` of prompts of one length, ``[prompt, layer, head]``."""
    import torch

    each: list[Float] = []

    def see(layer: int, pattern: Tensor, z: Tensor) -> None:  # noqa: ARG001
        rows = [own[:, list(queries)][:, :, list(keys)] for own, (queries, keys) in zip(pattern, ends, strict=True)]
        each.append(np.stack([row.double().sum(-1).mean(-1).cpu().numpy() for row in rows]))

    watch(model, torch.tensor(ids, device=model.device), see, group=group)
    return {"attention": np.stack(each, axis=1)}


def _batches(prompts: Sequence[Spanned]) -> list[list[int]]:
    """Return which prompts run together: some of one length."""
    by_length: dict[int, list[int]] = {}
    for n, one in enumerate(prompts):
        by_length.setdefault(len(one.encoded.ids), []).append(n)
    return [own[part] for length, own in by_length.items() for part in together(len(own), length) if own[part]]


def _even(queries: Span, keys: Span, causal: bool, length: int) -> float:
    """Return what even attention over the visible keys gives."""
    if not causal:
        return len(keys) / length
    return float(np.mean([sum(key <= query for key in keys) / (query + 1) for query in queries]))
