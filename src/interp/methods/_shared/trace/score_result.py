"""One attention score as data: which pairs of sources make a query look at a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.results import Result, strongest
from interp.results.tables import frame_of, lines_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ScoreResult(Result):
    """What makes a head's score of one key for one query: a sum over pairs of what is in the stream at both.

    Attributes
    ----------
    tokens
        The prompt's token strings.
    layer, head
        Which head.
    query, key
        Positions.
    score
        What the softmax is taken of, before a soft cap and before what is added for distance.
    weight
        The attention that the head pays there.
    queries, keys
        What is in the query and in the key, named as the nodes of a graph are: ``embed@3``, ``2.417@5``,
        ``2.error@5``; behind them ``others`` together, and ``biases``.
    pairs
        ``float32 [query source, key source]``: they sum to `score`.
    """

    tokens: tuple[str, ...]
    layer: int
    head: int
    query: int
    key: int
    score: float
    weight: float
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    pairs: NDArray[np.float32]

    _html: ClassVar[str] = "interp.views.kit.table:html"

    def summary(self) -> str:
        """Return which score, how large, and its strongest pair."""
        name, other, share = self.top(1)[0]
        places = f"{self.tokens[self.query]!r} → {self.tokens[self.key]!r}"
        return (
            f"{self.provenance.model}: L{self.layer}H{self.head} {places}, score {self.score:+.2f}, "
            f"attention {self.weight:.2f}; strongest {name} × {other} {share:+.2f}"
        )

    def top(self, n: int = 10) -> list[tuple[str, str, float]]:
        """Return the `n` pairs of the largest share either way: (in the query, in the key, share).

        Examples
        --------
        >>> len(result.top(3))
        3
        """
        return [(self.queries[a], self.keys[b], float(self.pairs[a, b])) for a, b in strongest(self.pairs, n)]

    def _lines(self) -> list[str]:
        return lines_of(("in the query", "in the key", "share"), self.top(5))

    def to_frame(self) -> pd.DataFrame:
        """Return the 100 strongest pairs: query, key, share."""
        return frame_of(self.top(100), columns=["query", "key", "share"])
