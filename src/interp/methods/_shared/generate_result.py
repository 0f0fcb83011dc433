"""A text that the model wrote."""

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


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GenerateResult(Result):
    """A text that the model wrote.

    Attributes
    ----------
    tokens
        The prompt's token strings.
    generated
        The new tokens' strings; an end-of-text token is the last of them.
    ids
        ``int64 [new token]``.
    logprobs
        ``float64 [new token]``: the log-probability of each in the model as it was changed, at temperature 1, in nats.
    continuation
        The new tokens as one text; of a turn in a chat, without the token that ends it.
    stopped
        Why it ended: ``"length"``, ``"eos"``, ``"window"`` (the context window is full), or what went wrong.
    temperature, top_k, top_p
        What they were drawn with; temperature 0 where the likeliest token was taken.
    interventions, at
        How many changes there were, and where: ``"all"``, ``"prompt"`` or ``"new"``.
    """

    tokens: tuple[str, ...]
    generated: tuple[str, ...]
    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    continuation: str
    stopped: str
    temperature: float
    top_k: int | None = None
    top_p: float | None = None
    interventions: int = 0
    at: str = "all"

    _html: ClassVar[str] = "interp.views.generate:html"
    _svg: ClassVar[str | None] = "interp.views.generate:svg"

    def summary(self) -> str:
        """Return the model and what it wrote."""
        return f"{self.provenance.model}: {self.continuation!r}, {len(self.ids)} tokens"

    def text(self) -> str:
        """Return what was written, below the first line."""
        return "\n".join([super().text(), *map(printable, self.continuation.split("\n"))])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per new token: its position in the whole text, token, id, log-probability."""
        positions = range(len(self.tokens), len(self.tokens) + len(self.generated))
        return frame_of({"position": positions, "token": self.generated, "id": self.ids, "logprob": self.logprobs})
