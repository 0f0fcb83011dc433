"""What the model writes, with or without interventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp.errors import InputError, Interrupted, printable, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared.features import features_of
from interp.methods._shared.generate_result import GenerateResult
from interp.methods._shared.generate_trace_result import GenerateTraceResult
from interp.methods._shared.samples_result import SamplesResult
from interp.methods._shared.text_trace import Watched, watched
from interp.results.tables import padded
from interp.spec import Direction, FeaturesName, Prompt, Variable

if TYPE_CHECKING:
    from interp.engine.model.generation import Generated
    from interp.engine.model.loaded import LoadedModel

_TAIL = 80


@technique(body=Prompt)
def generate(
    model: LoadedModel,
    prompt: Prompt,
    *,
    n: int = 20,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    samples: int | None = None,
    interventions: Variable = None,
    at: Literal["all", "prompt", "new"] = "all",
    trace: bool = False,
    features: FeaturesName | None = None,
    direction: Direction = None,
) -> GenerateResult | SamplesResult | GenerateTraceResult:
    """Let the model go on with a text, with any interventions.

    Parameters
    ----------
    prompt
        The text, or a chat: lines that begin with system:, user: and assistant:, or a list of messages.
    n
        How many tokens at most; an end-of-text token, in a chat the end of the turn, or a full context window ends it
        sooner.
    temperature
        0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature).
    top_k, top_p
        Draw from the k likeliest tokens alone; from the likeliest whose probabilities first sum to p.
    seed
        Of the draws.
    samples
        Write several texts side by side. The k-th, counted from 0, is the one that seed + k gives alone, however many
        there are.
    interventions
        A list of interp.Intervention; in a magic, the name of a variable that holds one.
    at
        Where interventions apply: at the prompt's tokens, at new ones, or at all. A new token is changed once it is
        read, so that with new the first of them is as without. An intervention that names a position applies there
        alone.
    trace
        Keep what every new token was written from, at the position before it: what the stream after each layer
        predicts, what each head looks at. The runs that write the text are looked at; there is no second one.
    features
        With --trace: a loaded set of features, of which those that are active are kept.
    direction
        With --trace: how far the stream goes along it in each layer. An array [d_model], one per layer [n_layers,
        d_model], a result that has one, such as a probe's, or a feature, F2.417; in a magic, the name of a variable.

    Returns
    -------
    GenerateResult
        ``continuation`` is the text, ``ids`` and ``logprobs`` its tokens.
    SamplesResult
        With `samples`: ``continuations``, ``ids`` and ``logprobs`` have an axis of samples in front.
    GenerateTraceResult
        With `trace`: the same text with ``lens_ids`` and ``projection``, ``[layer, new token]``, ``attended``,
        ``[layer, head, new token, rank]``, and the active features.

    Raises
    ------
    InputError
        A bidirectional model, an empty or too long prompt, an `n` below 1, a top-k, a top-p or a number of samples that
        draws nothing, or any of them at temperature 0; an intervention on what is not there; features or a direction
        without --trace.
    Interrupted
        Stopped by Ctrl-C: what was written so far is in its ``result``.

    Notes
    -----
    Greedy text is that of Hugging Face's ``generate(do_sample=False)``, with the model's own end-of-text tokens, but
    without what a model's generation settings do to logits, such as a repetition penalty; a note names those. What
    top-k and top-p leave is what Hugging Face's do, after the temperature and in this order (Fan et al. 2018,
    "Hierarchical Neural Story Generation"; Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration").

    Examples
    --------
    >>> interp.generate("The capital of France is", n=1).continuation
    ' Paris'
    >>> interp.generate("The capital of France is", n=2, temperature=1, top_k=5, samples=3).ids.shape
    (3, 2)
    """
    from interp.engine.model import generation
    from interp.engine.model.changes import Changes
    from interp.engine.model.sampling import Sampling
    from interp.spec import as_interventions

    if trace and samples is not None:
        raise InputError("--trace follows one text; drop --samples, and give the --seed of the text that you mean")
    if not trace and (features is not None or direction is not None):
        raise InputError(f"--{'features' if direction is None else 'direction'} is about a trace; add --trace")
    changes = Changes(as_interventions(interventions), at)
    sampling = Sampling(temperature, top_k, top_p, seed)
    encoded = model.encode(prompt)
    count = 1 if samples is None else samples
    generation.check(model, len(encoded.ids), n, sampling, changes, samples=count)
    watching = watched(model, features_of(model, features) if features else None, direction) if trace else None
    texts = generation.generate(
        model,
        encoded.ids,
        n,
        sampling=sampling,
        samples=count,
        changes=changes,
        watch=watching and watching.trace,
        turn_end=model.tokens.turn_end(prompt),
        on_token=lambda ids: model.on_step(len(ids), n, tail(model, ids)),
    )
    how: dict[str, Any] = {
        "tokens": encoded.strings,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "interventions": len(changes.interventions),
        "at": at,
    }
    interrupt = next((made.interrupt for made in texts if made.interrupt is not None), None)
    turn = bool(prompt.turns)
    if samples is not None:
        notes = dict.fromkeys(note for made in texts for note in ended(model, made, n))
        result = SamplesResult(
            **_side_by_side(model, texts, turn=turn),
            seeds=seed + np.arange(count),
            **how,
            notes=(*notes, *unapplied(model)),
        )
        return unless_interrupted(result, interrupt)
    (made,) = texts
    how |= {
        "generated": model.tokens.strings(made.ids)[0],
        "ids": np.array(made.ids, np.int64),
        "logprobs": np.array(made.logprobs, np.float64),
        "continuation": generation.written(model, made, turn=turn),
        "stopped": made.stopped,
    }
    notes = (*ended(model, made, n), *unapplied(model))
    if watching is None:
        return unless_interrupted(GenerateResult(**how, notes=notes), interrupt)
    return unless_interrupted(_traced(watching, made, how, notes), interrupt)


def _traced(watching: Watched, made: Generated, how: dict[str, Any], notes: tuple[str, ...]) -> GenerateTraceResult:
    """Return the text with its trace.

    Raises
    ------
    Interrupted
        Stopped while the lens was read: the text alone is in its ``result``.
    """
    try:
        found = watching.found(made.ids)
    except KeyboardInterrupt as interrupt:
        cut = "partial: interrupted before what was traced had been read"
        raise Interrupted(GenerateResult(**how, notes=(cut, *notes))) from interrupt
    return GenerateTraceResult(**how, **found, notes=(*notes, *watching.notes))


def _side_by_side(model: LoadedModel, texts: Sequence[Generated], *, turn: bool) -> dict[str, Any]:
    from interp.engine.model import generation

    return {
        "generated": tuple(model.tokens.strings(made.ids)[0] for made in texts),
        "ids": padded([made.ids for made in texts], -1, np.int64),
        "logprobs": padded([made.logprobs for made in texts], np.nan, np.float64),
        "continuations": tuple(generation.written(model, made, turn=turn) for made in texts),
        "stopped": tuple(made.stopped for made in texts),
    }


def tail(model: LoadedModel, ids: list[int], lead: str = "") -> str:
    """Return the end of what was written so far, on one line, for whoever watches."""
    from interp.engine.model import generation

    written = printable(generation.decoded(model, ids))
    return lead + (written if len(written) <= _TAIL else f"…{written[-_TAIL:]}")


def ended(model: LoadedModel, made: Generated, n: int) -> tuple[str, ...]:
    """Return what is worth knowing about why a text ended."""
    if made.stopped == "window":
        return (
            f"stopped after {len(made.ids)} of {n} tokens: the context window holds {model.geometry.n_ctx} and is full",
        )
    return () if made.whole else (f"partial: {made.stopped}",)


def unapplied(model: LoadedModel) -> tuple[str, ...]:
    """Return a note on the model's own generation settings that change logits, where it has any."""
    from interp.engine.model import generation

    found = ", ".join(f"{name} {str(value)[:40]}" for name, value in generation.settings(model).items())
    return (f"the model's generation settings are not applied: {found}",) if found else ()
