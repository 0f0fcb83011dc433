"""What a steering is asked for: its strengths, where it is added, and what is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from interp.errors import InputError
from interp.methods._shared import answers, named_positions
from interp.sites import Site
from interp.spec import Intervention, Metric, Prompt, as_answers, resolve_metric

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

WORDS = ("all", "prompt", "new")


def where(model: LoadedModel, encoded: Encoded, at: Any) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """Return when a direction is added, at which of the prompt's positions, and what is worth knowing.

    Of the positions there are none where it is added at all tokens, at the prompt's or at new ones.

    Raises
    ------
    InputError
        A span or a position that the prompt has not.
    """
    if isinstance(at, str) and at in WORDS:
        return at, (), ()
    spanned = named_positions.of_prompt(model, encoded)
    return named_positions.named(at), spanned.positions(at), named_positions.lengths(at, [spanned])


def added(place: Site, value: Any, positions: Sequence[int]) -> tuple[Intervention, ...]:
    """Return what adds a vector at a place: everywhere, or at some positions."""
    return tuple(Intervention(place, mode="add", value=value, position=one) for one in positions or (None,))


def strengths(strength: float, sweep: Any) -> list[float]:
    """Return the strengths, 0 among them and first."""
    if sweep is None:
        listed: list[Any] = [strength]
    elif isinstance(sweep, str):
        listed = [part.strip() for part in sweep.split(",") if part.strip()]
    elif hasattr(sweep, "tolist"):
        listed = np.atleast_1d(np.asarray(sweep)).tolist()
    elif isinstance(sweep, list | tuple):
        listed = list(cast("Sequence[Any]", sweep))
    else:
        listed = [sweep]
    try:
        found = [float(value) for value in listed]
    except (TypeError, ValueError):
        raise InputError(f"--sweep {sweep!r} cannot be read; write strengths with commas, such as 0,2,4,8") from None
    if not found:
        raise InputError("--sweep names no strength; write some with commas, such as 0,2,4,8")
    lost = next((value for value in found if not math.isfinite(value)), None)
    if lost is not None:
        raise InputError(f"strength {lost} is not finite; use a number such as 4")
    return list(dict.fromkeys([0.0, *(value + 0.0 for value in found)]))


def scorer(model: LoadedModel, prompt: Prompt, answer: Any, wrong: Any, named: Any) -> Any:
    """Return what the logits after the prompt are measured by."""
    from interp.engine.metrics import Scorer

    default = "kl" if answer is None else "logprob" if wrong is None else "logit-diff"
    chosen: Metric = resolve_metric(named or default)
    right, other = (
        answers.tokens(model, prompt, as_answers(given, which), which)
        for which, given in (("answer", answer), ("wrong", wrong))
    )
    if chosen.needs_answer and not right:
        raise InputError(f"{chosen.name} needs an answer: add --answer WORD, or use --metric kl, which needs none")
    if chosen.needs_wrong and not other:
        raise InputError(f"{chosen.name} needs a wrong answer: add --wrong WORD, or use --metric logprob")
    return Scorer(chosen, right, other)
