"""Steering: a direction added to the residual stream, and what the model then writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.errors import InputError, printable, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import directions
from interp.methods._shared import steering_asked as asked
from interp.methods.text.generate import ended, tail, unapplied
from interp.results import Result
from interp.results.tables import frame_of, padded
from interp.sites import Site
from interp.spans import SteeredPositions
from interp.spec import (
    Direction,
    Examples,
    Intervention,
    MetricName,
    Numbers,
    Prompt,
    StreamSite,
    TokenName,
    resolve_indices,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.generation import Generated
    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SteeringResult(Result):
    """What the model writes with a direction added to its residual stream, at one or several strengths.

    Attributes
    ----------
    site, layer, at
        Where the direction was added: the activation, its layer, and ``"all"`` tokens, the ``"prompt"``'s or ``"new"``
        ones, or what the positions of the prompt are called: ``"S2"``.
    positions
        These positions; empty for all, prompt and new.
    source
        Where the direction comes from, in words.
    direction
        ``float32 [d_model]``.
    norm, stream_norm
        Its Euclidean length, and the median length of the residual stream there over the prompt's tokens.
    strengths
        ``float64 [strength]``: what the direction was multiplied by; 0, the model as it is, is the first.
    tokens
        The prompt's token strings.
    generated
        The new tokens' strings, ``[strength][new token]``.
    continuations
        The new tokens as texts, ``[strength]``; of turns in a chat, without the token that ends them.
    ids
        ``int64 [strength, new token]``, −1 behind a text's end.
    logprobs, plain_logprobs
        ``float64 [strength, new token]``: each token's log-probability after the tokens before it, in the steered
        model and in the model as it is, at temperature 1, in nats; NaN behind a text's end.
    perplexity
        ``float64 [strength]``: exp of minus the mean of `plain_logprobs`: how odd the text is to the model as it is.
    metric, values
        What was measured on the logits after the prompt, and ``float64 [strength]``.
    stopped
        Why each text ended, as in `GenerateResult`.
    """

    site: str
    layer: int
    at: str
    source: str
    direction: NDArray[np.float32]
    norm: float
    stream_norm: float
    strengths: Float
    tokens: tuple[str, ...]
    generated: tuple[tuple[str, ...], ...]
    continuations: tuple[str, ...]
    ids: NDArray[np.int64]
    logprobs: Float
    plain_logprobs: Float
    perplexity: Float
    metric: str
    values: Float
    stopped: tuple[str, ...]
    positions: tuple[int, ...] = ()

    _html: ClassVar[str] = "interp.views.steer:html"
    _svg: ClassVar[str | None] = "interp.views.steer:svg"
    _plotly: ClassVar[str | None] = "interp.views.steer:plotly"

    @property
    def change(self) -> Float:
        """``float64 [strength, new token]``: how much likelier each token is with steering than without, in nats."""
        return self.logprobs - self.plain_logprobs

    def intervention(self, strength: float) -> Intervention:
        """Return the steering as an intervention, for ``model.run`` or ``interp.generate``.

        Raises
        ------
        InputError
            It was at several positions, which `interventions` has.

        Examples
        --------
        >>> len(interp.generate("I think", n=3, interventions=[result.intervention(4)]).ids)
        3
        """
        if len(self.positions) > 1:
            raise InputError(f"{self.at} is {len(self.positions)} tokens: interventions({strength:g}) has one for each")
        return self.interventions(strength)[0]

    def interventions(self, strength: float) -> tuple[Intervention, ...]:
        """Return the steering as interventions, one for each of `positions`.

        Examples
        --------
        >>> [one.position for one in result.interventions(4)]
        [None]
        """
        return asked.added(Site(self.site, self.layer), self.direction * np.float32(strength), self.positions)

    def summary(self) -> str:
        """Return where and how strongly, and the strongest text."""
        strengths = ", ".join(f"{value:g}" for value in self.strengths)
        last = self.continuations[-1] if self.continuations else ""
        return f"{self.provenance.model}: {self.site} of layer {self.layer} by {strengths}: {last!r}"

    def text(self) -> str:
        """Return the texts, one to a line."""
        lines = [f"{s:8g}  {printable(t)}" for s, t in zip(self.strengths, self.continuations, strict=False)]
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per strength: strength, metric, perplexity, text, why it ended."""
        return frame_of(
            {
                "strength": self.strengths,
                self.metric: self.values,
                "perplexity": self.perplexity,
                "text": self.continuations,
                "stopped": self.stopped,
            }
        )


@technique(body=Prompt, changes=True)
def steer(
    model: LoadedModel,
    prompt: Prompt,
    *,
    layer: int | None = None,
    toward: Examples | None = None,
    against: Examples | None = None,
    direction: Direction = None,
    strength: float = 4.0,
    sweep: Numbers | None = None,
    n: int = 20,
    site: StreamSite | None = None,
    at: SteeredPositions = "all",
    answer: TokenName | None = None,
    wrong: TokenName | None = None,
    metric: MetricName | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> SteeringResult:
    """Steering: add a direction to the residual stream and compare what the model writes with and without it.

    Parameters
    ----------
    prompt
        The text to go on with.
    layer
        The layer at whose residual stream the direction is added; the middle one when not given, a feature's or a
        result's own.
    toward, against
        Texts whose activations' difference of means is the direction; a text, or a file of texts (.txt, .csv, .json).
        Of each text the last token's activation counts; in Python a list of texts.
    direction
        The direction itself instead: an array [d_model], one per layer [n_layers, d_model], a result that has one, such
        as a probe's, or a feature, F2.417: what its dictionary writes for an activation of 1; in a magic, the name of a
        variable.
    strength
        What the direction is multiplied by; it is added as it is long, see norm and stream_norm.
    sweep
        Several strengths instead, such as 0,2,4,8; 0 is always there.
    n
        How many tokens to write.
    site
        resid_pre is before the layer, resid_mid between attention and MLP, resid_post (a feature's or a result's own
        first) after it.
    at
        Add it at the prompt's tokens, at new ones once they are read, or at all; or at some of the prompt's tokens
        alone, by number or by the names of spans, such as S2 or IO,END.
    answer, wrong
        Next words whose log-probability, or logit difference, is measured after the prompt.
    metric
        logit-diff, logit, logprob, prob, rank, kl (from the model as it is), or the name of a function of yours.
    temperature
        0 takes the likeliest token; above, tokens are drawn.
    top_k, top_p
        Draw from the k likeliest tokens alone; from the likeliest that hold p of the probability.
    seed
        Of the draws, which are the same for every strength.

    Returns
    -------
    SteeringResult
        Texts, tokens and their log-probabilities over strengths; strength 0 is the model as it is, bit for bit.

    Raises
    ------
    InputError
        No direction, one of another width, one that is zero or not finite, a layer that the model lacks, or what
        generate refuses.
    Interrupted
        Stopped by Ctrl-C: what was written so far is in its ``result``.

    Notes
    -----
    Turner et al. (2023), "Activation Addition: Steering Language Models Without Optimization"; Rimsky et al. (2024),
    "Steering Llama 2 via Contrastive Activation Addition": the mean difference at the texts' last token.

    Examples
    --------
    >>> interp.steer("I am", layer=2, toward="I love you", against="I hate you", sweep=[0, 1, 2]).strengths
    array([0., 1., 2.])
    """
    from interp.engine import metrics
    from interp.engine.model import generation
    from interp.engine.model.changes import Changes
    from interp.engine.model.sampling import Sampling

    found_in, found_at = directions.place_of(model, direction)
    depth, site = model.geometry.n_layers, site or found_in
    wanted = found_at if layer is None else layer
    (at_layer,) = resolve_indices(depth // 2 if wanted is None else wanted, depth, "layer")
    model.require_site(site, [at_layer])
    place = Site(site, at_layer)
    strengths = asked.strengths(strength, sweep)
    encoded = model.encode(prompt)
    when, positions, meant = asked.where(model, encoded, at)
    sampling = Sampling(temperature, top_k, top_p, seed)
    generation.check(model, len(encoded.ids), n, sampling, Changes((), "all" if positions else when))
    scorer = asked.scorer(model, prompt, answer, wrong, metric)
    metrics.try_out(scorer.metric, model.geometry.d_vocab_out, model.device)
    stream = model.activations(encoded, [place.hook_name])[place.hook_name][0].float()
    length = float(stream.norm(dim=-1).median())
    added, source, notes = _direction(model, place, length, toward, against, direction)

    texts: list[Generated] = []
    plain: list[list[float]] = []
    values: list[float] = []
    failed = ""
    for number, size in enumerate(strengths):
        steps = (number * n, len(strengths) * n, f"strength {size:g}: ")
        steered = asked.added(place, added * size, positions)
        changes = Changes(steered, "all" if positions else when) if size else Changes()
        (made,) = generation.generate(
            model,
            encoded.ids,
            n,
            sampling=sampling,
            changes=changes,
            turn_end=model.tokens.turn_end(prompt),
            on_token=lambda ids, steps=steps: model.on_step(steps[0] + len(ids), steps[1], tail(model, ids, steps[2])),
        )
        texts.append(made)
        try:
            plain.append(generation.logprobs(model, encoded.ids, made.ids) if size else made.logprobs)
            measured, failed = _measured(scorer, made, texts[0]) if not failed else (math.nan, failed)
            values.append(measured)
        except KeyboardInterrupt as interrupt:
            made.interrupt = made.interrupt or interrupt
        if made.interrupt is not None:
            break
    result = SteeringResult(
        **_result(model, strengths, texts, plain, values, turn=bool(prompt.turns)),
        site=site,
        layer=at_layer,
        at=when,
        positions=positions,
        source=source,
        direction=added.cpu().numpy().copy(),  # not the tensor's own memory
        norm=float(added.double().norm()),
        stream_norm=length,
        tokens=encoded.strings,
        metric=scorer.metric.name,
        notes=(*_notes(model, strengths, texts, n, failed), *notes, *meant),
    )
    return unless_interrupted(result, texts[-1].interrupt)


def _direction(
    model: LoadedModel, place: Site, length: float, toward: Any, against: Any, given: Any
) -> tuple[Tensor, str, list[str]]:
    """Return the direction, ``float32 [d_model]``, where it comes from, and notes on it.

    Raises
    ------
    InputError
        There is none, or two, or it is of another width, zero or not finite.
    """
    if (given is None) == (toward is None and against is None):
        raise InputError(
            "steer needs a direction: --toward and --against texts, or --direction with a feature (F2.417) or a NAME"
        )
    if given is None:
        found, source, notes = directions.of_texts(model, place, length, toward, against)
    else:
        found, source, notes = directions.given(model, place, given)
    if not bool(found.any()):
        notes.append("the direction is zero: the model is in the same state after both texts")
    return found, source, notes


def _measured(scorer: Any, made: Generated, plain: Generated) -> tuple[float, str]:
    """Return the metric after the prompt, and what went wrong."""
    from interp.engine.metrics import MetricFailed

    if made.first is None or plain.first is None:
        return math.nan, ""
    try:
        return float(scorer.with_clean(plain.first).of_logits(made.first[None])[0]), ""
    except MetricFailed as error:
        return math.nan, f"the metric failed: {error}"


def _result(
    model: LoadedModel,
    strengths: Sequence[float],
    texts: Sequence[Generated],
    plain: Sequence[Sequence[float]],
    values: Sequence[float],
    *,
    turn: bool,
) -> dict[str, Any]:
    """Return the texts as arrays over all strengths; what was not reached is empty."""
    from interp.engine.model import generation

    count = len(strengths)
    rest = count - len(texts)
    ids = padded([*(made.ids for made in texts), *[[]] * rest], -1, np.int64)
    logs = padded([*(made.logprobs for made in texts), *[[]] * rest], np.nan, np.float64)
    plainly, perplexity, measured = np.full(logs.shape, np.nan), *(np.full(count, np.nan) for _ in range(2))
    measured[: len(values)] = values
    for k, row in enumerate(plain):
        plainly[k, : len(row)] = row
        if row:
            perplexity[k] = np.exp(-np.mean(row))
    return {
        "strengths": np.array(strengths, np.float64),
        "generated": (*(model.tokens.strings(made.ids)[0] for made in texts), *[()] * rest),
        "continuations": (*(generation.written(model, made, turn=turn) for made in texts), *[""] * rest),
        "ids": ids,
        "logprobs": logs,
        "plain_logprobs": plainly,
        "perplexity": perplexity,
        "values": measured,
        "stopped": (*(made.stopped for made in texts), *["not reached"] * rest),
    }


def _notes(
    model: LoadedModel, strengths: Sequence[float], texts: Sequence[Generated], n: int, failed: str
) -> tuple[str, ...]:
    notes = [
        f"strength {s:g}: {note}" for s, made in zip(strengths, texts, strict=False) for note in ended(model, made, n)
    ]
    if len(texts) < len(strengths):
        notes.insert(0, f"partial: {len(texts)} of {len(strengths)} strengths were begun")
    return (*notes, *([failed] if failed else []), *unapplied(model))
