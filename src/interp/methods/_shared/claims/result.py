"""What `claim` returns: how often a claim's prediction comes true, beside its controls, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.results import Result, resolve
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ClaimResult(Result):
    """A claim, tested: in how many interchanges the answer becomes what it predicts.

    Attributes
    ----------
    claim
        Its three lines.
    variable, carried, outcome
        Their contents: the variable's name, where it is carried, and what becomes of the answer.
    task
        Where the prompts came from, or an empty string.
    verdict
        ``"supported"``, ``"supported in part"``, ``"rejected"`` or ``"not established"``: see `docs/claims.md`.
    why
        The verdict's reason, where one is to be given.
    accuracy, interval
        The share of interchanges whose likeliest answer is the predicted one, and ``float64 [2]``: its exact 95 %
        interval over the base prompts; ``None`` and NaN where no interchange could be made.
    controls, names
        Which controls there are, and what each is in words.
    control_accuracy, control_interval
        ``float64 [control]`` and ``[2, control]``: the same of each; NaN where it could not be made.
    control_missing
        Why not, in words; empty where it was.
    prompts, solved
        How many prompts there are, and how many of them the model answers rightly, which alone take part.
    trained
        How many interchanges a subspace was found on; none of their prompts is tested.
    base, source
        ``int64 [swap]``: the numbers of the prompt that was changed and of the one that it was given something of.
    predicted, got
        For each swap, the token that the claim predicts, and the likeliest.
    correct
        ``bool [swap]``: whether they are the same.
    classes
        The tokens of which the likeliest counts as the answer.
    texts
        The prompts, by number.
    """

    claim: str
    variable: str
    carried: str
    outcome: str
    task: str
    verdict: str
    why: str
    accuracy: float | None
    interval: Float
    controls: tuple[str, ...]
    names: tuple[str, ...]
    control_accuracy: Float
    control_interval: Float
    control_missing: tuple[str, ...]
    prompts: int
    solved: int
    trained: int
    base: NDArray[np.int64]
    source: NDArray[np.int64]
    predicted: tuple[str, ...]
    got: tuple[str, ...]
    correct: NDArray[np.bool_]
    classes: tuple[str, ...]
    texts: tuple[str, ...]

    _html: ClassVar[str] = "interp.views.claim:html"
    _svg: ClassVar[str | None] = "interp.views.claim:svg"

    @property
    def n(self) -> int:
        """How many interchanges were made."""
        return len(self.base)

    @property
    def strongest(self) -> int | None:
        """The number of the strongest of the controls that decide; ``None`` where there is none."""
        deciding = ("stream",) if self.outcome == "the answer stays" else ("labels", "model", "random")
        made = np.isfinite(self.control_accuracy)
        those = [n for n, name in enumerate(self.controls) if name in deciding and made[n]]
        return max(those, key=lambda n: float(self.control_accuracy[n]), default=None)

    @property
    def short(self) -> str:
        """The claim in a few words."""
        end = self.outcome.removeprefix("the answer ").removeprefix("becomes ")
        usual = end in {f"the other {self.variable}", "the other answer"}
        return f"{self.variable} in {self.carried}" + ("" if usual else f": {end}")

    def line(self) -> str:
        """Return the verdict with what it rests on, in one line."""
        shown = resolve("interp.errors:printable")
        if self.accuracy is None:
            return f"{self.verdict}: {self.why}"
        parts = [f"{self.verdict}: {_share(self.accuracy, self.interval)} of {self.n} interchanges"]
        best = self.strongest
        if best is not None:
            share = _share(float(self.control_accuracy[best]), self.control_interval[:, best])
            parts.append(f"the strongest control, {self.names[best]}, {share}")
        parts += [self.why] if self.why else []
        if self.verdict.startswith("supported"):
            for name, layer in (("below", "the layer below"), ("above", "the layer above")):
                n = self.controls.index(name) if name in self.controls else -1
                if n >= 0 and float(self.control_interval[0, n]) > 0.5:
                    also = "leaves the answer" if self.outcome == "the answer stays" else "carries it"
                    parts.append(f"{layer} {also} as well ({self.control_accuracy[n]:.2f})")
        return shown("; ".join(parts))

    def summary(self) -> str:
        """Return the claim and its verdict."""
        return f"{self.short}, {self.line()}"

    def text(self) -> str:
        """Return the claim, the verdict and a line for each control."""
        shown = resolve("interp.errors:printable")
        lines = [f"  {shown(line)}" for line in self.claim.splitlines()]
        wide = max((len(name) for name in self.names), default=0)
        for n, name in enumerate(self.names):
            missing = self.control_missing[n]
            said = missing or _share(float(self.control_accuracy[n]), self.control_interval[:, n])
            lines.append(f"{name:{wide}}  {shown(said)}")
        return "\n".join([self.line(), *lines, *(f"note: {shown(note)}" for note in self.notes)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row for the claim and one for each control."""
        low, high = np.concatenate([self.interval[:, None], self.control_interval], 1)
        return frame_of(
            {
                "of": ("the claim", *self.names),
                "accuracy": np.array([np.nan if self.accuracy is None else self.accuracy, *self.control_accuracy]),
                "low": low,
                "high": high,
                "missing": ("", *self.control_missing),
            }
        )

    def swaps(self) -> pd.DataFrame:
        """Return one row per interchange: both prompts, what was predicted, and what was likeliest."""
        return frame_of(
            {
                "base": tuple(self.texts[n] for n in self.base),
                "source": tuple(self.texts[n] for n in self.source),
                "predicted": self.predicted,
                "got": self.got,
                "correct": self.correct,
            }
        )


def _share(value: float, interval: Float) -> str:
    """Return a share with its interval.

    Examples
    --------
    >>> _share(0.5, np.array([0.25, 0.75]))
    '0.50 (0.25–0.75)'
    """
    if value != value:
        return "none"
    return f"{value:.2f} ({interval[0]:.2f}–{interval[1]:.2f})"
