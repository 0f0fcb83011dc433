"""Prompts with spans, from what a call gives: a task's name, pairs, a task's result, or texts that mark them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.methods._shared import named_positions, pairs, texts
from interp.methods._shared.named_positions import Spanned
from interp.spec import Pair, Pairs

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True)
class Read:
    """Prompts with spans.

    Attributes
    ----------
    spanned
        The prompts; of pairs the clean ones.
    task
        The task that they came from, or an empty string.
    """

    spanned: list[Spanned]
    task: str = ""


def prompts_of(model: LoadedModel, given: Any, task: str | None = None, *, n: int = 32, seed: int = 0) -> Read:
    """Return prompts as they are given, or a task's.

    Parameters
    ----------
    given
        `Pairs`, a list of `Pair`, a task's result: their clean prompts; or texts, in which marks are read.

    Raises
    ------
    InputError
        What is none of these, no such task, or a prompt that cannot be read.
    """
    found = pairs_of(model, given, task, n=n, seed=seed)
    if found is not None:
        return Read(named_positions.of_pairs(model, found), found.task)
    prompts = [named_positions.read(one) for one in texts.several(given).texts]
    return Read(named_positions.of_texts(model, texts.encoded(model, prompts)))


def pairs_of(
    model: LoadedModel, given: Any, task: str | None = None, *, n: int = 32, seed: int = 0, bos: bool | None = None
) -> Pairs | None:
    """Return a task's pairs, or pairs where that is what is given."""
    if task is not None:
        return pairs.from_task(model, task, n=n, seed=seed, bos=bos)
    if isinstance(given, Pairs):
        return given
    held = getattr(given, "pairs", None)
    if isinstance(held, tuple):  # a task's result
        return Pairs(held, task=str(getattr(given, "task", "")))
    listed = [given] if isinstance(given, Pair) else given
    if isinstance(listed, Sequence) and listed and all(isinstance(one, Pair) for one in listed):
        return Pairs(tuple(listed))
    return None
