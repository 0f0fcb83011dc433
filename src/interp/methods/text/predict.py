"""What the model says next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared.models import logits_of, predicted
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.spec import Prompt

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PredictResult(Result):
    """The likeliest tokens at one position.

    Attributes
    ----------
    top
        (token string, id, probability), likeliest first.
    tokens
        The prompt's token strings.
    position
        Which position's prediction this is: the last, or the masked one of a bidirectional model.
    entropy
        Of the whole distribution, in nats.
    """

    top: list[tuple[str, int, float]]
    tokens: tuple[str, ...]
    position: int
    entropy: float

    _html: ClassVar[str] = "interp.views.predict:html"

    def summary(self) -> str:
        """Return the model and the likeliest token."""
        token, _, probability = self.top[0]
        return f"{self.provenance.model}: {token!r} {probability:.3f}"

    def text(self) -> str:
        """Return the tokens and their probabilities, one to a line."""
        visible = resolve("interp.views.kit.text:visible")
        return "\n".join([super().text(), *(f"{p:8.4f}  {visible(token)}" for token, _, p in self.top)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per token: token, id, probability."""
        return frame_of(self.top, columns=["token", "id", "probability"])


@technique(body=Prompt)
def predict(model: LoadedModel, prompt: Prompt, *, top: int = 10) -> PredictResult:
    """The likeliest next tokens; for a bidirectional model, what stands at its one mask token.

    Parameters
    ----------
    prompt
        The text.
    top
        How many tokens to list.

    Returns
    -------
    PredictResult
        ``top`` is a list of (token string, id, probability), likeliest first.

    Raises
    ------
    InputError
        An empty or too long prompt, a `top` below 1, a model without a language-model head, or a bidirectional model
        and a prompt without exactly one mask token.

    Examples
    --------
    >>> interp.predict("The capital of France is").top[0][0]
    ' Paris'
    """
    if top < 1:
        raise InputError(f"--top {top} lists nothing; use 1 or more")
    encoded = model.encode(prompt)
    position, logits = predicted(model, encoded), logits_of(model, encoded)
    logs = logits.float().log_softmax(-1)
    best = logs.topk(min(top, logs.shape[-1]))
    ids: list[int] = best.indices.tolist()
    finite = bool(logs.isfinite().any())
    return PredictResult(
        top=[(model.tokens.string(i), i, p) for i, p in zip(ids, best.values.exp().tolist(), strict=True)],
        tokens=encoded.strings,
        position=position,
        entropy=float(-(logs.exp() * logs).nan_to_num().sum()),
        notes=() if finite else ("the logits are NaN: these probabilities mean nothing",),
    )
