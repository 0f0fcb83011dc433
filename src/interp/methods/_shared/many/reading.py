"""Many prompts as a model reads them: tokens, positions, changes of the run, and one pass over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.methods._shared import interventions as edits
from interp.methods._shared import prompts as given
from interp.methods._shared.intervals import too_few
from interp.methods._shared.models import predicted
from interp.spec import Intervention, Prompts, as_interventions

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded


@dataclass
class Reading:
    """Prompts that are read alike.

    Attributes
    ----------
    encoded
        The prompts as tokens.
    changes
        Changes of the runs.
    interrupt
        What stopped the pass.
    done
        The numbers of the prompts that it got to, in their order.
    """

    model: LoadedModel
    prompts: Prompts
    encoded: list[Encoded]
    changes: tuple[Intervention, ...]
    interrupt: KeyboardInterrupt | None = None
    done: list[int] = field(default_factory=list[int])

    @classmethod
    def of(cls, model: LoadedModel, prompts: Prompts, interventions: Any) -> Reading:
        """Return the prompts as `model` reads them, with what is to be changed in the runs."""
        return cls(model, prompts, given.encode(model, prompts), as_interventions(interventions))

    def positions(self, position: int | None = None) -> list[int]:
        """Return the position that is read in each prompt: `position`, or the one that is predicted.

        Raises
        ------
        InputError
            A prompt has no such position, or no mask.
        """
        found: list[int] = []
        for number, one in enumerate(self.encoded):
            try:
                found.append(predicted(self.model, one) if position is None else at(position, len(one.ids)))
            except InputError as error:
                raise InputError(self.where(number) + str(error)) from None
        return found

    def where(self, number: int) -> str:
        """Return what a message about one of several prompts begins with."""
        return f"prompt {number}: " if len(self.encoded) > 1 else ""

    def activations(self, sites: Sequence[str], read: Callable[[int, dict[str, Tensor]], None]) -> None:
        """Call `read` with each prompt's number and its activations, prompts of one length run together.

        What an interrupt leaves is in `done`, unless it came before there was anything.
        """
        from interp.engine.model.each import each

        def keep(number: int, held: dict[str, Tensor]) -> None:
            read(number, held)
            self._read(number)

        functions = edits.functions(self.model, self.changes, self.encoded)
        alone = not edits.alike(self.changes)
        self._guarded(lambda: each(self.model, self.encoded, sites, keep, functions, alone=alone))

    def one_by_one(self, read: Callable[[int], None]) -> None:
        """Call `read` with each prompt's number; see `activations`."""

        def every() -> None:
            for number in range(len(self.encoded)):
                read(number)
                self._read(number)

        self._guarded(every)

    def _read(self, number: int) -> None:
        if number not in self.done:  # what ran out of memory is read again
            self.done.append(number)
        self.model.on_step(len(self.done), len(self.encoded))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except KeyboardInterrupt as stopped:
            if not self.done:
                raise
            self.interrupt = stopped
        self.done.sort()

    def fields(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return what every result over prompts holds, of those that were read."""
        return {
            "prompts": tuple(self.encoded[n].strings for n in self.done),
            "numbers": np.array(self.done, np.int64),
            "positions": np.array([positions[n] for n in self.done], np.int64),
            "source": self.prompts.source,
            "interventions": len(self.changes),
        }

    def notes(self) -> tuple[str, ...]:
        """Return what an interrupt left out, and that there are no intervals of few prompts."""
        partial = f"partial: interrupted after {len(self.done)} of {len(self.encoded)} prompts"
        return (*((partial,) if self.interrupt is not None else ()), *too_few(len(self.done), "prompts"))

    def held(self, each: Mapping[int, Any] | Sequence[Any]) -> list[Any]:
        """Return each prompt's value, of those that were read, in their order."""
        return [each[n] for n in self.done]


def at(position: int, length: int) -> int:
    """Return a position counted from the front.

    Raises
    ------
    InputError
        It is outside the prompt.
    """
    if not -length <= position < length:
        raise InputError(f"no position {position}; positions are 0–{length - 1}, and −1 is the last")
    return position % length
