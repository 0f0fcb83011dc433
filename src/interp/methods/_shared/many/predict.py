"""What a model says of answers: after one prompt, and after each of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.methods._shared import answers, prompts
from interp.methods._shared.many.predict_result import PredictManyResult
from interp.methods._shared.many.reading import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.engine.readouts.loss import Known
    from interp.spec import Intervention, Prompts


def answered(
    model: LoadedModel,
    encoded: Encoded,
    position: int,
    logits: Tensor,
    asked: Sequence[int],
    changes: Sequence[Intervention] = (),
) -> Known:
    """Return what the model says of each of an answer's tokens after those before it.

    Raises
    ------
    InputError
        Several tokens where a mask stands for one, or more than the context window holds behind the prompt.
    """
    from interp.engine.model.interventions import functions_of
    from interp.engine.readouts import loss as engine

    if len(asked) < 2:
        return engine.of_logits(logits[None][: len(asked)], asked)
    if not model.geometry.causal:
        split = "|".join(model.tokens.string(index) for index in asked)
        raise InputError(
            f"{model.name} reads in both directions: its mask stands for one token, and the answer is {len(asked)} "
            f"({split})"
        )
    length = len(encoded.ids) + len(asked) - 1  # the last token is not read
    if length > model.geometry.n_ctx:
        raise InputError(
            f"the prompt and the answer but its last token are {length} tokens, and the context window holds "
            f"{model.geometry.n_ctx}; shorten one of them"
        )
    ids = (*encoded.ids, *asked[:-1])
    functions = functions_of(model, changes, length) if changes else None
    return engine.known(model, ids, asked, position, functions=functions)


def entropy(logs: Tensor) -> float:
    """Return the entropy of log-probabilities ``[d_vocab]``, in nats."""
    return float(-(logs.exp() * logs).nan_to_num().sum())


def over(model: LoadedModel, given: Prompts, top: int, answer: object, interventions: object) -> PredictManyResult:
    """Return what the model says after each of many prompts."""
    reading = Reading.of(model, given, interventions)
    encoded, at = reading.encoded, reading.positions()
    asked = _asked(model, given, answer)
    site = "last_logits" if model.geometry.causal else "logits"
    best: dict[int, tuple[list[int], list[float]]] = {}
    chances: dict[int, tuple[float, float, int, float]] = {}

    def read(number: int, held: dict[str, Tensor]) -> None:
        logits = held[site][0] if model.geometry.causal else held[site][0, at[number]]
        logs = logits.float().log_softmax(-1)
        found = logs.topk(min(top, logs.shape[-1]))
        best[number] = found.indices.tolist(), found.values.exp().tolist()
        own = asked[number]
        said: tuple[float, float, int] = (np.nan, np.nan, -1)
        if len(own) == 1:
            try:
                known = answered(model, encoded[number], at[number], logits, own[0], reading.changes)
            except InputError as error:
                raise InputError(reading.where(number) + str(error)) from None
            logprob = float(known.logprobs.sum())
            said = float(np.exp(logprob)), logprob, int(known.ranks[0])
        elif own:  # a set of answers: whichever of them
            first = [one[0] for one in own]
            logprob = float(logs[first].double().logsumexp(0))
            above = (logs > logs[first].max()).sum()
            said = float(np.exp(logprob)), logprob, int(above)
        chances[number] = said[0], said[1], said[2], entropy(logs)

    reading.activations([site], read)
    probability, logprob, rank, spread = (np.array(one) for one in zip(*reading.held(chances), strict=True))
    lost = int((~np.isfinite(spread)).sum())
    result = PredictManyResult(
        **reading.fields(at),
        ids=np.array([ids for ids, _ in reading.held(best)], np.int64),
        probabilities=np.array([held for _, held in reading.held(best)], np.float64),
        names={n: model.tokens.string(n) for ids, _ in reading.held(best) for n in ids},
        answers=tuple(
            tuple("".join(model.tokens.string(n) for n in one) for one in own) for own in reading.held(asked)
        ),
        probability=probability.astype(np.float64),
        logprob=logprob.astype(np.float64),
        rank=rank.astype(np.int64),
        entropy=spread.astype(np.float64),
        notes=(*reading.notes(), *([f"the logits of {lost} prompts are NaN"] if lost else ())),
    )
    return unless_interrupted(result, reading.interrupt)


def _asked(model: LoadedModel, given: Prompts, answer: object) -> list[tuple[tuple[int, ...], ...]]:
    """Return each prompt's answers, each as its tokens: a single one may be several, of a set each is one."""
    said = prompts.spelled(given, answer, given.answer, "answer")
    found: list[tuple[tuple[int, ...], ...]] = []
    for number, (prompt, own) in enumerate(zip(given.prompts, said, strict=True)):
        where = f"prompt {number}: " if len(said) > 1 else ""
        literal = given.literal and answer is None
        if len(own) == 1 and not literal:
            try:
                found.append((answers.whole(model, prompt, own[0]),))
            except InputError as error:
                raise InputError(where + str(error)) from None
        else:
            ids = answers.tokens(model, prompt, own, "answer", where, literal=literal)
            found.append(tuple((index,) for index in ids))
    return found
