"""What is measured at several positions: whole answers behind a prompt, the loss of a text, all logits.

An answer of several tokens stands behind the prompt, all but its last token, and its log-probability is the sum over
the positions that predict its tokens (teacher forcing). Each answer has a run of its own, since no run reads two: a
pair with an answer and a wrong one is two cases, and what is said of the pair is made of the two. Activations are
patched and parts taken away in all of a run, the answer's tokens included; a division by position is one of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError
from interp.methods._shared.models import predicted
from interp.metric import LOSS, WHOLE, Metric
from interp.sites import FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.metrics import Scorer
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.engine.patching.ablation import Ablated
    from interp.engine.patching.attribution import Attributed
    from interp.engine.patching.waves import Swept
    from interp.methods._shared.pairs import Encodings

Ids = tuple[int, ...]


def say(model: LoadedModel, metric: Metric) -> None:
    """Note in the command's record what is made of answers of several tokens."""
    made = " and logit-diff is the difference of two" * (metric.name == "logit-diff")
    if model.operation is not None:
        model.operation.notes.append(
            f"answers of several tokens stand behind both prompts: their tokens' log-probabilities are summed{made}"
        )


def require(model: LoadedModel, encoded: Sequence[Encodings], metric: Metric) -> None:
    """Refuse what cannot be measured at several positions of these pairs.

    Raises
    ------
    InputError
        A metric of several positions for prompts of different lengths, a loss of a model that predicts no next token, a
        span that is not there, or an answer that does not fit behind its prompt.
    """
    for number, e in enumerate(encoded):
        where = f"pair {number}: " if len(encoded) > 1 else ""
        lengths = len(e.clean.ids), len(e.corrupted.ids)
        longest = max((len(ids) for ids in (*e.answers, *e.wrongs)), default=1)
        if max(lengths) + longest - 1 > model.geometry.n_ctx:
            raise InputError(
                f"{where}the prompt and its answer have {max(lengths) + longest} tokens, and {model.name} reads "
                f"{model.geometry.n_ctx}; give shorter ones"
            )
        if metric.several and lengths[0] != lengths[1]:
            raise InputError(
                f"{where}{metric.name} is measured at the same positions of both prompts, and they have {lengths[0]} "
                f"and {lengths[1]} tokens; give prompts of one length, or use --metric logit-diff"
            )
        if metric.of_text:
            _following(model, e, metric, where)


def loss_of(
    model: LoadedModel, ids: Ids, first: int = 1, stop: int | None = None, metric: Metric | None = None
) -> Scorer:
    """Return the scorer of the loss of a text's tokens from one to another; it is measured up to ``stop − 2``.

    Raises
    ------
    InputError
        The model has no logit for one of them.
    """
    from interp.engine.metrics import Scorer

    wanted = tuple(ids[first:stop])
    if (most := max(wanted, default=0)) >= model.geometry.d_vocab_out:
        raise InputError(f"{model.name} has no logit for {model.tokens.string(most)!r}, so no loss on this text")
    return Scorer(metric or Metric(LOSS), positions=len(wanted), following=wanted)


def all_of(metric: Metric, ids: Sequence[int]) -> Scorer:
    """Return the scorer of a function of all logits of a run."""
    from interp.engine.metrics import Scorer

    return Scorer(metric, positions=len(ids))


def rows(
    model: LoadedModel, e: Encodings, metric: Metric, run: Encoded, padding: int = 0
) -> Iterator[tuple[Ids, int, Scorer]]:
    """Yield what each run of a pair reads behind its prompt, the last position that is measured, and its scorer.

    Parameters
    ----------
    run
        One of its prompts.
    padding
        How many tokens every run reads behind its prompt, where all have to be of one length; those behind the answer
        change nothing before them.
    """
    from interp.engine.metrics import Scorer

    position = asked(model, metric, run)
    if e.answers:
        for ids in (*e.answers, *_wrong(e, metric)):
            more = ids[:-1]
            filled = more + ids[-1:] * (padding - len(more))
            yield filled, position + len(more), Scorer(Metric(WHOLE), positions=len(ids), following=ids)
    elif metric.of_text:
        first, stop = _following(model, e, metric, "")
        yield (), stop - 2, loss_of(model, e.clean.ids, first, stop, metric)
    elif metric.several:
        yield (), len(e.clean.ids) - 1, all_of(metric, e.clean.ids)
    else:
        yield (), position, Scorer(metric, e.answer, e.wrong)


def asked(model: LoadedModel, metric: Metric, run: Encoded) -> int:
    """Return the position whose logits answer a prompt; 0 where a metric is of others."""
    return 0 if metric.several else predicted(model, run)


def padding(encoded: Sequence[Encodings]) -> int:
    """Return how many tokens the longest answer puts behind its prompt."""
    return max((len(ids) - 1 for e in encoded for ids in (*e.answers, *e.wrongs)), default=0)


def _following(model: LoadedModel, e: Encodings, metric: Metric, where: str) -> tuple[int, int]:
    """Return the first token whose loss is measured, and where they end.

    Raises
    ------
    InputError
        There is none, or the model predicts no next token.
    """
    if not model.geometry.causal:
        raise InputError(
            f"{model.name} reads in both directions and predicts no next token; use --metric logit-diff at its mask"
        )
    if not metric.span:
        if len(e.clean.ids) < 2:
            raise InputError(f"{where}a text of one token has no loss; give a longer one")
        return 1, len(e.clean.ids)
    places = dict(e.clean.spans).get(metric.span) or e.slots.get(metric.span)
    if not places:
        known = sorted({*dict(e.clean.spans), *e.slots})
        raise InputError(
            f"{where}clean has no span {metric.span}; mark one, such as [Mary]{{{metric.span}}}"
            + (f", or name one of {', '.join(known)}" if known else "")
        )
    if places[0] == 0 or tuple(places) != tuple(range(places[0], places[-1] + 1)):
        raise InputError(f"{where}the loss of {metric.span} needs tokens side by side, with one before them")
    return places[0], places[-1] + 1


# -- from runs to pairs ------------------------------------------------------------------------------------------------


def _wrong(e: Encodings, metric: Metric) -> tuple[Ids, ...]:
    return e.wrongs if metric.needs_wrong else ()


def _sides(encoded: Sequence[Encodings], metric: Metric) -> list[tuple[slice, slice]]:
    """Return the cases of each pair's answers, and of its wrong ones."""
    counts = [count for e in encoded for count in (len(e.answers), len(_wrong(e, metric)))]
    ends = [0, *accumulate(counts)]
    every = [slice(a, b) for a, b in pairwise(ends)]
    return list(zip(every[::2], every[1::2], strict=True))


def combined(values: Tensor, encoded: Sequence[Encodings], metric: Metric) -> Tensor:
    """Return the metric of pairs, ``[pair, …]``, of their answers' log-probabilities, ``[case, …]``.

    The probability of a set of answers is the sum of theirs.
    """
    import torch

    found: list[Tensor] = []
    for right, wrong in _sides(encoded, metric):
        value = values[right].logsumexp(0)
        if metric.name == "logit-diff":
            value = value - values[wrong].logsumexp(0)
        found.append(value.exp() if metric.name == "prob" else value)
    return torch.stack(found)


def folded(
    swept: Swept, encoded: Sequence[Encodings], metric: Metric, *, length: int | None = None, ways: int = 1
) -> Swept:
    """Return a sweep over runs as one over pairs; as it is where every pair has one run.

    Parameters
    ----------
    length
        Of the last axis, where that is the prompt's positions.
    ways
        How many times the pairs come one after the other.
    """
    import torch

    if not encoded[0].answers:
        return swept
    every = list(encoded) * ways
    done = torch.stack([swept.done[right.start : wrong.stop].all(0) for right, wrong in _sides(every, metric)])
    values = combined(swept.values, every, metric).masked_fill(~done, float("nan"))
    if length is not None:
        values, done = values[..., :length].clone(), done[..., :length].clone()
    ends = [combined(end, every, metric) for end in (swept.base, swept.source)]
    noise = swept.noise * (2**0.5 if metric.name == "logit-diff" else 1)
    return replace(swept, values=values, done=done, base=ends[0], source=ends[1], noise=noise)


def of_samples(ran: Ablated, encoded: Sequence[Encodings], metric: Metric) -> Ablated:
    """Return an ablation's runs, ``[condition, case]``, as ``[condition, pair]``."""
    import torch

    done = torch.stack([ran.done[:, right.start : wrong.stop].all(1) for right, wrong in _sides(encoded, metric)], 1)
    values = combined(ran.values.T, encoded, metric).T.masked_fill(~done, float("nan"))
    return replace(ran, values=values, done=done)


def cells_of(cells: Sequence[int] | None, shape: Sequence[int], length: int) -> list[int]:
    """Return the cells of a sweep whose last axis has more than the prompt's `length` positions.

    Parameters
    ----------
    cells
        Indices into the flattened answer with the prompt's positions alone; all when not given.
    shape
        Of the sweep's answer over one pair.
    """
    every = np.arange(int(np.prod(shape))).reshape(shape)[..., :length].reshape(-1)
    return every.tolist() if cells is None else every[list(cells)].tolist()


def summed(found: Attributed, encoded: Sequence[Encodings], metric: Metric) -> Attributed:
    """Return estimates over runs as estimates over pairs: the gradient of a difference is the difference of theirs.

    Positions are the prompt's and those of the longest answer.
    """
    import torch
    from torch.nn import functional

    if not encoded[0].answers:
        return found
    row = {case: place for place, case in enumerate(found.kept)}
    longest = padding(encoded)
    kept: list[int] = []
    made: list[tuple[dict[str, Tensor], Tensor | None, Tensor, Tensor]] = []
    for number, (right, wrong) in enumerate(_sides(encoded, metric)):
        cases = [right.start, wrong.start][: 1 + metric.needs_wrong]
        if not all(case in row for case in cases):
            continue
        runs = [row[case] for case in cases]
        length = len(encoded[number].clean.ids) + longest
        own = [
            {
                site: node if site == FEATURES.name else functional.pad(node, (0, length - node.shape[-1]))
                for site, node in found.nodes[run].items()
            }
            for run in runs
        ]
        kept.append(number)
        nodes = {site: _less([nodes[site] for nodes in own]) for site in own[0]}
        neurons = _less([found.neurons[run] for run in runs]) if found.neurons else None
        base, source = (_less([end[run] for run in runs]) for end in (found.base, found.source))
        made.append((nodes, neurons, base, source))
    return replace(
        found,
        kept=tuple(kept),
        nodes=[nodes for nodes, *_ in made],
        neurons=[neurons for _, neurons, *_ in made if neurons is not None],
        base=torch.stack([base for *_, base, _ in made]) if made else found.base[:0],
        source=torch.stack([source for *_, source in made]) if made else found.source[:0],
    )


def _less(own: Sequence[Tensor]) -> Tensor:
    """Return the first, less the second where there is one."""
    return own[0] - own[1] if len(own) > 1 else own[0]


def require_linear(encoded: Sequence[Encodings], metric: Metric) -> None:
    """Refuse whole answers of which a metric's gradient is not a sum of theirs.

    Raises
    ------
    InputError
        A probability, or a set of answers.
    """
    if not encoded[0].answers:
        return
    if metric.name == "prob" or any(max(len(e.answers), len(_wrong(e, metric))) > 1 for e in encoded):
        raise InputError(
            "an estimate with answers of several tokens is of one answer by logprob, or of two by logit-diff; use "
            "--metric logprob, or --method exact"
        )
