"""What `loss` returns: the loss of each token of texts, and what its mean is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.errors import InputError
from interp.results import Result, resolve
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float

# The tokens, counted from 1 behind BOS, between which loss falls by what is learned in context.
EARLY, LATE = 50, 500
_LISTED = 5


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LossResult(Result):
    """The loss of each token of one or several texts, in nats.

    The axis ``token`` runs through all texts, one after the other: of one text it is its positions.

    Attributes
    ----------
    tokens
        Token strings, ``[token]``.
    ids
        ``int64 [token]``.
    starts
        ``int64 [text + 1]``: the tokens of text n are those from ``starts[n]`` to ``starts[n + 1]``.
    loss
        ``float64 [token]``: −ln p(token | the tokens before it); NaN for a text's first token, which nothing predicts.
    rank
        ``int64 [token]``: of the token among all that could have stood there, 0 is the top; −1 where there is no loss.
    top_ids, top_probabilities
        ``int64`` and ``float32 [token, k]``: what was likeliest there, likeliest first; −1 and NaN where nothing was
        predicted.
    names
        Token id → string, of every id in `top_ids`.
    repeated
        ``bool [token]``: whether the token and the one before it have stood side by side in the text before.
    per_text
        ``float64 [text]``: the mean loss of each.
    mean, mean_interval
        Over all tokens, and its 95 % interval over texts, ``[2]``; NaN for fewer than four.
    repeated_mean, repeated_interval, other_mean, other_interval
        The same of repeated bigrams, and of all other tokens; ``None`` where there are none.
    in_context, in_context_interval
        The loss of the 500th token less that of the 50th, BOS not counted, over the texts that are so long: the more
        negative, the more of the text is used. ``None`` where none is.
    interventions
        How many changes there were of the model.
    against
        The model that is compared with, and an empty string where there is none.
    against_fingerprint
        The hash of its state.
    against_loss
        ``float64 [token]``: its loss; NaN without one.
    source
        Where the texts came from.
    """

    tokens: tuple[str, ...]
    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    loss: Float
    rank: NDArray[np.int64]
    top_ids: NDArray[np.int64]
    top_probabilities: NDArray[np.float32]
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    repeated: NDArray[np.bool_]
    per_text: Float
    mean: float
    mean_interval: Float
    repeated_mean: float | None
    repeated_interval: Float
    other_mean: float | None
    other_interval: Float
    in_context: float | None
    in_context_interval: Float
    interventions: int = 0
    against: str = ""
    against_fingerprint: str = ""
    against_loss: Float
    source: str = ""

    _html: ClassVar[str] = "interp.views.loss:html"
    _svg: ClassVar[str | None] = "interp.views.loss:svg"
    _plotly: ClassVar[str | None] = "interp.views.loss:plotly"

    @property
    def perplexity(self) -> float:
        """Exp of the mean loss: among how many equally likely tokens the model chooses, so to say."""
        return float(np.exp(self.mean))

    @property
    def probability(self) -> Float:
        """``float64 [token]``: of each token after those before it; NaN for a text's first."""
        return np.exp(-self.loss)

    @property
    def difference(self) -> Float:
        """``float64 [token]``: the loss less that of the model that is compared with; below 0 this one is better."""
        return self.loss - self.against_loss

    @property
    def text_of(self) -> NDArray[np.int64]:
        """``int64 [token]``: the number of the text that each token is of."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def top(self, token: int) -> list[tuple[str, int, float]]:
        """Return what was likeliest in the place of a token: (string, id, probability), likeliest first.

        Raises
        ------
        InputError
            There is no such token, or it is a text's first, which nothing predicts.

        Examples
        --------
        >>> result.top(6)[0][0]
        ' Paris'
        """
        if not -len(self.tokens) <= token < len(self.tokens) or self.top_ids[token, 0] < 0:
            raise InputError(f"nothing predicts token {token}; tokens are 1–{len(self.tokens) - 1}, no text's first")
        pairs = zip(self.top_ids[token].tolist(), self.top_probabilities[token].tolist(), strict=True)
        return [(self.names[index], index, chance) for index, chance in pairs]

    def surprises(self, count: int = _LISTED) -> list[tuple[float, str, int, int]]:
        """Return the tokens with the largest losses: (loss, token, text, position), the largest first.

        Examples
        --------
        >>> len(result.surprises(2))
        2
        """
        order = np.argsort(-np.nan_to_num(self.loss, nan=-np.inf), kind="stable")[:count]
        text = self.text_of
        return [
            (float(self.loss[n]), self.tokens[n], int(text[n]), int(n - self.starts[text[n]]))
            for n in order.tolist()
            if np.isfinite(self.loss[n])
        ]

    def summary(self) -> str:
        """Return the mean loss, its perplexity, and over how much text."""
        count = len(self.starts) - 1
        over = f"{count} text{'s' * (count != 1)}, {len(self.tokens):,} tokens"
        return f"{self.provenance.model}: {self.mean:.3f} nats a token, perplexity {self.perplexity:.4g}, over {over}"

    def text(self) -> str:
        """Return what repetition and context give, and the largest losses."""
        visible = resolve("interp.views.kit.text:visible")
        lines = [f"{value:8.3f}  {name}" for name, value in self._readings() if value is not None]
        places = [f"{loss:8.3f}  {visible(token)} (text {n}, {at})" for loss, token, n, at in self.surprises()]
        return "\n".join([super().text(), *lines, *(["largest:"] if places else []), *places])

    def _readings(self) -> list[tuple[str, float | None]]:
        beside = self.mean - mean_of(self.against_loss) if self.against else None
        return [
            ("at repeated bigrams", self.repeated_mean),
            ("at other tokens", self.other_mean),
            (f"token {LATE} less token {EARLY}", self.in_context),
            (f"less {self.against}", beside),
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per token: text, position, token, id, loss, probability, rank, repeated, the likeliest."""
        text = self.text_of
        columns: dict[str, Any] = {
            "text": text,
            "position": np.arange(len(text)) - self.starts[text],
            "token": self.tokens,
            "id": self.ids,
            "loss": self.loss,
            "probability": self.probability,
            "rank": self.rank,
            "repeated": self.repeated,
            "top": [self.names.get(index, "") for index in self.top_ids[:, 0].tolist()],
        }
        return frame_of(columns | ({"difference": self.difference} if self.against else {}))


def mean_of(values: Float) -> float:
    """Return the mean of what is finite; NaN of nothing.

    Examples
    --------
    >>> mean_of(np.array([np.nan, 1.0, 2.0]))
    1.5
    """
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
