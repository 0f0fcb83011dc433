"""Heads that follow syntax: attention between words that depend on each other, against the same distance elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.methods._shared.heads.groups import over
from interp.methods._shared.heads.scores import Scored, together
from interp.methods._shared.heads.watched import watch
from interp.methods._shared.pairs import counted, vocabulary
from interp.spec import Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


@dataclass(frozen=True)
class _Case:
    """A sentence's ids, and the positions of the word that looks and of the word that it looks at."""

    ids: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]

    @property
    def parted(self) -> bool:
        """Whether one of the words has several tokens."""
        return max(len(self.queries), len(self.keys)) > 1


def score(model: LoadedModel, name: str, n: int, seed: int) -> Scored:
    """Run `n` sentences of a relation and score every head's attention from one of its two words to the other.

    A causal model cannot look ahead: there the later word looks at the earlier one, whichever depends. A bidirectional
    model looks from the dependent to its head word. Attention to a word of several tokens is their sum, from one the
    mean (Clark et al. 2019, "What Does BERT Look At?"). The baseline of a sentence is the mean over all other pairs of
    places in it that are as far apart. An interrupt leaves what the sentences so far gave, if those are two or more.

    Raises
    ------
    InputError
        A model without a tokenizer, or more sentences than fit it.
    """
    from interp.tasks.relations import sentences

    causal = model.geometry.causal
    found, dropped = sentences(name, vocabulary(model), n, seed)
    batches: dict[int, list[_Case]] = defaultdict(list)
    for sentence in found:
        prompt = Prompt(sentence.text)
        slots = counted(model, prompt, {"dependent": sentence.dependent, "head": sentence.head})
        ids = model.encode(prompt).ids
        pair = (slots["dependent"], slots["head"])
        queries, keys = (max(pair), min(pair)) if causal else pair
        batches[len(ids)].append(_Case(ids, queries, keys))
    groups = [batch[some] for length, batch in batches.items() for some in together(len(batch), length)]
    parts: dict[int, Mapping[str, Float]] = {}
    asked: list[dict[str, Any]] = [
        {"cases": tuple((case.ids, case.queries, case.keys) for case in group)} for group in groups
    ]
    interrupt: KeyboardInterrupt | None = None
    try:
        over(
            model,
            "relations",
            asked,
            lambda n: _looked(model, **asked[n], group=(n, len(groups))),
            parts.__setitem__,
        )
    except KeyboardInterrupt as stopped:
        if sum(len(part["attention"]) for part in parts.values()) < 2:
            raise
        interrupt = stopped
    cases = [case for number in sorted(parts) for case in groups[number]]
    attention, baseline = (
        np.concatenate([parts[number][name] for number in sorted(parts)]) for name in ("attention", "elsewhere")
    )
    if not np.isfinite(baseline).any():
        raise InputError(f"no sentence of {name} has other places as far apart in this tokenizer; ask for more: --n 60")
    level = np.nanmean(baseline, axis=0)
    baseline = np.where(np.isfinite(baseline), baseline, level)
    notes: list[str] = []
    if interrupt is not None:
        notes.append(f"partial: interrupted after {len(cases)} of {len(found)} sentences")
    parted = sum(case.parted for case in cases)
    if parted:
        notes.append(f"{parted} of {len(cases)} sentences have a word of several tokens: all of them count")
    if dropped:
        notes.append(f"{dropped} sentences were dropped: tokens go across their words")
    if causal:
        notes.append("the later word looks at the earlier one: this model cannot look ahead")
    each = {"attention": attention, "beyond_distance": attention - baseline}
    return Scored(
        each, {"attention": level, "beyond_distance": np.zeros_like(level)}, notes=tuple(notes), interrupt=interrupt
    )


def looked(models: Sequence[LoadedModel], step: Callable[[], None], **asked: Any) -> dict[str, Float]:  # noqa: ARG001
    """Score a group of sentences, as a worker does."""
    return _looked(models[0], **asked, group=(0, 1))


def _looked(
    model: LoadedModel,
    *,
    cases: Sequence[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]],
    group: tuple[int, int],
) -> dict[str, Float]:
    """Run sentences of one length; return the ``attention`` between their words and ``elsewhere``.

    Parameters
    ----------
    cases
        Token ids, and the positions of queries and keys.

    Returns
    -------
    dict
        Of both, ``[n, layer, head]``.
    """
    import torch

    found: list[tuple[list[Float], list[Float]]] = []
    ids = torch.tensor([case[0] for case in cases], device=model.device)
    last = ids.shape[1] if model.geometry.causal else ids.shape[1] - 1  # what the tokenizer puts behind is no word

    def see(layer: int, pattern: Tensor, z: Tensor) -> None:  # noqa: ARG001
        held = list(zip(pattern.double().cpu().numpy(), cases, strict=True))
        found.append(
            (
                [between(heads, queries, keys) for heads, (_, queries, keys) in held],
                [elsewhere(heads, queries, keys, 1, last) for heads, (_, queries, keys) in held],
            )
        )

    watch(model, ids, see, group=group)
    own, others = zip(*found, strict=True)
    return {"attention": np.stack(own, axis=1), "elsewhere": np.stack(others, axis=1)}


def between(pattern: Float, queries: tuple[int, ...], keys: tuple[int, ...]) -> Float:
    """Return the attention from one word to another, ``[head]``, of patterns ``[head, query, key]``.

    Examples
    --------
    >>> between(np.full((1, 3, 3), 0.25), (2,), (0, 1)).tolist()
    [0.5]
    """
    return pattern[:, list(queries)][:, :, list(keys)].sum(-1).mean(-1)


def elsewhere(pattern: Float, queries: tuple[int, ...], keys: tuple[int, ...], first: int, last: int) -> Float:
    """Return the mean of `between` over the same two words' places moved along, within ``first … last - 1``; or NaN.

    Examples
    --------
    >>> elsewhere(np.eye(4)[None], (3,), (2,), 0, 4).tolist()
    [0.0]
    """
    places = (*queries, *keys)
    moves = [by for by in range(first - min(places), last - max(places)) if by]
    if not moves:
        return np.full(len(pattern), np.nan)
    moved = [between(pattern, tuple(q + by for q in queries), tuple(k + by for k in keys)) for by in moves]
    return np.mean(moved, axis=0)
