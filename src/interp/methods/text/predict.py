"""What the model says next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared import answers
from interp.methods._shared import interventions as edits
from interp.methods._shared.many import predict as many
from interp.methods._shared.many.predict_result import PredictManyResult
from interp.methods._shared.models import logits_of, predicted
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.spec import Prompt, Prompts, TokenName, Variable, as_interventions

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


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
    answer
        The token strings of the answer that was asked about, in their order; empty where none was.
    answer_ids
        ``int64 [answer token]``.
    answer_logprobs, answer_ranks
        ``float64`` and ``int64 [answer token]``: of each after the prompt and the answer's tokens before it, in nats;
        rank 0 is the top.
    interventions
        How many changes there were of the run.
    """

    top: list[tuple[str, int, float]]
    tokens: tuple[str, ...]
    position: int
    entropy: float
    answer: tuple[str, ...] = ()
    answer_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    answer_logprobs: Float = field(default_factory=lambda: np.zeros(0))
    answer_ranks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    interventions: int = 0

    _html: ClassVar[str] = "interp.views.predict:html"

    @property
    def answer_logprob(self) -> float | None:
        """The log-probability of the whole answer, in nats: the sum over its tokens; ``None`` where none was asked."""
        return float(self.answer_logprobs.sum()) if self.answer else None

    def summary(self) -> str:
        """Return the model, the likeliest token, and the answer's probability."""
        token, _, probability = self.top[0]
        said = f"{self.provenance.model}: {token!r} {probability:.3f}"
        if self.answer_logprob is None:
            return said
        chance = np.exp(self.answer_logprob)
        return f"{said}; {''.join(self.answer)!r} {chance:.3g}, ln p {self.answer_logprob:.3f}"

    def text(self) -> str:
        """Return the tokens and their probabilities, one to a line."""
        visible = resolve("interp.views.kit.text:visible")
        return "\n".join([super().text(), *(f"{p:8.4f}  {visible(token)}" for token, _, p in self.top)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per token: token, id, probability."""
        return frame_of(self.top, columns=["token", "id", "probability"])


@technique(body=Prompt | Prompts)
def predict(
    model: LoadedModel,
    prompt: Prompt | Prompts,
    *,
    top: int = 10,
    answer: TokenName | None = None,
    interventions: Variable = None,
) -> PredictResult | PredictManyResult:
    """The likeliest next tokens; for a bidirectional model, what stands at its one mask token.

    Parameters
    ----------
    prompt
        The text; or many: a list, a table's column, a file, a task's or pairs' clean prompts.
    top
        How many tokens to list.
    answer
        A text whose probability is asked, of one token or several; "the Eiffel Tower" after running text is that with a
        space in front. Of many prompts it may be a list, one for each; of a task or pairs it is theirs.
    interventions
        A list of interp.Intervention, with which the model is run; in a magic, the name of a variable that holds one.

    Returns
    -------
    PredictResult
        ``top`` is a list of (token string, id, probability), likeliest first; ``answer_logprob`` is of the whole
        answer, ``answer_logprobs`` are of its tokens, each after those before it.
    PredictManyResult
        Of many prompts: ``probability`` and ``rank``, ``[prompt]``, are those of each prompt's answer, ``accuracy`` is
        the share of prompts whose likeliest token is the answer's first.

    Raises
    ------
    InputError
        An empty or too long prompt, a `top` below 1, a model without a language-model head, a bidirectional model
        and a prompt without exactly one mask token, or an answer that the vocabulary lacks or that goes beyond the
        context window.
    Interrupted
        Stopped by Ctrl-C over many prompts: those that were read are in its ``result``.

    Examples
    --------
    >>> interp.predict("The capital of France is").top[0][0]
    ' Paris'
    >>> interp.predict("The capital of France is", answer="Paris.").answer_logprobs.round(2) + 0.0
    array([0., 0.])
    >>> interp.predict(task="ioi", n=8).accuracy
    1.0
    """
    if top < 1:
        raise InputError(f"--top {top} lists nothing; use 1 or more")
    if isinstance(prompt, Prompts):
        return many.over(model, prompt, top, answer, interventions)
    encoded = model.encode(prompt)
    changes = as_interventions(interventions)
    position = predicted(model, encoded)
    (functions,) = edits.functions(model, changes, [encoded])
    logits = logits_of(model, encoded, functions)
    logs = logits.float().log_softmax(-1)
    best = logs.topk(min(top, logs.shape[-1]))
    ids: list[int] = best.indices.tolist()
    finite = bool(logs.isfinite().any())
    asked = () if answer is None else answers.whole(model, prompt, answer)
    likelier = answers.likelier(model, asked[0], logits) if len(asked) == 1 else ()
    said = many.answered(model, encoded, position, logits, asked, changes)
    return PredictResult(
        top=[(model.tokens.string(i), i, p) for i, p in zip(ids, best.values.exp().tolist(), strict=True)],
        tokens=encoded.strings,
        position=position,
        entropy=many.entropy(logs),
        answer=tuple(model.tokens.string(index) for index in asked),
        notes=(*(() if finite else ("the logits are NaN: these probabilities mean nothing",)), *likelier),
        answer_ids=np.array(asked, np.int64),
        answer_logprobs=said.logprobs,
        answer_ranks=said.ranks,
        interventions=len(changes),
    )
