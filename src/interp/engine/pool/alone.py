"""A shard's work, done as if it were all there is: nothing remembered, nobody who watches, one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from interp.engine import exactness
from interp.engine.model import hooks

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation
    from interp.spec import Intervention


@dataclass(frozen=True)
class Done:
    """What a shard gave; what it ran counts for the command that asked for it."""

    answer: Any
    forwards: int
    notes: list[str]


def alone(
    models: Sequence[LoadedModel],
    way: exactness.Way | None,
    changes: tuple[Intervention, ...],
    step: Callable[[], None],
    body: Callable[[], Any],
) -> Done:
    """Call `body`, whose last bits then depend on what it is given alone: on what is computed together, and by how
    many threads, they would depend, too.

    Parameters
    ----------
    models
        The first is the one whose runs are changed; none where the work makes its own.
    way
        The one that was decided for all shards: nothing is compared here. ``None``: the work decides by itself.
    changes
        On every run.
    step
        Called between steps; what it raises ends the work.
    """

    def tell(*_: object) -> None:
        step()

    around: Callable[[], Any] = lambda: exactness.by(way, body)  # noqa: E731
    parts: list[Operation] = []
    for model in dict.fromkeys(models):

        def within(model: LoadedModel = model, inside: Callable[[], Any] = around) -> Any:
            told = {"on_step": tell, "on_forward": tell, "interventions": changes if model is models[0] else ()}
            answer, part = model.operate("pool", {}, lambda _: model.apart(inside, **told))
            parts.append(part)
            return answer

        around = within
    threads = torch.get_num_threads()
    answer = hooks.interruptible(
        around, before=lambda: torch.set_num_threads(1), after=lambda: torch.set_num_threads(threads)
    )
    notes = [note for part in parts for note in part.notes]
    return Done(answer, sum(part.forwards for part in parts), notes)
