"""What the model writes, with or without interventions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from interp.errors import InputError, printable, unless_interrupted
from interp.interface.registry import technique
from interp.results import Result
from interp.results.tables import frame_of
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
    temperature
        0 where the likeliest token was taken.
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
    seed: int = 0,
    interventions: Variable = None,
    at: Literal["all", "prompt", "new"] = "all",
) -> GenerateResult:
    """Let the model go on with a text, with any interventions.

    Parameters
    ----------
    prompt
        The text.
    n
        How many tokens at most; an end-of-text token or a full context window ends it sooner.
    temperature
        0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature).
    seed
        Of the draws.
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

    Raises
    ------
    InputError
        A bidirectional model, an empty or too long prompt, an `n` below 1, an intervention on what is not there.
    Interrupted
        Stopped by Ctrl-C: what was written so far is in its ``result``.

    Notes
    -----
    Greedy text is that of Hugging Face's ``generate(do_sample=False)``, with the model's own end-of-text tokens, but
    without what a model's generation settings do to logits, such as a repetition penalty; a note names those.

    Examples
    --------
    >>> interp.generate("The capital of France is", n=1).continuation
    ' Paris'
    """
    from interp.engine.model import generation

    changes = generation.Changes(listed(interventions), at)
    encoded = model.encode(prompt)
    generation.check(model, len(encoded.ids), n, temperature, changes)
    made = generation.generate(
        model,
        encoded.ids,
        n,
        temperature=temperature,
        seed=seed,
        changes=changes,
        on_token=lambda ids: model.on_step(len(ids), n, tail(model, ids)),
    )
    strings, _ = model.tokens.strings(made.ids)
    result = GenerateResult(
        tokens=encoded.strings,
        generated=strings,
        ids=np.array(made.ids, np.int64),
        logprobs=np.array(made.logprobs, np.float64),
        continuation=generation.decoded(model, made.ids),
        stopped=made.stopped,
        temperature=temperature,
        interventions=len(changes.interventions),
        at=at,
        notes=(*ended(model, made, n), *unapplied(model)),
    )
    return unless_interrupted(result, made.interrupt)


def listed(given: Any) -> tuple[Intervention, ...]:
    """Return interventions as a call gives them: none, one, or several.

    Raises
    ------
    InputError
        Something else.
    """
    if given is None:
        return ()
    if isinstance(given, Intervention):
        return (given,)
    if not isinstance(given, list | tuple):
        raise InputError(f"interventions are a list of interp.Intervention, not {type(given).__name__}")
    return tuple(cast("list[Intervention]", given))


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
