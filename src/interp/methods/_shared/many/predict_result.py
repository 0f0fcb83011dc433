"""What a model says after each of many prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import printable
from interp.methods._shared.intervals import share_interval
from interp.methods._shared.many.result import ManyResult, Spread, spread
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PredictManyResult(ManyResult):
    """The likeliest tokens after each of many prompts, and what is said of their answers.

    Attributes
    ----------
    ids, probabilities
        ``int64`` and ``float64 [prompt, k]``: the likeliest tokens, likeliest first.
    names
        Token id → string, of every id in `ids`.
    answers
        Each prompt's answers, as strings; several are a set, of which any is right. Empty where none was asked about.
    probability, logprob
        ``float64 [prompt]``: of the answer; of one of several tokens of all of them, of a set of the whole set. NaN
        where none was asked about.
    rank
        ``int64 [prompt]``: of the answer's first token, of a set's best; 0 is the top, −1 where none was asked about.
    entropy
        ``float64 [prompt]``: of the whole distribution, in nats.
    """

    ids: NDArray[np.int64]
    probabilities: Float
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    answers: tuple[tuple[str, ...], ...]
    probability: Float
    logprob: Float
    rank: NDArray[np.int64]
    entropy: Float

    _html: ClassVar[str] = "interp.views.many_predict:html"
    _svg: ClassVar[str | None] = "interp.views.many_predict:svg"

    @property
    def asked(self) -> NDArray[np.bool_]:
        """``bool [prompt]``: whether an answer was asked about."""
        return np.array([bool(own) for own in self.answers])

    @property
    def accuracy(self) -> float | None:
        """The share of prompts whose likeliest token is their answer's first; ``None`` where none was asked about."""
        asked = self.asked
        return float((self.rank[asked] == 0).mean()) if asked.any() else None

    @property
    def accuracy_interval(self) -> Float:
        """The 95 % interval of `accuracy`, ``[2]``: Clopper and Pearson's; NaN where no answer was asked about."""
        asked = self.asked
        if not asked.any():
            return np.full(2, np.nan)
        return share_interval(int((self.rank[asked] == 0).sum()), int(asked.sum()))

    @property
    def spread(self) -> Spread:
        """The mean of `probability` over the prompts with an answer, and how sure it is."""
        return spread(self.probability[self.asked])

    @property
    def tops(self) -> list[tuple[str, int, float]]:
        """The likeliest tokens of all prompts: (token string, of how many prompts, their mean probability)."""
        found = [
            (self.names[index], int((self.ids[:, 0] == index).sum()), float(self.probabilities[:, 0][at].mean()))
            for index in np.unique(self.ids[:, 0]).tolist()
            for at in [self.ids[:, 0] == index]
        ]
        return sorted(found, key=lambda one: (-one[1], -one[2]))

    def summary(self) -> str:
        """Return how often the answer is on top, and its mean probability; of no answers the commonest top token."""
        if self.accuracy is None:
            token, count, chance = self.tops[0]
            return (
                f"{self.provenance.model}: {token!r} is likeliest after {count} of {self.over}, {chance:.3f} on the "
                "mean"
            )
        found, low_high = self.spread, self.accuracy_interval
        return (
            f"{self.provenance.model}: the answer is likeliest in {self.accuracy:.0%} [{low_high[0]:.0%}, "
            f"{low_high[1]:.0%}], probability {float(found.mean):.3f} ± {float(found.standard_error):.3f}, over "
            f"{self.over}"
        )

    def text(self) -> str:
        """Return each prompt's likeliest token and its answer, one to a line."""
        lines = (
            f"{self.numbers[n]:4}  {self.probabilities[n, 0]:7.4f}  {self.names[int(self.ids[n, 0])]!r:16}"
            + (f"  answer {self.probability[n]:.4f}, rank {self.rank[n]}" if self.answers[n] else "")
            + f"  {printable(''.join(self.prompts[n]))[-60:]}"
            for n in range(self.n)
        )
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per prompt: the prompt, its likeliest token, and its answer's probability and rank."""
        return frame_of(
            {
                "prompt": self.numbers,
                "text": ["".join(tokens) for tokens in self.prompts],
                "top": [self.names[index] for index in self.ids[:, 0].tolist()],
                "top probability": self.probabilities[:, 0],
                "entropy": self.entropy,
                "answer": [" | ".join(own) for own in self.answers],
                "probability": self.probability,
                "logprob": self.logprob,
                "rank": self.rank,
            }
        )
