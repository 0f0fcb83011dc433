"""How surprised the model is by each token of a text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import texts as running
from interp.methods._shared.intervals import interval, of_ratio, too_few
from interp.methods._shared.loss_result import EARLY, LATE, LossResult, mean_of
from interp.spec import Intervention, ModelName, Texts, Variable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation
    from interp.engine.model.tokens import Encoded
    from interp.engine.readouts.loss import Known
    from interp.results.tables import Float


@technique(body=Texts, forecasts=True)
def loss(
    model: LoadedModel,
    texts: Texts,
    *,
    top: int = 5,
    interventions: Variable = None,
    against: ModelName | None = None,
) -> LossResult:
    """The loss of each token of a text: how surprised the model is, what it expected, and what repetition gives.

    Parameters
    ----------
    texts
        A text, a list of them, a table's column or a file.
    top
        How many of the likeliest tokens to keep for each place.
    interventions
        A list of interp.Intervention; in a magic, the name of a variable that holds one.
    against
        Another loaded model, of the same tokenizer, whose losses are compared with.

    Returns
    -------
    LossResult
        ``loss`` is ``[token]``, in nats; its mean over a text is Hugging Face's ``model(ids, labels=ids).loss``.

    Raises
    ------
    InputError
        No text, one of a single token, a model that predicts no next token, an intervention on what is not there, or
        another model that cuts the texts otherwise.
    Interrupted
        Stopped by Ctrl-C: the texts so far are in its ``result``.

    Notes
    -----
    Repeated bigrams, and the loss of the 500th token less that of the 50th: Elhage et al. (2021), "A Mathematical
    Framework for Transformer Circuits"; Olsson et al. (2022), "In-context Learning and Induction Heads". A bigram that
    comes again is also one that is frequent, which helps a model that copies nothing: compare models, or with and
    without a head, rather than the two means. Intervals are over texts, each by its tokens.

    Examples
    --------
    >>> interp.loss("The capital of France is Paris.").loss.round(1)
    array([nan, 0.9, 2. , 0.6, 3.7, 0. , 0. , 0. ])
    """
    from interp.engine.forecast.costs import foresee
    from interp.engine.readouts import foreseen
    from interp.engine.readouts import loss as engine
    from interp.spec import as_interventions

    if top < 1:
        raise InputError(f"--top {top} keeps nothing; use 1 or more")
    changes = as_interventions(interventions)
    encoded = running.encode(model, texts)
    other: Any = against
    if other is not None:
        _same(model, other, texts, encoded)
    functions = _functions(model, changes, encoded)
    ids, most = [one.ids for one in encoded], max(map(len, functions), default=0)
    foresee(model, lambda: foreseen.of_losses(model, ids, changed=most, other=other))
    found: list[Known] = []
    compared: list[Float] = []
    marks: list[str] = []
    interrupt: KeyboardInterrupt | None = None
    try:
        for n, one in enumerate(encoded):
            known = engine.known(model, one.ids, one.ids[1:], top=top, functions=functions[n])
            if other is not None:
                compared.append(_losses(other, one, marks))
            found.append(known)
            model.on_step(n + 1, len(encoded))
    except KeyboardInterrupt as stopped:
        if not found:
            raise
        interrupt = stopped
    if changes:
        model.note("hooked: interventions")
    notes = [] if interrupt is None else [f"partial: interrupted after {len(found)} of {len(encoded)} texts"]
    result = _result(
        model,
        encoded[: len(found)],
        found,
        compared[: len(found)],
        interventions=len(changes),
        against="" if other is None else other.name,
        against_fingerprint=marks[0] if marks else "",
        source=texts.source,
        notes=notes,
    )
    return unless_interrupted(result, interrupt)


def _functions(
    model: LoadedModel, changes: Sequence[Intervention], encoded: Sequence[Encoded]
) -> list[dict[str, Hook]]:
    """Return the functions that make the changes in each text; what does not fit one is said of it."""
    from interp.engine.model.interventions import functions_of

    made: list[dict[str, Hook]] = []
    for one in encoded:
        try:
            made.append(functions_of(model, changes, len(one.ids)))
        except InputError as error:
            raise InputError(f"text {len(made)}: {error}" if len(encoded) > 1 else str(error)) from None
    return made


def _same(model: LoadedModel, other: LoadedModel, texts: Texts, encoded: Sequence[Encoded]) -> None:
    """Refuse another model to which the texts are not the same tokens.

    Raises
    ------
    InputError
        Its tokenizer cuts one of them otherwise, or it predicts no next token.
    """
    if not other.geometry.causal:
        raise InputError(f"{other.name} reads in both directions and predicts no next token; compare with a causal one")
    for one, prompt in zip(encoded, texts.texts, strict=True):
        theirs = other.tokens.encode(prompt)
        if (theirs.ids, theirs.strings) != (one.ids, one.strings):
            raise InputError(
                f"{other.name} cuts the text into other tokens than {model.name}; losses of the same tokens alone can "
                "be compared"
            )


def _losses(other: LoadedModel, one: Encoded, marks: list[str]) -> Float:
    """Return another model's losses of a text's tokens but the first, and put the hash of its state into `marks`."""
    from interp.engine.readouts import loss as engine

    def once(operation: Operation) -> Float:
        marks.append(operation.fingerprint)
        return -engine.known(other, one.ids, one.ids[1:]).logprobs

    return other.operate("loss", {}, once)


def _result(
    model: LoadedModel,
    encoded: Sequence[Encoded],
    found: Sequence[Known],
    compared: Sequence[Float],
    *,
    notes: list[str],
    **said: Any,
) -> LossResult:
    """Return what was found of each text, put one after the other."""
    sizes = [len(one.ids) for one in encoded]
    starts = np.array([0, *np.cumsum(sizes)], np.int64)
    losses = [_behind_first(-one.logprobs, np.nan) for one in found]
    repeated = [_repeated(one.ids) for one in encoded]
    loss, again = np.concatenate(losses), np.concatenate(repeated)
    top_ids = np.concatenate([_behind_first(one.ids, -1) for one in found])
    first = np.zeros(len(loss), bool)
    first[starts[:-1]] = True
    lost = int((~np.isfinite(loss) & ~first).sum())
    if lost:
        notes.append(f"{lost} tokens have no finite loss and are left out of the means: no logits, or such as are NaN")
    finite = [np.isfinite(one) for one in losses]
    mean, mean_interval = _spread(losses, finite)
    repeated_mean, repeated_interval = _spread(losses, [a & b for a, b in zip(finite, repeated, strict=True)])
    other_mean, other_interval = _spread(losses, [a & ~b for a, b in zip(finite, repeated, strict=True)])
    begins = [int(one.ids[0] == model.tokens.bos_id) for one in encoded]
    gained = np.array([_gained(*each) for each in zip(losses, begins, strict=True)])
    gained = gained[np.isfinite(gained)]
    nothing = np.full(len(loss), np.nan)
    return LossResult(
        tokens=tuple(string for one in encoded for string in one.strings),
        ids=np.array([index for one in encoded for index in one.ids], np.int64),
        starts=starts,
        loss=loss,
        rank=np.concatenate([_behind_first(one.ranks, -1) for one in found]),
        top_ids=top_ids,
        top_probabilities=np.concatenate([_behind_first(one.probabilities, np.nan) for one in found]),
        names={index: model.tokens.string(index) for index in np.unique(top_ids).tolist() if index >= 0},
        repeated=again,
        per_text=np.array([mean_of(one) for one in losses]),
        mean=float("nan") if mean is None else mean,
        mean_interval=mean_interval,
        repeated_mean=repeated_mean,
        repeated_interval=repeated_interval,
        other_mean=other_mean,
        other_interval=other_interval,
        in_context=float(gained.mean()) if len(gained) else None,
        in_context_interval=interval(gained),
        against_loss=np.concatenate([_behind_first(one, np.nan) for one in compared]) if compared else nothing,
        notes=(*notes, *too_few(len(encoded), "texts")),
        **said,
    )


def _behind_first(values: NDArray[Any], nothing: float) -> NDArray[Any]:
    """Return values with one in front for a text's first token, which nothing predicts."""
    return np.concatenate([np.full((1, *values.shape[1:]), nothing, values.dtype), values])


def _repeated(ids: Sequence[int]) -> NDArray[np.bool_]:
    """Return for each token whether it has followed the token before it already.

    Examples
    --------
    >>> _repeated([5, 6, 7, 5, 6, 5, 6]).tolist()
    [False, False, False, False, True, False, True]
    """
    seen: set[tuple[int, int]] = set()
    found = [False]
    for pair in itertools.pairwise(ids):
        found.append(pair in seen)
        seen.add(pair)
    return np.array(found)


def _spread(losses: Sequence[Float], kept: Sequence[NDArray[np.bool_]]) -> tuple[float | None, Float]:
    """Return the mean over some tokens of all texts, and its interval over the texts that have any."""
    held = [(float(one[keep].sum()), float(keep.sum())) for one, keep in zip(losses, kept, strict=True) if keep.any()]
    sums, counts = (np.array(part) for part in zip(*held, strict=True)) if held else (np.zeros(0), np.zeros(0))
    mean = float(sums.sum() / counts.sum()) if held else None
    return mean, of_ratio(sums, counts)


def _gained(losses: Float, first: int) -> float:
    """Return how much smaller the loss of a late token is than that of an early one; NaN of a text that ends before.

    Parameters
    ----------
    first
        1 where the text has a BOS in front, which is not counted.
    """
    late = first + LATE - 1
    return float(losses[late] - losses[first + EARLY - 1]) if late < len(losses) else float("nan")
