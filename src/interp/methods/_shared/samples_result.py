"""Several continuations of one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import printable
from interp.results import Result
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SamplesResult(Result):
    """Texts that the model wrote after one prompt, each drawn with a seed of its own.

    Attributes
    ----------
    tokens
        The prompt's token strings.
    generated
        The new tokens' strings, ``[sample][new token]``; an end-of-text token is the last of its text.
    ids
        ``int64 [sample, new token]``, −1 behind a text's end.
    logprobs
        ``float64 [sample, new token]``: the log-probability of each in the model as it was changed, at temperature 1
        and of all tokens, in nats; NaN behind a text's end.
    continuations
        The new tokens as texts, ``[sample]``; of turns in a chat, without the token that ends them.
    stopped
        Why each ended, as in `GenerateResult`.
    temperature, top_k, top_p
        What they were drawn with.
    seeds
        ``int64 [sample]``: the seed that gives each text alone.
    interventions, at
        As in `GenerateResult`.
    """

    tokens: tuple[str, ...]
    generated: tuple[tuple[str, ...], ...]
    ids: NDArray[np.int64]
    logprobs: Float
    continuations: tuple[str, ...]
    stopped: tuple[str, ...]
    temperature: float
    top_k: int | None = None
    top_p: float | None = None
    seeds: NDArray[np.int64]
    interventions: int = 0
    at: str = "all"

    _html: ClassVar[str] = "interp.views.samples:html"
    _svg: ClassVar[str | None] = "interp.views.samples:svg"

    @property
    def perplexity(self) -> Float:
        """``float64 [sample]``: exp of minus the mean of a text's `logprobs`; NaN of an empty one."""
        means = [
            row[: len(own)].mean() if own else np.nan for row, own in zip(self.logprobs, self.generated, strict=True)
        ]
        return np.exp(-np.array(means, np.float64))

    def summary(self) -> str:
        """Return the model, how many texts, and the first."""
        count, different = len(self.continuations), len(set(self.continuations))
        return f"{self.provenance.model}: {count} samples, {different} different, such as {self.continuations[0]!r}"

    def text(self) -> str:
        """Return the texts, one to a line."""
        lines = (f"{s:6}  {printable(t)}" for s, t in zip(self.seeds.tolist(), self.continuations, strict=True))
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per text: its seed, how many tokens, perplexity, why it ended, the text."""
        return frame_of(
            {
                "seed": self.seeds,
                "tokens": [len(own) for own in self.generated],
                "perplexity": self.perplexity,
                "stopped": self.stopped,
                "text": self.continuations,
            }
        )
