"""How a result was made: enough to make it again, and to judge whether it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.ids import typed, types_of
from interp.results.costs import Costs


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a Result was made: enough to make it again and to judge whether it can be trusted.

    Parameters
    ----------
    model, fingerprint, dtype, device
        The model's name here, the hash of its weights and state at the time, and where and how it ran.
    tokens, types
        Token ids of every prompt that was run, BOS included, and the type of each where any is not 0: which sentence of
        a pair it is of.
    tokens_taken
        (typed, string, id) of each answer or target: which token was taken for what was typed.
    technique, arguments, seed
        The call. `arguments` holds only what was given.
    path
        ``"store"`` when no forward ran, ``"forward"`` for plain forwards, ``"replay"``, ``"gradients"``, or
        ``"hooked: why"``.
    features
        The sets of features that were read: name → hash of their weights and of how they are used.
    user_hooks
        Hooks of the user's own that were on the model.
    forwards, seconds, peak_bytes
        Forward passes run, wall-clock time, and the most memory in use at a time, above what was in use at the start:
        of a command with a forecast; 0 of others.
    weights_read
        Bytes of layers read, of a model whose weights stay in their files.
    forecast
        What was expected of it before it started, where that was forecast.
    versions
        Of interp, torch, transformers and transformer-lens.
    """

    model: str = ""
    fingerprint: str = ""
    dtype: str = ""
    device: str = ""
    tokens: list[list[int]] = field(default_factory=list[list[int]])
    types: list[list[int]] = field(default_factory=list[list[int]])
    tokens_taken: tuple[tuple[str, str, int], ...] = ()
    technique: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None
    path: str = ""
    features: Mapping[str, str] = field(default_factory=dict[str, str])
    user_hooks: tuple[str, ...] = ()
    forwards: int = 0
    seconds: float = 0.0
    weights_read: int = 0
    peak_bytes: int = 0
    forecast: Costs | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The prompts that were run, as ids that keep their types."""
        if not self.types:
            return [tuple(ids) for ids in self.tokens]
        return [typed(ids, types) for ids, types in zip(self.tokens, self.types, strict=True)]


def as_run(prompts: Sequence[tuple[int, ...]]) -> tuple[list[list[int]], list[list[int]]]:
    """Return prompts as `Provenance` holds them: plain ids, and the types where there are any.

    Examples
    --------
    >>> as_run([(5, 6), typed((5, 6), (0, 1))])
    ([[5, 6], [5, 6]], [[0, 0], [0, 1]])
    """
    types = [types_of(ids) for ids in prompts]
    rows = [list(row or [0] * len(ids)) for row, ids in zip(types, prompts, strict=True)] if any(types) else []
    return [list(ids) for ids in prompts], rows
