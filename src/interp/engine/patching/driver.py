"""One driver for many interventions: what is finished is kept, whatever stops it; lean where that can be trusted."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.metrics import MetricFailed
from interp.engine.model import hooks

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

OnStep = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Tell nobody of a step."""


@dataclass
class Outcome:
    """What interventions gave.

    Attributes
    ----------
    values
        ``float64``: the metric of every run; NaN where it was not reached.
    done
        ``bool``, of the same shape.
    path
        How: what the lean way is called, or ``"hooked: why"``.
    stopped
        Why it ended early, or an empty string.
    notes
        What is worth knowing.
    interrupt
        The interrupt that ended it, to be raised again when the result is in order.
    """

    values: Tensor
    done: Tensor
    path: str = "replay"
    stopped: str = ""
    notes: list[str] = field(default_factory=list[str])
    interrupt: BaseException | None = None

    def so_far(self) -> Self:
        """Return what is computed now, which later steps leave as it is."""
        values = self.values.clone()
        values[~self.done] = float("nan")
        return replace(self, values=values, done=self.done.clone(), notes=list(self.notes))


def nothing(*shape: int) -> tuple[Tensor, Tensor]:
    """Return `values` and `done` of interventions of which none is computed."""
    return torch.full(shape, float("nan"), dtype=torch.float64), torch.zeros(shape, dtype=torch.bool)


class Driver:
    """Interventions under way.

    Parameters
    ----------
    outcome
        Filled as they finish.
    total
        How many there are.
    on_step
        Called with interventions done and `total`.
    """

    def __init__(self, model: LoadedModel, outcome: Outcome, total: int, on_step: OnStep) -> None:
        self.model = model
        self.outcome = outcome
        self.total = total
        self.on_step = on_step

    def run(
        self,
        key: exactness.Key,
        *,
        lean: Callable[[exactness.Check], None],
        hooked: Callable[[], None] | exactness.Refusal,
        sample: Callable[[], Iterable[float]],
        length: int,
        noise: Callable[[], float] | None = None,
    ) -> None:
        """Run all of them to the end, or to where it had to stop; the arguments are those of `exactness.run`."""
        outcome = self.outcome

        def instead(fallback: exactness.Fallback) -> None:
            outcome.path = fallback.path
            outcome.notes += fallback.notes
            outcome.done[:] = False
            assert not isinstance(hooked, exactness.Refusal)
            hooked()

        way = hooked if isinstance(hooked, exactness.Refusal) else instead
        outcome.stopped, outcome.interrupt = contained(
            lambda: exactness.run(self.model, key, lean=lean, hooked=way, sample=sample, length=length, noise=noise),
            self.progress,
        )
        outcome.values[~outcome.done] = float("nan")

    def record(self, where: tuple[Any, ...], values: Tensor) -> None:
        """Take finished interventions in."""
        self.outcome.values[where] = values.double().cpu()
        self.outcome.done[where] = True

    def step(self) -> None:
        """Say how far it is."""
        self.on_step(int(self.outcome.done.sum()), self.total)

    def progress(self) -> str:
        """Return interventions done and in all, such as ``37/144``."""
        return f"{int(self.outcome.done.sum())}/{self.total}"


def contained(run: Callable[[], object], progress: Callable[[], str]) -> tuple[str, BaseException | None]:
    """Call `run`, and return why it ended early (an empty string where it did not) and the interrupt that ended it.

    Other errors than interrupts, failing metrics and memory that ran out are raised.
    """
    try:
        hooks.guarded(run)
    except KeyboardInterrupt as interrupt:
        return f"interrupted after {progress()}", interrupt
    except MetricFailed as error:
        return f"the metric failed after {progress()}: {error}", None
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return f"out of memory after {progress()}, one cell at a time", None
    return "", None
