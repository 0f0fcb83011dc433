"""What an investigation returns: the account, sentence by sentence, and the steps whose numbers carry it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.methods._shared.investigation.twin import Candidate
from interp.results import Result, as_data
from interp.results.saving import own_fields
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sentence:
    """One sentence of the account.

    Attributes
    ----------
    part
        What it is about: ``prediction``, ``twin``, ``heads``, ``MLPs``, ``readout``, ``circuit``.
    text
        The sentence, with its numbers.
    value, low, high
        The number that carries it, and the ends of its 95 % interval over pairs; NaN where there is none.
    controls
        (name, number): what it is held against.
    established
        Whether the number exceeds its controls.
    step
        The step that the number is of.
    about
        The component (``"2.0"``, ``"1.mlp"``), or an empty text.
    """

    part: str
    text: str
    value: float
    controls: tuple[tuple[str, float], ...]
    established: bool
    step: str
    about: str = ""
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class InvestigateResult(Result):
    """What is established of a prediction, sentence by sentence.

    Attributes
    ----------
    tokens, twin
        The token strings of the prompt and of its corrupted twin; of several pairs those of the first. Empty where no
        twin was looked for.
    target, against
        (string, id) of the answer and of what it is held against, of the first pair.
    pairs
        How many pairs there are; of one, numbers have no intervals.
    task
        The task that the pairs came from, or an empty string.
    solved
        Whether the model prefers the answer, by more than chance or rounding. Where it does not, nothing else is
        established.
    margin, twin_margin
        The answer's logit less the other one's, on the prompt and on the twin, means over pairs; NaN for no twin.
    candidates
        The prompts among which the twin was chosen, the largest move first; empty where it was given.
    account
        The sentences.
    steps
        Name → the result of each step: it can be opened, saved, and asked for its `code()`.
    cells
        Name → the cell that makes it, typed alone; empty where only Python can.
    refused
        Name → why a step could not be made.
    """

    tokens: tuple[str, ...]
    twin: tuple[str, ...] = ()
    target: tuple[str, int]
    against: tuple[str, int]
    pairs: int
    task: str = ""
    solved: bool
    margin: float
    twin_margin: float = float("nan")
    candidates: tuple[Candidate, ...] = ()
    account: tuple[Sentence, ...] = ()
    steps: Mapping[str, Result] = field(default_factory=dict[str, Result])
    cells: Mapping[str, str] = field(default_factory=dict[str, str])
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    _html: ClassVar[str] = "interp.views.investigate:html"

    @property
    def components(self) -> tuple[str, ...]:
        """The components that the account names, heads ``"2.0"`` and MLPs ``"1.mlp"``, in its order."""
        return tuple(dict.fromkeys(one.about for one in self.account if one.about))

    @property
    def established(self) -> tuple[str, ...]:
        """The components that a sentence with a number above its controls is about, in the account's order."""
        return tuple(dict.fromkeys(one.about for one in self.account if one.about and one.established))

    def summary(self) -> str:
        """Return what is explained, and how much of the account is established."""
        over = f"{self.target[0]!r} over {self.against[0]!r} ({self.margin:+.2f})"
        of = f"{self.task}, {self.pairs} pairs: " if self.task else f"{self.pairs} pairs: " if self.pairs > 1 else ""
        head = f"{self.provenance.model}: {of}{over}"
        if not self.solved:
            return f"{head}: not solved, so nothing more is established"
        sure = sum(one.established for one in self.account)
        named = ", ".join(self.established[:4])
        return f"{head}; {sure} of {len(self.account)} sentences established" + (f": {named}" if named else "")

    def text(self) -> str:
        """Return the account, a line to a sentence, and the cells of its steps."""
        first, *notes = super().text().split("\n")
        said = [f"  {'+' if one.established else '?'} {one.text}" for one in self.account]
        cells = [f"  {name}: {cell.splitlines()[0]}" for name, cell in self.cells.items() if cell]
        return "\n".join([first, *said, *notes, *(["steps:", *cells] if cells else [])])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per sentence: part, about, value, the ends of its interval, its controls, established."""
        rows = [
            (one.part, one.about, one.value, one.low, one.high, dict(one.controls), one.established, one.step, one.text)
            for one in self.account
        ]
        names = ["part", "about", "value", "low", "high", "controls", "established", "step", "sentence"]
        return frame_of(rows, columns=names)

    def code_of(self, step: str) -> str:
        """Return the Python call that makes a step.

        Examples
        --------
        >>> result.code_of("predict")
        "interp.predict('When Mary and John went to the store, John gave a drink to', ...)"
        """
        return self.steps[step].code()

    def _held(self) -> Iterable[Result]:
        return self.steps.values()

    def _saved(self) -> Any:
        own = {name: as_data(value) for name, value in own_fields(self) if name != "steps"}
        return {**own, "steps": {name: step._saved() for name, step in self.steps.items()}}


def known(value: float) -> bool:
    """Whether there is such a number."""
    return bool(np.isfinite(value))
