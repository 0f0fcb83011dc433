"""One driver for gradients over pairs: pairs of one length together, with halves of them where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.memory import Stretch
from interp.engine.metrics import MetricFailed
from interp.engine.model import hooks
from interp.engine.patching.cases import Case, by_shape
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.driver import OnStep

Answer = TypeVar("Answer")


def differentiated(cases: Sequence[Case], work: Callable[[], Answer]) -> Answer:
    """Return what `work` computes from gradients of the cases' metric.

    Raises
    ------
    InputError
        The metric failed, or autograd is off for good.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("there are no gradients inside torch.inference_mode; use torch.no_grad there, or exact")
    try:
        return hooks.guarded(work, gradients=True)
    except MetricFailed as error:
        reason = f"the metric {cases[0].scorer.metric.name} failed on the way: {error}"
    raise InputError(reason)


def require_slope(scores: Tensor, cases: Sequence[Case]) -> None:
    """Refuse a metric that autograd did not follow.

    Raises
    ------
    InputError
        `scores` have no gradient.
    """
    if not scores.requires_grad:
        raise InputError(f"the metric {cases[0].scorer.metric.name} has no gradient here; use --method exact")


def first_done(cases: Sequence[Case], pieces: Sequence[Stretch], last: int) -> list[Case]:
    """Return the cases that are done, in their order, as soon as the longest is: it is then that some are compared."""
    longest = max(range(len(cases)), key=lambda number: len(cases[number].base))
    done: set[int] = set()
    for piece in pieces:
        done.update(piece.cases if piece.last == last else ())
        if longest in done:
            break
    return [cases[number] for number in sorted(done)]


def stretches(cases: Sequence[Case], last: int, *, closed: bool) -> Iterator[Stretch]:
    """Yield which cases are run together, those of one length, at all points of an integral.

    Parameters
    ----------
    last, closed
        The number of the last point, the first being 0, and whether it is run too.
    """
    # The first pair comes first, since it is the one that pictures show: it is there as soon as any is.
    for numbers in sorted(by_shape(cases), key=lambda numbers: 0 not in numbers):
        length = len(cases[numbers[0]].base)
        numbers.sort(key=lambda number: (number > 0, cases[number].start))  # a batch shares its shortest prefix
        size = max(1, memory.GRADIENT_ROWS // (length * (last + int(closed))))
        for at in range(0, len(numbers), size):
            yield Stretch(tuple(numbers[at : at + size]), 0, last)


def over_cases(
    model: LoadedModel,
    cases: Sequence[Case],
    run: Callable[[Stretch], None],
    *,
    last: int,
    closed: bool,
    limit: int,
    on_step: OnStep,
) -> None:
    """Call `run` with all cases, those of one length together, at the points of an integral.

    Parameters
    ----------
    run
        Adds what a stretch gives all at once, when it has it: memory may run out before, and it is then called again.
    last, closed
        As for `stretches`.
    limit
        How many positions fit, over all pairs and points of a stretch.
    on_step
        Called with pairs done and pairs in all.
    """
    extra = int(closed)
    done = 0

    def rows(piece: Stretch) -> int:
        first = cases[piece.cases[0]]
        beside = 0 if first.aligned is None else len(first.source)  # runs by itself
        return len(piece.cases) * ((piece.last - piece.first + extra) * len(first.base) + beside)

    def one(piece: Stretch) -> None:
        nonlocal done
        run(piece)
        if piece.last == last:
            done += len(piece.cases)
            on_step(done, len(cases))

    memory.halving_pieces(stretches(cases, last, closed=closed), limit, rows, one, model.device)
