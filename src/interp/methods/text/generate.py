"""What the model writes, with or without interventions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from interp.errors import InputError, printable, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared.samples_result import SamplesResult
from interp.results import Result
from interp.results.tables import frame_of, padded
from interp.spec import Intervention, Prompt, Variable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.generation import Generated
    from interp.engine.model.loaded import LoadedModel

_TAIL = 80


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
        The new tokens as one text.
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
) -> GenerateResult | SamplesResult:
    """Let the model go on with a text, with any interventions.

    Parameters
    ----------
    prompt
        The text.
    n
        How many tokens at most; an end-of-text token or a full context window ends it sooner.
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

    Returns
    -------
    GenerateResult
        ``continuation`` is the text, ``ids`` and ``logprobs`` its tokens.
    SamplesResult
        With `samples`: ``continuations``, ``ids`` and ``logprobs`` have an axis of samples in front.

    Raises
    ------
    InputError
        A bidirectional model, an empty or too long prompt, an `n` below 1, a top-k, a top-p or a number of samples that
        draws nothing, or any of them at temperature 0; an intervention on what is not there.
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

    changes = Changes(_listed(interventions), at)
    sampling = Sampling(temperature, top_k, top_p, seed)
    encoded = model.encode(prompt)
    count = 1 if samples is None else samples
    generation.check(model, len(encoded.ids), n, sampling, changes, samples=count)
    texts = generation.generate(
        model,
        encoded.ids,
        n,
        sampling=sampling,
        samples=count,
        changes=changes,
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
    if samples is not None:
        notes = dict.fromkeys(note for made in texts for note in ended(model, made, n))
        result = SamplesResult(
            **_side_by_side(model, texts), seeds=seed + np.arange(count), **how, notes=(*notes, *unapplied(model))
        )
        return unless_interrupted(result, interrupt)
    (made,) = texts
    strings, _ = model.tokens.strings(made.ids)
    result = GenerateResult(
        generated=strings,
        ids=np.array(made.ids, np.int64),
        logprobs=np.array(made.logprobs, np.float64),
        continuation=generation.decoded(model, made.ids),
        stopped=made.stopped,
        **how,
        notes=(*ended(model, made, n), *unapplied(model)),
    )
    return unless_interrupted(result, interrupt)


def _listed(given: Any) -> tuple[Intervention, ...]:
    if given is None:
        return ()
    if isinstance(given, Intervention):
        return (given,)
    if not isinstance(given, list | tuple):
        raise InputError(f"interventions are a list of interp.Intervention, not {type(given).__name__}")
    return tuple(cast("list[Intervention]", given))


def _side_by_side(model: LoadedModel, texts: Sequence[Generated]) -> dict[str, Any]:
    from interp.engine.model import generation

    return {
        "generated": tuple(model.tokens.strings(made.ids)[0] for made in texts),
        "ids": padded([made.ids for made in texts], -1, np.int64),
        "logprobs": padded([made.logprobs for made in texts], np.nan, np.float64),
        "continuations": tuple(generation.decoded(model, made.ids) for made in texts),
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
