"""Attribution graphs: which features, through which heads, made the model say that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared import answers
from interp.methods._shared.features import features_of
from interp.methods._shared.models import require_causal
from interp.methods._shared.trace.result import TraceResult
from interp.methods._shared.trace.score_result import ScoreResult
from interp.spec import FeaturesName, HeadName, Prompt, TokenName

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


@technique(body=Prompt, forecasts=True)
def trace(
    model: LoadedModel,
    prompt: Prompt,
    *,
    target: TokenName | None = None,
    against: TokenName | None = None,
    position: int | None = None,
    nodes: float = 0.8,
    edges: float = 0.98,
    most: int = 2000,
    group: Literal["auto"] | None = None,
    head: HeadName | None = None,
    from_: int | None = None,
    to: int | None = None,
    features: FeaturesName | None = None,
) -> TraceResult | ScoreResult:
    """Attribution graph: which features of the MLPs, through which heads, made the model say that.

    Parameters
    ----------
    prompt
        The text.
    target
        The token whose logit is traced, such as " Mary"; the likeliest tokens (95 % of the probability, 10 at most)
        when not given.
    against
        The token whose logit is taken off, such as " John"; the mean over the vocabulary when not given.
    position
        The position whose prediction is traced, −1 for the last; the last when not given.
    nodes, edges
        Shares of the influence on the logits that the nodes and the edges of the graph keep.
    most
        Into how many features edges are computed: the most influential first.
    group
        auto makes super-nodes: of features with one label, and of those that write and lead to the same.
    head
        A head, such as 5.1, of which it is traced instead what makes one attention score.
    from_, to
        The positions of that score's query and key.
    features
        A loaded set of features; the one loaded last when not given.

    Returns
    -------
    TraceResult
        ``nodes``, ``edges`` and their scores; ``validate()`` changes its features in the real model. With `head` a
        `ScoreResult`: the pairs of sources that make the score.

    Raises
    ------
    InputError
        No features that stand for MLPs are loaded, a prompt, token or position that cannot be used, or a model that
        cannot be run without hooks.

    Notes
    -----
    Ameisen et al. (2025), "Circuit Tracing"; Dunefsky et al. (2024), "Transcoders Find Interpretable LLM Feature
    Circuits". Every MLP is its transcoder's output and an error that makes the run the model's own; attention patterns
    and the norms' denominators are held at this prompt's values. A node's pre-activation, or a logit minus the mean
    logit, is then the sum of its edges and of biases. Heads' shares of an edge are by the last head that it passes.

    Examples
    --------
    >>> features = interp.features_load("bundled")
    >>> g = interp.trace("When Mary and John went to the store, John gave a drink to",
    ...                  target=" Mary", against=" John")
    >>> g.gap < 1e-5
    True
    """
    from interp.engine.forecast.costs import foresee
    from interp.methods._shared.trace import foreseen, groups, making, scores

    require_causal(model, "trace")
    score = _score_asked(head, from_, to)
    for which, share in (("nodes", nodes), ("edges", edges)):
        if not 0 < share <= 1:
            raise InputError(f"--{which} {share} is no share; use a number above 0 and up to 1, such as 0.8")
    if most < 1:
        raise InputError(f"--most {most} leaves no features; use 1 or more")
    given = features_of(model, features)
    dictionaries = making.standing(model, given)
    encoded = model.encode(prompt)
    length = len(encoded.ids)
    if position is not None and not -length <= position < length:
        raise InputError(f"no position {position}; positions are 0–{length - 1}, and −1 is the last")
    ids = [answers.one(model, prompt, one, which) for which, one in (("target", target), ("against", against))]
    if ids[0] is None and ids[1] is not None:
        raise InputError("--against says what a target's logit is compared with; give --target too")
    if ids[0] is not None and ids[0] == ids[1]:
        raise InputError(f"target and against are both {model.tokens.string(ids[0])!r}; they must differ")
    at = length - 1 if position is None else position % length
    foresee(model, lambda: foreseen.of_trace(model, encoded, dictionaries, 0 if score is not None else most))
    if score is not None:
        return scores.score(model, making.frozen_run(model, encoded, dictionaries), encoded.strings, *score)
    asked = making.Asked(ids[0], ids[1], at, nodes, edges, most)
    frozen = making.frozen_run(model, encoded, dictionaries)
    reads, outputs = making.readings(model, frozen, asked)
    traced = making.traced_of(model, frozen, reads, asked, given)
    result = making.graph(model, encoded, traced, outputs, asked, given)
    if group is None:
        return result
    return replace(result, groups=groups.automatic(result, traced, making.entries_of(traced, result)))


def _score_asked(head: str | None, query: int | None, key: int | None) -> tuple[str, int, int] | None:
    """Return the head, the query and the key of the score that is asked for; ``None`` where a graph is.

    Raises
    ------
    InputError
        Some of the three are missing.
    """
    if head is None and query is None and key is None:
        return None
    if head is None or query is None or key is None:
        raise InputError("one attention score is of a head, a query and a key: --head 5.1 --from 14 --to 3")
    return head, query, key
